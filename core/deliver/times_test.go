package deliver_test

import (
	"context"
	"io"
	"net"
	"testing"
	"time"

	"github.com/emersion/go-smtp"

	"github.com/stagecoach-mta/stagecoach/core/deliver"
	"github.com/stagecoach-mta/stagecoach/core/deliver/nexthop"
	"github.com/stagecoach-mta/stagecoach/core/queue"
	"github.com/stagecoach-mta/stagecoach/core/smtp/server"
)

// hop is another server of ours; it tells what MAIL said.
type hop struct{ mail chan server.MailOptions }

func (h *hop) NewSession(context.Context, *server.Conn) (server.Session, error) {
	return &hopSession{h: h}, nil
}

type hopSession struct{ h *hop }

func (*hopSession) Hello(context.Context, server.Hello) error { return nil }
func (s *hopSession) Mail(_ context.Context, _ server.Path, o *server.MailOptions) error {
	s.h.mail <- *o
	return nil
}
func (*hopSession) Rcpt(context.Context, server.Path, *smtp.RcptOptions) error { return nil }
func (*hopSession) Body(context.Context) (io.Writer, error)                    { return io.Discard, nil }
func (*hopSession) Done(context.Context) []server.Reply                        { return []server.Reply{server.OK("Queued")} }
func (*hopSession) Reset()                                                     {}
func (*hopSession) Close()                                                     {}

func ours(t *testing.T, change func(*server.Config)) (*hop, string) {
	t.Helper()
	h := &hop{mail: make(chan server.MailOptions, 1)}
	cfg := server.DefaultConfig()
	cfg.Hostname = "mx.ryan.example"
	change(&cfg)
	s := server.New(cfg, h)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	t.Cleanup(func() { s.Close(); <-done })
	return h, l.Addr().String()
}

// The priority and the time that is left go from one server of ours to the next,
// and who of them reports the relay.
func TestTimesAreCarriedOn(t *testing.T) {
	now := time.Now()
	for _, c := range []struct {
		name    string
		mode    string
		trace   bool
		change  func(*server.Config)
		state   queue.State
		hand    deliver.Hand
		carried bool
	}{
		{"both know it", "R", false, func(*server.Config) {}, queue.Delivered, deliver.DutyPassed, true},
		{"with a trace", "N", true, func(*server.Config) {}, queue.Delivered, deliver.Traced, true},
		{"to a server without it", "N", false, func(c *server.Config) { c.EnableDeliverBy = false }, queue.Delivered, deliver.Traced, false},
		{"not to a server without it", "R", false, func(c *server.Config) { c.EnableDeliverBy = false }, queue.Failed, deliver.Relayed, false},
	} {
		h, addr := ours(t, c.change)
		j := job(&queue.Recipient{Address: "meg@ryan.example"})
		j.Envelope.Priority = 4
		p := j.Envelope.Parameters
		p.DeliverByMs, p.DeliverByMode, p.DeliverByTrace = now.Add(time.Hour).UnixMilli(), c.mode, c.trace
		o := nextHop(t, nexthop.Options{Smarthost: []string{addr}}).Deliver(t.Context(), j)[0]
		if o.State() != c.state || c.state == queue.Delivered && o.Hand != c.hand || c.state == queue.Failed && o.Attempt.Enhanced != "5.3.3" {
			t.Errorf("%s: %+v", c.name, o)
		}
		if c.state != queue.Delivered {
			continue
		}
		got := <-h.mail
		if left := got.DeliverBy.Time; c.carried != (string(got.DeliverBy.Mode) == c.mode) || c.carried && (left > time.Hour || left < 50*time.Minute) ||
			got.DeliverBy.Trace != (c.carried && c.trace) || got.Priority != 4 {
			t.Errorf("%s: the next server heard %+v, priority %d", c.name, got.DeliverBy, got.Priority)
		}
	}
}
