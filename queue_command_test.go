package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stagecoach-mta/stagecoach/core/admin"
	"github.com/stagecoach-mta/stagecoach/core/command"
	"github.com/stagecoach-mta/stagecoach/core/queue"
)

// queueConfig keeps its mail: nobody answers where it goes.
func queueConfig(t *testing.T, more string) (path, dir string) {
	t.Helper()
	// No port that was free a moment ago: this very server could be given it.
	const dead = "127.0.0.77:1"
	var err error
	if dir, err = os.MkdirTemp("", "sc"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	path = filepath.Join(dir, "test.hcl")
	text := `hostname = "mx.ryan.example"
data_dir = "` + dir + `/data"
metrics { listen = "127.0.0.2:0" }
receive "smtp" "mx" {
  listen     = ["127.0.0.1:0"]
  relay_from = ["127.0.0.0/8"]
}
` + more + `
route "lottery" {
  when = message.subject == "You have won"
  hold = "looks like a lottery"
}
route "out" { deliver = deliver.smtp.dead }
deliver "smtp" "dead" { hosts = ["` + dead + `"] }
`
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path, dir
}

func mailAbout(subject, id string) []byte {
	return []byte("From: tom@hanks.example\r\nSubject: " + subject + "\r\nMessage-ID: <" + id + "@hanks.example>\r\n\r\nHello\r\nFrom here\r\n>From there\r\n")
}

// queued waits until the server has so many messages, each looked at once.
func queued(t *testing.T, s *serving, n int) (ms []admin.Message) {
	t.Helper()
	eventually(t, func() error {
		ms = nil
		err := s.admin.List(t.Context(), queue.Filter{}, func(m admin.Message) error {
			for _, r := range m.Recipients {
				if r.State == "waiting" && r.Route == "" {
					return fmt.Errorf("%s has not been routed", r.Address)
				}
			}
			ms = append(ms, m)
			return nil
		})
		if err == nil && len(ms) != n {
			err = fmt.Errorf("%d messages in the queue, want %d", len(ms), n)
		}
		return err
	})
	return ms
}

// TestQueueCommands: an operator finds mail by what it is, and acts on just that,
// while the server runs.
func TestQueueCommands(t *testing.T) {
	path, dir := queueConfig(t, "")
	s := serveFile(t, path, dir)
	for n, to := range []string{"meg@ryan.example", "bill@gone.example", "ann@gone.example", "joe@reed.example"} {
		if err := s.send(to, mailAbout([]string{"Hello", "You have won"}[n%2], fmt.Sprint("m", n))); err != nil {
			t.Fatal(err)
		}
	}
	queued(t, s, 4)
	do := func(code int, says string, args ...string) string {
		t.Helper()
		got, out, errs := run(t, append([]string{"queue", args[0], "-c", path}, args[1:]...)...)
		if got != code || !strings.Contains(out+errs, says) {
			t.Fatalf("queue %s: exit %d, want %d and %q; it says\n%s%s", strings.Join(args, " "), got, code, says, out, errs)
		}
		return out
	}
	out := do(0, "4 messages, 4 recipients", "list")
	if !strings.Contains(out, "looks like a lottery") || strings.Contains(out, "\x1b") {
		t.Errorf("the list:\n%s", out)
	}
	do(0, "1 message, 1 recipient", "list", "--domain", "gone.example", "--state", "held")
	do(0, "1 message, 1 recipient", "search", "LOTTERY", "joe")
	do(0, "No mail", "list", "--newer", "0s", "--older", "1h")
	do(command.ExitUsage, "--attempts is a number or a span", "list", "--attempts", "x")
	do(command.ExitUsage, "which mail?", "hold")
	do(command.ExitUsage, "say one of them", "hold", "--all", "--domain", "gone.example")
	do(command.ExitUsage, "say --yes", "bounce", "--domain", "gone.example")
	do(command.ExitFailed, "no such message", "delete", "nonsense")
	do(command.ExitUsage, "--to ADDRESS or --via", "redirect", "--all")
	do(command.ExitFailed, "redirect to", "redirect", "--all", "--to", "nobody", "-y")
	do(0, "a dry run, nothing was changed", "bounce", "--domain", "gone.example", "-n")
	do(0, "4 messages", "list")

	// A bounce tells the sender.
	do(0, "Bounced 2 recipients of 2 messages", "bounce", "--domain", "gone.example", "--yes", "--reason-text", "That server is gone")
	ms := queued(t, s, 4)
	dsn := ms[3]
	if dsn.Origin != "dsn" || dsn.Sender != "" || dsn.Recipients[0].Address != "tom@hanks.example" {
		t.Fatalf("%+v", dsn)
	}
	if text := do(0, "Status: 5.0.0", "export", dsn.ID); !strings.Contains(text, "554 5.0.0 That server is gone") {
		t.Errorf("the notice:\n%s", text)
	}
	do(0, "Deleted 2 recipients of 2 messages", "delete", "--origin", "dsn", "--yes")

	// What is released is not held again by the route that held it.
	do(0, "Nothing to do", "release", ms[0].ID)
	do(0, "Released 1 recipient of 1 message", "release", "--state", "held", "--subject", "won")
	eventually(t, func() error {
		for _, m := range queued(t, s, 2) {
			if r := m.Recipients[0]; r.State != "waiting" || r.Route != "out" {
				return fmt.Errorf("%+v", r)
			}
		}
		return nil
	})
	do(0, "Held 2 recipients of 2 messages", "hold", "--all", "--yes", "--reason-text", "asked Tom")
	do(0, "asked Tom", "list")

	do(0, "Redirected 1 recipient", "redirect", "--recipient", "joe@reed.example", "--to", "joe@hanks.example", "--to", "annie@hanks.example")
	ms = queued(t, s, 2)
	if rs := ms[1].Recipients; len(rs) != 3 || rs[0].State != "expanded" || rs[1].Original != "rfc822;joe@reed.example" || *rs[2].Parent != 0 {
		t.Errorf("%+v", rs)
	}
	do(0, "Redirected 1 recipient", "redirect", ms[0].ID, "--via", "127.0.0.1:1")
	do(0, "127.0.0.1:1", "show", ms[0].ID)
	do(command.ExitFailed, "a next hop holds for all recipients", "redirect", "--recipient", "annie@hanks.example", "--via", "127.0.0.1:1")
	do(0, "Due now: ", "retry", "--all", "-y")

	stats := do(0, `"messages": 2`, "stats", "--json")
	var b queue.Breakdown
	if err := json.Unmarshal([]byte(stats), &b); err != nil || b.Recipients != 3 || len(b.Destinations) == 0 || b.Ages[0].Messages != 2 {
		t.Errorf("%+v %v", b, err)
	}
	do(0, "DESTINATION", "stats")

	testExport(t, do, ms)

	// Ids from another program's output.
	var stdout, stderr bytes.Buffer
	a := app()
	a.Stdin, a.Stdout, a.Stderr = strings.NewReader(ms[0].ID+" and more\n\n"+ms[1].ID+"\n"), &stdout, &stderr
	if code := a.Run(t.Context(), []string{"queue", "delete", "-", "-c", path, "--json"}); code != 0 {
		t.Fatalf("exit %d: %s", code, stderr.String())
	}
	if got := strings.Count(stdout.String(), `"result":"done"`); got != 2 {
		t.Errorf("%d done:\n%s", got, stdout.String())
	}
	queued(t, s, 0)
	do(0, "The queue is empty", "stats")
}

// testExport: what is exported is what was sent, with its envelope.
func testExport(t *testing.T, do func(int, string, ...string) string, ms []admin.Message) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "out")
	do(command.ExitUsage, "more than one mail", "export", "--all")
	do(0, "Copied 2 messages", "export", "--all", "--to", dir)
	eml, err := os.ReadFile(filepath.Join(dir, ms[0].ID+".eml"))
	if err != nil || !bytes.HasSuffix(eml, []byte("\r\n\r\nHello\r\nFrom here\r\n>From there\r\n")) {
		t.Errorf("%q %v", eml, err)
	}
	b, err := os.ReadFile(filepath.Join(dir, ms[0].ID+".json"))
	var m admin.Message
	if err == nil {
		err = json.Unmarshal(b, &m)
	}
	if err != nil || m.Sender != "tom@hanks.example" || m.Recipients[0].Address != "meg@ryan.example" {
		t.Errorf("%s %v", b, err)
	}
	do(command.ExitFailed, "exists", "export", "--all", "--to", dir)
	box := do(0, "", "export", "--all", "--mbox", "-")
	for _, want := range []string{
		"From tom@hanks.example ", "\nReturn-Path: <tom@hanks.example>\n", "\nX-Envelope-To: <annie@hanks.example>\nX-Queue-ID: " + ms[1].ID + "\n",
		"\n>From here\n>>From there\n",
	} {
		if !strings.Contains(box, want) {
			t.Errorf("the mbox has no %q:\n%s", want, box)
		}
	}
}
