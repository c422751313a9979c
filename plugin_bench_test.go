package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stagecoach-mta/stagecoach/core/command"
	"github.com/stagecoach-mta/stagecoach/core/pluginbench"
)

// TestPluginBench: every kind has figures, beside those of a bare stream.
func TestPluginBench(t *testing.T) {
	tidy(t)
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	people, err := filepath.Abs("configs/dev-people.hcl")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args []string
		rows []string
	}{
		{[]string{"examples/attachments", "-c", write("a.hcl", `forbid = [".exe"]`)}, []string{"MESSAGE, 4 KiB inline", "MESSAGE, 1 MiB by reference"}},
		{[]string{"pipe", "-c", write("p.hcl", `command = ["/bin/true"]`)}, []string{"Deliver, 4 KiB inline", "Deliver, 1 MiB by reference"}},
		{[]string{"file", "-c", write("f.hcl", fmt.Sprintf("path = %q", people))}, []string{"Resolve"}},
		{[]string{"local", "--size", "32KiB"}, []string{"Fetch of one message", "Append, 32 KiB by reference", "Append, 1 MiB by reference"}},
		{[]string{"pop3"}, []string{"connection to greeting"}},
	} {
		code, out, errs := run(t, append([]string{"plugin", "bench", "--json", "--time", "30ms", "--at", "2"}, c.args...)...)
		var rep pluginbench.Report
		if err := json.Unmarshal([]byte(out), &rep); code != command.ExitOK || err != nil {
			t.Errorf("%s: exit %d, %v\n%s%s", c.args, code, err, out, errs)
			continue
		}
		if rep.At != 2 || rep.StartMS <= 0 || rep.PSSBefore <= 0 || rep.PSSAfter <= 0 || rep.Kind == "" {
			t.Errorf("%s: %+v", c.args, rep)
		}
		var names []string
		for _, r := range rep.Rows {
			names = append(names, r.Name)
			for _, f := range []pluginbench.Figures{r.Plugin, r.Bare} {
				// CPU time comes in ticks: of a few calls it may be none.
				if f.Calls < 2 || f.Errors != 0 || f.PerSecond <= 0 || f.P50 <= 0 || f.P99 < f.P50 {
					t.Errorf("%s, %s: %+v", c.args, r.Name, f)
				}
			}
			if r.TimeRatio <= 0 || r.BareName == "" {
				t.Errorf("%s, %s: ratio %v to %q", c.args, r.Name, r.TimeRatio, r.BareName)
			}
		}
		if strings.Join(names, ";") != strings.Join(c.rows, ";") {
			t.Errorf("%s: measured %q, want %q", c.args, names, c.rows)
		}
	}

	code, out, errs := run(t, "plugin", "bench", "headers", "--time", "30ms", "--at", "2")
	for _, w := range []string{`filter "headers"`, "start to ready", "PER SECOND", "MESSAGE, envelope only", "bare gRPC stream", "ratio"} {
		if code != command.ExitOK || !strings.Contains(out, w) {
			t.Errorf("exit %d, no %q in\n%s%s", code, w, out, errs)
		}
	}
	for _, c := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{"headers", "--at", "0"}, command.ExitUsage, "--at"},
		{[]string{"headers", "--size", "big"}, command.ExitUsage, "--size"},
		{[]string{"pipe"}, command.ExitConfig, "command"},
		{[]string{"./nowhere"}, command.ExitFailed, "nowhere"},
	} {
		if code, _, errs := run(t, append([]string{"plugin", "bench"}, c.args...)...); code != c.code || !strings.Contains(errs, c.says) {
			t.Errorf("%s: exit %d, %q", c.args, code, errs)
		}
	}
}
