package receive

import (
	"strings"
	"testing"

	"github.com/stagecoach-mta/stagecoach/core/smtp/server"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// A mailbox that a client names twice gets one copy, and both RCPTs a reply.
func TestRecipientTwice(t *testing.T) {
	r := newRig(t, nil)
	if got := code(send(r.client(t), "tom@hanks.example", text, "meg@ryan.example", "MEG@ryan.example", "joe@ryan.example", "meg@ryan.example")); got != "ok" {
		t.Fatal(got)
	}
	env, _ := r.queue.last(t)
	if s := strings.Join(addresses(env), " "); s != "meg@ryan.example joe@ryan.example" {
		t.Errorf("queued for %s", s)
	}
}

// A text without a header must not become part of ours.
func TestMessageWithoutHeader(t *testing.T) {
	for name, body := range map[string]string{
		"continues our field": " folded into Received\r\n",
		"no field at all":     "just text\r\n",
	} {
		r := newRig(t, nil)
		if got := code(send(r.client(t), "tom@hanks.example", body, "meg@ryan.example")); got != "ok" {
			t.Fatalf("%s: %s", name, got)
		}
		_, kept := r.queue.last(t)
		header, rest, ok := strings.Cut(kept, "\r\n\r\n")
		if !ok || !strings.HasPrefix(header, "Received:") || strings.Contains(header, strings.TrimSpace(body)) || rest != body {
			t.Errorf("%s: kept %q", name, kept)
		}
	}
}

// SMTP has one reply: one recipient that must wait keeps the mail from all, and
// when a filter refuses every one of them the client hears why.
func TestOneReplyForAll(t *testing.T) {
	no := func(code int32, text string) *v1.Verdict {
		a := v1.Verdict_REJECT
		if code < 500 {
			a = v1.Verdict_DEFER
		}
		return &v1.Verdict{Action: a, Reply: &v1.SMTPReply{Code: code, Text: text}}
	}
	for name, c := range map[string]struct {
		per    map[int32]*v1.Verdict
		want   string
		queued int
	}{
		"one waits":    {map[int32]*v1.Verdict{0: no(550, "no"), 1: no(451, "later")}, "451 4.7.1", 0},
		"all refused":  {map[int32]*v1.Verdict{0: no(550, "no"), 1: no(554, "never")}, "550 5.7.1", 0},
		"one refused":  {map[int32]*v1.Verdict{1: no(550, "no")}, "ok", 1},
		"the first":    {map[int32]*v1.Verdict{0: no(550, "no")}, "ok", 1},
		"nobody there": {map[int32]*v1.Verdict{7: no(550, "no")}, "ok", 1},
	} {
		r := newRig(t, func(p *Policy, _ *server.Config) {
			p.Filters = chain(v1.FilterEvent_MESSAGE, &v1.FilterReply{PerRecipient: c.per})
		})
		if got := code(send(r.client(t), "tom@hanks.example", text, "meg@ryan.example", "joe@ryan.example")); got != c.want || len(r.queue.env) != c.queued {
			t.Errorf("%s: %s and %d queued, want %s and %d", name, got, len(r.queue.env), c.want, c.queued)
		}
	}
}
