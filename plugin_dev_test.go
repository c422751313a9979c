package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stagecoach-mta/stagecoach/core/command"
)

// tidy gives the test a folder for temporary files, and complains of what is left
// in it. Its path is short, for sockets.
func tidy(t *testing.T) {
	t.Helper()
	dir, err := os.MkdirTemp("", "t")
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("TMPDIR", dir)
	t.Cleanup(func() {
		left, err := os.ReadDir(dir)
		if err != nil {
			t.Error(err)
		}
		for _, e := range left {
			t.Errorf("%s is left in the folder for temporary files", e.Name())
		}
		os.RemoveAll(dir)
	})
}

// lotteryProject is what `plugin new filter lottery` writes.
func lotteryProject(t *testing.T) string {
	t.Helper()
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "lottery")
	if code, out, errs := run(t, "plugin", "new", "filter", "lottery", "--dir", dir, "--sdk", here); code != command.ExitOK {
		t.Fatalf("exit %d\n%s%s", code, out, errs)
	}
	return dir
}

// developing is a `plugin dev` under way.
type developing struct {
	t     *testing.T
	out   *safeBuffer
	stop  context.CancelFunc
	ended chan int
}

func develop(t *testing.T, stdin io.Reader, args ...string) *developing {
	d := &developing{t: t, out: &safeBuffer{}, ended: make(chan int, 1)}
	ctx, cancel := context.WithCancel(context.Background())
	d.stop = cancel
	a := app()
	a.Stdin, a.Stdout, a.Stderr = stdin, d.out, d.out
	go func() { d.ended <- a.Run(ctx, append([]string{"plugin", "dev"}, args...)) }()
	t.Cleanup(func() {
		cancel()
		if t.Failed() {
			t.Log(d.out.String())
		}
	})
	return d
}

// says waits until the n-th round has ended and its part of the output has all of
// the words.
func (d *developing) says(n int, words ...string) {
	d.t.Helper()
	eventually(d.t, func() error {
		rounds := strings.Split(d.out.String(), "Waiting for a change")
		if len(rounds) <= n {
			return fmt.Errorf("round %d has not ended:\n%s", n, d.out.String())
		}
		for _, w := range words {
			if !strings.Contains(rounds[n-1], w) {
				return fmt.Errorf("round %d has no %q:\n%s", n, w, rounds[n-1])
			}
		}
		return nil
	})
}

func replaceIn(t *testing.T, file, old, with string) {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(b, []byte(old)) {
		t.Fatalf("%s has no %q", file, old)
	}
	if err := os.WriteFile(file, bytes.ReplaceAll(b, []byte(old), []byte(with)), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestPluginDev: an author saves, and sees what the plugin says then.
func TestPluginDev(t *testing.T) {
	dir := lotteryProject(t)
	tidy(t)
	mail, code, config := filepath.Join(dir, "mail.eml"), filepath.Join(dir, "main.go"), filepath.Join(dir, "conform.hcl")
	if err := os.WriteFile(mail, []byte("Subject: You won the LOTTERY\n\nHello\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	d := develop(t, strings.NewReader(""), dir, "--mail", mail, "--to", "meg@ryan.example", "--to", "kathleen@ryan.example")
	d.says(1, `filter "lottery"`, "conform.hcl", "MESSAGE", "<kathleen@ryan.example>", "Subject: You won the LOTTERY",
		"word=lottery", "REJECT 550 5.7.1 We do not take mail about lottery", "The mail is refused: 550")
	replaceIn(t, mail, "LOTTERY", "tombola")
	d.says(2, "mail.eml has changed", "Subject: You won the tombola", "ACCEPT", "The mail goes on to")
	replaceIn(t, code, "return filter.Accept(), nil", "return filter.Accept().TagBool(\"seen\", maybe), nil")
	d.says(3, "It does not build", "main.go:", "undefined: maybe")
	replaceIn(t, code, "maybe", "true")
	d.says(4, "seen = true")
	replaceIn(t, config, `"lottery"`, `"lottery", ""`)
	d.says(5, "conform.hcl has changed", "conform.hcl:1:22", "an empty word is in every subject")
	replaceIn(t, config, `"lottery", ""`, `"tombola"`)
	d.says(6, "We do not take mail about tombola")
	d.stop()
	if code := <-d.ended; code != command.ExitOK {
		t.Errorf("interrupted, it ended with %d", code)
	}
}

// TestPluginDevOnce: every kind is asked what it is for.
func TestPluginDevOnce(t *testing.T) {
	tidy(t)
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	edits := write("edits.hcl", `set = { "X-Site" = "ryan" }`)
	whole := write("whole.hcl", `hostname = "mx.hanks.example"

filter "headers" "other" {}

receive "smtp" "mx" {
  listen  = ["127.0.0.1:2525"]
  filters = [filter.headers.other]
}
`)
	people, err := filepath.Abs("configs/dev-people.hcl")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args []string
		code int
		says []string
	}{
		{[]string{"headers", "-c", edits}, command.ExitOK, []string{"+ X-Site: ryan", "PRE_DELIVERY", "The mail goes on to <meg@ryan.example>."}},
		{[]string{"headers", "-c", whole}, command.ExitOK, []string{"MESSAGE", "ACCEPT"}},
		{[]string{"local"}, command.ExitOK, []string{"Deposit", "INBOX", "1 message(s)", `the subject "You have got mail"`}},
		{[]string{"pipe", "-c", write("pipe.hcl", `command = ["/bin/false"]`)}, command.ExitOK, []string{"Deliver", "<meg@ryan.example> "}},
		{[]string{"file", "-c", write("file.hcl", fmt.Sprintf("path = %q", people)), "--to", "both@ryan.example", "--to", "nobody@ryan.example"}, command.ExitOK,
			[]string{"Domains", "hanks.example", "<both@ryan.example> leads to the mailbox of tom@hanks.example; the mailbox of meg@ryan.example", "NO_SUCH_USER"}},
		{[]string{"pop3"}, command.ExitOK, []string{"+OK", "Connect your client to 127.0.0.1:", "user meg@ryan.example"}},
		{[]string{"headers", "-c", write("wrong.hcl", "# two\nsett = {}\n")}, command.ExitConfig, []string{"wrong.hcl:2:1", `Did you mean "set"?`}},
		{[]string{"pipe"}, command.ExitConfig, []string{"command", "--config"}},
		{[]string{"local", "-c", whole}, command.ExitFailed, []string{"no block storage", `filter "headers" "other"`}},
		{[]string{"headers", "--from", "tom"}, command.ExitUsage, []string{"--from"}},
		{[]string{filepath.Join(dir, "nowhere")}, command.ExitFailed, []string{"nowhere"}},
		{[]string{dir}, command.ExitFailed, []string{"plugin new"}},
	} {
		code, out, errs := run(t, append([]string{"plugin", "dev", "--once"}, c.args...)...)
		if code != c.code {
			t.Errorf("%s: exit %d, want %d", c.args, code, c.code)
		}
		for _, w := range c.says {
			if !strings.Contains(out+errs, w) {
				t.Errorf("%s says no %q:\n%s%s", c.args, w, out, errs)
			}
		}
	}

	// For machines: an object a line.
	code, out, errs := run(t, "plugin", "dev", "headers", "--once", "--json", "-c", edits)
	seen := map[string]int{}
	for line := range strings.Lines(out) {
		var o struct {
			Event string
			Call  struct{ Filter struct{ Event string } }
		}
		if err := json.Unmarshal([]byte(line), &o); err != nil {
			t.Fatalf("%v: %q", err, line)
		}
		seen[o.Event+o.Call.Filter.Event]++
	}
	if code != command.ExitOK || seen["started"] != 1 || seen["callMESSAGE"] != 1 || seen["outcome"] != 1 {
		t.Errorf("exit %d, %v\n%s%s", code, seen, out, errs)
	}
}

// withDlv is a PATH with this script as dlv; "" for none.
func withDlv(t *testing.T, dlv string) {
	t.Helper()
	dirs := slices.DeleteFunc(filepath.SplitList(os.Getenv("PATH")), func(dir string) bool {
		_, err := os.Stat(filepath.Join(dir, "dlv"))
		return err == nil
	})
	if dlv != "" {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "dlv"), []byte("#!/bin/sh\n"+dlv), 0o700); err != nil {
			t.Fatal(err)
		}
		dirs = append(dirs, dir)
	}
	t.Setenv("PATH", strings.Join(dirs, string(filepath.ListSeparator)))
}

// TestPluginDevDebug: the program is started under a debugger that holds it for as
// long as a person wants, or waits for a person who attaches.
func TestPluginDevDebug(t *testing.T) {
	config := filepath.Join(t.TempDir(), "c.hcl")
	if err := os.WriteFile(config, []byte(`forbid = [".exe"]`), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Run("under dlv", func(t *testing.T) {
		tidy(t)
		go1, held := filepath.Join(t.TempDir(), "go"), filepath.Join(t.TempDir(), "held")
		// What Delve does: words on stderr, then the program, stopped until told.
		withDlv(t, fmt.Sprintf(`
echo "API server listening: $*" >&2
: >%q
while ! [ -e %q ]; do /bin/sleep 0.05; done
for last; do :; done
exec "$last"
`, held, go1))
		d := develop(t, strings.NewReader(""), "examples/attachments", "-c", config, "--debug", "--once")
		eventually(t, func() error {
			if _, err := os.Stat(held); err != nil {
				return fmt.Errorf("%w: %s", err, d.out.String())
			}
			return nil
		})
		if s := d.out.String(); !strings.Contains(s, "dlv connect 127.0.0.1:") || strings.Contains(s, "MESSAGE") {
			t.Errorf("before it goes on:\n%s", s)
		}
		if err := os.WriteFile(go1, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if code := <-d.ended; code != command.ExitOK || !strings.Contains(d.out.String(), "The mail goes on") {
			t.Errorf("exit %d\n%s", code, d.out.String())
		}
	})
	t.Run("without", func(t *testing.T) {
		tidy(t)
		withDlv(t, "")
		stdin, enter := io.Pipe()
		d := develop(t, stdin, "examples/attachments", "-c", config, "--debug", "--once")
		eventually(t, func() error {
			if s := d.out.String(); !strings.Contains(s, "dlv attach ") {
				return fmt.Errorf("it says %q", s)
			}
			return nil
		})
		if strings.Contains(d.out.String(), "MESSAGE") {
			t.Error("it did not wait")
		}
		if _, err := enter.Write([]byte("\n")); err != nil {
			t.Fatal(err)
		}
		if code := <-d.ended; code != command.ExitOK || !strings.Contains(d.out.String(), "The mail goes on") {
			t.Errorf("exit %d\n%s", code, d.out.String())
		}
		enter.Close()
	})
}
