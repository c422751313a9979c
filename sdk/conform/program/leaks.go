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
// a pool that fills, stops to, and then the measuring ends early.
const (
	maxRounds  = 6
	roundCalls = 400
	roundTime  = 1500 * time.Millisecond
	// quietRounds are enough to believe that nothing grows.
	quietRounds = 2
	// What one round may add and count as quiet.
	quietBytes = 384 << 10
	quietCount = 3
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
			quiet := 0
			for i := 1; i < len(s.samples); i++ {
				if c.of(s.samples[i])-c.of(s.samples[i-1]) <= c.quiet {
					quiet++
				}
			}
			t.Logf("%s after the warm-up, %s after %d calls more", c.unit(c.of(first)), c.unit(c.of(last)), last.calls)
			if quiet < quietRounds {
				t.Errorf("%s after the warm-up and %s after %d calls more; it grew in %d of %d rounds of calls",
					c.unit(c.of(first)), c.unit(c.of(last)), last.calls, len(s.samples)-1-quiet, len(s.samples)-1)
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
	for len(samples) <= maxRounds {
		u, ok := used(p.pid)
		if !ok {
			t.Fatalf("the process ended after %d calls; %s", calls, p.state())
		}
		u.calls = calls - warm
		if samples = append(samples, u); settled(samples) {
			break
		}
		round()
	}
	s.samples = samples
}

// settled tells whether nothing grew in quietRounds rounds.
func settled(samples []usage) bool {
	quiet := 0
	for i := 1; i < len(samples); i++ {
		a, b := samples[i-1], samples[i]
		if b.bytes-a.bytes <= quietBytes && b.files-a.files <= quietCount && b.threads-a.threads <= quietCount {
			quiet++
		}
	}
	return quiet >= quietRounds
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
