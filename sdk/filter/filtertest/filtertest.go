// Package filtertest is the conformance suite that every filter must pass. It
// asks the filter about ordinary and odd mail at each event that it declared and
// looks at the answers. It does not know what the filter is for: give it mails
// that the filter does something about (conform.Facts.Messages), or the checks
// of edits and verdicts see little.
//
// The checks:
//
//	interest: …             what the filter asks for is something that can be given
//	mail: …                 each odd mail is answered, and not with a fault
//	envelopes: …            null sender, SMTPUTF8, 1000 recipients, no client
//	verdicts: …             action, codes, texts and delays are in range
//	effect: …               who declared to judge or observe sends no edits
//	edits: …                indexes, names and values fit the message
//	per-recipient: …        verdicts are for recipients that there are
//	tags: …                 names are identifiers, values are set, scores numbers
//	hints and injections: … levels are known, messages can be read
//	unknown event: …        an event of a later contract is answered
//	repeated key: …         the same key gets the same answer
package filtertest

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/stagecoach-mta/stagecoach/sdk/conform"
	"github.com/stagecoach-mta/stagecoach/sdk/fail"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
	"github.com/stagecoach-mta/stagecoach/sdk/stream"
)

// Subject is a filter that is ready.
type Subject struct {
	Caller   stream.Caller
	Interest *v1.FilterInterest
	// Dirs are the directories under which files that it names may lie.
	Dirs []string
}

// Options of a run.
type Options struct {
	Facts conform.Facts
	// LargeBytes is the size of the largest mail; 0: conform.DefaultLarge.
	LargeBytes int64
	// Spool is a directory that the filter was granted, for large mails; empty:
	// the check's own.
	Spool func(t conform.T) string
}

// Run makes the checks. open returns a filter that lives; it may be the same one
// each time. Under `go test`, sdktest.Conform calls it.
func Run(t conform.T, open func(t conform.T) *Subject, opts Options) {
	s := &suite{open: open, opts: opts, letters: conform.Letters(opts.LargeBytes)}
	for _, path := range opts.Facts.Messages {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatalf("a message of the facts: %v", err)
		}
		s.letters = append(s.letters, conform.Letter{Name: filepath.Base(path), Text: string(b), Size: int64(len(b))})
	}
	t.Run(conform.Check{
		Name: "interest: asks for what there is", Contract: "filter.proto, FilterInterest",
		Remedy: "name at least one event, header names in lower case, a size of 0 or more", Do: s.interest,
	})
	for i := range s.letters {
		l := &s.letters[i]
		t.Run(conform.Check{
			Name: "mail: " + l.Name, Contract: "common.proto, MessageRef; filter.proto, FilterReply; plugin.proto, Reply",
			Remedy: "answer with a verdict whatever the octets are: mail is not always MIME, nor always text",
			Do:     func(t conform.T) { s.letter(t, l) },
		})
	}
	for _, c := range []conform.Check{
		{
			Name: "envelopes: null sender, SMTPUTF8, 1000 recipients, nothing known of the client", Contract: "common.proto, Envelope",
			Remedy: "take every field as optional: what is not known yet is empty", Do: s.envelopes,
		},
		{
			Name: "verdicts: codes, texts and delays are in range", Contract: "filter.proto, Verdict; common.proto, SMTPReply; RFC 3463",
			Remedy: "REJECT with 5xx, DEFER with 4xx, DISCONNECT with 421, or no code; an enhanced code of the same class or none; text on one line; a delay of at most 60 s",
			Do:     s.verdicts,
		},
		{
			Name: "effect: no edits from who does not declare to edit", Contract: "filter.proto, FilterInterest.effect",
			Remedy: "declare Effect EDIT, or send no edits: the core ignores a judge's", Do: s.effect,
		},
		{
			Name: "edits: fit the message", Contract: "filter.proto, Edit; RFC 5322 section 2.2",
			Remedy: "count header indexes from 1 (delete_header: 0 for all); write field names and values as RFC 5322 has them; name files under the data or spool directory",
			Do:     s.edits,
		},
		{
			Name: "per-recipient: verdicts are for recipients of the envelope", Contract: "filter.proto, FilterReply.per_recipient",
			Remedy: "use Recipient.index as the key, not the place in the list", Do: s.perRecipient,
		},
		{
			Name: "tags: names, values and scores can be used", Contract: "filter.proto, FilterReply.tags, FilterReply.score; common.proto, Tag",
			Remedy: "name tags with letters, digits, _ and - (routes read tags.NAME), give each a value, and scores that are numbers", Do: s.tags,
		},
		{
			Name: "hints and injections: can be obeyed", Contract: "filter.proto, RouteHints, Injection",
			Remedy: "use the levels that are listed, \"host:port\", recipients with an address, and messages that can be opened", Do: s.hints,
		},
		{
			Name: "unknown event: is answered, and harms nobody else", Contract: "filter.proto, FilterEvent",
			Remedy: "accept, or answer UNSUPPORTED, for an event that you do not know, and go on", Do: s.unknownEvent,
		},
		{
			Name: "repeated key: gets the same answer", Contract: "filter.proto, FilterCall.idempotency_key; plugin.proto, Failure",
			Remedy: "keep what a call changed under its idempotency_key, and answer a repeated key with the first answer", Do: s.repeated,
		},
	} {
		t.Run(c)
	}
}

type suite struct {
	open    func(t conform.T) *Subject
	opts    Options
	letters []conform.Letter
	// asked are the answers so far; the checks of answers look at all of them.
	asked []answer
	keys  int
}

// answer is a call with its reply.
type answer struct {
	what     string
	call     *v1.FilterCall
	reply    *v1.FilterReply
	dirs     []string
	interest *v1.FilterInterest
}

func (s *suite) interest(t conform.T) {
	in := s.open(t).Interest
	if len(in.GetEvents()) == 0 {
		t.Errorf("it asks for no event, so nothing would ever be sent to it")
	}
	for _, e := range in.GetEvents() {
		if v1.FilterEvent_name[int32(e)] == "" || e == v1.FilterEvent_FILTER_EVENT_UNSPECIFIED {
			t.Errorf("it asks for event %d, which there is not", e)
		}
	}
	if v1.FilterInterest_Effect_name[int32(in.GetEffect())] == "" || v1.FilterInterest_Body_name[int32(in.GetBody())] == "" {
		t.Errorf("effect %d and body %d: one of them there is not", in.GetEffect(), in.GetBody())
	}
	if in.GetMaxSize() < 0 {
		t.Errorf("max_size is %d", in.GetMaxSize())
	}
	for _, n := range in.GetHeaderNames() {
		if !fieldName(n) || n != strings.ToLower(n) {
			t.Errorf("header name %q is no field name in lower case: it would never match", n)
		}
	}
}

// events at which a call has a message, of those that the filter asked for.
func withMessage(e v1.FilterEvent) bool {
	switch e {
	case v1.FilterEvent_MESSAGE, v1.FilterEvent_ROUTE, v1.FilterEvent_PRE_DELIVERY:
		return true
	}
	return false
}

// calls makes the calls for a letter: one for each event, with no more in it
// than the interest says.
func (s *suite) calls(t conform.T, in *v1.FilterInterest, l *conform.Letter) []*v1.FilterCall {
	t.Helper()
	dir := ""
	if s.opts.Spool != nil {
		dir = s.opts.Spool(t)
	} else {
		dir = t.TempDir()
	}
	var ref *v1.MessageRef
	var out []*v1.FilterCall
	for _, e := range in.GetEvents() {
		c := s.call(e, l.Size)
		if withMessage(e) && in.GetBody() != v1.FilterInterest_NONE {
			c.Header = l.Header(in.GetHeaderNames())
			if in.GetBody() == v1.FilterInterest_FULL {
				if ref == nil {
					var err error
					if ref, err = l.Ref(dir); err != nil {
						t.Fatalf("write the mail: %v", err)
					}
				}
				c.Message = ref
			}
		}
		out = append(out, c)
	}
	if path := ref.GetPath(); path != "" {
		t.Cleanup(func() { os.Remove(path) })
	}
	return out
}

// call makes the call for an event, without a message.
func (s *suite) call(e v1.FilterEvent, size int64) *v1.FilterCall {
	s.keys++
	c := &v1.FilterCall{Event: e, Recipient: -1, Envelope: conform.Envelope(size, "meg@ryan.example", "nora@ryan.example"), IdempotencyKey: fmt.Sprintf("conform/%d", s.keys)}
	switch e {
	case v1.FilterEvent_CONNECT, v1.FilterEvent_HELLO, v1.FilterEvent_AUTH:
		c.Envelope.Sender, c.Envelope.Recipients, c.Envelope.QueueId = "", nil, ""
		if e == v1.FilterEvent_AUTH {
			c.Authenticated, c.Envelope.Client.User = true, "tom@hanks.example"
		}
	case v1.FilterEvent_MAIL:
		c.Envelope.Recipients, c.Envelope.QueueId = nil, ""
	case v1.FilterEvent_RCPT:
		c.Recipient, c.Envelope.QueueId = 1, ""
	case v1.FilterEvent_RCPT_REJECTED:
		c.Recipient, c.Envelope.QueueId = 1, ""
		c.Results = []*v1.RecipientResult{{Recipient: 1, State: "rejected", Reply: &v1.SMTPReply{Code: 550, Enhanced: "5.1.1", Text: "No such user here"}}}
	case v1.FilterEvent_ENVELOPE:
		c.Envelope.QueueId = ""
	case v1.FilterEvent_RESULT:
		c.Results = []*v1.RecipientResult{
			{Recipient: 0, State: "delivered", RemoteMta: "mx.ryan.example", Reply: &v1.SMTPReply{Code: 250, Enhanced: "2.0.0", Text: "OK"}},
			{Recipient: 1, State: "deferred", RemoteMta: "mx.ryan.example", Reply: &v1.SMTPReply{Code: 451, Enhanced: "4.3.0", Text: "Later"}},
		}
	case v1.FilterEvent_OBSERVE:
		e := c.Envelope
		c.Envelope = nil
		for i, what := range []v1.Observation_What{v1.Observation_QUEUED, v1.Observation_DEFERRED, v1.Observation_DELIVERED} {
			c.Observations = append(c.Observations, &v1.Observation{
				Sequence: uint64(3*s.keys + i), AtMs: 1171494123000, What: what, Envelope: e, Recipient: 0, By: "deliver.smtp.internet",
				Result: &v1.RecipientResult{Recipient: 0, Reply: &v1.SMTPReply{Code: 250, Enhanced: "2.0.0", Text: "OK"}},
			})
		}
	}
	return c
}

// ask makes a call and keeps the answer; "" or what is wrong with it.
func (s *suite) ask(ctx context.Context, f *Subject, what string, call *v1.FilterCall) (reply *v1.FilterReply, fault string) {
	r, err := f.Caller.Call(ctx, &v1.Call{Request: &v1.Call_Filter{Filter: call}})
	switch {
	case fail.Is(err, fail.Internal):
		return nil, fmt.Sprintf("%s: a fault of its own: %v", call.GetEvent(), err)
	case fail.Is(err, fail.Unavailable), fail.Is(err, fail.Deadline), fail.Is(err, fail.Cancelled):
		return nil, fmt.Sprintf("%s: no answer: %v", call.GetEvent(), err)
	case err != nil:
		return nil, "" // it has its reasons: on_failure decides
	case r.GetFilter() == nil:
		return nil, fmt.Sprintf("%s: the reply is not a filter's", call.GetEvent())
	}
	s.asked = append(s.asked, answer{what, call, r.GetFilter(), f.Dirs, f.Interest})
	return r.GetFilter(), ""
}

func (s *suite) letter(t conform.T, l *conform.Letter) {
	f := s.open(t)
	if limit := f.Interest.GetMaxSize(); limit > 0 && l.Size > limit {
		t.Skipf("it declares a max_size of %d octets: nothing larger is sent to it", limit)
	}
	for _, c := range s.calls(t, f.Interest, l) {
		if _, fault := s.ask(t.Context(), f, "a mail: "+l.Name, c); fault != "" {
			t.Errorf("%s", fault)
		}
	}
}

func (s *suite) envelopes(t conform.T) {
	f := s.open(t)
	for _, c := range []struct {
		name   string
		change func(e *v1.Envelope)
	}{
		{"null sender", func(e *v1.Envelope) { e.Sender = "" }},
		{"SMTPUTF8", func(e *v1.Envelope) {
			e.Sender, e.Parameters = "t\u00f6m@h\u00e4nks.example", &v1.MailParameters{Body: "8BITMIME", Smtputf8: true}
		}},
		{"a quoted local-part", func(e *v1.Envelope) { e.Sender = `"tom \"@\" h"@hanks.example` }},
		{"1000 recipients", func(e *v1.Envelope) {
			for i := len(e.Recipients); i < 1000; i++ {
				e.Recipients = append(e.Recipients, &v1.Recipient{Address: fmt.Sprintf("user%d@ryan.example", i), Index: int32(i)})
			}
		}},
		{"recipients whose indexes have gaps", func(e *v1.Envelope) {
			for i, r := range e.Recipients {
				r.Index = int32(7 * (i + 1))
			}
		}},
		{"nothing known of the client", func(e *v1.Envelope) { e.Client = nil }},
		{"tags of all types", func(e *v1.Envelope) {
			e.Tags = map[string]*v1.Tag{
				"text": {Value: &v1.Tag_Text{Text: "x"}}, "number": {Value: &v1.Tag_Number{Number: 1.5}}, "flag": {Value: &v1.Tag_Flag{Flag: true}},
				"list": {Value: &v1.Tag_List{List: &v1.TagList{Values: []string{"a", "b"}}}}, "none": {},
			}
		}},
	} {
		for _, call := range s.calls(t, f.Interest, &s.letters[0]) {
			if call.GetEnvelope() == nil {
				continue
			}
			c.change(call.Envelope)
			if call.Recipient >= 0 && len(call.Envelope.Recipients) > 1 {
				call.Recipient = call.Envelope.Recipients[1].GetIndex()
			}
			if _, fault := s.ask(t.Context(), f, c.name, call); fault != "" {
				t.Errorf("%s: %s", c.name, fault)
			}
		}
	}
}

// answers are those so far, or to all letters if nobody has asked yet. A mail
// that ends the filter is the check of that mail's business.
func (s *suite) answers(t conform.T) []answer {
	if len(s.asked) == 0 {
		for i := range s.letters {
			f := s.open(t)
			if limit := f.Interest.GetMaxSize(); limit > 0 && s.letters[i].Size > limit {
				continue
			}
			for _, c := range s.calls(t, f.Interest, &s.letters[i]) {
				_, _ = s.ask(t.Context(), f, "a mail: "+s.letters[i].Name, c)
			}
		}
	}
	if len(s.asked) == 0 {
		t.Skipf("it answered no mail with a verdict")
	}
	return s.asked
}

func (s *suite) unknownEvent(t conform.T) {
	f := s.open(t)
	call := s.call(v1.FilterEvent_MESSAGE, 0)
	call.Event = 99
	_, err := f.Caller.Call(t.Context(), &v1.Call{Request: &v1.Call_Filter{Filter: call}})
	if fail.Is(err, fail.Unavailable) || fail.Is(err, fail.Deadline) {
		t.Fatalf("event 99 was not answered: %v", err)
	}
	t.Logf("event 99 was answered with: %v", err)
	for _, c := range s.calls(t, f.Interest, &s.letters[0]) {
		if _, fault := s.ask(t.Context(), f, "the ordinary mail", c); fault != "" {
			t.Errorf("after event 99: %s", fault)
		}
	}
}

func (s *suite) repeated(t conform.T) {
	compared := 0
	for i := range s.letters {
		f := s.open(t)
		l := &s.letters[i]
		if limit := f.Interest.GetMaxSize(); l.Size > 1<<20+1<<16 || limit > 0 && l.Size > limit {
			continue
		}
		for _, c := range s.calls(t, f.Interest, l) {
			first, fault := s.ask(t.Context(), f, l.Name, c)
			if fault != "" || first == nil {
				continue
			}
			for range 2 {
				again, fault := s.ask(t.Context(), f, l.Name, c)
				if fault != "" || again == nil {
					t.Errorf("mail %s: the key %q was answered, and when repeated it was not: %s", l.Name, c.GetIdempotencyKey(), fault)
				} else if a, b := gist(first), gist(again); a != b {
					t.Errorf("mail %s, %s: the key %q was answered with %s, and when repeated with %s", l.Name, c.GetEvent(), c.GetIdempotencyKey(), a, b)
				}
			}
			compared++
		}
	}
	if compared == 0 {
		t.Skipf("it answered no mail with a verdict")
	}
}
