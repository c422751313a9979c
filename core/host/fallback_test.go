package host

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// exclusiveSpec is a storage with exclusive data whose program is a file of its own.
func exclusiveSpec(t *testing.T, h *Host, behaviour string) (s Spec, install func(tail string)) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	program, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	s = filterSpec("storage.test.a", "kind=storage exclusive="+h.opts.RunDir+" "+behaviour)
	s.Kind = v1.Kind_KIND_STORAGE
	s.Command = []string{filepath.Join(outside(t), "program")}
	install = func(tail string) {
		t.Helper()
		// What follows an ELF program's end makes another file of it that does the same.
		if err := os.WriteFile(s.Command[0]+".new", append(program[:len(program):len(program)], tail...), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(s.Command[0]+".new", s.Command[0]); err != nil {
			t.Fatal(err)
		}
	}
	install("")
	return s, install
}

// A storage whose new version does not come up, once it has the data, is served by
// the old program with the old configuration again, and everybody is told.
func TestExclusiveGivesWay(t *testing.T) {
	for name, box := range map[string]*Sandbox{"free": nil, "in a sandbox": {}} {
		t.Run(name, func(t *testing.T) {
			h, log := testHost(t)
			s, install := exclusiveSpec(t, h, "")
			s.ConfigJSON, s.Sandbox = []byte(`{"n":1}`), box
			if _, err := provision(h, s); err != nil {
				t.Fatal(err)
			}
			i := h.Instance(s.Instance)
			first := i.Info().PID
			size := programSize(t, first)
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
			old := s
			install("a new version")
			s.ConfigJSON, s.Env = []byte(`{"n":2}`), []string{s.Env[0] + " not-ready"}
			if _, err := provision(h, s); err != nil {
				t.Fatal(err)
			}
			serving := func() bool {
				return i.Info().State == Ready && strings.Contains(troubleOf(i, FellBack), "the database is locked")
			}
			eventually(t, "the old version serves again", serving)
			cancel()
			if err := <-failed; err != nil {
				t.Errorf("who called meanwhile: %v", err)
			}
			second := i.Info().PID
			if second == first || mustAsk(t, i, "config") != `{"n":1}` || programSize(t, second) != size {
				t.Errorf("process %d after %d has the configuration %s and a program of %d octets, want %d",
					second, first, mustAsk(t, i, "config"), programSize(t, second), size)
			}
			if !strings.Contains(log.String(), "gives way to the one that was there before") {
				t.Error("not in the log")
			}
			// It crashes, and is started as the old version.
			ask(t, i, "crash")
			if mustAsk(t, i, "config") != `{"n":1}` || programSize(t, i.Info().PID) != size {
				t.Error("after a crash it is not the old version")
			}
			// A reload that changes nothing in it leaves it alone; who asks for it is told.
			third := mustAsk(t, i, "pid")
			if _, err := provision(h, s, filterSpec("filter.test.b", "")); err != nil {
				t.Fatal(err)
			}
			if mustAsk(t, i, "pid") != third {
				t.Error("another change had it replaced")
			}
			var start *StartError
			if err := h.Restart(t.Context(), s.Instance); !errors.As(err, &start) || !strings.Contains(err.Error(), "the database is locked") {
				t.Errorf("restart: %v, want a StartError with the reason", err)
			}
			// What is mended takes over.
			s.Env = old.Env
			if _, err := provision(h, s); err != nil {
				t.Fatal(err)
			}
			if got := mustAsk(t, i, "config"); got != `{"n":2}` || programSize(t, i.Info().PID) == size {
				t.Errorf("the mended version: configuration %s, a program of %d octets", got, programSize(t, i.Info().PID))
			}
			if text := troubleOf(i, FellBack); text != "" {
				t.Errorf("still told: %s", text)
			}
		})
	}
}

// programSize is the length of the file that a process runs.
func programSize(t *testing.T, pid int) int64 {
	t.Helper()
	info, err := os.Stat(fmt.Sprintf("/proc/%d/exe", pid))
	if err != nil {
		t.Fatal(err)
	}
	return info.Size()
}

// Neither the new version nor the old one comes up: both are tried in turns until
// one does.
func TestNeitherVersionComesUp(t *testing.T) {
	h, log := testHost(t)
	flag := filepath.Join(t.TempDir(), "flag")
	s, install := exclusiveSpec(t, h, "exit-in-ready="+flag)
	if _, err := provision(h, s); err != nil {
		t.Fatal(err)
	}
	i := h.Instance(s.Instance)
	if err := os.WriteFile(flag, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	install("a new version")
	s.Env = []string{s.Env[0] + " not-ready"}
	if _, err := provision(h, s); err != nil {
		t.Fatal(err)
	}
	eventually(t, "both were tried twice", func() bool { return strings.Count(log.String(), "neither as it is nor as it was") >= 3 })
	if err := os.Remove(flag); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the old one serves", func() bool { return i.Info().State == Ready })
	mustAsk(t, i, "pid")
	if troubleOf(i, FellBack) == "" {
		t.Error("not told")
	}
}
