package queue

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/stagecoach-mta/stagecoach/core/spool"
	"github.com/stagecoach-mta/stagecoach/sdk/storage/simdisk"
)

// unsynced is a queue that leaves out the syncs of paths that match picks.
func unsynced(match func(w *world, path string) bool) workload {
	return workload{wrap: func(w *world, fs vfs.FS) vfs.FS {
		return simdisk.Forget(fs, func(path string) bool { return match(w, path) })
	}}
}

// TestPlantedBugsAreFound shows that the checker would see what it looks for: a
// bug for each promise. For promise 2 see TestARetriedSyncIsFound; for 6 and 7
// core/schedule and TestASeedRepeatsWhatIsWritten; for 4
// TestAnIgnoredChecksumIsFound.
func TestPlantedBugsAreFound(t *testing.T) {
	for name, l := range map[string]workload{
		"1: the log is not synced":          unsynced(func(_ *world, path string) bool { return strings.HasSuffix(path, ".log") }),
		"1: a file is not synced":           unsynced(func(_ *world, path string) bool { return strings.HasPrefix(path, "spool/") }),
		"1: its directory is not synced":    unsynced(func(_ *world, path string) bool { return strings.HasPrefix(path, "queue/body/") }),
		"1: no directory above is synced":   unsynced(func(_ *world, path string) bool { return path == "queue" || path == "." || path == "queue/body" }),
		"1: the ack comes before the sync":  {faults: faults{earlyAck: true}},
		"3: results are not synced":         unsynced(func(w *world, path string) bool { return w.journals.Load() && strings.HasSuffix(path, ".log") }),
		"3: a notice comes after its cause": {faults: faults{lateEnqueue: true}},
		"3: a result is not told observers": {faults: faults{untold: true}},
		"5: the index comes later":          {faults: faults{lateIndex: true}},
		"5: the index is of before":         {faults: faults{staleIndex: true}},
		"3: the tables are not synced":      unsynced(func(_ *world, path string) bool { return strings.HasSuffix(path, ".sst") }),
	} {
		t.Run(name, func(t *testing.T) {
			l.steps = 60
			c := simdisk.Checker{Seed: 1, States: 30_000, Most: 6, Sample: 6, Exhaust: 3, Again: 1 << 30}
			r, err := c.Run(func(seed uint64) (*simdisk.Trial, error) { return l.run(t, seed) })
			var v *simdisk.Violation
			if !errors.As(err, &v) {
				t.Fatalf("nobody noticed the planted bug in %d states: %v", r.States, err)
			}
			t.Logf("the planted bug was found after %d states, as it must be: %.300s", r.States, err)
		})
	}
}

// TestARetriedSyncIsFound is promise 2 broken: a disk whose sync failed says that
// the next one is well, and has lost the octets.
func TestARetriedSyncIsFound(t *testing.T) {
	f := simdisk.Fault{Err: syscall.EIO, Only: func(op simdisk.Op) bool { return op.Kind == simdisk.Sync }}
	n, err := failEach(t, f, 1, func(_ *world, fs vfs.FS) vfs.FS { return simdisk.Retry(fs) })
	var v *simdisk.Violation
	if !errors.As(err, &v) {
		t.Fatalf("nobody noticed in %d failed syncs: %v", n, err)
	}
	t.Logf("the planted bug was found after %d failed syncs, as it must be: %.300s", n, err)
}

// TestAnIgnoredChecksumIsFound is promise 4 broken: a record that was changed gets
// a checksum that fits, which is to look at none.
func TestAnIgnoredChecksumIsFound(t *testing.T) {
	for name, key := range map[string]func(i id) []byte{"a body": bodyKey, "an envelope": messageKey} {
		t.Run(name, func(t *testing.T) {
			d := simdisk.New()
			h := &history{log: d.Record()}
			w := newWorld(t, 1, Options{FS: d})
			w.doing = func(m model) { h.add(m.String()) }
			if err := w.open(); err != nil {
				t.Fatal(err)
			}
			env := mailTo("meg@ryan.example")
			next := w.now.clone()
			next.put(env, "a body of some length")
			put(t, w.e, env, spool.FromBytes([]byte("a body of some length")))
			h.add(next.String())
			h.ack()
			k := key(mustID(t, env.ID))
			rec, err := w.e.get(k)
			if err != nil {
				t.Fatal(err)
			}
			rec = rec[:len(rec)-4]
			rec[len(rec)/2] ^= 1
			if err := w.e.db.Set(k, seal(k, rec), pebble.Sync); err != nil {
				t.Fatal(err)
			}
			if err := w.e.Close(); err != nil {
				t.Fatal(err)
			}
			c := simdisk.Checker{Last: true}
			_, err = c.Run(func(uint64) (*simdisk.Trial, error) { return &simdisk.Trial{Log: h.log, Check: h.check}, nil })
			var v *simdisk.Violation
			if !errors.As(err, &v) {
				t.Errorf("nobody noticed: %v", err)
			}
		})
	}
}

// TestUnfairTurnsAreFound: a lane, or the due index, that gives out one sender's mail
// before all others.
func TestUnfairTurnsAreFound(t *testing.T) {
	for name, f := range map[string]faults{"in a lane": {unfair: true}, "in none": {unfairFresh: true}} {
		t.Run(name, func(t *testing.T) { unfairIsFound(t, f) })
	}
}

func unfairIsFound(t *testing.T, f faults) {
	const most = 20_000
	w := newWorld(t, 1, Options{FS: vfs.NewMem(), faults: f})
	found := ""
	w.complain = func(format string, a ...any) { found = fmt.Sprintf(format, a...) }
	if err := w.open(); err != nil {
		t.Fatal(err)
	}
	defer w.e.Close()
	for n := range most {
		if err := w.step(); err != nil {
			t.Fatal(err)
		}
		if found != "" {
			t.Logf("the planted bug was found after %d steps, as it must be: %.300s", n, found)
			return
		}
	}
	t.Errorf("nobody noticed in %d steps", most)
}

// TestNoSecondClaimDuringACommit: until a result is on the disk nobody else gets
// the mail, or it would be delivered twice.
func TestNoSecondClaimDuringACommit(t *testing.T) {
	for _, f := range []faults{{}, {noRetire: true}} {
		stuck, goOn := make(chan struct{}), make(chan struct{})
		fs := errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
			if k := op.Kind; k != errorfs.OpFileSync && k != errorfs.OpFileSyncData && k != errorfs.OpFileSyncTo {
				return nil
			}
			select {
			case <-stuck:
				<-goOn
			default:
			}
			return nil
		}))
		e := open(t, Options{FS: fs, Clock: (&fakeClock{start}).Now, faults: f})
		put(t, e, mailTo("meg@ryan.example"), spool.FromBytes([]byte("x")))
		c := claim(t, e, start, 1)[0]
		close(stuck)
		done := make(chan error, 1)
		go func() {
			done <- e.Commit(context.Background(), c, []Change{{State: Waiting, Attempt: &Attempt{Code: 451}}}, false)
		}()
		for leased := true; leased; { // until the commit is under way
			e.mu.Lock()
			l := e.leases[mustID(t, c.ID)]
			leased = l != nil && !l.busy
			e.mu.Unlock()
		}
		second, err := e.Claim(context.Background(), start.Add(time.Hour), 1, time.Minute)
		close(goOn)
		if err != nil {
			t.Fatal(err)
		}
		if twice := len(second) > 0; twice != f.noRetire {
			t.Errorf("%+v: claimed twice: %v", f, twice)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

func mustID(t testing.TB, text string) id {
	t.Helper()
	i, err := parseID(text)
	if err != nil {
		t.Fatal(err)
	}
	return i
}
