package host

import (
	"bufio"
	"context"
	"errors"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stagecoach-mta/stagecoach/sdk/fail"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

func TestCrashFailsItsCallsAndOthersWait(t *testing.T) {
	h, log := testHost(t)
	if _, err := provision(h, filterSpec("filter.test.a", "")); err != nil {
		t.Fatal(err)
	}
	i := h.Instance("filter.test.a")
	first := mustAsk(t, i, "pid")

	began := time.Now()
	hanging := make(chan error, 1)
	go func() {
		_, err := ask(t, i, "hang")
		hanging <- err
	}()
	eventually(t, "the hanging call is under way", func() bool { return i.Info().InFlight == 1 })
	if _, err := ask(t, i, "crash"); !fail.Is(err, fail.Unavailable) {
		t.Errorf("the call that crashed it: %v, want Unavailable", err)
	}
	if err := <-hanging; !fail.Is(err, fail.Unavailable) {
		t.Errorf("the call beside it: %v, want Unavailable", err)
	}
	if d := time.Since(began); d > patience/2 {
		t.Errorf("the crash was noticed after %v", d)
	}
	second := mustAsk(t, i, "pid")
	if second == first {
		t.Error("still the same process after its crash")
	}
	info := i.Info()
	if info.Restarts != 1 || !strings.Contains(info.LastError, "exit status 7") {
		t.Errorf("info %+v, want one restart with its reason", info)
	}
	entries, _ := os.ReadDir(i.place.dir)
	if len(entries) != 1 {
		t.Errorf("%v in the instance's directory, want the living process's alone", entries)
	}
	if !strings.Contains(log.String(), `"plugin":"filter.test.a"`) {
		t.Error("the log does not name the plugin")
	}
}

func TestKilledUnderLoadNoCallIsLostSilently(t *testing.T) {
	h, _ := testHost(t)
	if _, err := provision(h, filterSpec("filter.test.a", "")); err != nil {
		t.Fatal(err)
	}
	i := h.Instance("filter.test.a")
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	var mu sync.Mutex
	good, bad := 0, 0
	for range 8 {
		wg.Go(func() {
			for ctx.Err() == nil {
				_, err := ask(t, i, "sleep=1ms")
				mu.Lock()
				if err == nil {
					good++
				} else if fail.Is(err, fail.Unavailable) {
					bad++
				} else {
					t.Errorf("a call failed as %v", err)
				}
				mu.Unlock()
			}
		})
	}
	for n := range 5 {
		var pid int
		eventually(t, "it is ready", func() bool {
			info := i.Info()
			pid = info.PID
			return info.State == Ready && info.Restarts == n
		})
		before := i.Info().Calls
		eventually(t, "calls are answered", func() bool { return i.Info().Calls > before+20 })
		syscall.Kill(pid, syscall.SIGKILL)
		eventually(t, "it is restarted", func() bool { return i.Info().Restarts == n+1 })
	}
	cancel()
	wg.Wait()
	// Each crash can take the eight calls that were under way, no more.
	if bad > 5*8+8 || good < 100 {
		t.Errorf("%d calls answered, %d failed over 5 crashes", good, bad)
	}
}

func TestPanicIsSaidInTheLogAndInInfo(t *testing.T) {
	h, log := testHost(t)
	if _, err := provision(h, filterSpec("filter.test.a", "")); err != nil {
		t.Fatal(err)
	}
	i := h.Instance("filter.test.a")
	if _, err := ask(t, i, "panic"); !fail.Is(err, fail.Unavailable) {
		t.Errorf("%v, want Unavailable", err)
	}
	mustAsk(t, i, "pid")
	if last := i.Info().LastError; !strings.Contains(last, "panic: oh no") {
		t.Errorf("last error %q does not say why it panicked", last)
	}
	if !strings.Contains(log.String(), "goroutine ") {
		t.Error("the stack is not in the log")
	}
}

func TestHangingCallEndsAtItsDeadline(t *testing.T) {
	h, _ := testHost(t)
	s := filterSpec("filter.test.a", "")
	s.CallTimeout = time.Second
	h.timing.call = time.Hour
	if _, err := provision(h, s); err != nil {
		t.Fatal(err)
	}
	i := h.Instance("filter.test.a")
	began := time.Now()
	if _, err := i.Call(context.Background(), callNamed("hang")); !fail.Is(err, fail.Deadline) {
		t.Errorf("%v, want Deadline", err)
	}
	if d := time.Since(began); d > patience/2 {
		t.Errorf("ended after %v, want a second", d)
	}
	if _, err := i.Call(context.Background(), callNamed("refuse")); !fail.Is(err, fail.Denied) {
		t.Errorf("%v, want the plugin's own Denied", err)
	}
	mustAsk(t, i, "pid")
	if info := i.Info(); info.Restarts != 0 || info.Errors != 1 || info.Calls != 3 {
		t.Errorf("info %+v, want 3 calls, 1 error (a refusal is none), no restart", info)
	}
}

func TestStoppedProcessIsReplaced(t *testing.T) {
	h, _ := testHost(t)
	h.timing.healthTimeout = time.Second
	if _, err := provision(h, filterSpec("filter.test.a", "")); err != nil {
		t.Fatal(err)
	}
	i := h.Instance("filter.test.a")
	if _, err := ask(t, i, "stop"); !fail.Is(err, fail.Unavailable) {
		t.Errorf("%v, want Unavailable", err)
	}
	mustAsk(t, i, "pid")
	if info := i.Info(); info.Restarts != 1 || !strings.Contains(info.LastError, "health") {
		t.Errorf("info %+v", info)
	}
}

func TestUnwellIsShownAndNotKilled(t *testing.T) {
	h, log := testHost(t)
	if _, err := provision(h, filterSpec("filter.test.a", "unwell")); err != nil {
		t.Fatal(err)
	}
	i := h.Instance("filter.test.a")
	eventually(t, "the complaint is shown", func() bool { return i.Info().Health == "the disk is slow" })
	eventually(t, "the complaint is in the log", func() bool { return strings.Contains(log.String(), "the disk is slow") })
	if n := i.Info().Restarts; n != 0 {
		t.Errorf("restarted %d times", n)
	}
}

func TestBreaker(t *testing.T) {
	h, _ := testHost(t)
	h.timing.breaker, h.timing.backoff = 4, time.Millisecond
	h.timing.failedRetry = time.Hour
	s := filterSpec("filter.test.a", "exit-after-first="+t.TempDir()+"/once")
	if _, err := provision(h, s); err != nil {
		t.Fatal(err)
	}
	i := h.Instance("filter.test.a")
	ask(t, i, "crash")
	eventually(t, "it is given up", func() bool { return i.Info().State == Failed })
	began := time.Now()
	_, err := ask(t, i, "pid")
	if !fail.Is(err, fail.Unavailable) || !strings.Contains(err.Error(), "exit status 4") {
		t.Errorf("%v, want Unavailable with the reason", err)
	}
	if time.Since(began) > patience/2 { // it would wait for as long as ask lets it
		t.Error("a call to a failed plugin waited")
	}
	if i.Info().PID != 0 {
		t.Error("a failed plugin has a process")
	}
}

func TestFailedPluginIsTriedAgain(t *testing.T) {
	h, _ := testHost(t)
	h.timing.breaker, h.timing.backoff, h.timing.failedRetry = 2, time.Millisecond, 100*time.Millisecond
	once := t.TempDir() + "/once"
	if _, err := provision(h, filterSpec("filter.test.a", "exit-after-first="+once)); err != nil {
		t.Fatal(err)
	}
	i := h.Instance("filter.test.a")
	ask(t, i, "crash")
	eventually(t, "it is given up", func() bool { return i.Info().State == Failed })
	if err := os.Remove(once); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is back", func() bool { return i.Info().State == Ready })
	mustAsk(t, i, "pid")
}

func TestBackoffGrowsAndForgives(t *testing.T) {
	g := &generation{h: &Host{timing: defaultTiming}}
	for n := 1; n < defaultTiming.breaker; n++ {
		full := 20 * time.Millisecond << (n - 1)
		if d := g.backoff(n); d < full/2 || d > full {
			t.Errorf("crash %d: %v, want between %v and %v", n, d, full/2, full)
		}
	}
	if d := g.backoff(50); d < 15*time.Second || d > 30*time.Second {
		t.Errorf("failed: %v", d)
	}
	if g.count(5, 0) != 6 || g.count(5, 2*time.Second) != 3 || g.count(5, time.Minute) != 1 {
		t.Error("count does not forgive who lived")
	}
}

func TestGrandchildNeitherDelaysNorSurvives(t *testing.T) {
	h, _ := testHost(t)
	if _, err := provision(h, filterSpec("filter.test.a", "fork")); err != nil {
		t.Fatal(err)
	}
	i := h.Instance("filter.test.a")
	old := processesOf(h.opts.RunDir)
	if len(old) != 2 {
		t.Fatalf("%d processes, want plugin and grandchild", len(old))
	}
	began := time.Now()
	ask(t, i, "crash")
	mustAsk(t, i, "pid")
	if d := time.Since(began); d > patience/2 { // the grandchild sleeps for an hour
		t.Errorf("restart took %v", d)
	}
	eventually(t, "the old grandchild is gone", func() bool {
		for _, pid := range processesOf(h.opts.RunDir) {
			for _, was := range old {
				if pid == was {
					return false
				}
			}
		}
		return true
	})
}

func TestStartFailuresSayWhy(t *testing.T) {
	h, _ := testHost(t)
	missing := filterSpec("filter.test.a", "")
	missing.Command = []string{"/nonexistent/plugin"}
	wrong := filterSpec("filter.test.a", "")
	wrong.Kind = v1.Kind_KIND_DELIVER
	pinned := filterSpec("filter.test.a", "")
	pinned.SHA256 = strings.Repeat("ab", 32)
	short := pinned
	short.SHA256 = "abc"
	refused := filterSpec("filter.test.a", "")
	refused.ConfigJSON = []byte(`{"delay":"wrong"}`)
	for name, c := range map[string]struct {
		spec Spec
		want string
	}{
		"exit":      {filterSpec("filter.test.a", "exit"), "exit status 3"},
		"its words": {filterSpec("filter.test.a", "exit"), "cannot go on"},
		"garbage":   {filterSpec("filter.test.a", "garbage"), "hello, I am no plugin"},
		"silent":    {filterSpec("filter.test.a", "silent"), "no handshake in time"},
		"missing":   {missing, "/nonexistent/plugin"},
		"kind":      {wrong, `filter plugin "test"`},
		"checksum":  {pinned, "sha256sum"},
		"pin":       {short, "64 hexadecimal digits"},
		"ready":     {filterSpec("filter.test.a", "not-ready"), "the database is locked"},
		"refused":   {refused, "delay is no duration"},
	} {
		h.timing.start = patience
		if name == "silent" {
			h.timing.start = time.Second
		}
		_, err := provision(h, c.spec)
		if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "filter.test.a") {
			t.Errorf("%s: error %v, want one that names the plugin and says %q", name, err, c.want)
		}
		if errs := ConfigErrors(err); (name == "refused") != (len(errs) == 1) {
			t.Errorf("%s: config errors %v", name, errs)
		} else if len(errs) == 1 && errs[0].Diagnostics[0].GetPath()[0].GetName() != "delay" {
			t.Errorf("diagnostic points nowhere: %v", errs[0])
		}
	}
	if len(h.List()) != 0 || len(processesOf(h.opts.RunDir)) != 0 {
		t.Errorf("something is left: %v", h.List())
	}
}

// A core that is killed takes its plugins along, and the next one what they left.
func TestHostKilled(t *testing.T) {
	t.Run("plain", func(t *testing.T) { hostKilled(t) })
	// In a process namespace of its own a plugin does not see that its parent goes.
	t.Run("sandbox", func(t *testing.T) { hostKilled(t, "HOST_TEST_SANDBOX=1") })
}

func hostKilled(t *testing.T, env ...string) {
	dir, err := os.MkdirTemp("", "host")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	self, _ := os.Executable()
	core := exec.Command(self)
	core.Env = append(append(os.Environ(), "HOST_TEST_HOST="+dir), env...)
	out, err := core.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := core.Start(); err != nil {
		t.Fatal(err)
	}
	defer core.Process.Kill()
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil {
		t.Fatal(line)
	}
	if _, err := New(Options{RunDir: dir}); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("a second host in the same run directory: %v", err)
	}
	core.Process.Kill()
	core.Wait()
	eventually(t, "the plugin dies with its host", func() bool {
		return errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) || zombie(pid)
	})
	h, err := New(Options{RunDir: dir})
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the grandchild is swept", func() bool { return len(processesOf(dir)) == 0 })
	entries, _ := os.ReadDir(dir)
	if len(entries) != 1 {
		t.Errorf("not swept: %v", entries)
	}
	if err := h.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

// zombie tells whether the process is dead and waits for its (foreign) parent.
func zombie(pid int) bool {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	return err == nil && strings.Contains(string(b), ") Z ")
}
