package host

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stagecoach-mta/stagecoach/sdk/fail"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

func TestReloadReusesReplacesRemoves(t *testing.T) {
	h, _ := testHost(t)
	a, b, c := filterSpec("filter.test.a", ""), filterSpec("filter.test.b", ""), filterSpec("filter.test.c", "")
	if _, err := provision(h, a, b, c); err != nil {
		t.Fatal(err)
	}
	ia, ib, ic := h.Instance("filter.test.a"), h.Instance("filter.test.b"), h.Instance("filter.test.c")
	pidA, pidB := mustAsk(t, ia, "pid"), mustAsk(t, ib, "pid")

	// A call under way on the old process ends well.
	slow := make(chan error, 1)
	go func() {
		_, err := ask(t, ib, "sleep=500ms")
		slow <- err
	}()
	eventually(t, "the slow call is under way", func() bool { return ib.Info().InFlight == 1 })
	b.ConfigJSON = []byte(`{"new":true}`)
	b.Env = append(b.Env, "X=1")
	if _, err := provision(h, a, b); err != nil {
		t.Fatal(err)
	}
	if h.Instance("filter.test.b") != ib {
		t.Error("the handle changed")
	}
	if mustAsk(t, ia, "pid") != pidA {
		t.Error("the unchanged instance has a new process")
	}
	if mustAsk(t, ib, "pid") == pidB || mustAsk(t, ib, "config") != `{"new":true}` {
		t.Error("the changed instance has its old process or configuration")
	}
	if err := <-slow; err != nil {
		t.Errorf("the call under way during the reload: %v", err)
	}
	if _, err := ask(t, ic, "pid"); !fail.Is(err, fail.Unavailable) {
		t.Errorf("the removed instance: %v", err)
	}
	if h.Instance("filter.test.c") != nil || ic.Info().State != Removed {
		t.Error("the removed instance is still there")
	}
	eventually(t, "two processes are left", func() bool { return len(processesOf(h.opts.RunDir)) == 2 })
	if n := ib.Info().Restarts; n != 0 {
		t.Errorf("a reload counted as %d restarts", n)
	}
}

func TestFailedReloadAndAbortChangeNothing(t *testing.T) {
	h, _ := testHost(t)
	a := filterSpec("filter.test.a", "")
	if _, err := provision(h, a); err != nil {
		t.Fatal(err)
	}
	i := h.Instance("filter.test.a")
	pid := mustAsk(t, i, "pid")
	changed := filterSpec("filter.test.a", "narrow")
	bad := filterSpec("filter.test.b", "")
	bad.ConfigJSON = []byte(`{"delay":"wrong"}`)
	if _, err := provision(h, changed, bad); len(ConfigErrors(err)) != 1 {
		t.Fatalf("%v, want one refused configuration", err)
	}
	if mustAsk(t, i, "pid") != pid || len(h.List()) != 1 {
		t.Error("a failed reload changed something")
	}
	c, err := h.Provision(t.Context(), []Spec{changed, filterSpec("filter.test.b", "")})
	if err != nil {
		t.Fatal(err)
	}
	if c.Interest("filter.test.a").GetEvents()[0] != v1.FilterEvent_RCPT || i.Interest().GetEvents()[0] != v1.FilterEvent_MESSAGE {
		t.Error("interests before Commit: the change has the new one, the instance the old one")
	}
	if len(c.Warnings()["filter.test.a"]) != 1 {
		t.Error("the warning is lost")
	}
	c.Abort()
	if mustAsk(t, i, "pid") != pid || len(h.List()) != 1 {
		t.Error("an aborted reload changed something")
	}
	eventually(t, "its processes are gone", func() bool { return len(processesOf(h.opts.RunDir)) == 1 })
	if _, err := provision(h, changed); err != nil {
		t.Fatal(err)
	}
	if i.Interest().GetEvents()[0] != v1.FilterEvent_RCPT {
		t.Error("the interest that Configure narrowed is not in force")
	}
}

func TestRestartByHand(t *testing.T) {
	h, _ := testHost(t)
	if _, err := provision(h, filterSpec("filter.test.a", ""), filterSpec("filter.test.b", "")); err != nil {
		t.Fatal(err)
	}
	a, b := mustAsk(t, h.Instance("filter.test.a"), "pid"), mustAsk(t, h.Instance("filter.test.b"), "pid")
	if err := h.Restart(t.Context(), "filter.test.a"); err != nil {
		t.Fatal(err)
	}
	if mustAsk(t, h.Instance("filter.test.a"), "pid") == a || mustAsk(t, h.Instance("filter.test.b"), "pid") != b {
		t.Error("not that one, or not only that one, has a new process")
	}
	if err := h.Restart(t.Context(), "filter.test.x"); err == nil {
		t.Error("restarted what is not there")
	}
}

func TestExclusiveDataIsHandedOver(t *testing.T) {
	h, _ := testHost(t)
	s := filterSpec("storage.test.a", "kind=storage exclusive="+h.opts.RunDir)
	s.Kind = v1.Kind_KIND_STORAGE
	if _, err := provision(h, s); err != nil {
		t.Fatal(err)
	}
	i := h.Instance("storage.test.a")
	pid := mustAsk(t, i, "pid")
	ctx, cancel := context.WithCancel(t.Context())
	failed := make(chan error, 1)
	go func() {
		defer close(failed)
		for ctx.Err() == nil {
			if _, err := ask(t, i, "pid"); err != nil {
				failed <- err
				return
			}
		}
	}()
	for range 3 {
		if err := h.Restart(t.Context(), "storage.test.a"); err != nil {
			t.Fatal(err)
		}
		now := mustAsk(t, i, "pid")
		if now == pid {
			t.Error("same process")
		}
		pid = now
	}
	// Two reloads in a row while the first process is still busy: the third
	// waits for both before it.
	before := i.Info().Calls
	slow := make(chan error, 1)
	go func() {
		_, err := ask(t, i, "sleep=700ms")
		slow <- err
	}()
	eventually(t, "the slow call is under way", func() bool { return i.Info().InFlight > 0 && i.Info().Calls > before+5 })
	for n := range 2 {
		s.ConfigJSON = fmt.Appendf(nil, `{"n":%d}`, n)
		if _, err := provision(h, s); err != nil {
			t.Fatal(err)
		}
	}
	if got := mustAsk(t, i, "config"); got != `{"n":1}` {
		t.Errorf("configuration %s in force", got)
	}
	if err := <-slow; err != nil {
		t.Errorf("the slow call: %v", err)
	}
	cancel()
	if err := <-failed; err != nil {
		t.Errorf("a call failed during the hand-overs: %v", err)
	}
	if n := i.Info().Restarts; n != 0 {
		t.Errorf("%d crashes during the hand-overs", n)
	}
}

// dial connects and reads the pid that the access plugin greets with.
func dial(t *testing.T, addr string) (net.Conn, *bufio.Reader, string) {
	t.Helper()
	c, err := net.DialTimeout("tcp", addr, patience)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(patience))
	r := bufio.NewReader(c)
	greeting, err := r.ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return c, r, strings.TrimSpace(greeting)
}

func accessSpec(behaviour string) Spec {
	s := filterSpec("access.test.imap", "kind=access "+behaviour)
	s.Kind = v1.Kind_KIND_ACCESS
	s.Listeners = []ListenerSpec{{Address: "127.0.0.1:0"}}
	return s
}

func TestListenersOutliveCrashAndReload(t *testing.T) {
	h, _ := testHost(t)
	h.timing.backoff = 400 * time.Millisecond // a gap to come in
	s := accessSpec("")
	if _, err := provision(h, s); err != nil {
		t.Fatal(err)
	}
	i := h.Instance("access.test.imap")
	addr := i.Info().Listeners[0]
	first, _, pid := dial(t, addr)
	fmt.Fprintln(first, "crash")
	eventually(t, "the crash is seen", func() bool { return i.Info().State == Restarting || i.Info().Restarts > 0 })
	_, _, second := dial(t, addr)
	if second == pid {
		t.Error("greeted by a dead process")
	}
	if i.Info().Listeners[0] != addr {
		t.Error("the address changed")
	}

	// The session of before the reload goes on while new clients get the new one.
	old, oldReader, oldPID := dial(t, addr)
	s.ConfigJSON = []byte("{}")
	if _, err := provision(h, s); err != nil {
		t.Fatal(err)
	}
	eventually(t, "new clients get the new process", func() bool {
		c, _, pid := dial(t, addr)
		c.Close()
		return pid != oldPID
	})
	pids := processesOf(h.opts.RunDir)
	if was, _ := strconv.Atoi(oldPID); !slices.Contains(pids, was) {
		t.Error("the old process did not wait for its session")
	}
	old.Close()
	oldReader.ReadString('\n')

	// An address that is no longer named is free again.
	if _, err := provision(h, filterSpec("filter.test.a", "")); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the port is closed", func() bool {
		c, err := net.Dial("tcp", addr)
		if err == nil {
			c.Close()
		}
		return err != nil
	})
}

func TestAddressInUse(t *testing.T) {
	h, _ := testHost(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	s := accessSpec("")
	s.Listeners = []ListenerSpec{{Address: "127.0.0.1:0"}, {Address: l.Addr().String()}}
	if _, err := provision(h, s); err == nil || !strings.Contains(err.Error(), "another program has this port") {
		t.Errorf("%v", err)
	}
}

func TestDirectCallsThroughRestartOfTheStorage(t *testing.T) {
	h, _ := testHost(t)
	h.timing.backoff = 400 * time.Millisecond // a gap to come in
	storage := filterSpec("storage.test.mail", "kind=storage")
	storage.Kind = v1.Kind_KIND_STORAGE
	access := accessSpec("")
	access.Grants = []GrantSpec{{Role: "storage", Instance: "storage.test.mail"}}
	if _, err := provision(h, storage, access); err != nil {
		t.Fatal(err)
	}
	si := h.Instance("storage.test.mail")
	direct := func(a *Instance) string {
		c, r, _ := dial(t, a.Info().Listeners[0])
		defer c.Close()
		fmt.Fprintln(c, "ask")
		answer, err := r.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(answer)
	}
	ai := h.Instance("access.test.imap")
	before := mustAsk(t, si, "pid")
	if got := direct(ai); got != before {
		t.Fatalf("the storage's data socket says %q, want pid %s", got, before)
	}

	// A client that comes in the gap waits in the socket's backlog.
	ask(t, si, "crash")
	got := direct(ai)
	if after := mustAsk(t, si, "pid"); got != after || after == before {
		t.Errorf("after the restart: %q, want pid %s", got, after)
	}

	// A second consumer comes with a reload: the storage runs on and knows it.
	running := mustAsk(t, si, "pid")
	second := access
	second.Instance = "access.test.pop3"
	if _, err := provision(h, storage, access, second); err != nil {
		t.Fatal(err)
	}
	if got := direct(h.Instance("access.test.pop3")); got != running {
		t.Errorf("the second consumer got %q, want pid %s", got, running)
	}
	if mustAsk(t, si, "pid") != running {
		t.Error("the storage was restarted for a new consumer")
	}
}

func TestDrainThatHangsEndsAtTheStopTimeout(t *testing.T) {
	h, _ := testHost(t)
	s := filterSpec("filter.test.a", "drain-hangs")
	s.StopTimeout = 200 * time.Millisecond
	if _, err := provision(h, s); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := h.Close(ctx); err != nil {
		t.Fatal(err)
	}
	if d := time.Since(began); d > patience/2 {
		t.Errorf("Close took %v", d)
	}
}

func TestCloseKillsWhenItsTimeIsUp(t *testing.T) {
	h, _ := testHost(t)
	s := filterSpec("filter.test.a", "")
	s.StopTimeout = time.Hour
	if _, err := provision(h, s); err != nil {
		t.Fatal(err)
	}
	i := h.Instance("filter.test.a")
	go i.Call(context.Background(), callNamed("hang"))
	eventually(t, "a call is under way", func() bool { return i.Info().InFlight == 1 })
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	began := time.Now()
	if err := h.Close(ctx); err != nil {
		t.Fatal(err)
	}
	if d := time.Since(began); d > patience/2 {
		t.Errorf("Close took %v", d)
	}
	if _, err := h.Provision(t.Context(), nil); err == nil {
		t.Error("a closed host provisions")
	}
}

func TestSpecsAreChecked(t *testing.T) {
	h, _ := testHost(t)
	lonely := accessSpec("")
	lonely.Grants = []GrantSpec{{Role: "storage", Instance: "storage.test.x"}}
	misled := accessSpec("")
	misled.Grants = []GrantSpec{{Role: "storage", Instance: "filter.test.a"}}
	x, y := accessSpec(""), accessSpec("")
	y.Instance = "access.test.y"
	x.Listeners[0].Address, y.Listeners = "127.0.0.1:2143", []ListenerSpec{{Address: "127.0.0.1:2143"}}
	a := filterSpec("filter.test.a", "")
	for want, specs := range map[string][]Spec{
		"there twice":       {a, a},
		"not there":         {lonely},
		"neither a storage": {a, misled},
		"both listen":       {x, y},
		"letters":           {filterSpec("../a", "")},
	} {
		if _, err := h.Provision(t.Context(), specs); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

func TestLongNamesAndRunDirectories(t *testing.T) {
	h, _ := testHost(t)
	s := filterSpec("storage.test."+strings.Repeat("long", 30), "kind=storage")
	s.Kind = v1.Kind_KIND_STORAGE
	if _, err := provision(h, s); err != nil {
		t.Fatal(err)
	}
	i := h.Instance(s.Instance)
	mustAsk(t, i, "pid")
	if path := i.Info().DataSocket; len(path) > maxSocketPath {
		t.Errorf("data socket %s is too long", path)
	}
	_, err := New(Options{RunDir: filepath.Join(t.TempDir(), strings.Repeat("x", 90))})
	if err == nil || !strings.Contains(err.Error(), "shorter") {
		t.Errorf("%v", err)
	}
}

func TestEnvironmentIsMinimal(t *testing.T) {
	t.Setenv("SECRET_OF_THE_CORE", "s3cret")
	t.Setenv("TZ", "UTC")
	h, _ := testHost(t)
	s := filterSpec("filter.test.a", "")
	s.Env = append(s.Env, "MINE=1")
	if _, err := provision(h, s); err != nil {
		t.Fatal(err)
	}
	env := mustAsk(t, h.Instance("filter.test.a"), "env")
	if strings.Contains(env, "s3cret") || !strings.Contains(env, "MINE=1") || !strings.Contains(env, "TZ=UTC") {
		t.Errorf("environment:\n%s", env)
	}
}

func TestDescribe(t *testing.T) {
	h, _ := testHost(t)
	count := filepath.Join(t.TempDir(), "count")
	self, _ := os.Executable()
	s := filterSpec("", "count-describe="+count)
	for range 2 {
		resp, err := h.Describe(t.Context(), s)
		if err != nil || resp.GetName() != "test" || resp.GetVersion() != "1.2.3" {
			t.Fatalf("%v, %v", resp, err)
		}
	}
	if b, _ := os.ReadFile(count); len(b) != 2 {
		t.Errorf("asked %d times; an environment of its own is never cached", len(b))
	}
	plain := Spec{Kind: v1.Kind_KIND_FILTER, Plugin: "test", Command: []string{self}}
	key, err := h.describeKey(&plain)
	if err != nil || key == "" {
		t.Fatalf("a plain binary has no key: %v", err)
	}
	h.remember(key, &v1.DescribeResponse{Version: "cached"})
	if resp, err := h.Describe(t.Context(), plain); err != nil || resp.GetVersion() != "cached" {
		t.Errorf("%v, %v: not from the cache", resp, err)
	}
	plain.SHA256 = strings.Repeat("00", 32)
	if _, err := h.Describe(t.Context(), plain); err == nil || !strings.Contains(err.Error(), "sha256") {
		t.Errorf("%v: a cached answer for a file that must not run", err)
	}
}
