package ratelimit

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stagecoach-mta/stagecoach/sdk"
	"github.com/stagecoach-mta/stagecoach/sdk/filter"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
	"github.com/stagecoach-mta/stagecoach/sdk/sdktest"
)

// site is a filter whose clock stands until it is moved.
type site struct {
	*Filter
	t   *testing.T
	now time.Time
}

func newSite(t *testing.T, except []string, limits ...Limit) *site {
	t.Helper()
	c := defaults()
	c.Except, c.Limits = except, limits
	f, err := open(t.Context(), &sdk.Instance{Config: &c, Metrics: &sdk.Metrics{}})
	if err != nil {
		t.Fatal(err)
	}
	s := &site{Filter: f.(*Filter), t: t, now: time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)}
	s.Filter.now = func() time.Time { return s.now }
	return s
}

// ask counts n times and returns how many were taken.
func (s *site) ask(n int, call *v1.FilterCall, change func(*v1.Envelope)) (taken int) {
	s.t.Helper()
	if change != nil {
		change(call.Envelope)
	}
	for range n {
		v, err := s.Filter.Filter(context.Background(), filter.NewEvent(call))
		if err != nil {
			s.t.Fatal(err)
		}
		if v.Reply().GetVerdict().GetAction() == v1.Verdict_ACCEPT {
			taken++
		}
	}
	return taken
}

func (s *site) expect(what string, got, want int) {
	s.t.Helper()
	if got != want {
		s.t.Errorf("%s: %d taken, want %d", what, got, want)
	}
}

func TestWindowSlides(t *testing.T) {
	s := newSite(t, nil, Limit{Name: "senders", By: []string{"sender"}, Max: 10, Per: time.Hour, Count: "mails", Action: "defer"})
	s.expect("at once", s.ask(15, sdktest.Mail(), nil), 10)
	s.expect("another sender", s.ask(5, sdktest.Mail(), func(e *v1.Envelope) { e.Sender = "annie@reed.example" }), 5)
	s.now = s.now.Add(30 * time.Minute)
	s.expect("half an hour on", s.ask(5, sdktest.Mail(), nil), 0)
	s.now = s.now.Add(60 * time.Minute) // half of the ten lie within the last hour
	s.expect("in the next window", s.ask(20, sdktest.Mail(), nil), 5)
	s.now = s.now.Add(3 * time.Hour)
	s.expect("long after", s.ask(20, sdktest.Mail(), func(e *v1.Envelope) { e.Sender = "TOM@hanks.example" }), 10)
}

func TestKeys(t *testing.T) {
	for _, c := range []struct {
		by      string
		other   func(*v1.Envelope) // of which it is counted apart
		same    func(*v1.Envelope) // of which not
		without func(*v1.Envelope) // what is not counted
	}{
		{"user", func(e *v1.Envelope) { e.Client.User = "annie" }, func(e *v1.Envelope) { e.Client.User = "tom"; e.Sender = "x@y.example" }, func(e *v1.Envelope) {}},
		{"sender_domain", func(e *v1.Envelope) { e.Sender = "tom@reed.example" }, func(e *v1.Envelope) { e.Sender = "joe@Hanks.Example" }, func(e *v1.Envelope) { e.Sender = "" }},
		{"address", func(e *v1.Envelope) { e.Client.Ip = "192.0.2.2" }, func(e *v1.Envelope) { e.Client.Ip = "::ffff:192.0.2.1" }, func(e *v1.Envelope) { e.Client.Ip = "" }},
		{"network", func(e *v1.Envelope) { e.Client.Ip = "198.51.100.1" }, func(e *v1.Envelope) { e.Client.Ip = "192.0.2.200" }, func(e *v1.Envelope) { e.Client.Ip = "" }},
		{"hello", func(e *v1.Envelope) { e.Client.Hello = "x.example" }, func(e *v1.Envelope) { e.Client.Hello = "MX.Hanks.example" }, func(e *v1.Envelope) { e.Client.Hello = "" }},
	} {
		s := newSite(t, nil, Limit{Name: "one", By: []string{c.by}, Max: 3, Per: time.Hour, Count: "mails", Action: "reject"})
		first := func(e *v1.Envelope) {
			if c.by == "user" {
				e.Client.User = "Tom"
			}
		}
		s.expect(c.by, s.ask(4, sdktest.Mail(), first), 3)
		s.expect(c.by+" the same", s.ask(4, sdktest.Mail(), c.same), 0)
		s.expect(c.by+" another", s.ask(4, sdktest.Mail(), c.other), 3)
		s.expect(c.by+" without", s.ask(4, sdktest.Mail(), c.without), 4)
	}
	s := newSite(t, nil, Limit{Name: "one", By: []string{"recipient_domain"}, Max: 3, Per: time.Hour, Count: "recipients", Action: "defer"},
		Limit{Name: "two", By: []string{"network", "recipient"}, Max: 1, Per: time.Hour, Count: "recipients", Action: "tag"})
	s.expect("recipients", s.ask(5, sdktest.Rcpt("meg@ryan.example"), nil), 3)
	s.expect("of the domain", s.ask(5, sdktest.Rcpt("joe@Ryan.Example"), nil), 0)
	s.expect("mails are not recipients", s.ask(5, sdktest.Mail(), nil), 5)
	s6 := newSite(t, []string{"192.0.2.1", "198.51.100.0/24"}, Limit{Name: "one", By: []string{"address"}, Max: 1, Per: time.Hour, Count: "mails", Action: "defer"})
	s6.expect("an address that is excepted", s6.ask(3, sdktest.Mail(), nil), 3)
	s6.expect("a network that is", s6.ask(3, sdktest.Mail(), func(e *v1.Envelope) { e.Client.Ip = "198.51.100.77" }), 3)
	s6.expect("IPv6", s6.ask(3, sdktest.Mail(), func(e *v1.Envelope) { e.Client.Ip = "2001:db8::1" }), 1)
	s6.expect("IPv6, its neighbour", s6.ask(3, sdktest.Mail(), func(e *v1.Envelope) { e.Client.Ip = "2001:db8::2" }), 0)
}

// TestBounded: strangers cannot have it keep more counters than max_keys, and the
// one in use stays.
func TestBounded(t *testing.T) {
	s := newSite(t, nil, Limit{Name: "senders", By: []string{"sender"}, Max: 2, Per: time.Hour, Count: "mails", Action: "defer"})
	s.windows.most = 100
	s.expect("tom", s.ask(3, sdktest.Mail(), nil), 2)
	for i := range 1000 {
		s.ask(1, sdktest.Mail(), func(e *v1.Envelope) { e.Sender = fmt.Sprintf("s%d@hanks.example", i) })
		if i%50 == 0 {
			s.expect("tom", s.ask(1, sdktest.Mail(), nil), 0)
		}
	}
	if n := len(s.windows.byKey); n != 100 || s.windows.used.Len() != n {
		t.Errorf("%d counters are kept", n)
	}
}

// TestAtOnce: however many ask at the same time, no more are taken.
func TestAtOnce(t *testing.T) {
	s := newSite(t, nil, Limit{Name: "senders", By: []string{"sender"}, Max: 50, Per: time.Hour, Count: "mails", Action: "defer"})
	var taken atomic.Int64
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() { taken.Add(int64(s.ask(20, sdktest.Mail(), nil))) })
	}
	wg.Wait()
	s.expect("eight at once", int(taken.Load()), 50)
}

func TestReplies(t *testing.T) {
	filter := sdktest.Filter(t, Plugin(), `
limit "few" {
  by  = ["sender"]
  max = 1
}
limit "none" {
  by     = ["address"]
  max    = 2
  action = "reject"
  reply  = "Enough"
}
limit "seen" {
  by     = ["network"]
  max    = 1
  action = "tag"
}`)
	ask := func(sender, want, tags string) {
		t.Helper()
		call := sdktest.Mail()
		call.Envelope.Sender = sender
		r, err := filter(call)
		if err != nil {
			t.Fatal(err)
		}
		reply := r.GetVerdict().GetReply()
		if got := strings.TrimSpace(fmt.Sprint(reply.GetCode(), " ", reply.GetEnhanced(), " ", reply.GetText())); got != want || strings.Join(r.GetTags()["ratelimit"].GetList().GetValues(), " ") != tags {
			t.Errorf("%s: %q %v, want %q %q", sender, got, r.GetTags(), want, tags)
		}
	}
	ask("tom@hanks.example", "0", "")
	ask("tom@hanks.example", "451 4.7.1 More than 1 mails in 1h0m0s", "few seen")
	ask("joe@hanks.example", "0", "seen")
	ask("annie@hanks.example", "550 5.7.1 Enough", "none seen")
}

func TestMistakes(t *testing.T) {
	for config, want := range map[string]string{
		``: "there is no limit",
		`limit "a" {
by = []
max = 1
}`: "limit[0].by", `limit "a" {
by = ["user"]
max = 0
}`: "limit[0].max", `limit "a" {
by = ["recipient"]
max = 1
}`: "limit[0].count", `limit "a" {
by = ["user"]
max = 1
per = "10ms"
}`: "limit[0].per", `limit "a" {
by = ["user"]
max = 1
reply = "a\nb"
}`: "limit[0].reply", `max_keys = 0
limit "a" {
by = ["user"]
max = 1
}`: "max_keys", `ipv6_prefix = 129
limit "a" {
by = ["user"]
max = 1
}`: "ipv6_prefix",
	} {
		diags := sdktest.Diagnostics(t, Plugin(), config)
		if len(diags) != 1 || !strings.HasPrefix(strings.TrimPrefix(diags[0], ": "), want) {
			t.Errorf("%s: %q, want %s", config, diags, want)
		}
	}
}

func BenchmarkFilter(b *testing.B) {
	c := defaults()
	c.Limits = []Limit{{Name: "senders", By: []string{"sender", "network"}, Max: 1 << 30, Per: time.Hour, Count: "mails", Action: "defer"}}
	f, err := open(b.Context(), &sdk.Instance{Config: &c, Metrics: &sdk.Metrics{}})
	if err != nil {
		b.Fatal(err)
	}
	ev := filter.NewEvent(sdktest.Mail())
	b.ReportAllocs()
	for b.Loop() {
		if _, err := f.Filter(b.Context(), ev); err != nil {
			b.Fatal(err)
		}
	}
}
