package metrics

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"

	"github.com/stagecoach-mta/stagecoach/core/deliver"
	"github.com/stagecoach-mta/stagecoach/core/queue"
	"github.com/stagecoach-mta/stagecoach/core/smtp/server"
	"github.com/stagecoach-mta/stagecoach/core/spool"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
	"github.com/stagecoach-mta/stagecoach/sdk/stream"
)

// said is a session that answers what the test says.
type said struct {
	err     error
	replies []server.Reply
}

var (
	_ server.Session       = (*said)(nil)
	_ server.Authenticator = (*said)(nil)
)

func (s *said) NewSession(context.Context, *server.Conn) (server.Session, error) { return s, s.err }
func (s *said) Hello(context.Context, server.Hello) error                        { return s.err }
func (s *said) Mail(context.Context, server.Path, *server.MailOptions) error     { return s.err }
func (s *said) Rcpt(context.Context, server.Path, *smtp.RcptOptions) error       { return s.err }
func (s *said) Body(context.Context) (io.Writer, error)                          { return io.Discard, s.err }
func (s *said) Done(context.Context) []server.Reply                              { return s.replies }
func (s *said) Reset()                                                           {}
func (s *said) Close()                                                           {}
func (s *said) AuthPlain(context.Context, string, string, string, string) error  { return s.err }
func (s *said) AuthSASL(context.Context, string) (sasl.Server, error) {
	return sasl.NewPlainServer(func(_, _, _ string) error { return s.err }), nil
}

func TestListenersAreCounted(t *testing.T) {
	var (
		m       = New()
		ctx     = context.Background()
		s       = &said{}
		b       = m.Backend("receive.smtp.mx", s)
		code    = func(n int) error { return &smtp.SMTPError{Code: n} }
		reply   = func(n int) server.Reply { return server.NewReply(n, smtp.EnhancedCode{}, "") }
		sess, _ = b.NewSession(ctx, nil)
		auth    = sess.(server.Authenticator)
		mail    = func(err error) { s.err = err; _ = sess.Mail(ctx, server.Path{}, nil) }
		rcpt    = func(err error) { s.err = err; _ = sess.Rcpt(ctx, server.Path{}, nil) }
		login   = func(err error) { s.err = err; _ = auth.AuthPlain(ctx, "PLAIN", "", "", "") }
		done    = func(codes ...int) {
			s.err, s.replies = nil, nil
			for _, c := range codes {
				s.replies = append(s.replies, reply(c))
			}
			w, err := sess.Body(ctx)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := io.WriteString(w, "mail"); err != nil {
				t.Fatal(err)
			}
			if got := sess.Done(ctx); len(got) != len(codes) {
				t.Errorf("%d replies of %d", len(got), len(codes))
			}
			sess.Reset() // after Done it means nothing
		}
	)
	mail(nil)
	mail(code(550))
	mail(errors.New("a fault")) // answered 451
	rcpt(code(250))
	rcpt(code(452))
	done(250)
	done(550, 250, 451) // LMTP: one got it
	done(550, 451)
	done(550, 554)
	done()
	if _, err := sess.Body(ctx); err != nil {
		t.Fatal(err)
	}
	sess.Reset() // the client was gone
	s.err = code(554)
	if _, err := sess.Body(ctx); err == nil {
		t.Error("a refusal got lost")
	}
	login(nil)
	login(errors.New("wrong password"))
	login(code(454))
	s.err = nil
	x, err := auth.AuthSASL(ctx, "X")
	if err != nil {
		t.Fatal(err)
	}
	if _, isDone, err := x.Next([]byte("\x00a\x00b")); !isDone || err != nil {
		t.Error("the exchange did not end", err)
	}
	s.err = code(554)
	if _, err := b.NewSession(ctx, nil); err == nil {
		t.Error("a refusal got lost")
	}
	s.err = nil
	second, _ := b.NewSession(ctx, nil)
	second.Close()
	lines(t, m, "stagecoach_receive_", `
connections 1
connections_total 2
connections_refused_total 1
transactions_total accepted 1
transactions_total deferred 1
transactions_total refused 1
recipients_total accepted 1
recipients_total deferred 1
recipients_total refused 0
messages_total accepted 2
messages_total deferred 2
messages_total refused 2
messages_total aborted 1
bytes_total 20
logins_total accepted 2
logins_total deferred 1
logins_total refused 1
seconds_count 5
accept_seconds_count 5
`)
}

// lines compares families of one prefix with "name result value" lines; of histograms
// their counts.
func lines(t *testing.T, m *Meters, prefix, want string) {
	t.Helper()
	p := newPage()
	for _, v := range m.all() {
		v.collect(p)
	}
	got := map[string]bool{}
	for _, l := range strings.Split(text(t, p), "\n") {
		if !strings.HasPrefix(l, prefix) || strings.Contains(l, "_seconds_bucket") || strings.Contains(l, "_seconds_sum") {
			continue
		}
		series, value, _ := strings.Cut(l, "} ")
		name, labels, _ := strings.Cut(strings.TrimPrefix(series, prefix), "{")
		words := []string{name}
		for i, part := range strings.Split(labels, `"`) {
			if i%2 == 1 && part != "receive.smtp.mx" {
				words = append(words, part)
			}
		}
		got[strings.Join(append(words, value), " ")] = true
	}
	n := 0
	for _, l := range strings.Split(strings.TrimSpace(want), "\n") {
		n++
		if !got[l] {
			t.Errorf("no %q among %v", l, got)
		}
	}
	if n != len(got) {
		t.Errorf("%d series, want %d: %v", len(got), n, got)
	}
}

// journal is a queue that takes or refuses everything.
type journal struct {
	queue.Queue
	err error
}

func (j *journal) Put(context.Context, *queue.Envelope, spool.Body) error { return j.err }
func (j *journal) Commit(context.Context, *queue.Claim, []queue.Change, bool) error {
	return j.err
}

func TestOnlyWhatIsDurableIsCounted(t *testing.T) {
	var (
		m, ctx  = New(), context.Background()
		j       = &journal{}
		q       = m.Queue(j)
		changes = []queue.Change{
			{State: queue.Delivered, Deliver: "deliver.smtp.x"}, {State: queue.Failed, Deliver: "deliver.smtp.x", Enqueue: []*queue.NewMessage{{Envelope: &queue.Envelope{Origin: "dsn", Size: 9}}}},
			{State: queue.Waiting, Deliver: "deliver.smtp.x", Attempt: &queue.Attempt{}}, {State: queue.Waiting, Deliver: "deliver.smtp.x"},
			{State: queue.Held}, {State: queue.Expanded}, {State: queue.Discarded},
		}
		env = &queue.Envelope{Origin: "receive.smtp.mx", Size: 100}
	)
	for _, err := range []error{queue.ErrStopped, nil} {
		j.err = err
		if got := q.Put(ctx, env, nil); !errors.Is(got, err) {
			t.Errorf("Put: %v", got)
		}
		if got := q.Commit(ctx, nil, changes, false); !errors.Is(got, err) {
			t.Errorf("Commit: %v", got)
		}
	}
	lines(t, m, "stagecoach_queue_", "added_total 1\nadded_bytes_total 100\nadded_total dsn 1\nadded_bytes_total dsn 9\ncommit_seconds_count put 1\ncommit_seconds_count result 1\ncommit_seconds_count park 0\n")
	lines(t, m, "stagecoach_deliver_results", `
_total deliver.smtp.x delivered 1
_total deliver.smtp.x failed 1
_total deliver.smtp.x deferred 1
_total deliver.smtp.x postponed 1
_total  held 1
_total  expanded 1
_total  discarded 1
`)
}

// asked is a filter that answers what the test says.
type asked struct {
	stream.Caller
	reply *v1.Reply
	err   error
}

func (a *asked) Call(context.Context, *v1.Call) (*v1.Reply, error) { return a.reply, a.err }

func TestVerdictsAreCounted(t *testing.T) {
	m, a := New(), &asked{}
	c := m.Filter("filter.x.y", a)
	call := &v1.Call{Request: &v1.Call_Filter{Filter: &v1.FilterCall{Event: v1.FilterEvent_MESSAGE}}}
	for _, reply := range []*v1.Reply{
		{Response: &v1.Reply_Filter{Filter: &v1.FilterReply{Verdict: &v1.Verdict{Action: v1.Verdict_REJECT}}}},
		{Response: &v1.Reply_Filter{Filter: &v1.FilterReply{}}},
		{},
		nil,
	} {
		a.reply, a.err = reply, nil
		if reply == nil {
			a.err = errors.New("away")
		}
		if got, err := c.Call(context.Background(), call); got != reply || !errors.Is(err, a.err) {
			t.Errorf("%v, %v", got, err)
		}
	}
	lines(t, m, "stagecoach_filter_", "verdicts_total filter.x.y message reject 1\nverdicts_total filter.x.y message accept 1\nverdicts_total filter.x.y message failed 2\nseconds_count filter.x.y message 4")
}

func TestNoMetersChangeNothing(t *testing.T) {
	var m *Meters
	s, q, a := &said{}, &journal{}, &asked{}
	var tr deliver.Transport
	if m.Backend("x", s) != server.Backend(s) || m.Queue(q) != queue.Queue(q) || m.Filter("x", a) != stream.Caller(a) || m.Transport("x", tr) != tr {
		t.Error("nil meters wrapped something")
	}
}
