package receive

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/textproto"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"
	"github.com/rs/zerolog"
	"github.com/xdg-go/scram"

	"github.com/stagecoach-mta/stagecoach/core/directory"
	"github.com/stagecoach-mta/stagecoach/core/dispatch"
	"github.com/stagecoach-mta/stagecoach/core/filter"
	"github.com/stagecoach-mta/stagecoach/core/message"
	"github.com/stagecoach-mta/stagecoach/core/queue"
	"github.com/stagecoach-mta/stagecoach/core/smtp/server"
	"github.com/stagecoach-mta/stagecoach/core/spool"
	"github.com/stagecoach-mta/stagecoach/sdk/fail"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// people is a directory for ryan.example; everybody's password is sleepless.
type people struct{ down bool }

func (p *people) Resolve(_ context.Context, r *v1.ResolveRequest) (*v1.ResolveResponse, error) {
	if p.down {
		return nil, fail.New(fail.Unavailable, "the source is down")
	}
	switch a := strings.ToLower(r.GetAddress()); {
	case a == "meg@ryan.example", a == "joe@ryan.example":
		return &v1.ResolveResponse{Result: v1.ResolveResponse_MAILBOX, Account: a}, nil
	case a == "margaret@ryan.example":
		return &v1.ResolveResponse{Result: v1.ResolveResponse_ALIAS, Targets: []string{"meg@ryan.example"}}, nil
	case a == "dangling@ryan.example":
		return &v1.ResolveResponse{Result: v1.ResolveResponse_ALIAS, Targets: []string{"ghost@ryan.example"}}, nil
	case a == "postmaster@ryan.example":
		return &v1.ResolveResponse{Result: v1.ResolveResponse_MAILBOX, Account: "meg@ryan.example"}, nil
	case strings.HasSuffix(a, "@ryan.example"):
		return &v1.ResolveResponse{Result: v1.ResolveResponse_NO_SUCH_USER}, nil
	}
	return &v1.ResolveResponse{}, nil
}

func (p *people) Authenticate(_ context.Context, r *v1.AuthenticateRequest) (*v1.AuthenticateResponse, error) {
	if p.down {
		return nil, fail.New(fail.Unavailable, "the source is down")
	}
	if r.GetPassword() != "sleepless" || r.GetUsername() != "meg@ryan.example" {
		return nil, fail.New(fail.Denied, "wrong user name or password")
	}
	return &v1.AuthenticateResponse{Account: "meg@ryan.example"}, nil
}

func (p *people) Credentials(_ context.Context, r *v1.CredentialsRequest) (*v1.CredentialsResponse, error) {
	c, err := scram.SHA256.NewClient("meg@ryan.example", "sleepless", "")
	if err != nil {
		return nil, err
	}
	got, err := c.GetStoredCredentialsWithError(scram.KeyFactors{Salt: "salt of the earth", Iters: 4096})
	if err != nil {
		return nil, err
	}
	if r.GetUsername() != "meg@ryan.example" {
		got.StoredKey = bytes.Repeat([]byte{1}, 32)
	}
	return &v1.CredentialsResponse{
		Account: "meg@ryan.example", Salt: []byte(got.Salt), Iterations: int32(got.Iters), StoredKey: got.StoredKey, ServerKey: got.ServerKey,
	}, nil
}

func (p *people) Domains(context.Context, *v1.DomainsRequest) (*v1.DomainsResponse, error) {
	return &v1.DomainsResponse{Domains: []string{"ryan.example"}}, nil
}

// kept is a queue that keeps envelopes and bytes; only Put is used here.
type kept struct {
	queue.Queue
	mu   sync.Mutex
	env  []*queue.Envelope
	text []string
	err  error
}

func (k *kept) Put(_ context.Context, e *queue.Envelope, b spool.Body) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.err != nil {
		return k.err
	}
	r, err := b.Open()
	if err != nil {
		return err
	}
	defer r.Close()
	var buf bytes.Buffer
	if _, err := buf.ReadFrom(r); err != nil {
		return err
	}
	e.ID = "Q1"
	k.env, k.text = append(k.env, e), append(k.text, buf.String())
	return nil
}

func (k *kept) last(t *testing.T) (*queue.Envelope, string) {
	t.Helper()
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.env) == 0 {
		t.Fatal("nothing was queued")
	}
	return k.env[len(k.env)-1], k.text[len(k.text)-1]
}

type told struct{ about []dispatch.Reported }

func (r *told) Report(_ *queue.Envelope, _ spool.Body, about []dispatch.Reported) (*queue.NewMessage, error) {
	r.about = append(r.about, about...)
	return nil, nil
}

// judge is a filter that answers MESSAGE.
type judge struct{ reply *v1.FilterReply }

func (j judge) Call(context.Context, *v1.Call) (*v1.Reply, error) {
	return &v1.Reply{Response: &v1.Reply_Filter{Filter: j.reply}}, nil
}

func (j judge) Stream(context.Context, *v1.Call, func(*v1.Reply) error) error {
	return errors.New("filters do not stream")
}

func chain(event v1.FilterEvent, r *v1.FilterReply) filter.Chain {
	in := &v1.FilterInterest{Events: []v1.FilterEvent{event}, Effect: v1.FilterInterest_JUDGE}
	return filter.Chain{{Name: "filter.test.judge", Caller: judge{r}, Interest: func() *v1.FilterInterest { return in }}}
}

type rig struct {
	addr   string
	people *people
	queue  *kept
	told   *told
	policy *Policy
	b      *Backend
}

func newRig(t *testing.T, change func(*Policy, *server.Config)) *rig {
	t.Helper()
	r := &rig{people: &people{}, queue: &kept{}, told: &told{}}
	dir, err := spool.OpenDir(vfs.NewMem(), "spool")
	if err != nil {
		t.Fatal(err)
	}
	set := directory.NewSet([]directory.Named{{Ref: "directory.file.people", Directory: r.people}})
	r.policy = &Policy{
		Ref: "receive.smtp.mx", Hostname: "mx.ryan.example", Editing: message.Editor{Dir: dir}, Recipients: set, Auth: r.people,
		SenderCheck: true, MaxHops: 5, Reports: r.told, Log: zerolog.Nop(),
	}
	cfg := server.DefaultConfig()
	cfg.Hostname, cfg.AllowInsecureAuth, cfg.Auth = "mx.ryan.example", true, Mechanisms
	if change != nil {
		change(r.policy, &cfg)
	}
	r.b = &Backend{Spool: dir, Queue: r.queue, Clock: time.Now}
	r.b.SetPolicy(r.policy)
	srv := server.New(cfg, r.b)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- srv.Serve(ln) }()
	t.Cleanup(func() {
		srv.Close()
		<-done
	})
	r.addr = ln.Addr().String()
	return r
}

func (r *rig) client(t *testing.T) *smtp.Client {
	t.Helper()
	c, err := smtp.Dial(r.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func code(err error) string {
	var se *smtp.SMTPError
	if errors.As(err, &se) {
		return strings.TrimSpace(strings.Join([]string{itoa(se.Code), enhancedText(se.EnhancedCode)}, " "))
	}
	if err != nil {
		return err.Error()
	}
	return "ok"
}

func itoa(n int) string {
	return string([]byte{byte('0' + n/100), byte('0' + n/10%10), byte('0' + n%10)})
}

func send(c *smtp.Client, from, text string, to ...string) error {
	if err := c.Mail(from, nil); err != nil {
		return err
	}
	for _, a := range to {
		if err := c.Rcpt(a, nil); err != nil {
			return err
		}
	}
	w, err := c.Data()
	if err != nil {
		return err
	}
	if _, err := w.Write([]byte(text)); err != nil {
		return err
	}
	return w.Close()
}

const text = "From: tom@hanks.example\r\nSubject: hi\r\n\r\nHello\r\n"

func TestRecipients(t *testing.T) {
	r := newRig(t, func(p *Policy, _ *server.Config) { p.RelayDomains = []string{"inside.example", ".branch.example"} })
	c := r.client(t)
	if err := c.Mail("tom@hanks.example", nil); err != nil {
		t.Fatal(err)
	}
	for address, want := range map[string]string{
		"meg@ryan.example": "ok", "Margaret@Ryan.example": "ok", "nobody@ryan.example": "550 5.1.1", "dangling@ryan.example": "550 5.1.1",
		"annie@reed.example": "554 5.7.1", "x@inside.example": "ok", "x@a.branch.example": "ok", "x@branch.example": "554 5.7.1",
		"x@notinside.example": "554 5.7.1",
	} {
		if got := code(c.Rcpt(address, nil)); got != want {
			t.Errorf("RCPT %s: %s, want %s", address, got, want)
		}
	}
	r.people.down = true
	if got := code(c.Rcpt("joe@ryan.example", nil)); got != "451 4.3.0" {
		t.Errorf("with the directory down: %s, want 451", got)
	}
}

func TestPostmasterWithoutDomain(t *testing.T) {
	r := newRig(t, nil)
	c, err := textproto.Dial("tcp", r.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for _, l := range []string{"", "EHLO client.example", "MAIL FROM:<>", "RCPT TO:<Postmaster>"} {
		if l != "" {
			if err := c.PrintfLine("%s", l); err != nil {
				t.Fatal(err)
			}
		}
		if _, _, err := c.ReadResponse(2); err != nil {
			t.Fatalf("%q: %v", l, err)
		}
	}
}

func TestWhoMayRelay(t *testing.T) {
	r := newRig(t, func(p *Policy, _ *server.Config) { p.RelayFrom = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")} })
	if got := code(send(r.client(t), "tom@hanks.example", text, "annie@reed.example")); got != "ok" {
		t.Errorf("from a named network: %s", got)
	}
	r = newRig(t, nil)
	c := r.client(t)
	if err := c.Auth(sasl.NewPlainClient("", "meg@ryan.example", "sleepless")); err != nil {
		t.Fatal(err)
	}
	if got := code(send(c, "meg@ryan.example", text, "annie@reed.example")); got != "ok" {
		t.Errorf("authenticated: %s", got)
	}
	for from, want := range map[string]string{
		"margaret@ryan.example": "ok", "": "ok", "joe@ryan.example": "553 5.7.1", "tom@hanks.example": "553 5.7.1",
	} {
		if got := code(c.Mail(from, nil)); got != want {
			t.Errorf("meg sends as %q: %s, want %s", from, got, want)
		}
		if err := c.Reset(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestLogin(t *testing.T) {
	r := newRig(t, nil)
	if got := code(r.client(t).Auth(sasl.NewPlainClient("", "meg@ryan.example", "wrong"))); got != "535 5.7.8" {
		t.Errorf("wrong password: %s", got)
	}
	if got := code(r.client(t).Auth(sasl.NewLoginClient("meg@ryan.example", "sleepless"))); got != "ok" {
		t.Errorf("LOGIN: %s", got)
	}
	for user, want := range map[string]bool{"meg@ryan.example": true, "joe@ryan.example": false} {
		sc, err := scram.SHA256.NewClient(user, "sleepless", "")
		if err != nil {
			t.Fatal(err)
		}
		err = r.client(t).Auth(&scramClient{conv: sc.NewConversation()})
		if (err == nil) != want {
			t.Errorf("SCRAM as %s: %v", user, err)
		}
	}
	r.people.down = true
	if got := code(r.client(t).Auth(sasl.NewPlainClient("", "meg@ryan.example", "sleepless"))); got != "454 4.7.0" {
		t.Errorf("directory down: %s", got)
	}
}

type scramClient struct{ conv *scram.ClientConversation }

func (s *scramClient) Start() (string, []byte, error) {
	first, err := s.conv.Step("")
	return "SCRAM-SHA-256", []byte(first), err
}

func (s *scramClient) Next(challenge []byte) ([]byte, error) {
	out, err := s.conv.Step(string(challenge))
	return []byte(out), err
}

func TestTraceAndSubmissionFields(t *testing.T) {
	r := newRig(t, nil)
	if err := send(r.client(t), "tom@hanks.example", text, "meg@ryan.example"); err != nil {
		t.Fatal(err)
	}
	env, got := r.queue.last(t)
	if !strings.HasPrefix(got, "Received: from ") || !strings.HasSuffix(got, text) || !strings.Contains(got, "for <meg@ryan.example>") {
		t.Errorf("queued:\n%s", got)
	}
	if env.Sender != "tom@hanks.example" || env.Subject != "hi" || env.Recipients[0].Account != "meg@ryan.example" || env.Client.GetProtocol() != "ESMTP" {
		t.Errorf("envelope %+v", env)
	}
	if strings.Contains(got, "Message-ID:") {
		t.Error("a relayed message was given a Message-ID")
	}
	c := r.client(t)
	if err := c.Auth(sasl.NewPlainClient("", "meg@ryan.example", "sleepless")); err != nil {
		t.Fatal(err)
	}
	if err := send(c, "meg@ryan.example", text, "joe@ryan.example", "annie@reed.example"); err != nil {
		t.Fatal(err)
	}
	env, got = r.queue.last(t)
	head, _, _ := strings.Cut(got, "\r\n\r\n")
	if !strings.HasPrefix(got, "Received: ") || !strings.Contains(head, "\r\nMessage-ID: <") || !strings.Contains(head, "\r\nDate: ") || env.MessageID == "" {
		t.Errorf("submitted:\n%s", got)
	}
	if strings.Contains(head, "for <") {
		t.Error("with two recipients, the Received field names one")
	}
}

func TestLoop(t *testing.T) {
	r := newRig(t, nil)
	looped := strings.Repeat("Received: from a by b; Tue, 24 Nov 2026 12:00:00 +0000\r\n", 5) + text
	if got := code(send(r.client(t), "tom@hanks.example", looped, "meg@ryan.example")); got != "554 5.4.6" {
		t.Fatalf("a looping mail: %s", got)
	}
}

func TestVerdictsOfAMessage(t *testing.T) {
	verdict := func(a v1.Verdict_Action) *v1.FilterReply {
		return &v1.FilterReply{Verdict: &v1.Verdict{Action: a, Reason: "because"}}
	}
	for action, want := range map[v1.Verdict_Action]string{
		v1.Verdict_ACCEPT: "ok", v1.Verdict_REJECT: "550 5.7.1", v1.Verdict_DEFER: "451 4.7.1", v1.Verdict_DISCARD: "ok",
		v1.Verdict_HOLD: "ok", v1.Verdict_DISCONNECT: "421 4.7.0",
	} {
		r := newRig(t, func(p *Policy, _ *server.Config) { p.Filters = chain(v1.FilterEvent_MESSAGE, verdict(action)) })
		if got := code(send(r.client(t), "tom@hanks.example", text, "meg@ryan.example")); got != want {
			t.Errorf("%s: %s, want %s", action, got, want)
		}
		queued := len(r.queue.env)
		if keep := action == v1.Verdict_ACCEPT || action == v1.Verdict_HOLD; (queued == 1) != keep {
			t.Errorf("%s: %d queued", action, queued)
		}
		if action == v1.Verdict_HOLD {
			if env, _ := r.queue.last(t); env.Recipients[0].State != queue.Held || env.Recipients[0].Reason != "because" {
				t.Errorf("held: %+v", env.Recipients[0])
			}
		}
	}
}

func TestEarlyVerdicts(t *testing.T) {
	no := &v1.FilterReply{Verdict: &v1.Verdict{Action: v1.Verdict_REJECT, Reply: &v1.SMTPReply{Code: 554, Enhanced: "5.7.1", Text: "not you"}}}
	for event, at := range map[v1.FilterEvent]string{
		v1.FilterEvent_MAIL: "mail", v1.FilterEvent_RCPT: "rcpt", v1.FilterEvent_ENVELOPE: "data",
	} {
		r := newRig(t, func(p *Policy, _ *server.Config) { p.Filters = chain(event, no) })
		c := r.client(t)
		got := map[string]string{"mail": code(c.Mail("tom@hanks.example", nil))}
		got["rcpt"] = code(c.Rcpt("meg@ryan.example", nil))
		_, err := c.Data()
		got["data"] = code(err)
		if got[at] != "554 5.7.1" {
			t.Errorf("%s: %v", event, got)
		}
	}
	r := newRig(t, func(p *Policy, _ *server.Config) { p.Filters = chain(v1.FilterEvent_CONNECT, no) })
	if _, err := textproto.Dial("tcp", r.addr); err != nil {
		t.Fatal(err)
	}
	c, _ := textproto.Dial("tcp", r.addr)
	defer c.Close()
	if _, msg, err := c.ReadResponse(220); err == nil || !strings.Contains(err.Error(), "not you") {
		t.Errorf("CONNECT: %q %v", msg, err)
	}
}

func TestOneRecipientRefused(t *testing.T) {
	reply := &v1.FilterReply{PerRecipient: map[int32]*v1.Verdict{1: {Action: v1.Verdict_REJECT, Reply: &v1.SMTPReply{Code: 550, Enhanced: "5.7.1", Text: "joe does not want it"}}}}
	r := newRig(t, func(p *Policy, _ *server.Config) { p.Filters = chain(v1.FilterEvent_MESSAGE, reply) })
	if got := code(send(r.client(t), "tom@hanks.example", text, "meg@ryan.example", "joe@ryan.example")); got != "ok" {
		t.Fatalf("SMTP has one reply: %s", got)
	}
	env, _ := r.queue.last(t)
	if len(env.Recipients) != 1 || env.Recipients[0].Address != "meg@ryan.example" {
		t.Errorf("queued for %v", addresses(env))
	}
	if len(r.told.about) != 1 || r.told.about[0].Recipient.Address != "joe@ryan.example" {
		t.Errorf("the sender was told of %v", r.told.about)
	}
}

func TestLMTPRepliesPerRecipient(t *testing.T) {
	reply := &v1.FilterReply{PerRecipient: map[int32]*v1.Verdict{0: {Action: v1.Verdict_DEFER, Reply: &v1.SMTPReply{Code: 452, Enhanced: "4.2.2", Text: "full"}}}}
	r := newRig(t, func(p *Policy, c *server.Config) {
		c.LMTP = true
		p.Filters = chain(v1.FilterEvent_MESSAGE, reply)
	})
	conn, err := net.Dial("tcp", r.addr)
	if err != nil {
		t.Fatal(err)
	}
	c := smtp.NewClientLMTP(conn)
	defer c.Close()
	if err := c.Mail("tom@hanks.example", nil); err != nil {
		t.Fatal(err)
	}
	for _, a := range []string{"meg@ryan.example", "joe@ryan.example"} {
		if err := c.Rcpt(a, nil); err != nil {
			t.Fatal(err)
		}
	}
	w, err := c.Data()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	_, err = w.CloseWithLMTPResponse()
	var per smtp.LMTPDataError
	if !errors.As(err, &per) || per["meg@ryan.example"] == nil || per["joe@ryan.example"] != nil {
		t.Fatalf("LMTP: %v", err)
	}
	env, _ := r.queue.last(t)
	if len(env.Recipients) != 1 || env.Recipients[0].Address != "joe@ryan.example" || len(r.told.about) != 0 {
		t.Errorf("queued for %v, told %v", addresses(env), r.told.about)
	}
}

func TestQueueTrouble(t *testing.T) {
	r := newRig(t, nil)
	c := r.client(t)
	for err, want := range map[error]string{
		queue.ErrFull: "452 4.3.1", queue.ErrStopped: "451 4.3.0",
		fmt.Errorf("%w: write the log: %w", queue.ErrStopped, syscall.ENOSPC): "452 4.3.1",
	} {
		r.queue.err = err
		if got := code(send(c, "tom@hanks.example", text, "meg@ryan.example")); got != want {
			t.Errorf("%v: %s, want %s", err, got, want)
		}
	}
	r.queue.err = nil
	if got := code(send(c, "tom@hanks.example", text, "meg@ryan.example")); got != "ok" {
		t.Errorf("after it: %s", got)
	}
}

func TestPolicyChangesBetweenTransactions(t *testing.T) {
	r := newRig(t, nil)
	c := r.client(t)
	if got := code(send(c, "tom@hanks.example", text, "annie@reed.example")); got != "554 5.7.1" {
		t.Fatal(got)
	}
	p := *r.policy
	p.RelayDomains = []string{"reed.example"}
	r.b.SetPolicy(&p)
	if err := c.Reset(); err != nil {
		t.Fatal(err)
	}
	if got := code(send(c, "tom@hanks.example", text, "annie@reed.example")); got != "ok" {
		t.Fatalf("after the reload, on the same connection: %s", got)
	}
}
