package host

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
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
	ctx, cancel := context.WithTimeout(t.Context(), patience)
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

// A new binary for an access plugin: a session of before goes on with the old
// one, every client that comes is greeted, and no restart is counted.
func TestUpgradeKeepsSessions(t *testing.T) {
	h, _ := testHost(t)
	program := t.TempDir() + "/plugin"
	install(t, program, "")
	s := accessSpec("")
	s.Command = []string{program}
	if _, err := provision(h, s); err != nil {
		t.Fatal(err)
	}
	i := h.Instance(s.Instance)
	addr := i.Info().Listeners[0]
	session, replies, old := dial(t, addr)
	install(t, program, "upgraded")
	reloaded := make(chan error, 1)
	go func() { reloaded <- h.Reload(context.Background(), s) }()
	clients := 0
	eventually(t, "new clients get the new program", func() bool {
		c, _, pid := dial(t, addr) // fails the test if nobody greets
		c.Close()
		clients++
		return pid != old
	})
	if err := <-reloaded; err != nil {
		t.Fatal(err)
	}
	for range 3 {
		fmt.Fprintln(session, "pid")
		if got, err := replies.ReadString('\n'); err != nil || strings.TrimSpace(got) != old {
			t.Fatalf("the session of before: %q, %v", got, err)
		}
	}
	session.Close()
	was, _ := strconv.Atoi(old)
	eventually(t, "the old process ends after its session", func() bool { return !slices.Contains(processesOf(h.opts.RunDir), was) })
	if info := i.Info(); info.Restarts != 0 || clients == 0 {
		t.Errorf("%d restarts, %d clients", info.Restarts, clients)
	}
}

// What a hundred restarts leave behind is what one leaves: nothing. Half of them
// are deaths, half are replacements; testHost looks for the rest at the end.
func TestHundredRestartsLeaveNothing(t *testing.T) {
	h, _ := testHost(t)
	h.timing.backoff, h.timing.backoffMax, h.timing.quick, h.timing.breaker = time.Millisecond, time.Millisecond, 0, 1000
	storage := boxed("storage.test.mail", "kind=storage", Sandbox{})
	storage.Kind, storage.DataDir = v1.Kind_KIND_STORAGE, t.TempDir()
	if _, err := provision(h, storage); err != nil {
		t.Fatal(err)
	}
	i := h.Instance(storage.Instance)
	count := func() (files, processes, entries int) {
		mustAsk(t, i, "pid")
		eventually(t, "one process", func() bool { return len(processesOf(h.opts.RunDir)) == 1 })
		eventually(t, "one directory", func() bool { e, _ := os.ReadDir(i.place.dir); entries = len(e); return entries <= 2 })
		return openFiles(t), len(processesOf(h.opts.RunDir)), entries
	}
	restart := func(n int) {
		if n%2 == 0 {
			before := i.Info().Restarts
			if _, err := ask(t, i, "crash"); err == nil {
				t.Fatal("it did not crash")
			}
			eventually(t, "it is back", func() bool { return i.Info().Restarts > before })
		} else if err := h.Restart(t.Context(), storage.Instance); err != nil {
			t.Fatal(err)
		}
	}
	for n := range 4 {
		restart(n)
	}
	files, processes, entries := count()
	routines := runtime.NumGoroutine()
	for n := range 100 {
		restart(n)
	}
	eventually(t, "descriptors and goroutines are as before", func() bool {
		f, p, e := count()
		return f <= files && p <= processes && e <= entries && runtime.NumGoroutine() <= routines
	})
	if info := i.Info(); info.Restarts != 52 {
		t.Errorf("%d restarts counted, want 52", info.Restarts)
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
