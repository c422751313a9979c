package host

import (
	"os"
	"strconv"
	"strings"
	"testing"
)

// Who may not administer is a plugin in a sandbox, and what it started, also where
// there are no process namespaces; whose sandbox is off may.
func TestRefuse(t *testing.T) {
	h, log := testHost(t)
	h.noNamespaces = true
	box, free := boxed("filter.test.box", "", Sandbox{Programs: true}), filterSpec("filter.test.free", "")
	if _, err := provision(h, box, free); err != nil {
		t.Fatal(err)
	}
	in, out := h.Instance(box.Instance), h.Instance(free.Instance)
	for _, i := range []*Instance{in, out} {
		for _, how := range []string{"fork:1", "daemon:"} {
			if got := try(t, i, how); got != "done" {
				t.Fatalf("%s: %s", how, got)
			}
		}
	}
	confined := 0
	for _, pid := range processesOf(h.opts.RunDir) {
		env, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/environ")
		if err != nil {
			t.Fatal(err)
		}
		mine := strings.Contains(string(env), "/"+box.Instance+"/")
		if mine {
			confined++
		}
		if why := h.Refuse(pid); strings.Contains(why, box.Instance) != mine || !mine && why != "" {
			t.Errorf("process %d, in the sandbox: %v, refused: %q", pid, mine, why)
		}
	}
	if confined < 3 {
		t.Errorf("%d processes in the sandbox, want the plugin, its child and its daemon", confined)
	}
	if why := h.Refuse(os.Getpid()); why != "" {
		t.Errorf("the core itself: %q", why)
	}
	if why := h.Refuse(os.Getppid()); why != "" {
		t.Errorf("the core's parent: %q", why)
	}
	// No process has such a number (proc_sys_kernel(5), pid_max).
	if why := h.Refuse(1 << 30); !strings.Contains(why, "has ended") {
		t.Errorf("a process that is gone: %q", why)
	}
	if n := strings.Count(log.String(), "reached for the server's admin socket"); n != 1 {
		t.Errorf("logged %d times, want once", n)
	}
	troubles := in.Info().Troubles
	if len(troubles) != 1 || troubles[0].Kind != Trespass || troubles[0].Count != uint64(confined) {
		t.Errorf("troubles %+v", troubles)
	}
}
