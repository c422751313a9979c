package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/stagecoach-mta/stagecoach/core/admin"
	"github.com/stagecoach-mta/stagecoach/core/command"
)

// TestTraceCommand: a mail's life is told from the connection to its end: the
// filter, the routes, the attempts, an operator's bounce and its notice; and a
// refusal by the addresses that it was about.
func TestTraceCommand(t *testing.T) {
	path, dir := queueConfig(t, `
filter "headers" "mark" { set = { "X-Seen" = "yes" } }
filter "headers" "wants" { require = ["Date"] }
receive "smtp" "strict" {
  listen  = ["127.0.0.3:0"]
  filters = [filter.headers.mark, filter.headers.wants]
  relay_from = ["127.0.0.0/8"]
}
`)
	s := serveFile(t, path, dir)
	strict := &serving{smtp: s.printed(`receive\.smtp\.strict +([^ \n]+)`)}
	trace := func(code int, name string, says ...string) string {
		t.Helper()
		got, out, errs := run(t, "trace", "-c", path, name)
		if got != code {
			t.Fatalf("trace %s: exit %d, want %d; it says\n%s%s", name, got, code, out, errs)
		}
		at := 0
		for _, want := range says {
			i := strings.Index((out + errs)[at:], want)
			if i < 0 {
				t.Fatalf("trace %s: no %q, or not in its place:\n%s%s", name, want, out, errs)
			}
			at += i
		}
		return out
	}
	trace(command.ExitFailed, "meg@ryan.example", `nothing is known of "meg@ryan.example"`)
	mail := append([]byte("Date: Thu, 26 Nov 2026 03:00:00 +0000\r\n"), mailAbout("Hello", "one")...)
	if err := strict.send("meg@ryan.example", mail); err != nil {
		t.Fatal(err)
	}
	if err := strict.send("annie@reed.example", mailAbout("No date", "two")); err == nil {
		t.Fatal("a mail without a date is taken")
	}
	if err := s.send("joe@reed.example", mailAbout("Hello", "three")); err != nil {
		t.Fatal(err)
	}
	id := queued(t, s, 2)[0].ID
	// The first attempt may be under way.
	eventually(t, func() error {
		if _, out, _ := run(t, "trace", "-c", path, id); !strings.Contains(out, "connection refused") {
			return fmt.Errorf("no attempt is told:\n%s", out)
		}
		return nil
	})
	life := []string{
		"MAIL " + id + "  <tom@hanks.example>", "Message-ID <one@hanks.example>", "received", "receive.smtp.strict", "127.0.0.1",
		"filter.headers.mark", "message: accept", "X-Seen", "filter.headers.wants", "accept", "for meg@ryan.example",
		`lottery: no, when message.subject == "You have won"`, "out: taken", "deliver.smtp.dead", "connection refused", "now",
	}
	for _, name := range []string{id, "<one@hanks.example>", "MEG@ryan.example"} {
		trace(0, name, life...)
	}
	if code, _, errs := run(t, "queue", "bounce", id, "-c", path, "--reason-text", "Enough"); code != 0 {
		t.Fatal(errs)
	}
	out := trace(0, id, append(life[:len(life)-1], "failed", "by an operator", "554 5.0.0 Enough", "made mail", "dsn to tom@hanks.example", "no longer in the queue")...)
	// The notice knows where it came from.
	notice := strings.Fields(out[strings.Index(out, "made mail")+len("made mail"):])[0]
	trace(0, strings.TrimSuffix(notice, ","), "made by mail "+id, "for tom@hanks.example")
	trace(0, "annie@reed.example", "REFUSED  <tom@hanks.example> to annie@reed.example", "filter.headers.wants", "reject", "refused", "by filter.headers.wants")

	code, text, errs := run(t, "trace", "tom@hanks.example", "-c", path, "--json", "--since", "1h", "--limit", "2")
	var traced admin.Traced
	if err := json.Unmarshal([]byte(text), &traced); err != nil || code != 0 || len(traced.Mails) != 2 || !traced.More || len(traced.Refusals) != 1 || len(traced.Queued) == 0 {
		t.Errorf("exit %d, %v: %+v\n%s", code, err, traced, errs)
	}
}
