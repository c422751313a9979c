package local

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stagecoach-mta/stagecoach/sdk/storage/simdisk"
)

// mortal is a world whose disk may fail, and whose process may end.
type mortal struct {
	*world
	dead chan struct{}
}

var errDead = errors.New("the process has ended")

// alive calls f, which never returns when the process ends under it.
func (w *mortal) alive(f func() error) error {
	done := make(chan error, 1)
	go func() { done <- f() }()
	select {
	case err := <-done:
		return err
	case <-w.dead:
		return errDead
	}
}

// live is a workload on a disk that fails: what is refused leaves no trace, and
// when the process ends, that is the end of it.
func live(t testing.TB, l workload, d *simdisk.Disk, seed uint64, steps int) (w *mortal, trial *simdisk.Trial, err error) {
	w = &mortal{newWorld(t, l, d, seed), make(chan struct{})}
	w.exit = func(int) {
		w.h.log.Stop()
		select {
		case <-w.dead:
		default:
			close(w.dead)
		}
		select {}
	}
	trial = &simdisk.Trial{Log: w.h.log, Check: w.h.check, Oracle: w.h.oracle}
	if err := w.alive(w.open); err != nil {
		return w, trial, nil // it says so, or is dead: nothing was promised
	}
	before := ""
	for n := range steps {
		w.now = w.now.Add(time.Second)
		at := w.h.begin(w.now)
		again := *w.world // to see what the step would have come to
		again.d = d.Clone()
		chance := *w.chance
		again.chance = &chance
		err := w.alive(func() error { return w.make(n, steps, at) })
		if errors.Is(err, errDead) {
			return w, trial, again.afterwards(n, steps, at)
		}
		if err != nil {
			at.deposit, at.results, at.request = nil, nil, nil
		}
		if n == steps/2 && err != nil { // it does not open
			at.state, at.acked = before, w.h.log.Len()
			return w, trial, nil
		}
		var is string
		serr := w.alive(func() (err error) { is, err = state(w.s); return err })
		if errors.Is(serr, errDead) {
			if err == nil {
				at.acked = w.h.log.Len()
			}
			return w, trial, again.afterwards(n, steps, at)
		}
		if serr == nil && err != nil {
			serr = refused(before, is)
		}
		if serr != nil {
			return w, trial, fmt.Errorf("step %d, %w: %w", n, err, serr)
		}
		at.state, at.acked = is, w.h.log.Len()
		before = is
	}
	return w, trial, nil
}

// make does a step, at as it is noted.
func (w *world) make(n, steps int, at *moment) error {
	switch {
	case n < len(crashAccounts):
		_, err := w.s.Open(context.Background(), crashAccounts[n])
		return err
	case n == steps/2:
		if err := w.s.Close(); err != nil {
			return err
		}
		return w.open()
	case n%10 == 9:
		_, err := w.s.db.AsyncFlush() // one that fails for ever is tried again for ever
		return err
	default:
		return w.step(at)
	}
}

// afterwards finds out what a step comes to when no disk fails.
func (w *world) afterwards(n, steps int, at *moment) (err error) {
	w.rng = rand.New(w.chance)
	w.exit = nil
	w.h = &history{log: w.d.Record(), moments: w.h.moments}
	if w.s, err = recovered(w.d, w.now); err != nil {
		return fmt.Errorf("a copy from before the process ended: %w", err)
	}
	if n != steps/2 && n%10 != 9 {
		err = w.make(n, steps, at)
	}
	if err == nil {
		at.state, err = state(w.s)
	}
	return errors.Join(err, w.s.Close())
}

// refused: what was there before is there and nothing else, but for accounts that
// have no mail.
func refused(before, after string) error {
	was, is := accountsOf(before), accountsOf(after)
	for name, text := range was {
		if is[name] != text {
			return fmt.Errorf("what was refused has changed\n%s\ninto\n%s", text, is[name])
		}
	}
	for name, text := range is {
		if was[name] == "" && !strings.Contains(text, " 0 octets in 0 messages\n") {
			return fmt.Errorf("what was refused has made\n%s", text)
		}
	}
	return nil
}

// accountsOf splits a state.
func accountsOf(text string) map[string]string {
	out, name := map[string]string{}, ""
	for line := range strings.Lines(text) {
		if line[0] != ' ' {
			name, _, _ = strings.Cut(line, " ")
		}
		out[name] += line
	}
	return out
}

// TestEachFault fails each I/O of a workload in turn: the store goes on without
// what it refused, or the process ends, and the next one has all that was
// acknowledged, each deposit once.
func TestEachFault(t *testing.T) {
	step, steps := 29, 26
	if os.Getenv("CRASH_STATES") != "" {
		step = 1
	}
	for _, f := range []simdisk.Fault{
		{Err: syscall.EIO},
		{Err: syscall.EIO, Persistent: true},
		{Err: syscall.ENOSPC},
		{Err: syscall.ENOSPC, Persistent: true},
		{Err: syscall.ENOSPC, Short: true},
	} {
		t.Run(fmt.Sprintf("%v, short %v, persistent %v", f.Err, f.Short, f.Persistent), func(t *testing.T) {
			failed, err := failEach(t, workload{}, f, step, steps)
			t.Logf("%d I/Os", failed)
			if err != nil || failed < 4 {
				t.Fatalf("%d I/Os failed: %v", failed, err)
			}
		})
	}
}

// TestARetriedSyncIsFound is promise 2 broken: a disk whose sync failed says that
// the next one is well, and has lost the octets.
func TestARetriedSyncIsFound(t *testing.T) {
	f := simdisk.Fault{Err: syscall.EIO, Only: func(op simdisk.Op) bool { return op.Kind == simdisk.Sync }}
	n, err := failEach(t, workload{wrap: simdisk.Retry}, f, 1, 26)
	var v *simdisk.Violation
	if !errors.As(err, &v) {
		t.Fatalf("nobody noticed the planted bug in %d failed syncs: %v", n, err)
	}
	t.Logf("the planted bug was found after %d failed syncs, as it must be: %.300s", n, err)
}

func failEach(t *testing.T, l workload, f simdisk.Fault, step, steps int) (int, error) {
	c, err := simdisk.Checker{Command: "go test ./plugins/local -run '^TestEachFault$'", Exhaust: 3, Sample: 4, Most: 4}.Env()
	if err != nil {
		t.Fatal(err)
	}
	c.States, c.Last = 0, true
	if c.Seed == 0 {
		c.Seed = uint64(rand.Uint32()) + 1
	}
	return simdisk.FailEach(f, step, func(d *simdisk.Disk, _ int) func() error {
		w, trial, err := live(t, l, d, c.Seed, steps)
		trial.Log.Stop()
		return func() error {
			select {
			case <-w.dead:
			default: // the disk is well again: what was tried again succeeds
				if w.s != nil && err == nil {
					err = w.alive(w.s.Close)
				}
			}
			if err != nil {
				return fmt.Errorf("seed %d: %w", c.Seed, err)
			}
			_, err := c.Run(func(uint64) (*simdisk.Trial, error) { return trial, nil })
			return err
		}
	})
}
