package host

import (
	"fmt"
	"testing"
	"time"

	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// A call under way on a process that is replaced ends well, however long it may
// take by its own deadline: the drain's is for those that have none.
func TestReplacedProcessEndsItsCalls(t *testing.T) {
	h, _ := testHost(t)
	h.timing.drain = time.Millisecond
	s := filterSpec("filter.test.a", "")
	s.StopTimeout = 0
	if _, err := provision(h, s); err != nil {
		t.Fatal(err)
	}
	i := h.Instance(s.Instance)
	old := i.Info().PID
	slow := make(chan string, 1)
	go func() {
		pid, err := ask(t, i, "sleep=700ms")
		slow <- fmt.Sprintf("%s %v", pid, err)
	}()
	eventually(t, "the slow call is under way", func() bool { return i.Info().InFlight == 1 })
	if err := h.Restart(t.Context(), s.Instance); err != nil {
		t.Fatal(err)
	}
	if now := mustAsk(t, i, "pid"); now == fmt.Sprint(old) {
		t.Error("the old process got a new call")
	}
	if got, want := <-slow, fmt.Sprintf("%d <nil>", old); got != want {
		t.Errorf("the call under way: %s, want %s", got, want)
	}
	eventually(t, "the old process has ended", func() bool { return len(processesOf(h.opts.RunDir)) == 1 })
}

// A storage that is replaced together with its clients hands its data over while
// their old sessions go on.
func TestReplacedStorageDoesNotWaitForSessions(t *testing.T) {
	h, _ := testHost(t)
	storage := filterSpec("storage.test.mail", "kind=storage exclusive="+h.opts.RunDir)
	storage.Kind, storage.StopTimeout = v1.Kind_KIND_STORAGE, 0
	access := accessSpec("")
	access.StopTimeout, access.Grants = 0, []GrantSpec{{Role: "storage", Instance: storage.Instance}}
	if _, err := provision(h, storage, access); err != nil {
		t.Fatal(err)
	}
	si, ai := h.Instance(storage.Instance), h.Instance(access.Instance)
	before := mustAsk(t, si, "pid")
	c, r, pid := dial(t, ai.Info().Listeners[0])
	storage.ConfigJSON, access.ConfigJSON = []byte("{}"), []byte("{}")
	if _, err := provision(h, storage, access); err != nil {
		t.Fatal(err)
	}
	after := mustAsk(t, si, "pid")
	if after == before {
		t.Error("the storage has its old process")
	}
	eventually(t, "the other client's process has taken over", func() bool { return fmt.Sprint(ai.Info().PID) != pid })
	for question, want := range map[string]string{"pid": pid, "ask": after} {
		fmt.Fprintln(c, question)
		if got, err := r.ReadString('\n'); got != want+"\n" {
			t.Errorf("the session from before is told %q, %v, want %s", got, err, want)
		}
	}
}

// The end of the host does not wait for sessions for as long as a reload does, nor
// for what a reload has left.
func TestCloseHurriesSessions(t *testing.T) {
	h, _ := testHost(t)
	h.timing.drain, h.timing.stop, h.timing.leave = time.Hour, time.Second, time.Second
	access := accessSpec("")
	access.StopTimeout = 0
	if _, err := provision(h, access); err != nil {
		t.Fatal(err)
	}
	addr := h.Instance(access.Instance).Info().Listeners[0]
	_, _, first := dial(t, addr)
	if err := h.Restart(t.Context(), access.Instance); err != nil {
		t.Fatal(err)
	}
	eventually(t, "new clients get the new process", func() bool {
		c, _, pid := dial(t, addr)
		c.Close()
		return pid != first
	})
	dial(t, addr)
	if n := len(processesOf(h.opts.RunDir)); n != 2 {
		t.Fatalf("%d processes, want the one with a session from before and the new one", n)
	}
	began := time.Now()
	if err := h.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if d := time.Since(began); d > patience/2 {
		t.Errorf("Close took %v", d)
	}
}
