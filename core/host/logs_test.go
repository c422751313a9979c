package host

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestRingIsBounded(t *testing.T) {
	r := newLogRing()
	for n := range keptLines + 500 {
		r.add(LogLine{Message: strconv.Itoa(n)})
	}
	if len(r.lines) != keptLines || r.lines[0].Message != "500" {
		t.Errorf("%d lines from %s on, want %d from 500 on", len(r.lines), r.lines[0].Message, keptLines)
	}
	big := strings.Repeat("x", 3*keptOfLine)
	for range keptLines {
		r.add(LogLine{Message: big, Fields: map[string]json.RawMessage{"a": json.RawMessage(`"` + big + `"`)}})
	}
	total := 0
	for n := range r.lines {
		total += r.lines[n].size()
	}
	if total != r.octets || total > keptOctets || len(r.lines) < keptOctets/(2*keptOfLine) {
		t.Errorf("%d octets in %d lines, counted as %d", total, len(r.lines), r.octets)
	}
	if last := r.lines[len(r.lines)-1]; last.Fields != nil || !strings.Contains(last.Message, "too long") {
		t.Error("fields of any length are kept")
	}
}

func TestFollowerKnowsWhatItMissed(t *testing.T) {
	r := newLogRing()
	f := Follower{ring: r}
	r.add(LogLine{Message: "first"})
	if lines, missed, err := f.Next(t.Context()); len(lines) != 1 || missed != 0 || err != nil {
		t.Errorf("%v, %d, %v", lines, missed, err)
	}
	for n := range keptLines + 7 {
		r.add(LogLine{Message: strconv.Itoa(n)})
	}
	lines, missed, err := f.Next(t.Context())
	if len(lines) != keptLines || missed != 7 || err != nil || lines[0].Message != "7" {
		t.Errorf("%d lines, %d missed, %v", len(lines), missed, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := f.Next(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("%v, want the context's end", err)
	}
	r.add(LogLine{Message: "last"})
	r.close()
	r.add(LogLine{Message: "too late"})
	if lines, _, err := f.Next(t.Context()); len(lines) != 1 || lines[0].Message != "last" || err != nil {
		t.Errorf("%v, %v", lines, err)
	}
	if lines, _, err := f.Next(t.Context()); len(lines) != 0 || err != nil {
		t.Errorf("after the end: %v, %v", lines, err)
	}
}

// The log of an instance holds what the plugin wrote, with time, level and
// fields, and what became of it, over a restart; who follows sees it come.
func TestLogsOfAnInstance(t *testing.T) {
	h, _ := testHost(t)
	if _, err := provision(h, filterSpec("filter.test.a", ""), filterSpec("filter.test.b", "")); err != nil {
		t.Fatal(err)
	}
	i := h.Instance("filter.test.a")
	began := time.Now()
	f, err := h.Follow("filter.test.a", 0)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	wait := func(text string) LogLine {
		t.Helper()
		for {
			lines, _, err := f.Next(ctx)
			if err != nil {
				t.Fatalf("%q never came: %v", text, err)
			}
			for _, l := range lines {
				if strings.Contains(l.Message, text) {
					return l
				}
			}
		}
	}
	pid, _ := strconv.Atoi(mustAsk(t, i, "say={\"level\":\"warn\",\"message\":\"the list is old\",\"days\":9}"))
	l := wait("the list is old")
	if l.Level != "warn" || l.PID != pid || string(l.Fields["days"]) != "9" || l.Time.Before(began) {
		t.Errorf("%+v, want a warning of process %d with its days", l, pid)
	}
	mustAsk(t, i, "say=plain words")
	if l := wait("plain words"); l.Level != "info" || l.PID != pid {
		t.Errorf("%+v", l)
	}
	syscall.Kill(pid, syscall.SIGKILL)
	if l := wait("plugin is restarting: process ended (signal: killed)"); l.Level != "error" || l.PID != 0 {
		t.Errorf("%+v", l)
	}
	mustAsk(t, i, "pid")
	wait("plugin is ready")

	all, err := h.Logs("filter.test.a", 0)
	if err != nil || !strings.Contains(fmt.Sprint(all), "the list is old") {
		t.Errorf("the log from before the restart is gone: %v, %v", all, err)
	}
	if last, err := h.Logs("filter.test.a", 2); err != nil || len(last) != 2 || last[1].Message != all[len(all)-1].Message {
		t.Errorf("%v, %v, want the last two", last, err)
	}
	if other, err := h.Logs("filter.test.b", 0); err != nil || strings.Contains(fmt.Sprint(other), "the list is old") {
		t.Errorf("%v, %v: another one's lines", other, err)
	}
	if _, err := h.Logs("filter.test.c", 0); err == nil || !strings.Contains(err.Error(), "plugin list") {
		t.Errorf("%v, want an error with a remedy", err)
	}
	// The instance goes: who follows is told.
	if _, err := provision(h, filterSpec("filter.test.b", "")); err != nil {
		t.Fatal(err)
	}
	for {
		lines, _, err := f.Next(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if len(lines) == 0 {
			break
		}
	}
	if len(h.rings) != 1 {
		t.Errorf("%d logs are kept, for one instance", len(h.rings))
	}
}

// say writes a line to the process's real stderr.
func say(line string) { syscall.Write(2, []byte(line+"\n")) }

// A reload of one instance takes the Spec it is given and a program that was
// replaced; calls go on, the others keep their process.
func TestReloadOneInstance(t *testing.T) {
	h, _ := testHost(t)
	dir := t.TempDir()
	program := dir + "/plugin"
	install(t, program, "")
	s := filterSpec("filter.test.a", "")
	s.Command, s.ConfigJSON = []string{program}, []byte(`{"n":1}`)
	if _, err := provision(h, s, filterSpec("filter.test.b", "")); err != nil {
		t.Fatal(err)
	}
	a, b := h.Instance("filter.test.a"), h.Instance("filter.test.b")
	other := mustAsk(t, b, "pid")
	stop := steady(t, a)
	first := mustAsk(t, a, "pid")

	// The same Spec: a new process all the same.
	if err := h.Reload(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	second := mustAsk(t, a, "pid")
	if second == first {
		t.Error("still the old process")
	}
	// Another program in its place, and another configuration.
	install(t, program, "upgraded")
	s.ConfigJSON = []byte(`{"n":2}`)
	if err := h.Reload(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	if got := mustAsk(t, a, "config"); got != `{"n":2}` {
		t.Errorf("configured with %s", got)
	}
	if got, _ := os.ReadFile("/proc/" + mustAsk(t, a, "pid") + "/exe"); !strings.HasSuffix(string(got), "upgraded") {
		t.Error("it does not run the new file")
	}
	// A program that does not start: the one that runs stays.
	before := mustAsk(t, a, "pid")
	if err := os.WriteFile(program+".new", []byte("#!/bin/sh\necho no plugin\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(program+".new", program); err != nil {
		t.Fatal(err)
	}
	if err := h.Reload(t.Context(), s); err == nil || !strings.Contains(err.Error(), "no plugin handshake") {
		t.Errorf("%v, want the reason", err)
	}
	if mustAsk(t, a, "pid") != before || mustAsk(t, b, "pid") != other {
		t.Error("a process changed that should not")
	}
	if n := stop(); n < 5 {
		t.Errorf("%d calls over the reloads", n)
	}
	if info := a.Info(); info.Errors != 0 || info.Restarts != 0 {
		t.Errorf("%+v: calls were lost", info)
	}
	missing := s
	missing.Instance = "filter.test.c"
	if err := h.Reload(t.Context(), missing); err == nil || !strings.Contains(err.Error(), "plugin list") {
		t.Errorf("%v", err)
	}
}

// install puts this test's program, with a tail that tells it apart, in the place
// of another in one step, as a package manager does.
func install(t *testing.T, path, tail string) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path+".new", append(content, tail...), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}
