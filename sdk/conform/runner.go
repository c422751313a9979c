package conform

import (
	"context"
	"errors"
	"fmt"
	"os"
	"regexp"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"time"
)

// Timeouts of a Runner that names none.
const (
	// DefaultTimeout of one check.
	DefaultTimeout = time.Minute
	// hangGrace is how long a check may take to notice its deadline, and its
	// cleanups to end.
	hangGrace = 5 * time.Second
)

// maxSeen bounds what is kept of one check, so that one that fails in a loop
// does not fill the report.
const maxSeen = 20

// Runner makes checks outside of `go test` and collects what came of them. A
// check that panics, ends its goroutine or hangs fails alone.
type Runner struct {
	// Match selects checks by name; nil: all.
	Match *regexp.Regexp
	// Timeout of one check; 0: DefaultTimeout.
	Timeout time.Duration
	// Begin and End tell of progress; nil: nobody listens.
	Begin func(name string)
	End   func(Result)
	// grace in place of hangGrace, for tests.
	grace time.Duration
}

// Status of a check.
type Status string

// What a check came to.
const (
	Pass Status = "pass"
	Fail Status = "fail"
	Skip Status = "skip"
)

// Result of one check.
type Result struct {
	Check  string  `json:"check"`
	Status Status  `json:"status"`
	TookMS float64 `json:"took_ms"`
	// Seen is what was seen that should not be, for a failure.
	Seen []string `json:"seen,omitempty"`
	// Notes are figures and the like.
	Notes []string `json:"notes,omitempty"`
	// Reason of a skip.
	Reason   string `json:"reason,omitempty"`
	Contract string `json:"contract,omitempty"`
	Remedy   string `json:"remedy,omitempty"`
}

// Report of a run.
type Report struct {
	Results []Result `json:"results"`
	Passed  int      `json:"passed"`
	Failed  int      `json:"failed"`
	Skipped int      `json:"skipped"`
	TookMS  float64  `json:"took_ms"`
	// Problem is why the run could not be made, or not to its end.
	Problem string `json:"problem,omitempty"`
}

// Run calls suite with a T whose checks are collected.
func (r *Runner) Run(ctx context.Context, suite func(t T)) *Report {
	begin := time.Now()
	run := &run{Runner: r, report: &Report{Results: []Result{}}}
	var err error
	// Short: sockets are made below it, and their paths have little room.
	if run.dir, err = os.MkdirTemp("", "conform"); err != nil {
		run.report.Problem = err.Error()
		return run.report
	}
	defer os.RemoveAll(run.dir)
	top := &recorder{run: run, ctx: ctx}
	// The suite itself only makes checks, each of which ends by its deadline.
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer top.recover()
		suite(top)
	}()
	<-done
	top.end(run.patience())
	switch {
	case len(top.seen) > 0:
		run.report.Problem = strings.Join(top.seen, "; ")
	case top.skipped != "":
		run.report.Problem = top.skipped
	case ctx.Err() != nil:
		run.report.Problem = "interrupted: " + context.Cause(ctx).Error()
	}
	run.report.TookMS = milliseconds(time.Since(begin))
	return run.report
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// run is one Run under way.
type run struct {
	*Runner
	dir    string
	report *Report
}

func (r *run) patience() time.Duration {
	if r.grace > 0 {
		return r.grace
	}
	return hangGrace
}

func (r *run) check(ctx context.Context, c Check) bool {
	if ctx.Err() != nil || r.Match != nil && !r.Match.MatchString(c.Name) {
		return true
	}
	if r.Begin != nil {
		r.Begin(c.Name)
	}
	begin := time.Now()
	timeout := c.Timeout
	if timeout == 0 {
		timeout = r.Timeout
	}
	if timeout == 0 {
		timeout = DefaultTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	t := &recorder{run: r, ctx: ctx}
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer t.recover()
		c.Do(t)
	}()
	select {
	case <-done:
	case <-ctx.Done():
		select {
		case <-done:
			if errors.Is(ctx.Err(), context.DeadlineExceeded) {
				t.Errorf("the check did not end within %s", timeout)
			}
		case <-time.After(r.patience()):
			t.Errorf("the check hangs: it did not end within %s, nor when its context ended", timeout)
		}
	}
	cancel()
	t.end(r.patience())
	res := t.result(c)
	res.TookMS = milliseconds(time.Since(begin))
	r.report.add(res)
	if r.End != nil {
		r.End(res)
	}
	return res.Status != Fail
}

func (p *Report) add(res Result) {
	p.Results = append(p.Results, res)
	switch res.Status {
	case Pass:
		p.Passed++
	case Fail:
		p.Failed++
	case Skip:
		p.Skipped++
	}
}

// recorder is a Runner's T.
type recorder struct {
	run *run
	ctx context.Context

	mu       sync.Mutex
	ended    bool
	seen     []string
	notes    []string
	skipped  string
	cleanups []func()
	dirs     []string
}

var _ T = (*recorder)(nil)

// Helper implements T.
func (t *recorder) Helper() {}

// Context implements T.
func (t *recorder) Context() context.Context { return t.ctx }

// Cleanup implements T. What comes after the check has ended is done at once.
func (t *recorder) Cleanup(f func()) {
	t.mu.Lock()
	ended := t.ended
	if !ended {
		t.cleanups = append(t.cleanups, f)
	}
	t.mu.Unlock()
	if ended {
		f()
	}
}

// TempDir implements T.
func (t *recorder) TempDir() string {
	dir, err := os.MkdirTemp(t.run.dir, "")
	if err != nil {
		t.Fatalf("no temporary directory: %v", err)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.dirs = append(t.dirs, dir)
	return dir
}

// Logf implements T.
func (t *recorder) Logf(format string, args ...any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.ended && len(t.notes) < maxSeen {
		t.notes = append(t.notes, fmt.Sprintf(format, args...))
	}
}

// Errorf implements T.
func (t *recorder) Errorf(format string, args ...any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.ended:
	case len(t.seen) < maxSeen:
		t.seen = append(t.seen, fmt.Sprintf(format, args...))
	case len(t.seen) == maxSeen:
		t.seen = append(t.seen, "and more")
	}
}

// Fatalf implements T.
func (t *recorder) Fatalf(format string, args ...any) {
	t.Errorf(format, args...)
	runtime.Goexit()
}

// Skipf implements T.
func (t *recorder) Skipf(format string, args ...any) {
	t.mu.Lock()
	t.skipped = fmt.Sprintf(format, args...)
	t.mu.Unlock()
	runtime.Goexit()
}

// Failed implements T.
func (t *recorder) Failed() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.seen) > 0
}

// Run implements T.
func (t *recorder) Run(c Check) bool { return t.run.check(t.ctx, c) }

// recover notes a panic of the check, which is a fault of the suite or of a
// factory that an author wrote.
func (t *recorder) recover() {
	if p := recover(); p != nil {
		t.Errorf("the check panicked: %v\n%s", p, debug.Stack())
	}
}

// end runs the cleanups, the last one first, and closes the book. A cleanup that
// hangs is left behind.
func (t *recorder) end(patience time.Duration) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		for t.cleanup() {
		}
	}()
	select {
	case <-done:
	case <-time.After(patience):
		t.Errorf("what the check started could not be stopped within %s", patience)
	}
	t.mu.Lock()
	t.ended = true
	dirs := t.dirs
	t.mu.Unlock()
	for _, d := range dirs {
		os.RemoveAll(d)
	}
}

func (t *recorder) cleanup() bool {
	t.mu.Lock()
	n := len(t.cleanups)
	if n == 0 {
		t.mu.Unlock()
		return false
	}
	f := t.cleanups[n-1]
	t.cleanups = t.cleanups[:n-1]
	t.mu.Unlock()
	// In a goroutine of its own, because Fatalf may end it.
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer t.recover()
		f()
	}()
	<-done
	return true
}

func (t *recorder) result(c Check) Result {
	t.mu.Lock()
	defer t.mu.Unlock()
	res := Result{Check: c.Name, Status: Pass, Seen: t.seen, Notes: t.notes}
	switch {
	case len(t.seen) > 0:
		res.Status, res.Contract, res.Remedy = Fail, c.Contract, c.Remedy
	case t.skipped != "":
		res.Status, res.Reason = Skip, t.skipped
	}
	return res
}
