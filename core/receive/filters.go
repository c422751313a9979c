package receive

import (
	"context"
	"errors"
	"maps"
	"time"

	"github.com/emersion/go-smtp"
	"google.golang.org/protobuf/proto"

	"github.com/stagecoach-mta/stagecoach/core/filter"
	"github.com/stagecoach-mta/stagecoach/core/queue"
	"github.com/stagecoach-mta/stagecoach/core/smtp/server"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// question is a stage's question; User is who tried to log in, for AUTH.
type question struct {
	filter.Question
	User string
}

// said is what filters decided so far, beside the replies that they gave.
type said struct {
	hold    string // why the mail is held; "" if it is not
	discard string // the filter that threw it away
	// recipients with a verdict of their own, and who gave it.
	recipients map[int32]*v1.Verdict
	by         map[int32]string
	hints      *v1.RouteHints
	inject     []filter.Injected
}

func (s said) clone() said {
	s.recipients, s.by = maps.Clone(s.recipients), maps.Clone(s.by)
	return s
}

// add folds in the outcome of one question. A later filter does not soften what
// an earlier one said.
func (s *said) add(q question, out *filter.Outcome) {
	s.hints = filter.MergeHints(s.hints, out.Hints)
	s.inject = append(s.inject, out.Inject...)
	v := out.Verdict
	switch a := v.GetAction(); {
	case a != v1.Verdict_HOLD && a != v1.Verdict_DISCARD:
	case q.Event == v1.FilterEvent_RCPT:
		s.recipient(q.Recipient, v, out.By)
	case a == v1.Verdict_HOLD && s.hold == "":
		s.hold = either(v.GetReason(), "held by "+out.By)
	case a == v1.Verdict_DISCARD && s.discard == "":
		s.discard = out.By
	}
	for index, own := range out.PerRecipient {
		s.recipient(index, own, out.ByRecipient[index])
	}
}

func (s *said) recipient(index int32, v *v1.Verdict, by string) {
	if s.recipients == nil {
		s.recipients, s.by = map[int32]*v1.Verdict{}, map[int32]string{}
	}
	if _, ok := s.recipients[index]; !ok {
		s.recipients[index], s.by[index] = v, by
	}
}

// early asks the filters that want to be heard before the envelope is complete.
func (s *Session) early(ctx context.Context, event v1.FilterEvent, recipient int32) error {
	_, err := s.ask(ctx, question{Question: filter.Question{Event: event, Recipient: recipient}})
	return err
}

// ask runs the listener's filters for one event and turns a verdict other than
// accept, hold or discard into the reply.
func (s *Session) ask(ctx context.Context, q question) (*filter.Outcome, error) {
	if q.Envelope = s.env; q.Envelope == nil {
		if s.Filters.Wants(q.Event) {
			s.name.wait(ctx)
		}
		q.Envelope = &v1.Envelope{Transaction: s.conn.ID(), Client: s.client(), Tags: s.tags}
		if q.User != "" {
			q.Envelope.Client.User = q.User
		}
	}
	if !s.Filters.Wants(q.Event) {
		return &filter.Outcome{Verdict: &v1.Verdict{}, Envelope: q.Envelope, Body: q.Body}, nil
	}
	q.Key = q.Envelope.GetTransaction()
	out, err := s.Filters.Run(ctx, s.Editing, q.Question)
	if err != nil {
		return nil, s.broken(err)
	}
	s.trace(q, out)
	if s.env != nil {
		s.env = out.Envelope
		s.said.add(q, out)
	} else {
		s.tags = out.Envelope.GetTags()
		s.standing.add(q, out)
		filter.Discard(s.standing.inject) // there is no mail yet that they could go with
		s.standing.inject = nil
	}
	if d := time.Duration(out.Verdict.GetDelayMs()) * time.Millisecond; d > 0 {
		wait(ctx, min(d, maxDelay))
	}
	err = verdictError(out.Verdict)
	if err != nil {
		s.refused(out.Envelope, q.Recipient, err, out.By)
	}
	return out, err
}

func wait(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// trace logs what each filter said.
func (s *Session) trace(q question, out *filter.Outcome) {
	for _, step := range out.Trace {
		e := s.log.Info()
		if step.Failed != "" {
			e = s.log.Warn().Str("failed", step.Failed)
		}
		e.Str("transaction", q.Envelope.GetTransaction()).Str("filter", step.Filter).Stringer("event", q.Event).
			Stringer("verdict", step.Verdict).Float64("score", step.Score).Strs("edits", step.Edits).Dur("took", step.Took).
			Str("note", step.Note).Msg("filtered")
	}
	notes := filter.Notes(q.Event, out.Trace)
	if s.env == nil {
		s.known = append(s.known, notes...)
	}
	s.notes = append(s.notes, notes...)
}

// rejected tells of a recipient that the core refused. Of the answers only tags
// and score count.
func (s *Session) rejected(ctx context.Context, r *v1.Recipient, why error) {
	env := proto.CloneOf(s.env)
	env.Recipients = append(env.Recipients, r)
	s.refused(env, r.GetIndex(), why, s.Ref)
	if !s.Filters.Wants(v1.FilterEvent_RCPT_REJECTED) {
		return
	}
	q := question{Question: filter.Question{
		Event: v1.FilterEvent_RCPT_REJECTED, Envelope: env, Recipient: r.GetIndex(), Key: env.GetTransaction(),
		Results: []*v1.RecipientResult{result(r.GetIndex(), why)},
	}}
	out, err := s.Filters.Run(ctx, s.Editing, q.Question)
	if err != nil {
		s.log.Error().Err(err).Msg("filters were not told of a recipient that was refused")
		return
	}
	s.trace(q, out)
	s.env.Tags = out.Envelope.GetTags()
}

// refused tells the observers, and the mail journal, of a 4xx or 5xx.
func (s *Session) refused(env *v1.Envelope, recipient int32, why error, by string) {
	r := result(recipient, why)
	if s.backend.Journal != nil {
		s.backend.Journal.Refused(s.refusalOf(env, r, by))
	}
	if s.backend.Feed == nil {
		return
	}
	if err := s.backend.Feed.Observe(&v1.Observation{
		What: v1.Observation_REFUSED, AtMs: s.backend.Clock().UnixMilli(), Envelope: env, Recipient: recipient,
		Result: r, By: by, Reason: r.GetReply().GetText(),
	}); err != nil {
		s.log.Error().Err(err).Msg("observers are not told of a refusal")
	}
}

// refusalOf tells of one recipient, or of all that there are.
func (s *Session) refusalOf(env *v1.Envelope, r *v1.RecipientResult, by string) queue.Refusal {
	c := env.GetClient()
	x := queue.Refusal{
		At: s.backend.Clock(), Transaction: env.GetTransaction(), Sender: env.GetSender(), ClientIP: c.GetIp(), Hello: c.GetHello(),
		User: c.GetUser(), Listener: s.Ref, By: by, Notes: s.notes,
		Code: int(r.GetReply().GetCode()), Enhanced: r.GetReply().GetEnhanced(), Text: r.GetReply().GetText(),
	}
	for _, to := range env.GetRecipients() {
		if r.GetRecipient() < 0 || r.GetRecipient() == to.GetIndex() {
			x.Recipients = append(x.Recipients, to.GetAddress())
		}
	}
	return x
}

func result(recipient int32, why error) *v1.RecipientResult {
	reply := &v1.SMTPReply{Code: 451, Enhanced: "4.3.0", Text: why.Error()}
	var e *smtp.SMTPError
	if errors.As(why, &e) {
		reply = &v1.SMTPReply{Code: int32(e.Code), Enhanced: enhancedText(server.ReplyOf(why).Enhanced), Text: e.Message}
	}
	return &v1.RecipientResult{Recipient: recipient, State: "rejected", Reply: reply}
}

// verdictError is what the client hears of a verdict; nil if the mail goes on.
func verdictError(v *v1.Verdict) error {
	r := v.GetReply()
	code, enhanced, text := int(r.GetCode()), r.GetEnhanced(), r.GetText()
	switch v.GetAction() {
	case v1.Verdict_REJECT:
		code, enhanced, text = orElse(code, 500, 599, 550), either(enhanced, "5.7.1"), either(text, "Refused by local policy")
	case v1.Verdict_DEFER:
		code, enhanced, text = orElse(code, 400, 499, 451), either(enhanced, "4.7.1"), either(text, "Try again later")
	case v1.Verdict_DISCONNECT:
		// The engine ends the connection after a 421.
		code, enhanced, text = 421, either(enhanced, "4.7.0"), either(text, "Closing the connection")
		if enhanced[0] != '4' {
			enhanced = "4.7.0"
		}
	default:
		return nil
	}
	return refuse(code, enhanced, text)
}

func orElse(code, low, high, otherwise int) int {
	if code < low || code > high {
		return otherwise
	}
	return code
}

func either(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}
