package receive

import (
	"fmt"
	"net/netip"
	"net/textproto"
	"strings"
	"testing"
	"time"

	"github.com/stagecoach-mta/stagecoach/core/queue"
	"github.com/stagecoach-mta/stagecoach/core/smtp/server"
)

// say runs a dialogue: each line is a command, "|" and how its reply begins.
func say(t *testing.T, addr string, lines ...string) {
	t.Helper()
	c, err := textproto.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for _, l := range append([]string{"|220", "EHLO client.example|250"}, lines...) {
		command, want, _ := strings.Cut(l, "|")
		if command != "" {
			if err := c.PrintfLine("%s", command); err != nil {
				t.Fatal(err)
			}
		}
		code, text, err := c.ReadResponse(0)
		if err != nil && code == 0 {
			t.Fatalf("%q: %v", l, err)
		}
		if got := fmt.Sprintf("%d %s", code, text); !strings.HasPrefix(got, want) {
			t.Fatalf("%q: the server said %q", l, got)
		}
	}
}

const login = "AUTH PLAIN AG1lZ0ByeWFuLmV4YW1wbGUAc2xlZXBsZXNz|235"

func mail(parameters, reply string) []string {
	return []string{"MAIL FROM:<meg@ryan.example> " + parameters + "|" + reply, "RCPT TO:<joe@ryan.example>|250", "DATA|354", "Subject: hi\r\n\r\nHello\r\n.|250"}
}

// A higher priority is for who may relay; a lower one hurts nobody.
func TestWhosePriorityCounts(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*Policy, *server.Config)
		auth   bool
		asked  int
		reply  string
		want   int
	}{
		{"authenticated", nil, true, 5, "250 2.1.0", 5},
		{"a stranger", nil, false, 5, "250 2.3.6", 0},
		{"a stranger who is in no hurry", nil, false, -3, "250 2.1.0", -3},
		{"a network that may relay", func(p *Policy, _ *server.Config) { p.RelayFrom = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")} }, false, 9, "250 2.1.0", 9},
		{"a stranger where all are believed", func(p *Policy, _ *server.Config) { p.AnyPriority = true }, false, 5, "250 2.1.0", 5},
	} {
		r := newRig(t, c.change)
		lines := mail(fmt.Sprintf("MT-PRIORITY=%d", c.asked), c.reply)
		if c.auth {
			lines = append([]string{login}, lines...)
		}
		say(t, r.addr, lines...)
		env, text := r.queue.last(t)
		if env.Priority != c.want {
			t.Errorf("%s: priority %d, want %d", c.name, env.Priority, c.want)
		}
		if has := strings.Contains(text, fmt.Sprintf("\r\n\tPRIORITY %d;", c.want)); has != (c.want != 0) {
			t.Errorf("%s: Received is\n%s", c.name, text)
		}
	}
}

func TestDeliverByAndFutureRelease(t *testing.T) {
	now := time.Date(2026, 11, 26, 9, 0, 0, 0, time.UTC)
	r := newRig(t, func(_ *Policy, c *server.Config) { c.MaxHold = 24 * time.Hour })
	r.b.Clock = func() time.Time { return now }
	took := func(parameters string) *queue.Envelope {
		t.Helper()
		say(t, r.addr, append([]string{login}, mail(parameters, "250 2.1.0")...)...)
		env, _ := r.queue.last(t)
		return env
	}
	env := took("BY=600;RT MT-PRIORITY=2")
	p := env.Parameters
	if n := env.Notes; len(n) != 1 || n[0].Text != "priority 2, deliver by 2026-11-26T09:10:00Z or return it, tell of each relay" {
		t.Errorf("the journal gets %+v", n)
	}
	if at := time.UnixMilli(p.DeliverByMs); !at.Equal(now.Add(10*time.Minute)) || p.DeliverByMode != "R" || !p.DeliverByTrace {
		t.Errorf("BY=600;RT became %v %s %v", at, p.DeliverByMode, p.DeliverByTrace)
	}
	p = took("BY=-60;N").Parameters
	if at := time.UnixMilli(p.DeliverByMs); !at.Equal(now.Add(-time.Minute)) || p.DeliverByMode != "N" || p.DeliverByTrace {
		t.Errorf("BY=-60;N became %v %s %v", at, p.DeliverByMode, p.DeliverByTrace)
	}
	at := time.Now().Add(time.Hour).UTC().Truncate(time.Second)
	env = took("HOLDUNTIL=" + at.Format(time.RFC3339))
	if !env.NotBefore.Equal(at) || !env.Recipients[0].Next.Equal(at) || env.Parameters.HoldUntilMs != at.UnixMilli() || env.Recipients[0].Reason == "" {
		t.Errorf("held until %v, its recipient until %v; want %v", env.NotBefore, env.Recipients[0].Next, at)
	}
	if env := took("HOLDUNTIL=2001-01-01T00:00:00Z"); env.NotBefore.After(now) || env.Recipients[0].Reason != "" {
		t.Errorf("a time that is over holds the mail until %v", env.NotBefore)
	}
}
