package host

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"go.uber.org/goleak"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

func localCredentials() credentials.TransportCredentials { return insecure.NewCredentials() }

// filterSpec runs this test binary as a filter that behaves so.
// patience is how long a test waits for what must come: also on a machine that
// is slow, under the race detector and busy with other things.
const patience = time.Minute

func filterSpec(instance, behaviour string) Spec {
	self, err := os.Executable()
	if err != nil {
		panic(err)
	}
	return Spec{
		Instance: instance, Kind: v1.Kind_KIND_FILTER, Plugin: "test", Command: []string{self},
		Env: []string{behave + "=plugin " + behaviour}, StopTimeout: 5 * time.Second,
	}
}

func provision(h *Host, specs ...Spec) (*Change, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	c, err := h.Provision(ctx, specs)
	if err == nil {
		c.Commit()
	}
	return c, err
}

// logBuffer collects log lines.
type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// testHost makes a host with quick timing and checks at the end of the test
// that it left nothing: no process, no descriptor, no file, no goroutine.
func testHost(t *testing.T) (*Host, *logBuffer) {
	t.Helper()
	dir, err := os.MkdirTemp("", "host")
	if err != nil {
		t.Fatal(err)
	}
	running := goleak.IgnoreCurrent()
	files := openFiles(t)
	log := &logBuffer{}
	h, err := New(Options{RunDir: dir, Hostname: "mx.ryan.example", CoreVersion: "test", Log: zerolog.New(log)})
	if err != nil {
		t.Fatal(err)
	}
	// A check itself may take long: a busy machine is no reason to kill a plugin.
	h.timing.health, h.timing.healthTimeout = 200*time.Millisecond, patience/3
	h.timing.failedRetry = 300 * time.Millisecond
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := h.Close(ctx); err != nil {
			t.Errorf("Close: %v", err)
		}
		eventually(t, "all processes end", func() bool { return len(processesOf(dir)) == 0 })
		entries, _ := os.ReadDir(dir)
		for _, e := range entries {
			if e.Name() != lockName && e.Name() != describeName {
				t.Errorf("left behind: %s", e.Name())
			}
		}
		eventually(t, "all descriptors are closed", func() bool { return openFiles(t) <= files })
		goleak.VerifyNone(t, running)
		if t.Failed() {
			t.Logf("log:\n%.20000s", log)
		}
		os.RemoveAll(dir)
	})
	return h, log
}

func openFiles(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, e := range entries {
		target, _ := os.Readlink("/proc/self/fd/" + e.Name())
		// The runtime's poller and the pidfds of children belong to nobody here.
		if !strings.Contains(target, "eventpoll") && !strings.Contains(target, "eventfd") {
			n++
		}
	}
	return n
}

// processesOf lists living processes with this run directory in their environment.
func processesOf(dir string) []int {
	var pids []int
	paths, _ := filepath.Glob("/proc/[0-9]*/environ")
	for _, path := range paths {
		env, err := os.ReadFile(path)
		if err == nil && bytes.Contains(env, []byte(socketDirEnv+"="+dir+"/")) {
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(path)))
			pids = append(pids, pid)
		}
	}
	return pids
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", patience, what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// ask calls an instance and returns the note in its answer.
func ask(t *testing.T, i *Instance, what string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	reply, err := i.Call(ctx, callNamed(what))
	return reply.GetFilter().GetNote(), err
}

func mustAsk(t *testing.T, i *Instance, what string) string {
	t.Helper()
	note, err := ask(t, i, what)
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	return note
}

// A bundled plugin is the host's own executable, told which one to be.
func TestBundled(t *testing.T) {
	h, _ := testHost(t)
	s := filterSpec("filter.test.a", "")
	s.Command = nil
	if _, err := provision(h, s); err != nil {
		t.Fatal(err)
	}
	mustAsk(t, h.Instance("filter.test.a"), "pid")
	cmdline, err := os.ReadFile("/proc/" + strconv.Itoa(h.Instance("filter.test.a").Info().PID) + "/cmdline")
	if err != nil || !strings.HasSuffix(string(cmdline), "\x00plugin\x00serve\x00test\x00") {
		t.Errorf("command line %q, %v", cmdline, err)
	}
}

func TestStartCallStop(t *testing.T) {
	h, _ := testHost(t)
	if _, err := provision(h, filterSpec("filter.test.a", "")); err != nil {
		t.Fatal(err)
	}
	i := h.Instance("filter.test.a")
	pid := mustAsk(t, i, "pid")
	info := i.Info()
	if strconv.Itoa(info.PID) != pid || info.State != Ready || info.Calls != 1 || info.Errors != 0 {
		t.Errorf("info %+v, want pid %s, ready, one call", info, pid)
	}
	if info.RSS < 1<<20 || info.P50 <= 0 || info.Version != "1.2.3" {
		t.Errorf("info %+v lacks memory, times or version", info)
	}
	if len(h.List()) != 1 || h.Instance("filter.test.b") != nil {
		t.Error("List or Instance know others than there are")
	}
	m, err := i.Metrics(t.Context())
	if err != nil || len(m) != 1 || m[0].GetValue() != 7 {
		t.Errorf("metrics %v, %v", m, err)
	}
}
