package receive

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/emersion/go-sasl"

	"github.com/stagecoach-mta/stagecoach/core/filter"
	"github.com/stagecoach-mta/stagecoach/core/queue"
	"github.com/stagecoach-mta/stagecoach/core/smtp/server"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// witness is a filter that notes what it is asked and answers as told.
type witness struct {
	mu     sync.Mutex
	calls  []*v1.FilterCall
	answer func(c *v1.FilterCall) *v1.FilterReply
}

func (w *witness) Call(_ context.Context, call *v1.Call) (*v1.Reply, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.calls = append(w.calls, call.GetFilter())
	r := &v1.FilterReply{}
	if w.answer != nil {
		if a := w.answer(call.GetFilter()); a != nil {
			r = a
		}
	}
	return &v1.Reply{Response: &v1.Reply_Filter{Filter: r}}, nil
}

func (w *witness) Stream(context.Context, *v1.Call, func(*v1.Reply) error) error {
	return errors.New("filters do not stream")
}

// of is what the filter was asked at an event.
func (w *witness) of(e v1.FilterEvent) []*v1.FilterCall {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(w.calls), func(c *v1.FilterCall) bool { return c.GetEvent() != e })
}

func (w *witness) chain(effect v1.FilterInterest_Effect, events ...v1.FilterEvent) filter.Chain {
	in := &v1.FilterInterest{Events: events, Effect: effect}
	return filter.Chain{{Name: "filter.test.witness", Caller: w, Interest: func() *v1.FilterInterest { return in }}}
}

func tagged(s string) *v1.Tag { return &v1.Tag{Value: &v1.Tag_Text{Text: s}} }

// What a filter says of a connection holds for each of its mails; what it says
// of a mail does not.
func TestTagsOfAConnection(t *testing.T) {
	w := &witness{answer: func(c *v1.FilterCall) *v1.FilterReply {
		switch c.GetEvent() {
		case v1.FilterEvent_CONNECT:
			return &v1.FilterReply{Score: 1, Tags: map[string]*v1.Tag{"network": tagged("home")}}
		case v1.FilterEvent_MAIL:
			return &v1.FilterReply{Score: 2, Tags: map[string]*v1.Tag{"mail": tagged(c.GetEnvelope().GetSender())}}
		}
		return nil
	}}
	r := newRig(t, func(p *Policy, _ *server.Config) {
		p.Filters = w.chain(v1.FilterInterest_JUDGE, v1.FilterEvent_CONNECT, v1.FilterEvent_MAIL)
	})
	c := r.client(t)
	for _, from := range []string{"tom@hanks.example", "joe@hanks.example"} {
		if got := code(send(c, from, text, "meg@ryan.example")); got != "ok" {
			t.Fatal(got)
		}
		env, _ := r.queue.last(t)
		if env.Tags["network"].GetText() != "home" || env.Tags["mail"].GetText() != from || env.Tags[filter.ScoreTag].GetNumber() != 3 {
			t.Errorf("%s: tags %v", from, env.Tags)
		}
	}
}

func TestRejectedRecipientIsTold(t *testing.T) {
	w := &witness{answer: func(*v1.FilterCall) *v1.FilterReply {
		return &v1.FilterReply{Score: 5, Verdict: &v1.Verdict{Action: v1.Verdict_ACCEPT}}
	}}
	r := newRig(t, func(p *Policy, _ *server.Config) {
		p.Filters = w.chain(v1.FilterInterest_JUDGE, v1.FilterEvent_RCPT_REJECTED)
	})
	c := r.client(t)
	if err := c.Mail("tom@hanks.example", nil); err != nil {
		t.Fatal(err)
	}
	if got := code(c.Rcpt("ghost@ryan.example", nil)); got != "550 5.1.1" {
		t.Errorf("ghost: %s", got)
	}
	if err := c.Rcpt("meg@ryan.example", nil); err != nil {
		t.Fatal(err)
	}
	d, err := c.Data()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	asked := w.of(v1.FilterEvent_RCPT_REJECTED)
	if len(asked) != 1 {
		t.Fatalf("asked %d times", len(asked))
	}
	call, rs := asked[0], asked[0].GetEnvelope().GetRecipients()
	if len(rs) != 1 || rs[0].GetAddress() != "ghost@ryan.example" || rs[0].GetIndex() != call.GetRecipient() {
		t.Errorf("recipients %v, asked about %d", rs, call.GetRecipient())
	}
	if res := call.GetResults(); len(res) != 1 || res[0].GetReply().GetCode() != 550 || res[0].GetReply().GetEnhanced() != "5.1.1" {
		t.Errorf("results %v", res)
	}
	env, _ := r.queue.last(t)
	if len(env.Recipients) != 1 || env.Tags[filter.ScoreTag].GetNumber() != 5 {
		t.Errorf("queued for %v with %v", addresses(env), env.Tags)
	}
}

func TestLoginsAreTold(t *testing.T) {
	deny := false
	w := &witness{answer: func(*v1.FilterCall) *v1.FilterReply {
		if !deny {
			return nil
		}
		return &v1.FilterReply{Verdict: &v1.Verdict{Action: v1.Verdict_DISCONNECT, Reply: &v1.SMTPReply{Code: 421, Enhanced: "4.7.0", Text: "too many tries"}}}
	}}
	r := newRig(t, func(p *Policy, _ *server.Config) { p.Filters = w.chain(v1.FilterInterest_JUDGE, v1.FilterEvent_AUTH) })
	c := r.client(t)
	if got := code(c.Auth(sasl.NewPlainClient("", "meg@ryan.example", "wrong"))); got != "535 5.7.8" {
		t.Errorf("a wrong password: %s", got)
	}
	if err := c.Auth(sasl.NewPlainClient("", "meg@ryan.example", "sleepless")); err != nil {
		t.Fatal(err)
	}
	asked := w.of(v1.FilterEvent_AUTH)
	if len(asked) != 2 || asked[0].GetAuthenticated() || !asked[1].GetAuthenticated() {
		t.Fatalf("asked %v", asked)
	}
	for _, call := range asked {
		if call.GetEnvelope().GetClient().GetUser() != "meg@ryan.example" {
			t.Errorf("user %q", call.GetEnvelope().GetClient().GetUser())
		}
	}
	deny = true
	c = r.client(t)
	if got := code(c.Auth(sasl.NewPlainClient("", "meg@ryan.example", "sleepless"))); got != "421 4.7.0" {
		t.Errorf("a filter that disconnects: %s", got)
	}
}

// A filter knows by which port a client came, and how it logged in.
func TestClientIsDescribed(t *testing.T) {
	w := &witness{}
	r := newRig(t, func(p *Policy, _ *server.Config) { p.Filters = w.chain(v1.FilterInterest_JUDGE, v1.FilterEvent_MAIL) })
	c := r.client(t)
	if err := c.Mail("meg@ryan.example", nil); err != nil {
		t.Fatal(err)
	}
	if err := c.Reset(); err != nil {
		t.Fatal(err)
	}
	if err := c.Auth(sasl.NewPlainClient("", "meg@ryan.example", "sleepless")); err != nil {
		t.Fatal(err)
	}
	if err := c.Mail("meg@ryan.example", nil); err != nil {
		t.Fatal(err)
	}
	asked := w.of(v1.FilterEvent_MAIL)
	if len(asked) != 2 {
		t.Fatalf("asked %v", asked)
	}
	before, after := asked[0].GetEnvelope().GetClient(), asked[1].GetEnvelope().GetClient()
	if before.GetPort() == 0 || before.GetPort() != after.GetPort() {
		t.Errorf("port %d, then %d", before.GetPort(), after.GetPort())
	}
	if before.GetAuthMechanism() != "" || after.GetAuthMechanism() != "PLAIN" {
		t.Errorf("mechanism %q, then %q", before.GetAuthMechanism(), after.GetAuthMechanism())
	}
}

// A recipient that a filter holds or discards when it is named has no say over
// the others; recipients that a filter adds do not take a client's index.
func TestRecipientsOneByOne(t *testing.T) {
	w := &witness{answer: func(c *v1.FilterCall) *v1.FilterReply {
		r := c.GetEnvelope().GetRecipients()[len(c.GetEnvelope().GetRecipients())-1]
		switch r.GetAddress() {
		case "meg@ryan.example":
			return &v1.FilterReply{
				Verdict: &v1.Verdict{Action: v1.Verdict_HOLD, Reason: "she is asked first"},
				Edits:   []*v1.Edit{{Edit: &v1.Edit_AddRecipient_{AddRecipient: &v1.Edit_AddRecipient{Recipient: &v1.Recipient{Address: "archive@ryan.example"}}}}},
			}
		case "joe@ryan.example":
			return &v1.FilterReply{Verdict: &v1.Verdict{Action: v1.Verdict_DISCARD}}
		}
		return nil
	}}
	r := newRig(t, func(p *Policy, _ *server.Config) { p.Filters = w.chain(v1.FilterInterest_EDIT, v1.FilterEvent_RCPT) })
	if got := code(send(r.client(t), "tom@hanks.example", text, "meg@ryan.example", "joe@ryan.example", "margaret@ryan.example")); got != "ok" {
		t.Fatal(got)
	}
	env, _ := r.queue.last(t)
	var got []string
	for _, q := range env.Recipients {
		got = append(got, q.Address+" "+q.State.String())
	}
	if s := strings.Join(got, ", "); s != "meg@ryan.example held, archive@ryan.example waiting, margaret@ryan.example waiting" {
		t.Errorf("queued: %s", s)
	}
}

// fed keeps what observers would hear.
type fed struct {
	queue.Feed
	mu sync.Mutex
	os []*v1.Observation
}

func (f *fed) Observe(os ...*v1.Observation) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.os = append(f.os, os...)
	return nil
}

func TestRefusalsAreObserved(t *testing.T) {
	w := &witness{answer: func(*v1.FilterCall) *v1.FilterReply {
		return &v1.FilterReply{Verdict: &v1.Verdict{Action: v1.Verdict_REJECT, Reply: &v1.SMTPReply{Code: 550, Text: "no thanks"}}}
	}}
	r := newRig(t, func(p *Policy, _ *server.Config) {
		p.Filters = w.chain(v1.FilterInterest_JUDGE, v1.FilterEvent_MESSAGE)
	})
	feed := &fed{}
	r.b.Feed = feed
	c := r.client(t)
	if err := c.Mail("tom@hanks.example", nil); err != nil {
		t.Fatal(err)
	}
	_ = c.Rcpt("ghost@ryan.example", nil)
	if err := c.Reset(); err != nil {
		t.Fatal(err)
	}
	_ = send(c, "tom@hanks.example", text, "meg@ryan.example")
	feed.mu.Lock()
	defer feed.mu.Unlock()
	var got []string
	for _, o := range feed.os {
		got = append(got, o.GetWhat().String()+" "+o.GetBy()+" "+o.GetReason())
	}
	if s := strings.Join(got, "; "); s != "REFUSED receive.smtp.mx No such user here; REFUSED filter.test.witness no thanks" {
		t.Errorf("observed: %s", s)
	}
}

// A filter's own message is queued with the mail, or the mail is not.
func TestInjectedMessages(t *testing.T) {
	w := &witness{answer: func(*v1.FilterCall) *v1.FilterReply {
		return &v1.FilterReply{Inject: []*v1.Injection{{
			Recipients: []*v1.Recipient{{Address: "tom@hanks.example"}},
			Message:    &v1.MessageRef{Where: &v1.MessageRef_Inline{Inline: []byte("Subject: out of office\n\nback soon\n")}},
		}}}
	}}
	r := newRig(t, func(p *Policy, _ *server.Config) {
		p.Filters = w.chain(v1.FilterInterest_JUDGE, v1.FilterEvent_MESSAGE)
	})
	if got := code(send(r.client(t), "tom@hanks.example", text, "meg@ryan.example")); got != "ok" {
		t.Fatal(got)
	}
	if len(r.queue.env) != 2 || r.queue.env[0].Origin != "filter.test.witness" || r.queue.text[0] != "Subject: out of office\r\n\r\nback soon\r\n" {
		t.Errorf("queued: %v %q", r.queue.env, r.queue.text)
	}
	r.queue.err = queue.ErrFull
	if got := code(send(r.client(t), "tom@hanks.example", text, "meg@ryan.example")); got != "452 4.3.1" {
		t.Errorf("on a full disk: %s", got)
	}
}
