package conform

import (
	"context"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"
)

func TestRunnerCollectsWhatCameOfEachCheck(t *testing.T) {
	var order []string
	var dir string
	stuck := make(chan struct{})
	defer close(stuck)
	r := &Runner{grace: 50 * time.Millisecond}
	report := r.Run(t.Context(), func(t T) {
		t.Run(Check{Name: "passes", Contract: "c", Remedy: "r", Do: func(t T) {
			t.Cleanup(func() { order = append(order, "first") })
			t.Cleanup(func() { order = append(order, "second") })
			dir = t.TempDir()
			t.Logf("%d fds", 7)
		}})
		t.Run(Check{Name: "fails twice", Contract: "filter.proto, Verdict", Remedy: "mend it", Do: func(t T) {
			t.Errorf("one")
			t.Fatalf("two")
			t.Errorf("never")
		}})
		t.Run(Check{Name: "skips", Do: func(t T) { t.Skipf("no %s", "password") }})
		t.Run(Check{Name: "fails, then skips", Do: func(t T) { t.Errorf("seen"); t.Skipf("late") }})
		t.Run(Check{Name: "panics", Do: func(T) { panic("oh no") }})
		t.Run(Check{Name: "is late", Timeout: time.Millisecond, Do: func(t T) { <-t.Context().Done() }})
		t.Run(Check{Name: "hangs", Timeout: time.Millisecond, Do: func(t T) { <-stuck; t.Errorf("too late") }})
		t.Run(Check{Name: "cleanup fails", Do: func(t T) { t.Cleanup(func() { t.Fatalf("cannot stop it") }) }})
		t.Run(Check{Name: "cleanup hangs", Do: func(t T) { t.Cleanup(func() { <-stuck }) }})
		t.Run(Check{Name: "fails in a loop", Do: func(t T) {
			for range 1000 {
				t.Errorf("again")
			}
		}})
		t.Run(Check{Name: "goes on after all that", Do: func(T) {}})
	})
	want := map[string]struct {
		status Status
		text   string
	}{
		"passes": {Pass, ""}, "fails twice": {Fail, "one|two"}, "skips": {Skip, ""}, "fails, then skips": {Fail, "seen"},
		"panics": {Fail, "oh no"}, "is late": {Fail, "did not end within"}, "hangs": {Fail, "hangs"},
		"cleanup fails": {Fail, "cannot stop it"}, "cleanup hangs": {Fail, "could not be stopped"},
		"fails in a loop": {Fail, "and more"}, "goes on after all that": {Pass, ""},
	}
	for _, res := range report.Results {
		w, ok := want[res.Check]
		delete(want, res.Check)
		if seen := strings.Join(res.Seen, "|"); !ok || res.Status != w.status || !strings.Contains(seen, w.text) || strings.Contains(seen, "never") {
			t.Errorf("%s: %s %q", res.Check, res.Status, res.Seen)
		}
		if res.Check == "fails twice" && (res.Contract != "filter.proto, Verdict" || res.Remedy != "mend it") {
			t.Errorf("a failure without its words: %+v", res)
		}
		if res.Check == "skips" && res.Reason != "no password" {
			t.Errorf("a skip without its reason: %+v", res)
		}
		if len(res.Seen) > maxSeen+1 {
			t.Errorf("%s kept %d lines", res.Check, len(res.Seen))
		}
	}
	if len(want) > 0 || report.Passed != 2 || report.Skipped != 1 || report.Failed != 8 || report.Problem != "" {
		t.Errorf("missing %v, report %+v", want, report)
	}
	if strings.Join(order, " ") != "second first" {
		t.Errorf("cleanups ran as %v", order)
	}
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("the temporary directory is still there: %v", err)
	}
}

func TestRunnerSelectsAndIsInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	var ran []string
	suite := func(t T) {
		for _, name := range []string{"one", "two", "three"} {
			t.Run(Check{Name: name, Do: func(T) {
				ran = append(ran, name)
				if name == "two" {
					cancel()
				}
			}})
		}
	}
	r := &Runner{Match: regexp.MustCompile("two|three")}
	if report := r.Run(ctx, suite); strings.Join(ran, " ") != "two" || !strings.Contains(report.Problem, "interrupted") {
		t.Errorf("ran %v, problem %q", ran, report.Problem)
	}
	for name, f := range map[string]func(T){
		"fails":  func(t T) { t.Fatalf("no such program") },
		"skips":  func(t T) { t.Skipf("no such program") },
		"panics": func(T) { panic("no such program") },
	} {
		if report := (&Runner{}).Run(t.Context(), f); !strings.Contains(report.Problem, "no such program") {
			t.Errorf("a suite that %s: problem %q", name, report.Problem)
		}
	}
}

// standin is a Standard that is not a *testing.T, so that a failure is no failure.
type standin struct {
	*testing.T
	failed *bool
	log    *strings.Builder
}

func (s standin) Errorf(string, ...any)              { *s.failed = true }
func (s standin) Failed() bool                       { return *s.failed }
func (s standin) Logf(f string, a ...any)            { s.log.WriteString(f); s.log.WriteString(a[0].(string)) }
func (s standin) Run(_ string, f func(standin)) bool { f(s); return !*s.failed }

func TestTestGivesTheWordsWithAFailure(t *testing.T) {
	s := standin{t, new(bool), new(strings.Builder)}
	ok := Test(s).Run(Check{Name: "x", Contract: "storage.proto, Deposit", Remedy: "store once", Timeout: time.Hour, Do: func(t T) {
		if d, ok := t.Context().Deadline(); !ok || time.Until(d) > time.Hour {
			t.Fatalf("deadline %v", d)
		}
		t.Errorf("twice")
	}})
	if ok || !strings.Contains(s.log.String(), "storage.proto, Deposit") || !strings.Contains(s.log.String(), "store once") {
		t.Errorf("ok %v, log %q", ok, s.log)
	}
	ran := false
	if !Test(t).Run(Check{Name: "sub", Do: func(T) { ran = true }}) || !ran {
		t.Error("no subtest")
	}
}
