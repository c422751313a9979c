package host

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// troubleOf is what Info says in words of one kind; "" for nothing.
func troubleOf(i *Instance, kind TroubleKind) string {
	for _, t := range i.Info().Troubles {
		if t.Kind == kind {
			return t.Text
		}
	}
	return ""
}

// What happened is counted over a time and told for that long, in words.
func TestTroublesFade(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 30, 0, time.UTC)
	tr := newTroubles()
	tr.now = func() time.Time { return now }
	for range 12034 {
		tr.dropped(1, 100)
	}
	now = now.Add(5 * time.Minute)
	tr.end(endedFor(Memory, "it used 97 MB of memory, more than what its sandbox allows (96 MB)"), Crash)
	tr.end(errors.New("process ended (exit status 2)"), Crash)
	tr.end(errors.New("process ended (exit status 3)"), Crash)
	tr.state(Unresponsive, "has not answered health checks for 4s")
	now = now.Add(3 * time.Minute)
	for _, c := range []struct {
		after time.Duration
		want  []string
	}{
		{0, []string{
			"has not answered health checks for 4s",
			"was ended 3 min ago: it used 97 MB of memory, more than what its sandbox allows (96 MB)",
			"crashed 3 min ago, 2 times in the last hour: process ended (exit status 3)",
			"floods its log: 12,034 lines (1.2 MB) dropped in the last 10 min",
		}},
		{4 * time.Minute, []string{
			"has not answered health checks for 4s",
			"was ended 7 min ago: it used 97 MB of memory, more than what its sandbox allows (96 MB)",
			"crashed 7 min ago, 2 times in the last hour: process ended (exit status 3)",
		}},
		{2 * time.Hour, []string{"has not answered health checks for 4s"}},
	} {
		now = now.Add(c.after)
		var info Info
		tr.fill(&info)
		var got []string
		for _, one := range info.Troubles {
			got = append(got, one.Text)
		}
		if strings.Join(got, "\n") != strings.Join(c.want, "\n") {
			t.Errorf("after %v more:\n%s\nwant\n%s", c.after, strings.Join(got, "\n"), strings.Join(c.want, "\n"))
		}
		if info.DroppedLines != 12034 || info.DroppedOctets != 1203400 {
			t.Errorf("%d lines of %d octets dropped ever", info.DroppedLines, info.DroppedOctets)
		}
	}
	tr.calm()
	var info Info
	if tr.fill(&info); len(info.Troubles) != 0 {
		t.Errorf("%+v, and nothing is the matter", info.Troubles)
	}
}

// One long line is cut and no more; one without an end is a flood.
func TestLineWithoutEndIsAFlood(t *testing.T) {
	h, log := testHost(t)
	if _, err := provision(h, filterSpec("filter.test.a", "")); err != nil {
		t.Fatal(err)
	}
	i := h.Instance("filter.test.a")
	mustAsk(t, i, "write=100000")
	eventually(t, "it is cut", func() bool { return strings.Contains(log.String(), `"cut":true`) })
	if got := troubleOf(i, LogFlood); got != "" {
		t.Errorf("one long line: %q", got)
	}
	mustAsk(t, i, "write=12000000")
	eventually(t, "it is a flood", func() bool { return strings.Contains(troubleOf(i, LogFlood), "floods its log") })
	eventually(t, "the log says so", func() bool { return strings.Contains(log.String(), "a line that does not end") })
}

// What a plugin without a sandbox has started ends with it, also what left its
// group, and is named.
func TestLeftBehindIsKilledAndNamed(t *testing.T) {
	h, log := testHost(t)
	if _, err := provision(h, filterSpec("filter.test.a", "")); err != nil {
		t.Fatal(err)
	}
	i := h.Instance("filter.test.a")
	for _, what := range []string{"daemon:", "fork:2"} {
		if got := try(t, i, what); got != "done" {
			t.Fatal(got)
		}
	}
	if n := len(processesOf(h.opts.RunDir)); n != 4 {
		t.Fatalf("%d processes, want plugin, daemon and two children", n)
	}
	ask(t, i, "crash")
	mustAsk(t, i, "pid")
	eventually(t, "only the new process is there", func() bool { return len(processesOf(h.opts.RunDir)) == 1 })
	if got := troubleOf(i, LeftBehind); !strings.HasPrefix(got, "left 3 processes behind when it ended, which were killed") {
		t.Errorf("told as %q", got)
	}
	if !strings.Contains(log.String(), "plugin left 3 processes behind") {
		t.Error("not in the log")
	}
	if got := troubleOf(i, Crash); !strings.Contains(got, "process ended (exit status 7)") {
		t.Errorf("its end is told as %q", got)
	}
}

// A process that is stopped is named at once, and still when it was replaced.
func TestStoppedProcessIsNamed(t *testing.T) {
	h, _ := testHost(t)
	h.timing.healthTimeout = time.Second
	if _, err := provision(h, filterSpec("filter.test.a", "")); err != nil {
		t.Fatal(err)
	}
	i := h.Instance("filter.test.a")
	syscall.Kill(i.Info().PID, syscall.SIGSTOP)
	eventually(t, "it is named", func() bool { return strings.Contains(troubleOf(i, Unresponsive), "a signal has stopped it") })
	eventually(t, "it is replaced", func() bool { return i.Info().Restarts == 1 })
	if got := troubleOf(i, Unresponsive); !strings.Contains(got, "was ended") || !strings.Contains(got, "health checks") {
		t.Errorf("afterwards it is told as %q", got)
	}
}

func TestSinceAndCount(t *testing.T) {
	for d, want := range map[time.Duration]string{0: "just now", 90 * time.Second: "90 s ago", 20 * time.Minute: "20 min ago"} {
		if got := since(d); got != want {
			t.Errorf("%v: %q, want %q", d, got, want)
		}
	}
	if count(1, "process") != "1 process" || count(1234567, "line") != "1,234,567 lines" || count(2, "process") != "2 processes" {
		t.Error(count(1, "process"), count(1234567, "line"), count(2, "process"))
	}
}

// A mark is one variable as it is, or all below a folder.
func TestMark(t *testing.T) {
	dir := t.TempDir()
	pid := os.Getpid()
	if hasMark(pid, []byte("NO_SUCH_VARIABLE="+filepath.Join(dir, "x"))) || !hasMark(pid, []byte("PATH="+os.Getenv("PATH"))) {
		t.Error("a variable as it is")
	}
	if hasMark(pid, []byte("PATH=")) {
		t.Error("the beginning of a variable is no mark")
	}
}
