package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/stagecoach-mta/stagecoach/core/admin"
	"github.com/stagecoach-mta/stagecoach/core/command"
)

// TestPluginCommands: what an operator does with one plugin of a running server.
func TestPluginCommands(t *testing.T) {
	path, dir := onLoopback(t, "configs/dev.hcl")
	apart(t, path)
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	write := func(blocks string) {
		if err := os.WriteFile(path, append(bytes.Clone(text), blocks...), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	const filters = `
filter "headers" "site" {
  set = { "X-Site" = "%s" }
}
filter "headers" "other" {
  set = { "X-Other" = "yes" }
  sandbox { off = true }
}
receive "smtp" "more" {
  listen  = ["127.0.0.9:0"]
  filters = [filter.headers.site, filter.headers.other]
}
`
	write(fmt.Sprintf(filters, "hanks"))
	s := serveFile(t, path, dir)

	pids := func() map[string]int {
		code, out, errs := run(t, "plugin", "list", "--json", "-c", path)
		var ps []admin.Plugin
		if err := json.Unmarshal([]byte(out), &ps); code != command.ExitOK || err != nil {
			t.Fatalf("exit %d, %v\n%s%s", code, err, out, errs)
		}
		found := map[string]int{}
		for _, p := range ps {
			found[p.Instance] = p.PID
			if p.PSS <= 0 || p.PSS > p.RSS || p.Sandboxed != (p.Instance != "filter.headers.other") {
				t.Errorf("%s: sandboxed %v, PSS %d of %d", p.Instance, p.Sandboxed, p.PSS, p.RSS)
			}
		}
		return found
	}
	before := pids()
	code, out, _ := run(t, "plugin", "list", "-c", path)
	for _, want := range []string{"SANDBOX", "HEALTH", "P99", "MEMORY", "filter.headers.site", "none"} {
		if code != command.ExitOK || !strings.Contains(out, want) {
			t.Errorf("exit %d, %q is not in\n%s", code, want, out)
		}
	}

	// Follow one, as a person at a terminal does.
	ctx, interrupt := context.WithCancel(context.Background())
	defer interrupt()
	followed := &safeBuffer{}
	ended := make(chan int, 1)
	go func() {
		a := app()
		a.Stdin, a.Stdout, a.Stderr = strings.NewReader(""), followed, io.Discard
		ended <- a.Run(ctx, []string{"plugin", "logs", "filter.headers.site", "-f", "-c", path})
	}()
	eventually(t, func() error {
		if !strings.Contains(followed.String(), "plugin is ready") {
			return fmt.Errorf("the log says %q", followed.String())
		}
		return nil
	})

	// The block alone is read again.
	write(fmt.Sprintf(filters, "ryan") + `receive "smtp" "later" { listen = ["127.0.0.10:0"] }` + "\n")
	if code, out, errs := run(t, "plugin", "reload", "filter.headers.site", "-c", path); code != command.ExitOK {
		t.Fatalf("exit %d\n%s%s", code, out, errs)
	}
	after := pids()
	for name, pid := range before {
		if changed := after[name] != pid; changed != (name == "filter.headers.site") {
			t.Errorf("%s: process %d before, %d after", name, pid, after[name])
		}
	}
	eventually(t, func() error {
		if n := strings.Count(followed.String(), "plugin is ready"); n != 2 {
			return fmt.Errorf("%d times ready in %q", n, followed.String())
		}
		return nil
	})
	interrupt()
	if code := <-ended; code != command.ExitOK {
		t.Errorf("following ended with %d", code)
	}

	// What is wrong changes nothing and says where.
	for _, c := range []struct{ blocks, instance, says string }{
		{fmt.Sprintf(filters, "ryan\n"), "filter.headers.site", "test.hcl:"},
		{strings.ReplaceAll(fmt.Sprintf(filters, "ryan"), `"site" {`, "\"site\" {\n  on_failure = \"accept\""), "filter.headers.site", "stagecoach reload"},
		{fmt.Sprintf(filters, "ryan") + `filter "headers" "new" {}`, "filter.headers.new", "stagecoach reload"},
		{"", "filter.headers.site", "no longer in the configuration"},
		{fmt.Sprintf(filters, "ryan"), "filter.headers.nobody", "plugin list"},
	} {
		write(c.blocks)
		code, _, errs := run(t, "plugin", "reload", c.instance, "-c", path)
		if code == command.ExitOK || !strings.Contains(errs, c.says) {
			t.Errorf("reload %s: exit %d, %q, want %q", c.instance, code, errs, c.says)
		}
	}
	if last := pids(); last["filter.headers.site"] != after["filter.headers.site"] {
		t.Error("a reload that failed changed the process")
	}
	write(fmt.Sprintf(filters, "ryan"))

	code, out, _ = run(t, "plugin", "logs", "filter.headers.site", "-n", "1", "--json", "-c", path)
	var line admin.LogLine
	if err := json.Unmarshal([]byte(out), &line); code != command.ExitOK || err != nil || line.Message == "" || line.Time.IsZero() || line.Level == "" {
		t.Errorf("exit %d, %v: %q", code, err, out)
	}
	if code, _, errs := run(t, "plugin", "logs", "filter.headers.nobody", "-c", path); code == command.ExitOK || !strings.Contains(errs, "plugin list") {
		t.Errorf("exit %d, %q", code, errs)
	}
	if code, _, _ := run(t, "plugin", "logs", "filter.headers.site", "-n", "-1", "-c", path); code != command.ExitUsage {
		t.Errorf("-n -1: exit %d", code)
	}
	if err := s.send("meg@ryan.example", []byte("Subject: still here\r\n\r\n")); err != nil {
		t.Error(err)
	}
}
