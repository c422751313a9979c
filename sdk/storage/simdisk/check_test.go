package simdisk

import (
	"errors"
	"fmt"
	"hash/maphash"
	"strings"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// tally counts in a file, one line a number, and makes a new file of it when it
// opens: a storage that is small enough to see what is wrong with it.
type tally struct {
	fs vfs.FS
	f  vfs.File
	n  int
}

func openTally(fs vfs.FS) (*tally, error) {
	s := &tally{fs: fs}
	if f, err := fs.Open("count"); err == nil {
		var b [4096]byte
		n, _ := f.ReadAt(b[:], 0)
		f.Close()
		for _, line := range strings.SplitAfter(string(b[:n]), "\n") {
			if line != fmt.Sprintf("%06d\n", s.n+1) {
				break
			}
			s.n++
		}
	}
	f, err := fs.Create("fresh", "")
	if err != nil {
		return nil, err
	}
	s.f = f
	for i := range s.n {
		if err := s.write(i + 1); err != nil {
			return nil, err
		}
	}
	if err := f.Sync(); err != nil {
		return nil, err
	}
	if err := fs.Rename("fresh", "count"); err != nil {
		return nil, err
	}
	return s, s.syncDir()
}

func (s *tally) syncDir() error {
	d, err := s.fs.OpenDir("/")
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func (s *tally) write(n int) error {
	_, err := fmt.Fprintf(s.f, "%06d\n", n)
	return err
}

func (s *tally) add() error {
	if err := s.write(s.n + 1); err != nil {
		return err
	}
	if err := s.f.Sync(); err != nil {
		return err
	}
	s.n++
	return nil
}

func tallyTrial(wrap func(fs vfs.FS) vfs.FS) func(seed uint64) (*Trial, error) {
	return func(uint64) (*Trial, error) {
		d := New()
		l := d.Record()
		var acked []int // positions
		for range 3 {
			s, err := openTally(wrap(d))
			if err != nil {
				return nil, err
			}
			for range 20 {
				if err := s.add(); err != nil {
					return nil, err
				}
				acked = append(acked, l.Len())
			}
		}
		return &Trial{
			Log: l,
			Check: func(d *Disk, at int) error {
				s, err := openTally(wrap(d))
				if err != nil {
					return err
				}
				want := 0
				for _, a := range acked {
					if a <= at {
						want++
					}
				}
				if s.n != want && s.n != want+1 {
					return fmt.Errorf("counted to %d, want %d", s.n, want)
				}
				return nil
			},
			Recover: func(d *Disk) error {
				_, err := openTally(wrap(d))
				return err
			},
		}, nil
	}
}

func TestChecker(t *testing.T) {
	whole := func(fs vfs.FS) vfs.FS { return fs }
	r, err := Checker{Again: 10}.Run(tallyTrial(whole))
	if err != nil || r.States < 100 || r.InRecovery == 0 || r.Violations != 0 || r.Trials != 1 {
		t.Errorf("%+v: %v", r, err)
	}
	r, err = Checker{Again: 10, States: 5000}.Run(tallyTrial(whole))
	if err != nil || r.States < 5000 || r.Trials < 2 {
		t.Errorf("%+v: %v", r, err)
	}
	for name, wrap := range map[string]func(fs vfs.FS) vfs.FS{
		"no file is synced":      func(fs vfs.FS) vfs.FS { return Forget(fs, func(path string) bool { return path != "/" }) },
		"no directory is synced": func(fs vfs.FS) vfs.FS { return Forget(fs, func(path string) bool { return path == "/" }) },
	} {
		t.Run(name, func(t *testing.T) {
			r, err := Checker{Command: "go test", Workers: 2}.Run(tallyTrial(wrap))
			var v *Violation
			if !errors.As(err, &v) || r.Violations == 0 {
				t.Fatalf("not found: %+v %v", r, err)
			}
			if !strings.Contains(err.Error(), fmt.Sprintf("CRASH_SEED=%d CRASH_AT=%s go test", v.Seed, v.At)) {
				t.Errorf("it does not say how to repeat it: %v", err)
			}
			var again *Violation
			if _, err := (Checker{Seed: v.Seed, At: v.At}).Run(tallyTrial(wrap)); !errors.As(err, &again) || again.Err.Error() != v.Err.Error() {
				t.Errorf("repeated it gives %v, want %v", err, v.Err)
			}
		})
	}
	if _, err := (Checker{Seed: 1, At: "9999.0"}).Run(tallyTrial(whole)); err == nil {
		t.Error("a crash that is none is found")
	}
}

// TestACrashInRecoveryIsFound: the bug is in what only a second crash meets.
func TestACrashInRecoveryIsFound(t *testing.T) {
	reopened := false
	wrap := func(fs vfs.FS) vfs.FS {
		if !reopened {
			return fs
		}
		return Forget(fs, func(string) bool { return true })
	}
	r, err := Checker{Again: 3, Workers: 1}.Run(func(seed uint64) (*Trial, error) {
		trial, err := tallyTrial(wrap)(seed)
		reopened = true
		return trial, err
	})
	var v *Violation
	if !errors.As(err, &v) || !strings.Contains(v.At, "/") {
		t.Fatalf("%+v %v", r, err)
	}
	reopened = false
	_, err = Checker{Seed: v.Seed, At: v.At}.Run(func(seed uint64) (*Trial, error) {
		trial, err := tallyTrial(wrap)(seed)
		reopened = true
		return trial, err
	})
	if !errors.As(err, &v) {
		t.Errorf("repeated it gives %v", err)
	}
}

// TestFailEach: every I/O has its turn, and a program that tries a failed sync
// again loses what it counted.
func TestFailEach(t *testing.T) {
	for _, retry := range []bool{false, true} {
		lost := 0
		failed, err := FailEach(Fault{Err: syscall.EIO}, 1, func(d *Disk, _ int) func() error {
			l := d.Record()
			fs := vfs.FS(d)
			if retry {
				fs = Retry(d)
			}
			counted := 0
			if s, err := openTally(fs); err == nil {
				for s.add() == nil && s.n < 10 {
					counted = s.n
				}
			}
			return func() error {
				p := newPlatter(l, nil, maphash.MakeSeed())
				for i := range l.ops {
					p.apply(&l.ops[i])
				}
				slots := p.slots()
				after := p.decide(slots, make(choice, len(slots))).disk()
				if s, err := openTally(after); err != nil || s.n < counted {
					lost++
				}
				return nil
			}
		})
		if err != nil || failed < 20 {
			t.Errorf("%d failed: %v", failed, err)
		}
		if (lost > 0) != retry {
			t.Errorf("retry %v: %d times something was lost", retry, lost)
		}
	}
}

func TestEnv(t *testing.T) {
	t.Setenv("CRASH_SEED", "7")
	t.Setenv("CRASH_STATES", "1000")
	t.Setenv("CRASH_AT", "3.1")
	c, err := Checker{Most: 3}.Env()
	if err != nil || c.Seed != 7 || c.States != 1000 || c.Most != 0 || c.At != "3.1" {
		t.Errorf("%+v %v", c, err)
	}
	t.Setenv("CRASH_SEED", "x")
	if _, err := (Checker{}).Env(); err == nil || !strings.Contains(err.Error(), "CRASH_SEED") {
		t.Errorf("a seed of x: %v", err)
	}
}
