package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stagecoach-mta/stagecoach/core/command"
	"github.com/stagecoach-mta/stagecoach/core/queue"
	"github.com/stagecoach-mta/stagecoach/core/spool"
)

// TestQueueCheck: the queue of a server that runs is refused; of one that is stopped
// what is wrong is found, told by the exit code, and repaired.
func TestQueueCheck(t *testing.T) {
	dir := t.TempDir()
	where := filepath.Join(dir, "queue")
	e, err := queue.Open(queue.Options{Dir: where})
	if err != nil {
		t.Fatal(err)
	}
	env := &queue.Envelope{Sender: "tom@hanks.example", Recipients: []*queue.Recipient{{Address: "meg@ryan.example", Parent: -1}}}
	if err := e.Put(t.Context(), env, spool.FromBytes([]byte("hello"))); err != nil {
		t.Fatal(err)
	}
	do := func(code int, says string, args ...string) string {
		t.Helper()
		got, out, errs := run(t, append([]string{"queue", "check", "--data-dir", dir}, args...)...)
		if got != code || !strings.Contains(out+errs, says) {
			t.Fatalf("queue check %s: exit %d, want %d and %q; it says\n%s%s", strings.Join(args, " "), got, code, says, out, errs)
		}
		return out
	}
	do(command.ExitFailed, "stop the server that runs on "+where+" first")
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	do(command.ExitOK, "The queue is whole.")
	stray := filepath.Join(where, "body", "0", "core")
	if err := os.WriteFile(stray, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	out := do(command.ExitTest, "1 problem. `stagecoach queue check --repair`")
	if !strings.Contains(out, stray) || strings.Contains(out, "\x1b") {
		t.Errorf("it says\n%s", out)
	}
	var f queue.Findings
	if err := json.Unmarshal([]byte(do(command.ExitTest, "", "--json")), &f); err != nil || f.Left != 1 || f.Problems[0].Where != stray {
		t.Errorf("for machines: %+v %v", f, err)
	}
	do(command.ExitOK, "1 problem, repaired.", "--repair")
	if _, err := os.Stat(filepath.Join(where, "aside", "core")); err != nil {
		t.Error(err)
	}
	do(command.ExitOK, "The queue is whole.")
	// Of a mail that is in no record any more the body is left: it is offered.
	lost := filepath.Join(where, "body", "0", "0wrJwCmS0MD")
	if err := os.WriteFile(lost, []byte("From: Tom <tom@hanks.example>\r\nTo: meg@ryan.example\r\nSubject: lost\r\n\r\nhello\r\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	out = do(command.ExitTest, "1 mail (77 B) of which only the body is left")
	if !strings.Contains(out, "meg@ryan.example (by its header)") || !strings.Contains(out, "0wrJwCmS0MD") {
		t.Errorf("it says\n%s", out)
	}
	do(command.ExitOK, "1 mail (77 B) whose record is lost", "--repair")
	for _, name := range []string{"0wrJwCmS0MD.eml", "0wrJwCmS0MD.json"} {
		if _, err := os.Stat(filepath.Join(where, "aside", name)); err != nil {
			t.Error(err)
		}
	}
	do(command.ExitOK, "The queue is whole.")
	if code, _, errs := run(t, "queue", "check", "--data-dir", filepath.Join(dir, "nowhere")); code != command.ExitFailed || !strings.Contains(errs, "there is no queue in") {
		t.Errorf("of nothing: exit %d, %s", code, errs)
	}
}
