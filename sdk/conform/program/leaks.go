package program

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/stagecoach-mta/stagecoach/sdk/conform"
)

// Rounds of calls. A leak grows with every round; a heap that finds its size, or
// a pool that fills, stops to, and then the measuring ends early. JavaScript's takes
// about ten thousand calls for that.
const (
	maxRounds  = 45
	maxTime    = 40 * time.Second
	roundCalls = 400
	roundTime  = 1500 * time.Millisecond
	// quietRounds one after the other are enough to believe that nothing grows, if
	// they are also a third of all: a heap that leaks rests too, when it has just
	// become larger.
	quietRounds = 3
	// What one round may add and count as quiet, in the mean over these.
	quietBytes = 384 << 10
	quietCount = 3
	// What nothing that finds its size adds: more rounds would show no more.
	leakBytes = 128 << 20
	leakCount = 100
)

// usage is what the processes of a group hold.
type usage struct {
	bytes   int64
	files   int
	threads int
	calls   int
}

// leaking makes three checks of one measurement.
func (s *suite) leaking(t conform.T) {
	const remedy = "close what a call opened, also when it fails; cap caches; keep nothing of a call that has been answered"
	for _, c := range []struct {
		name, contract string
		of             func(u usage) int64
		quiet          int64
		unit           func(int64) string
	}{
		{"leaks: memory does not grow with the calls", "plugin.proto, Plugin: a process lives for months", func(u usage) int64 { return u.bytes }, quietBytes,
			func(n int64) string { return fmt.Sprintf("%.1f MB", float64(n)/(1<<20)) }},
		{"leaks: open files do not grow with the calls", "plugin.proto, Plugin: a process lives for months", func(u usage) int64 { return int64(u.files) }, quietCount,
			func(n int64) string { return fmt.Sprintf("%d files", n) }},
		{"leaks: threads do not grow with the calls", "plugin.proto, Plugin: a process lives for months", func(u usage) int64 { return int64(u.threads) }, quietCount,
			func(n int64) string { return fmt.Sprintf("%d threads", n) }},
	} {
		s.check(t, "", conform.Check{Name: c.name, Contract: c.contract, Remedy: remedy, Do: func(t conform.T) {
			s.measure(t)
			first, last := s.samples[0], s.samples[len(s.samples)-1]
			quiet := false
			for n := range s.samples {
				quiet = quiet || rests(s.samples[:n+1], c.of, c.quiet)
			}
			t.Logf("%s after the warm-up, %s after %d calls more", c.unit(c.of(first)), c.unit(c.of(last)), last.calls)
			if !quiet {
				t.Errorf("%s after the warm-up and %s after %d calls more; it grew all the time",
					c.unit(c.of(first)), c.unit(c.of(last)), last.calls)
			}
		}})
	}
}

// measure makes rounds of calls and notes what the process holds after each.
func (s *suite) measure(t conform.T) {
	t.Helper()
	if s.samples != nil {
		return
	}
	p := s.fresh(t, nil)
	if _, ok := used(p.pid); !ok {
		t.Skipf("what a process holds cannot be read here: there is no /proc")
	}
	calls := 0
	round := func() {
		begin := time.Now()
		for done := 0; done < roundCalls && time.Since(begin) < roundTime; done += 50 {
			if fault := s.load(t.Context(), p, 10_000+calls, 50); fault != "" {
				t.Fatalf("after %d calls: %s", calls, fault)
			}
			calls += 50
		}
	}
	round()
	round()
	warm := calls
	var samples []usage
	for begin := time.Now(); len(samples) <= quietRounds || len(samples) <= maxRounds && time.Since(begin) < maxTime; {
		u, ok := used(p.pid)
		if !ok {
			t.Fatalf("the process ended after %d calls; %s", calls, p.state())
		}
		u.calls = calls - warm
		if samples = append(samples, u); settled(samples) || len(samples) > 2*quietRounds && leaked(samples[0], u) {
			break
		}
		round()
	}
	s.samples = samples
}

// settled tells whether nothing grows any more.
func settled(samples []usage) bool {
	return rests(samples, func(u usage) int64 { return u.bytes }, quietBytes) &&
		rests(samples, func(u usage) int64 { return int64(u.files) }, quietCount) &&
		rests(samples, func(u usage) int64 { return int64(u.threads) }, quietCount)
}

// leaked tells whether something grew beyond all doubt.
func leaked(a, b usage) bool {
	return b.bytes-a.bytes > leakBytes || b.files-a.files > leakCount || b.threads-a.threads > leakCount
}

// rests tells whether one thing did not grow in the last rounds.
func rests(samples []usage, of func(u usage) int64, quiet int64) bool {
	last := len(samples) - 1
	rounds := max(quietRounds, last/3)
	return last >= rounds && of(samples[last])-of(samples[last-rounds]) <= quiet*int64(rounds)
}

// used adds up what the processes of the group hold; false without a /proc.
func used(group int) (u usage, ok bool) {
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, path := range stats {
		b, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		// The name in parentheses may hold anything; the group is the third after it.
		f := bytes.Fields(b[bytes.LastIndexByte(b, ')')+1:])
		if len(f) < 22 || string(f[2]) != strconv.Itoa(group) || string(f[0]) == "Z" {
			continue
		}
		dir := filepath.Dir(path)
		threads, _ := strconv.Atoi(string(f[17]))
		u.threads += threads
		u.bytes += private(dir, string(f[21]))
		if fds, err := os.ReadDir(filepath.Join(dir, "fd")); err == nil {
			u.files += len(fds)
		}
		ok = true
	}
	return u, ok
}

// private is a process's memory that is its own: pages of the program's file
// come and go as the kernel likes.
func private(dir, pages string) int64 {
	if b, err := os.ReadFile(filepath.Join(dir, "status")); err == nil {
		for line := range strings.Lines(string(b)) {
			if kb, ok := strings.CutPrefix(line, "RssAnon:"); ok {
				n, _ := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(kb), " kB"), 10, 64)
				return n << 10
			}
		}
	}
	n, _ := strconv.ParseInt(pages, 10, 64)
	return n * int64(os.Getpagesize())
}
