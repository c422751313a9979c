package host

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// other is a program that is no plugin, and says so.
const other = "#!/bin/sh\necho somebody else's program >&2\nexit 1\n"

// A program is exchanged, or overwritten, between the check of its checksum and its
// start: what was checked runs.
func TestPinnedProgramIsTheOneThatWasChecked(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	program, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	sum := fmt.Sprintf("%x", sha256.Sum256(program))
	exchange := func(path string) error {
		if err := os.WriteFile(path+".new", []byte(other), 0o755); err != nil {
			return err
		}
		return os.Rename(path+".new", path)
	}
	overwrite := func(path string) error { return os.WriteFile(path, []byte(other), 0o755) }
	for _, test := range []struct {
		name  string
		mode  os.FileMode
		swap  func(path string) error
		box   *Sandbox
		moved bool // it runs from a copy
	}{
		{"exchanged", 0o755, exchange, nil, false},
		{"exchanged, in a sandbox", 0o755, exchange, &Sandbox{}, false},
		{"exchanged, a user of its own", 0o755, exchange, &Sandbox{User: "daemon", UID: 1, GID: 1}, false},
		{"overwritten", 0o775, overwrite, nil, true},
		{"overwritten, in a sandbox", 0o757, overwrite, &Sandbox{}, true},
		{"overwritten, a user of its own", 0o777, overwrite, &Sandbox{User: "daemon", UID: 1, GID: 1}, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			h, _ := testHost(t)
			s := filterSpec("filter.test.a", "")
			s.Command, s.SHA256, s.Sandbox = []string{filepath.Join(outside(t), "program")}, sum, test.box
			if err := os.WriteFile(s.Command[0], program, 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(s.Command[0], test.mode); err != nil {
				t.Fatal(err)
			}
			swaps := 0
			h.pinChecked = func(path string) {
				if path != s.Command[0] {
					t.Errorf("checked %s", path)
				}
				if err := test.swap(path); err != nil {
					t.Error(err)
				}
				swaps++
			}
			if _, err := provision(h, s); err != nil {
				t.Fatal(err)
			}
			i := h.Instance(s.Instance)
			mustAsk(t, i, "pid")
			runs, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", i.Info().PID))
			if err != nil || swaps != 1 || strings.HasPrefix(runs, h.opts.RunDir) != test.moved {
				t.Errorf("runs %s after %d exchanges, %v", runs, swaps, err)
			}
			// The next start sees what is there now.
			h.pinChecked = nil
			var pin *PinError
			if err := h.Restart(t.Context(), s.Instance); !errors.As(err, &pin) {
				t.Errorf("restart: %v, want a PinError", err)
			}
		})
	}
}

// An interpreter opens a script by its path: one that is exchanged in the meantime
// is found before it is told anything.
func TestPinnedScriptIsCheckedAgain(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	told := filepath.Join(t.TempDir(), "told")
	script := "#!/bin/sh\nexec " + self + " \"$@\"\n"
	for _, box := range []*Sandbox{nil, {Read: []string{filepath.Dir(self)}, Programs: true}} {
		h, _ := testHost(t)
		s := filterSpec("filter.test.a", "count-describe="+told)
		s.Command, s.Sandbox = []string{filepath.Join(outside(t), "script")}, box
		s.SHA256 = fmt.Sprintf("%x", sha256.Sum256([]byte(script)))
		if err := os.WriteFile(s.Command[0], []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
		if box == nil {
			if _, err := provision(h, s); err != nil {
				t.Fatal(err)
			}
			mustAsk(t, h.Instance(s.Instance), "pid")
			os.Remove(told)
		}
		h.pinChecked = func(path string) {
			if err := os.WriteFile(path+".new", []byte(script+"# another\n"), 0o755); err != nil {
				t.Error(err)
			}
			if err := os.Rename(path+".new", path); err != nil {
				t.Error(err)
			}
		}
		s.ConfigJSON = []byte("{}") // a change
		var pin *PinError
		if _, err := provision(h, s); !errors.As(err, &pin) {
			t.Errorf("%v, want a PinError", err)
		}
		if _, err := os.Stat(told); err == nil {
			t.Error("it was asked what it is")
		}
	}
}
