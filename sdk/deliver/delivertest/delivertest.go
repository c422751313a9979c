// Package delivertest is the conformance suite that every delivery plugin must
// pass. It hands ordinary and odd mail over and looks at the outcomes. It does
// not know where the mail goes: a witness (conform.Facts.Witness) tells it
// whether a repeated delivery was done twice.
//
// The checks:
//
//	mail: …          each odd mail gets an outcome, and is not answered with a fault
//	recipients: …    one outcome for each, whatever their number and indexes
//	outcomes: …      codes, texts and times are in range
//	succeeds: …      the recipient of the facts gets a 2xx
//	repeated key: …  the same key gets an outcome again, and is not delivered twice
package delivertest

import (
	"context"
	"fmt"
	"os"
	"regexp"
	"strings"

	"github.com/stagecoach-mta/stagecoach/sdk/conform"
	"github.com/stagecoach-mta/stagecoach/sdk/deliver"
	"github.com/stagecoach-mta/stagecoach/sdk/fail"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// Options of a run.
type Options struct {
	Facts conform.Facts
	// LargeBytes is the size of the largest mail; 0: conform.DefaultLarge.
	LargeBytes int64
	// Spool is a directory that the plugin was granted, for large mails; nil:
	// the check's own.
	Spool func(t conform.T) string
}

// Run makes the checks. open returns a deliverer that lives; it may be the same
// one each time. Under `go test`, sdktest.Conform calls it.
func Run(t conform.T, open func(t conform.T) deliver.Deliverer, opts Options) {
	s := &suite{open: open, opts: opts, letters: conform.Letters(opts.LargeBytes)}
	for i := range s.letters {
		l := &s.letters[i]
		t.Run(conform.Check{
			Name: "mail: " + l.Name, Contract: "common.proto, MessageRef; deliver.proto, DeliverReply; plugin.proto, Reply",
			Remedy: "answer with an outcome whatever the octets are: 5xx for what your way out cannot carry",
			Do: func(t conform.T) {
				if _, fault := s.deliver(t, s.call(t, l)); fault != "" {
					t.Errorf("%s", fault)
				}
			},
		})
	}
	for _, c := range []conform.Check{
		{
			Name: "recipients: one outcome for each of them", Contract: "deliver.proto, DeliverReply.outcomes",
			Remedy: "answer with exactly one outcome per recipient of the call, under Recipient.index", Do: s.recipients,
		},
		{
			Name: "outcomes: codes, texts and times are in range", Contract: "deliver.proto, DeliverOutcome; common.proto, SMTPReply; RFC 3463",
			Remedy: "2xx delivered, 4xx again, 5xx failed; an enhanced code of the same class or none; text on one line; retry_after_ms of 0 or more",
			Do:     s.outcomes,
		},
		{
			Name: "succeeds: the ordinary mail is delivered", Contract: "deliver.proto, DeliverOutcome.reply",
			Remedy: "name a recipient to whom a delivery succeeds in the facts (recipient), or look why it does not", Do: s.succeeds,
		},
		{
			Name: "repeated key: gets its outcome again", Contract: "deliver.proto, DeliverCall.idempotency_key",
			Remedy: "keep (idempotency_key, recipient) with its outcome, durably, and answer a repeated one from there", Do: s.repeated,
		},
	} {
		t.Run(c)
	}
}

type suite struct {
	open    func(t conform.T) deliver.Deliverer
	opts    Options
	letters []conform.Letter
	keys    int
	replies []*v1.DeliverReply
}

func (s *suite) recipient() string {
	if r := s.opts.Facts.Recipient; r != "" {
		return r
	}
	return "meg@ryan.example"
}

func (s *suite) call(t conform.T, l *conform.Letter) *v1.DeliverCall {
	t.Helper()
	dir := ""
	if s.opts.Spool != nil {
		dir = s.opts.Spool(t)
	} else {
		dir = t.TempDir()
	}
	ref, err := l.Ref(dir)
	if err != nil {
		t.Fatalf("write the mail: %v", err)
	}
	if path := ref.GetPath(); path != "" {
		t.Cleanup(func() { os.Remove(path) })
	}
	s.keys++
	e := conform.Envelope(l.Size, s.recipient())
	e.QueueId = fmt.Sprintf("conform%d", s.keys)
	return &v1.DeliverCall{Envelope: e, Message: ref, IdempotencyKey: e.QueueId}
}

func (s *suite) deliver(t conform.T, call *v1.DeliverCall) (*v1.DeliverReply, string) {
	return s.ask(t.Context(), s.open(t), call)
}

// ask makes a call and keeps the reply; "" or what is wrong with it.
func (s *suite) ask(ctx context.Context, d deliver.Deliverer, call *v1.DeliverCall) (*v1.DeliverReply, string) {
	r, err := d.Deliver(ctx, call)
	switch {
	case fail.Is(err, fail.Internal):
		return nil, fmt.Sprintf("a fault of its own: %v", err)
	case fail.Is(err, fail.Unavailable), fail.Is(err, fail.Deadline), fail.Is(err, fail.Cancelled):
		return nil, fmt.Sprintf("no answer: %v", err)
	case err != nil:
		return nil, "" // it failed for now, for all
	}
	s.replies = append(s.replies, r)
	return r, ""
}

func (s *suite) recipients(t conform.T) {
	call := s.call(t, &s.letters[0])
	for name, indexes := range map[string][]int32{"two": {0, 1}, "those that are still open": {3, 17}, "100": make([]int32, 100)} {
		e := call.Envelope
		e.Recipients = nil
		for i, n := range indexes {
			if name == "100" {
				n = int32(i)
			}
			e.Recipients = append(e.Recipients, &v1.Recipient{Address: s.recipient(), Index: n, Account: s.recipient()})
		}
		call.IdempotencyKey, e.QueueId = "conform/"+name, "conform-"+fmt.Sprint(len(indexes))
		r, fault := s.deliver(t, call)
		if fault != "" {
			t.Errorf("%s recipients: %s", name, fault)
			continue
		}
		got := map[int32]int{}
		for _, o := range r.GetOutcomes() {
			got[o.GetRecipient()]++
		}
		for _, rcpt := range e.Recipients {
			if n := got[rcpt.GetIndex()]; r != nil && n != 1 {
				t.Errorf("%s recipients: %d outcomes for the one with index %d", name, n, rcpt.GetIndex())
			}
			delete(got, rcpt.GetIndex())
		}
		for i := range got {
			t.Errorf("%s recipients: an outcome for index %d, which the call has not", name, i)
		}
	}
}

var enhancedCode = regexp.MustCompile(`^[245]\.\d{1,3}\.\d{1,3}$`)

func (s *suite) outcomes(t conform.T) {
	if len(s.replies) == 0 {
		for i := range s.letters {
			_, _ = s.deliver(t, s.call(t, &s.letters[i]))
		}
	}
	if len(s.replies) == 0 {
		t.Skipf("it answered no mail with an outcome")
	}
	for _, r := range s.replies {
		for _, o := range r.GetOutcomes() {
			code, e, text := o.GetReply().GetCode(), o.GetReply().GetEnhanced(), o.GetReply().GetText()
			if c := code / 100; c != 2 && c != 4 && c != 5 {
				t.Errorf("code %d: the core cannot tell what became of the mail", code)
			}
			if e != "" && (!enhancedCode.MatchString(e) || int32(e[0]-'0') != code/100) {
				t.Errorf("enhanced code %q with code %d", e, code)
			}
			if strings.ContainsFunc(text, func(c rune) bool { return c < ' ' || c == 0x7f }) {
				t.Errorf("control characters in the text of the reply: %q", text)
			}
			if o.GetRetryAfterMs() < 0 {
				t.Errorf("retry_after_ms %d", o.GetRetryAfterMs())
			}
		}
	}
}

func (s *suite) succeeds(t conform.T) {
	r, fault := s.deliver(t, s.call(t, &s.letters[0]))
	if fault != "" {
		t.Fatalf("%s", fault)
	}
	for _, o := range r.GetOutcomes() {
		if o.GetReply().GetCode()/100 != 2 {
			t.Errorf("the delivery to %s ended with %d %s", s.recipient(), o.GetReply().GetCode(), o.GetReply().GetText())
		}
	}
	if len(r.GetOutcomes()) == 0 {
		t.Errorf("no outcome")
	}
}

func (s *suite) repeated(t conform.T) {
	call := s.call(t, &s.letters[0])
	first, fault := s.deliver(t, call)
	if fault != "" || first == nil {
		t.Fatalf("the first call was not answered: %s", fault)
	}
	before := Seen(s.opts.Facts.Witness)
	for range 2 {
		again, fault := s.deliver(t, call)
		if a, b := classes(first), classes(again); fault != "" || a != b {
			t.Errorf("the key %q was answered with %s, and when repeated with %s %s", call.GetIdempotencyKey(), a, b, fault)
		}
	}
	if s.opts.Facts.Witness == "" {
		t.Logf("whether the mail was delivered once was not looked at: the facts name no witness")
		return
	}
	if after := Seen(s.opts.Facts.Witness); after != before {
		t.Errorf("%s tells of a second delivery under one key: %d entries or octets, then %d", s.opts.Facts.Witness, before, after)
	}
}

// Seen counts what a witness has seen: a directory's entries or a file's octets.
func Seen(witness string) int64 {
	fi, err := os.Stat(witness)
	if err != nil {
		return 0
	}
	if !fi.IsDir() {
		return fi.Size()
	}
	entries, _ := os.ReadDir(witness)
	return int64(len(entries))
}

// classes are the first digits of the outcomes' codes, by recipient.
func classes(r *v1.DeliverReply) string {
	out := ""
	for _, o := range r.GetOutcomes() {
		out += fmt.Sprintf("%d: %dxx ", o.GetRecipient(), o.GetReply().GetCode()/100)
	}
	return strings.TrimSpace(out)
}
