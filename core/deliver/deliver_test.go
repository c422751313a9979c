package deliver_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-smtp"

	"github.com/stagecoach-mta/stagecoach/core/deliver"
	"github.com/stagecoach-mta/stagecoach/core/deliver/nexthop"
	"github.com/stagecoach-mta/stagecoach/core/queue"
	"github.com/stagecoach-mta/stagecoach/core/spool"
	"github.com/stagecoach-mta/stagecoach/sdk/fail"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
	"github.com/stagecoach-mta/stagecoach/sdk/storage"
)

func job(to ...*queue.Recipient) *deliver.Job {
	for i, r := range to {
		r.Index = int32(10 * i) // an index is no position
	}
	return &deliver.Job{
		Envelope: &queue.Envelope{
			ID: "0wqM", Sender: "tom@hanks.example", Recipients: to, Received: time.UnixMilli(1772366400000),
			Parameters: &v1.MailParameters{Body: "8BITMIME", Smtputf8: true, DsnReturn: "HDRS", EnvelopeId: "QQ+314=159"},
		},
		Recipients: to, Body: spool.FromBytes([]byte("Subject: hello\r\n\r\nhello\r\n")), Key: "0wqM/deliver.smtp.internet",
	}
}

// brief is the outcomes for comparison.
func brief(outs []deliver.Outcome) string {
	var s []string
	for _, o := range outs {
		s = append(s, fmt.Sprintf("%d: %s %d %s %q", o.Index, o.State(), o.Attempt.Code, o.Attempt.Enhanced, o.Attempt.Text))
	}
	return strings.Join(s, "\n")
}

// peer is a go-smtp server that keeps the parameters that it was given.
type peer struct {
	addr string
	mu   sync.Mutex
	mail []smtp.MailOptions
	rcpt map[string]smtp.RcptOptions
}

type session struct{ p *peer }

func (p *peer) NewSession(*smtp.Conn) (smtp.Session, error) { return &session{p}, nil }
func (*session) Reset()                                     {}
func (*session) Logout() error                              { return nil }
func (s *session) Mail(_ string, o *smtp.MailOptions) error {
	s.p.mu.Lock()
	defer s.p.mu.Unlock()
	s.p.mail = append(s.p.mail, *o)
	return nil
}
func (s *session) Rcpt(to string, o *smtp.RcptOptions) error {
	switch {
	case strings.HasPrefix(to, "nobody@"):
		return &smtp.SMTPError{Code: 550, EnhancedCode: smtp.EnhancedCode{5, 1, 1}, Message: "no such user"}
	case strings.HasPrefix(to, "grey@"):
		return &smtp.SMTPError{Code: 450, EnhancedCode: smtp.EnhancedCode{4, 2, 0}, Message: "greylisted"}
	}
	s.p.mu.Lock()
	defer s.p.mu.Unlock()
	s.p.rcpt[to] = *o
	return nil
}
func (*session) Data(r io.Reader) error { _, err := io.Copy(io.Discard, r); return err }

func serve(t *testing.T, change func(*smtp.Server)) *peer {
	t.Helper()
	p := &peer{rcpt: map[string]smtp.RcptOptions{}}
	s := smtp.NewServer(p)
	s.Domain, s.EnableSMTPUTF8, s.EnableDSN = "mx.ryan.example", true, true
	s.ErrorLog = log.New(io.Discard, "", 0)
	if change != nil {
		change(s)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p.addr = l.Addr().String()
	done := make(chan struct{})
	go func() { s.Serve(l); close(done) }()
	t.Cleanup(func() { s.Close(); <-done })
	return p
}

func nextHop(t *testing.T, o nexthop.Options) *deliver.NextHop {
	o.LocalName = "mx.hanks.example"
	n := &deliver.NextHop{Transport: nexthop.New(o), ByDomain: len(o.Smarthost) == 0, Clock: time.Now}
	t.Cleanup(func() { _ = n.Close() })
	return n
}

// TestParametersAreCarriedOn: what the sender asked of us is asked of the next
// host, and who then owes the notice (RFC 3461 section 5.2).
func TestParametersAreCarriedOn(t *testing.T) {
	recipients := func() []*queue.Recipient {
		return []*queue.Recipient{
			{Address: "meg@ryan.example", Original: "rfc822;kathleen+x@ryan.example", Notify: []string{"SUCCESS", "DELAY"}},
			{Address: "never@ryan.example", Notify: []string{"NEVER"}},
			{Address: "plain@ryan.example"},
		}
	}
	with := serve(t, nil)
	outs := nextHop(t, nexthop.Options{Smarthost: []string{with.addr}}).Deliver(t.Context(), job(recipients()...))
	for _, o := range outs {
		if o.State() != queue.Delivered || o.Hand != deliver.DutyPassed {
			t.Errorf("%+v", o)
		}
	}
	if m := with.mail[0]; m.Body != smtp.Body8BitMIME || !m.UTF8 || m.Return != smtp.DSNReturnHeaders || m.EnvelopeID != "QQ+314=159" {
		t.Errorf("MAIL %+v", m)
	}
	if r := with.rcpt["meg@ryan.example"]; fmt.Sprint(r.Notify) != "[SUCCESS DELAY]" ||
		!strings.EqualFold(string(r.OriginalRecipientType), "rfc822") || r.OriginalRecipient != "kathleen+x@ryan.example" {
		t.Errorf("RCPT %+v", r)
	}
	if r := with.rcpt["never@ryan.example"]; fmt.Sprint(r.Notify) != "[NEVER]" || r.OriginalRecipient != "" {
		t.Errorf("RCPT %+v", r)
	}
	if r := with.rcpt["plain@ryan.example"]; len(r.Notify) != 0 {
		t.Errorf("RCPT %+v", r)
	}

	without := serve(t, func(s *smtp.Server) { s.EnableDSN, s.EnableSMTPUTF8 = false, false })
	for _, o := range nextHop(t, nexthop.Options{Smarthost: []string{without.addr}}).Deliver(t.Context(), job(recipients()...)) {
		if o.State() != queue.Delivered || o.Hand != deliver.Relayed {
			t.Errorf("%+v", o)
		}
	}
	if m := without.mail[0]; m.Return != "" || m.EnvelopeID != "" || m.UTF8 {
		t.Errorf("a server that does not know them got %+v", m)
	}
}

func TestRecipientsAreKeptApart(t *testing.T) {
	p := serve(t, nil)
	outs := nextHop(t, nexthop.Options{Smarthost: []string{p.addr}}).Deliver(t.Context(), job(
		&queue.Recipient{Address: "nobody@ryan.example"}, &queue.Recipient{Address: "meg@ryan.example"}, &queue.Recipient{Address: "grey@ryan.example"},
	))
	states := ""
	for _, o := range outs {
		states += fmt.Sprintf("%d %s %d %s, ", o.Index, o.State(), o.Attempt.Code, o.Attempt.Enhanced)
	}
	if states != "0 failed 550 5.1.1, 10 delivered 250 2.0.0, 20 waiting 450 4.2.0, " {
		t.Error(states)
	}
	if a := outs[0].Attempt; a.RemoteMTA != "127.0.0.1" || a.Text != "no such user" || a.At.IsZero() {
		t.Errorf("%+v", a)
	}
	if deliver.Unreachable(outs) != "" {
		t.Error("a server that answers is called unreachable")
	}
}

// TestHintsOfTheEnvelope reach the next hop.
func TestHintsOfTheEnvelope(t *testing.T) {
	p := serve(t, nil)
	n := nextHop(t, nexthop.Options{}) // no DNS: nothing but the hint leads anywhere
	j := job(&queue.Recipient{Address: "meg@ryan.example"})
	j.Envelope.Hints = &v1.RouteHints{NextHop: p.addr}
	if outs := n.Deliver(t.Context(), j); outs[0].State() != queue.Delivered {
		t.Errorf("%+v", outs)
	}
	j.Envelope.Hints.TlsLevel = "verify" // the server offers no TLS
	if outs := n.Deliver(t.Context(), j); outs[0].State() != queue.Waiting || outs[0].Attempt.Enhanced != "4.7.4" {
		t.Errorf("%+v", outs)
	}
}

func TestDestination(t *testing.T) {
	n := &deliver.NextHop{ByDomain: true}
	for addr, want := range map[string]string{
		"meg@Ryan.Example": "ryan.example", `"a@b"@ryan.example`: "ryan.example", "meg@[192.0.2.1]": "[192.0.2.1]", "nonsense": "nonsense",
	} {
		if got := n.Destination(addr); got != want {
			t.Errorf("%s: %q, want %q", addr, got, want)
		}
	}
	if n.ByDomain = false; n.Destination("meg@ryan.example") != n.Destination("tom@hanks.example") {
		t.Error("one smarthost is two destinations")
	}
}

func TestNobodyThereIsUnreachable(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	outs := nextHop(t, nexthop.Options{Smarthost: []string{addr}}).Deliver(t.Context(), job(&queue.Recipient{Address: "meg@ryan.example"}))
	if why := deliver.Unreachable(outs); !strings.Contains(why, "refused") || outs[0].State() != queue.Waiting {
		t.Errorf("%q %+v", why, outs)
	}
}

// mailboxes is a storage that answers what the test says.
type mailboxes struct {
	storage.Storage
	got    *v1.DepositRequest
	answer *v1.DepositResponse
	err    error
}

func (m *mailboxes) Deposit(_ context.Context, r *v1.DepositRequest) (*v1.DepositResponse, error) {
	m.got = r
	return m.answer, m.err
}

func TestStorage(t *testing.T) {
	m := &mailboxes{answer: &v1.DepositResponse{Results: []*v1.DepositResponse_Result{
		{Key: 20, Problem: fail.ToProblem(fail.New(fail.OverQuota, "the mailbox is full"))},
		{Key: 0, Uid: 1},
		{Key: 10, Problem: fail.ToProblem(fail.New(fail.NoSpace, "the disk is full"))},
	}}}
	s := &deliver.Storage{To: m, DetailToFolder: true, Quota: func(_ context.Context, a string) int64 { return int64(len(a)) }}
	outs := s.Deliver(t.Context(), job(
		&queue.Recipient{Address: "meg+lists@ryan.example", Account: "meg@ryan.example", Detail: "lists"},
		&queue.Recipient{Address: "joe+../../etc@ryan.example", Account: "joe@ryan.example", Detail: "../../etc"},
		&queue.Recipient{Address: "annie@ryan.example"},
		&queue.Recipient{Address: "george@ryan.example"},
	))
	var targets []string
	for _, x := range m.got.GetTargets() {
		targets = append(targets, fmt.Sprintf("%d %s %q %s %d", x.GetKey(), x.GetAccount(), x.GetMailbox(), x.GetRecipient(), x.GetQuotaBytes()))
	}
	if got, want := strings.Join(targets, "\n"), `0 meg@ryan.example "lists" meg+lists@ryan.example 22
10 joe@ryan.example "" joe+../../etc@ryan.example 26
20 annie@ryan.example "" annie@ryan.example 18
30 george@ryan.example "" george@ryan.example 19`; got != want {
		t.Errorf("targets\n%s\nwant\n%s", got, want)
	}
	if m.got.GetQueueId() != "0wqM" || m.got.GetReturnPath() != "tom@hanks.example" || m.got.GetReceivedMs() != 1772366400000 {
		t.Errorf("request %v", m.got)
	}
	if got, want := brief(outs), `0: delivered 250 2.1.5 "stored"
10: waiting 452 4.3.1 "Insufficient storage"
20: waiting 452 4.2.2 "Mailbox full"
30: waiting 451 4.3.0 "the storage said nothing of this recipient"`; got != want {
		t.Errorf("outcomes\n%s\nwant\n%s", got, want)
	}

	m.answer, m.err = nil, errors.New("the plugin crashed")
	for _, o := range s.Deliver(t.Context(), job(&queue.Recipient{Address: "meg@ryan.example"})) {
		if o.State() != queue.Waiting || o.Attempt.Text != "the plugin crashed" {
			t.Errorf("%+v", o)
		}
	}
}

type plugin func(context.Context, *v1.DeliverCall) (*v1.DeliverReply, error)

func (p plugin) Deliver(ctx context.Context, c *v1.DeliverCall) (*v1.DeliverReply, error) {
	return p(ctx, c)
}

func TestPlugin(t *testing.T) {
	outcome := func(index int32, code int32, enhanced, text string) *v1.DeliverOutcome {
		return &v1.DeliverOutcome{Recipient: index, Reply: &v1.SMTPReply{Code: code, Enhanced: enhanced, Text: text}, RetryAfterMs: 2000}
	}
	p := &deliver.Plugin{To: plugin(func(_ context.Context, c *v1.DeliverCall) (*v1.DeliverReply, error) {
		if c.GetIdempotencyKey() != "0wqM/deliver.smtp.internet" || len(c.GetEnvelope().GetRecipients()) != 5 {
			t.Errorf("call %v", c)
		}
		return &v1.DeliverReply{Outcomes: []*v1.DeliverOutcome{
			outcome(30, 354, "", "go on"), outcome(0, 250, "", "done"), outcome(10, 550, "5.1.1", "no such user"),
			outcome(20, 0, "", "what?"), outcome(7, 250, "", "nobody asked for this one"),
		}}, nil
	})}
	var to []*queue.Recipient
	for i := range 5 {
		to = append(to, &queue.Recipient{Address: fmt.Sprintf("u%d@ryan.example", i)})
	}
	outs := p.Deliver(t.Context(), job(to...))
	if got, want := brief(outs), `0: delivered 250 2.0.0 "done"
10: failed 550 5.1.1 "no such user"
20: waiting 451 4.3.0 "what?"
30: waiting 451 4.3.0 "go on"
40: waiting 451 4.3.0 "the plugin said nothing of this recipient"`; got != want {
		t.Errorf("outcomes\n%s\nwant\n%s", got, want)
	}
	if outs[1].RetryAfter != 2*time.Second {
		t.Errorf("retry after %v", outs[1].RetryAfter)
	}

	slow := &deliver.Plugin{Timeout: time.Millisecond, To: plugin(func(ctx context.Context, _ *v1.DeliverCall) (*v1.DeliverReply, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	})}
	if outs := slow.Deliver(t.Context(), job(&queue.Recipient{Address: "meg@ryan.example"})); outs[0].State() != queue.Waiting {
		t.Errorf("a plugin that does not answer: %+v", outs)
	}
}
