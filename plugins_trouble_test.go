package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stagecoach-mta/stagecoach/core/admin"
	"github.com/stagecoach-mta/stagecoach/core/command"
)

// serveProgram runs a server in a process of its own until the test ends. env is
// added to its environment, as NAME=value.
func serveProgram(t *testing.T, path, dir string, env ...string) *serving {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	s := &serving{t: t, out: &safeBuffer{}, log: &safeBuffer{}, admin: admin.NewClient(filepath.Join(dir, "data", "run", "admin.sock"))}
	server := exec.Command(self, "serve", "-c", path)
	server.Stdout, server.Stderr = s.out, s.log
	server.Env = append(os.Environ(), env...)
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- server.Wait() }()
	t.Cleanup(func() {
		_ = server.Process.Signal(syscall.SIGTERM) // it may have ended
		if err := <-ended; err != nil {
			t.Errorf("the server stopped with %v", err)
		}
		if t.Failed() {
			t.Logf("%.30000s", s.log)
		}
	})
	listening(s, ended)
	return s
}

// misbehaviour is what a plugin does, and what an operator is told of it.
type misbehaviour struct {
	does, sandbox string
	// listed is in HEALTH at some time, logged in a line of the log that names it,
	// kind in the JSON.
	listed, logged, kind string
}

var misbehaviours = []misbehaviour{
	{"stop", "off = true", "(a signal has stopped it", "does not answer health checks", "unresponsive"},
	{"flood", "off = true", "floods its log: ", "lines dropped", "log_flood"},
	{"garbage", "off = true", "answers garbage: 1 call in the last 10 min", "filter's call with a storage's reply", "bad_answers"},
	{"allocate", `memory = "64MB"`, "its sandbox allows", "memory", "memory"},
	{"fork", "processes  = 40\n    programs   = true", "processes and threads", "processes and threads", "processes"},
	{"trespass", "programs = true", "and was refused: 3 times in the last hour", "reached for the server's admin socket", "trespass"},
	{"leave", "off = true", "process ended (exit status 7)", "left 3 processes behind when it ended", "left_behind"},
}

// TestTroublesAreListed: whatever a plugin does, the mail that meets it arrives,
// and `plugin list` names the plugin and what is the matter, as the log does.
func TestTroublesAreListed(t *testing.T) {
	t.Parallel()
	path, dir := onLoopback(t, "configs/dev.hcl")
	apart(t, path)
	// Where every user may reach it.
	program := filepath.Join(dir, "bad")
	if out, err := exec.Command("go", "build", "-o", program, "./testdata/badplugin").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	text = fmt.Appendf(text, "plugin \"bad\" { path = %q }\n", program)
	for n, m := range misbehaviours {
		text = fmt.Appendf(text, `
filter "bad" %[1]q {
  does       = %[1]q
  on_failure = "accept"
  timeout    = "2s"
  sandbox {
    %[2]s
  }
}
receive "smtp" %[1]q {
  listen  = ["127.0.0.%[3]d:0"]
  filters = [filter.bad.%[1]s]
}
`, m.does, m.sandbox, 20+n)
	}
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	s := serveProgram(t, path, dir)
	for _, m := range misbehaviours {
		if m.does == "stop" {
			if err := syscall.Kill(listed(t, path)["filter.bad.stop"].PID, syscall.SIGSTOP); err != nil {
				t.Fatal(err)
			}
		}
		mx := s.printed(`receive\.smtp\.` + m.does + ` +([^ \n]+)`)
		if err := deliver(mx, "tom@hanks.example", "meg@ryan.example", []byte("Subject: "+m.does+"\r\n\r\nHello\r\n")); err != nil {
			t.Errorf("a mail through the plugin that does %s: %v", m.does, err)
		}
	}
	for _, m := range misbehaviours {
		name := "filter.bad." + m.does
		eventually(t, func() error {
			code, out, errs := run(t, "plugin", "list", "-c", path)
			if code != command.ExitOK {
				return fmt.Errorf("exit %d: %s", code, errs)
			}
			p := listed(t, path)[name]
			kinds := ""
			for _, one := range p.Troubles {
				kinds += " " + one.Kind
			}
			if !named(out, name, m.listed) || !strings.Contains(kinds, m.kind) {
				return fmt.Errorf("%s (%s) is not named with %q and %q:\n%s", name, kinds, m.listed, m.kind, out)
			}
			return nil
		})
		eventually(t, func() error {
			if !named(s.log.String(), name, m.logged) {
				return fmt.Errorf("no line of the log names %s and says %q", name, m.logged)
			}
			return nil
		})
	}
	for _, who := range []string{"it", "a child"} {
		eventually(t, func() error {
			if !named(s.log.String(), "filter.bad.trespass", who+" was told 403 Forbidden") {
				return fmt.Errorf("%s was not refused", who)
			}
			return nil
		})
	}
	if strings.Contains(s.log.String(), "configuration reloaded") {
		t.Error("a plugin made the server read its configuration")
	}
	if p := listed(t, path)["filter.bad.flood"]; p.LogLinesDropped == 0 || p.LogBytesDropped < p.LogLinesDropped {
		t.Errorf("%d lines of %d octets dropped", p.LogLinesDropped, p.LogBytesDropped)
	}
	for _, name := range []string{"storage.local.mail", "directory.file.people", "access.imap.imap"} {
		if p := listed(t, path)[name]; len(p.Troubles) != 0 || p.Restarts != 0 {
			t.Errorf("%s is named for what others did: %+v", name, p)
		}
	}
	eventually(t, func() error {
		return has(s.page(), map[string]float64{
			"stagecoach_plugin_local_storage_deposits_total plugin=storage.local.mail": float64(len(misbehaviours)),
			"stagecoach_queue_messages": 0,
		})
	})
}

// named tells whether a line has the instance's name and the words.
func named(text, instance, words string) bool {
	for line := range strings.Lines(text) {
		if strings.Contains(line, instance) && strings.Contains(line, words) {
			return true
		}
	}
	return false
}

// listed is what `plugin list --json` tells, by instance.
func listed(t *testing.T, path string) map[string]admin.Plugin {
	t.Helper()
	code, out, errs := run(t, "plugin", "list", "--json", "-c", path)
	var ps []admin.Plugin
	if err := json.Unmarshal([]byte(out), &ps); code != command.ExitOK || err != nil {
		t.Fatalf("exit %d, %v\n%s", code, err, errs)
	}
	found := map[string]admin.Plugin{}
	for _, p := range ps {
		found[p.Instance] = p
	}
	return found
}
