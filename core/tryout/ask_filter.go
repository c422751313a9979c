package tryout

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/stagecoach-mta/stagecoach/core/filter"
	"github.com/stagecoach-mta/stagecoach/core/message"
	"github.com/stagecoach-mta/stagecoach/core/spool"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// filter asks at every moment that the filter named, in the order of a mail's
// life, until a verdict ends it.
func (q *asking) filter(ctx context.Context) error {
	f := &filtering{asking: q, observing: new(atomic.Int32)}
	tell := q.tap.tell
	// The words for an answer come when it was folded.
	q.tap.tell = func(x *Exchange) { f.last = x }
	f.tell = tell
	f.member = filter.Member{
		Name: q.Config.Ref, Caller: q.tap, Interest: q.Instance.Interest, OnFailure: q.Config.OnFailure, Timeout: q.limit,
		Dirs: []string{q.place.spoolDir(), q.place.dataDir(q.Config.Ref)}, Observing: f.observing,
	}
	f.env = &v1.Envelope{Client: client(), ReceivedMs: time.Now().UnixMilli()}
	if err := f.through(ctx); err != nil {
		return err
	}
	f.feed(ctx)
	if f.asked == 0 {
		q.out.Failed = true
		q.out.say("It was not asked: its interest names no event of this mail.")
	}
	return nil
}

// filtering is a mail on its way past one filter.
type filtering struct {
	*asking
	member    filter.Member
	observing *atomic.Int32
	tell      func(*Exchange)
	last      *Exchange
	asked     int
	env       *v1.Envelope
	mailBody  spool.Body
	// refused is what ended the mail's way.
	refused *v1.SMTPReply
}

func (f *filtering) editor() message.Editor { return message.Editor{Dir: f.place.spool} }

// through goes from CONNECT to RESULT.
func (f *filtering) through(ctx context.Context) error {
	steps := []struct {
		event  v1.FilterEvent
		before func()
	}{
		{v1.FilterEvent_CONNECT, func() {
			f.env.Client = proto.CloneOf(f.env.GetClient())
			f.env.Client.Hello = ""
		}},
		{v1.FilterEvent_HELLO, func() { f.env.Client = client() }},
		{v1.FilterEvent_AUTH, nil},
		{v1.FilterEvent_MAIL, func() {
			f.env.Transaction, f.env.Sender, f.env.Parameters = "dev.1", f.mail.From, &v1.MailParameters{}
		}},
		{v1.FilterEvent_RCPT, nil},
		{v1.FilterEvent_RCPT_REJECTED, nil},
		{v1.FilterEvent_ENVELOPE, nil},
		{v1.FilterEvent_MESSAGE, func() { f.mailBody, f.env.Size = f.body, f.body.Size() }},
		{v1.FilterEvent_ROUTE, func() { f.env.QueueId, f.env.Transaction = "dev", "" }},
		{v1.FilterEvent_PRE_DELIVERY, nil},
		{v1.FilterEvent_RESULT, func() { f.mailBody = nil }},
	}
	for _, s := range steps {
		f.env = proto.CloneOf(f.env)
		if s.before != nil {
			s.before()
		}
		if err := f.at(ctx, s.event); err != nil {
			return err
		}
		if f.refused != nil {
			return nil
		}
	}
	f.compare()
	return nil
}

// at asks at one moment; at RCPT once for each recipient.
func (f *filtering) at(ctx context.Context, event v1.FilterEvent) error {
	q := filter.Question{Event: event, Envelope: f.env, Recipient: -1, Body: f.mailBody, Key: fmt.Sprintf("dev.%d", time.Now().UnixNano())}
	switch event {
	case v1.FilterEvent_RCPT:
		all := f.mail.recipients()
		var taken []*v1.Recipient
		for _, r := range all {
			f.env = proto.CloneOf(f.env)
			f.env.Recipients = append(slices.Clone(taken), r)
			q.Envelope, q.Recipient = f.env, r.GetIndex()
			refused, err := f.ask(ctx, q)
			if err != nil {
				return err
			}
			if refused == nil {
				taken = append(taken, r)
			}
		}
		f.env.Recipients = taken
		if len(taken) == 0 {
			f.refuse(&v1.Verdict{Action: v1.Verdict_REJECT, Reply: &v1.SMTPReply{Code: 554, Enhanced: "5.5.1", Text: "no recipient is left"}})
		}
		return nil
	case v1.FilterEvent_RCPT_REJECTED:
		q.Envelope = proto.CloneOf(f.env)
		unknown := &v1.Recipient{Address: "nobody@ryan.example", Index: int32(len(f.env.GetRecipients()))}
		q.Envelope.Recipients = append(q.Envelope.Recipients, unknown)
		q.Recipient = unknown.GetIndex()
		q.Results = []*v1.RecipientResult{{
			Recipient: unknown.GetIndex(), State: "rejected", Reply: &v1.SMTPReply{Code: 550, Enhanced: "5.1.1", Text: "no such user here"},
		}}
		_, err := f.run(ctx, q)
		return err
	case v1.FilterEvent_AUTH:
		q.Envelope = proto.CloneOf(f.env)
		q.Envelope.Client.User, q.Authenticated = f.mail.From, true
	case v1.FilterEvent_RESULT:
		for _, r := range f.env.GetRecipients() {
			q.Results = append(q.Results, &v1.RecipientResult{
				Recipient: r.GetIndex(), State: "delivered", Reply: &v1.SMTPReply{Code: 250, Enhanced: "2.0.0", Text: "delivered"},
			})
		}
		_, err := f.run(ctx, q)
		return err
	}
	verdict, err := f.ask(ctx, q)
	if err == nil && verdict != nil {
		f.refuse(verdict)
	}
	return err
}

// ask returns the verdict if it ends the way of what was asked about, and takes
// over what was edited.
func (f *filtering) ask(ctx context.Context, q filter.Question) (*v1.Verdict, error) {
	out, err := f.run(ctx, q)
	if err != nil {
		return nil, err
	}
	if q.Event != v1.FilterEvent_AUTH {
		f.env = out.Envelope
	}
	if f.mailBody != nil {
		f.mailBody = out.Body
	}
	for i, v := range out.PerRecipient {
		for _, r := range f.env.GetRecipients() {
			if r.GetIndex() == i && v.GetAction() != v1.Verdict_HOLD {
				f.out.say("<%s> gets nothing: %s", r.GetAddress(), VerdictText(v))
			}
		}
		f.env.Recipients = slices.DeleteFunc(slices.Clone(f.env.GetRecipients()), func(r *v1.Recipient) bool {
			return r.GetIndex() == i && v.GetAction() != v1.Verdict_HOLD
		})
	}
	switch a := out.Verdict.GetAction(); {
	case a == v1.Verdict_ACCEPT:
		return nil, nil
	case a == v1.Verdict_HOLD:
		f.out.say("The mail is taken and held for the operator: %s", out.Verdict.GetReason())
		return nil, nil
	}
	return out.Verdict, nil
}

func (f *filtering) refuse(v *v1.Verdict) {
	f.refused = &v1.SMTPReply{Code: 250}
	if v.GetReply() != nil {
		f.refused = v.GetReply()
	}
	switch v.GetAction() {
	case v1.Verdict_DISCARD:
		f.out.say("The client is told 250, and nobody gets the mail.")
	case v1.Verdict_DISCONNECT:
		f.out.say("The connection ends: 421 %s", v.GetReply().GetText())
	default:
		f.out.say("The mail is refused: %s", VerdictText(v))
	}
}

// VerdictText is a verdict in a line: the reply that a client would get.
func VerdictText(v *v1.Verdict) string {
	if r := v.GetReply(); r != nil {
		return strings.Join(strings.Fields(fmt.Sprintf("%d %s %s", r.GetCode(), r.GetEnhanced(), r.GetText())), " ")
	}
	return v.GetAction().String() + " " + v.GetReason()
}

// run asks once, as a stage does, and tells of it.
func (f *filtering) run(ctx context.Context, q filter.Question) (*filter.Outcome, error) {
	f.last = nil
	out, err := filter.Chain{f.member}.Run(ctx, f.editor(), q)
	if err != nil {
		return nil, err
	}
	// An observer is not waited for by a stage; here it is.
	for f.observing.Load() > 0 {
		select {
		case <-time.After(5 * time.Millisecond):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	if f.last == nil {
		return out, nil
	}
	f.asked++
	if out.Body != nil && out.Body != q.Body {
		f.last.Changes = changes(beginning(q.Body), beginning(out.Body))
	}
	for _, s := range out.Trace {
		f.last.Edits = s.Edits
		if f.last.Err == nil {
			f.last.Ignored = s.Failed
		}
	}
	if f.last.Err != nil || f.last.Ignored != "" {
		f.out.Failed = true
	}
	if n := len(f.last.Replies); n > 0 && f.last.Ignored == "" {
		r := f.last.Replies[0].GetFilter()
		if effect := f.member.Interest().GetEffect(); effect != v1.FilterInterest_EDIT && len(r.GetEdits()) > 0 {
			f.last.Ignored = fmt.Sprintf("its edits: its interest has the effect %s, and only EDIT may edit", effect)
			f.out.Failed = true
		}
	}
	f.tell(f.last)
	return out, nil
}

// compare says what is different about the mail at the end of its way.
func (f *filtering) compare() {
	if f.env.GetSender() != f.mail.From {
		f.out.say("The sender is now <%s>.", f.env.GetSender())
	}
	var to []string
	for _, r := range f.env.GetRecipients() {
		to = append(to, "<"+r.GetAddress()+">")
	}
	f.out.say("The mail goes on to %s.", strings.Join(to, ", "))
}

// changes lists the header lines that an edit took out and put in.
func changes(before, after []byte) (lines []string) {
	a, b := headerLines(before), headerLines(after)
	for _, l := range a {
		if !slices.Contains(b, l) {
			lines = append(lines, "- "+l)
		}
	}
	for _, l := range b {
		if !slices.Contains(a, l) {
			lines = append(lines, "+ "+l)
		}
	}
	return lines
}

// beginning of a message, with its header if that is no giant.
func beginning(b spool.Body) []byte {
	r, err := b.Open()
	if err != nil {
		return nil
	}
	defer r.Close()
	text, _ := io.ReadAll(io.LimitReader(r, 256<<10))
	return text
}

func headerLines(text []byte) []string {
	head, _, _ := bytes.Cut(text, []byte("\r\n\r\n"))
	return strings.Split(strings.ReplaceAll(strings.ReplaceAll(string(head), "\r\n\t", " "), "\r\n ", " "), "\r\n")
}

// feed hands an observer what happened to the mail.
func (f *filtering) feed(ctx context.Context) {
	if !slices.Contains(f.member.Interest().GetEvents(), v1.FilterEvent_OBSERVE) {
		return
	}
	f.env = proto.CloneOf(f.env)
	now := time.Now()
	seen := func(n uint64, what v1.Observation_What, r *v1.RecipientResult) *v1.Observation {
		return &v1.Observation{
			Sequence: uint64(now.UnixMicro()) + n, AtMs: now.UnixMilli(), What: what, Envelope: f.env, Recipient: r.GetRecipient(), Result: r, By: "receive.smtp.dev",
		}
	}
	var list []*v1.Observation
	if f.refused != nil {
		list = append(list, seen(1, v1.Observation_REFUSED, &v1.RecipientResult{Recipient: -1, State: "rejected", Reply: f.refused}))
	} else {
		f.env.QueueId, f.env.Transaction = "dev", ""
		list = append(list, seen(1, v1.Observation_QUEUED, &v1.RecipientResult{Recipient: -1}),
			seen(2, v1.Observation_DELIVERED, &v1.RecipientResult{State: "delivered", Reply: &v1.SMTPReply{Code: 250, Enhanced: "2.0.0", Text: "delivered"}}))
	}
	f.last = nil
	_, err := f.member.Caller.Call(ctx, &v1.Call{Request: &v1.Call_Filter{Filter: &v1.FilterCall{
		Event: v1.FilterEvent_OBSERVE, Recipient: -1, Observations: list,
	}}})
	f.fails(err)
	if f.last != nil {
		f.asked++
		f.tell(f.last)
	}
}
