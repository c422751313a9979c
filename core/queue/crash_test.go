package queue

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/stagecoach-mta/stagecoach/core/spool"
)

// wreck is a disk as a power cut leaves it, and what may be on it: the states
// from the last one that was acknowledged to the one that was under way.
type wreck struct {
	fs      *vfs.MemFS
	op      string
	allowed []string
}

// history is the states of a world, in order, for whoever looks at it from
// another goroutine.
type history struct {
	sync.Mutex
	states []string
	acked  int // index of the last state that was acknowledged
}

func (h *history) add(s string) {
	h.Lock()
	defer h.Unlock()
	h.states = append(h.states, s)
}

func (h *history) ack() {
	h.Lock()
	defer h.Unlock()
	h.acked = len(h.states) - 1
}

func (h *history) last() int {
	h.Lock()
	defer h.Unlock()
	return h.acked
}

func (h *history) from(n int) []string {
	h.Lock()
	defer h.Unlock()
	return slices.Clone(h.states[n:])
}

// wrecks runs a workload and cuts the power before every single operation that
// changes the disk.
func wrecks(t testing.TB, seed uint64, steps int, f faults) []wreck {
	t.Helper()
	var (
		mem  = vfs.NewCrashableMem()
		h    history
		mu   sync.Mutex
		rng  = rand.New(rand.NewPCG(seed, 2))
		all  []wreck
		w    = newWorld(t, seed, Options{faults: f})
		last string
	)
	h.add("")
	w.o.FS = errorfs.Wrap(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind.ReadOrWrite() != errorfs.OpIsWrite || op.Kind == errorfs.OpFileClose {
			return nil
		}
		mu.Lock()
		defer mu.Unlock()
		from := h.last()
		percent := []int{0, 50, 100}[rng.IntN(3)]
		fs := powerCut(mem, percent, rng)
		all = append(all, wreck{fs, fmt.Sprintf("operation %d: %d on %s, %d%%", len(all), op.Kind, op.Path, percent), h.from(from)})
		return nil
	}))
	w.doing = func(m model) {
		if s := m.String(); s != last {
			h.add(s)
			last = s
		}
	}
	planted := f != faults{}
	if planted { // what the queue says may be wrong: what the wrecks hold is asked
		w.complain = func(string, ...any) {}
	}
	if err := w.open(); err != nil {
		t.Fatal(err)
	}
	for n := range steps {
		var err error
		switch {
		case n == steps/2: // crashes in a restart too
			if err = w.e.Close(); err == nil {
				err = w.open()
			}
		case n%20 == 19:
			err = w.e.db.Flush()
		default:
			err = w.step()
		}
		if err != nil {
			if planted {
				break
			}
			t.Fatal(err)
		}
		if !w.lazy {
			h.ack()
		}
	}
	if err := w.e.Close(); err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	defer mu.Unlock()
	return all
}

// powerCut is the disk after a power cut that keeps some of what was not synced.
//
// The clone takes each entry of a directory or not, whatever the order. The
// database creates a manifest, then the marker that names it, and syncs the
// directory once: the file systems of Linux journal the two in that order, so
// the one case of a marker without its manifest is left out.
func powerCut(mem *vfs.MemFS, percent int, rng *rand.Rand) *vfs.MemFS {
	fs := mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: rng})
	names, _ := fs.List("queue/db") // none: there is no database yet
	for _, name := range names {
		if of, ok := strings.CutPrefix(name, "marker.manifest."); ok && !slices.Contains(names, of[strings.IndexByte(of, '.')+1:]) {
			return mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: rng})
		}
	}
	return fs
}

// check opens a wreck and says what is wrong with what is found there.
func (x *wreck) check() error {
	o := Options{FS: x.fs, Dir: "queue", Clock: (&fakeClock{start.Add(24 * time.Hour)}).Now, CacheSize: 1 << 20}
	e, err := Open(o)
	if err != nil {
		return fmt.Errorf("after %s: %w", x.op, err)
	}
	m, err := read(e)
	if err == nil && !slices.Contains(x.allowed, m.String()) {
		err = fmt.Errorf("found\n%s\nwhich is none of\n%s", m, strings.Join(x.allowed, "\nor\n"))
	}
	if err == nil && e.Corrupted() > 0 {
		err = errors.New("a record is corrupt")
	}
	if err == nil {
		s, serr := e.Stats(context.Background())
		if got := (counts{s.Messages, s.Recipients, s.Held, s.Bytes}); serr != nil || got != m.counts() {
			err = fmt.Errorf("counts %+v of %+v, %w", got, m.counts(), serr)
		}
	}
	if err == nil {
		err = claimable(e, m)
	}
	for deadline := time.Now().Add(10 * time.Second); err == nil; time.Sleep(time.Millisecond) {
		// The sweep goes on beside the work.
		if err = noOrphans(x.fs, m); err == nil || time.Now().After(deadline) {
			break
		}
		err = nil
	}
	err = errors.Join(err, e.Close())
	if err != nil {
		return fmt.Errorf("after %s: %w", x.op, err)
	}
	return nil
}

// claimable: what waits is in the due index, and nothing else.
func claimable(e *Engine, m model) error {
	if err := lanesClaimable(e, m); err != nil {
		return err
	}
	cs, err := e.Claim(context.Background(), start.Add(365*24*time.Hour), 1000, time.Minute)
	if err != nil {
		return err
	}
	waiting := 0
	for _, x := range m.mails {
		if x.due() != never {
			waiting++
		}
	}
	if len(cs) != waiting {
		return fmt.Errorf("%d claimed, %d are waiting", len(cs), waiting)
	}
	return nil
}

func noOrphans(fs vfs.FS, m model) error {
	files, large := 0, 0
	for c := range idDigits {
		names, err := fs.List("queue/body/" + idDigits[c:c+1])
		if err != nil {
			return err
		}
		files += len(names)
	}
	for _, x := range m.mails {
		if len(x.body) > 16<<10 {
			large++
		}
	}
	if files != large {
		return fmt.Errorf("%d files for %d large mails", files, large)
	}
	return nil
}

// TestPowerCutAtEachWrite is promises 1 and 3 of the queue.
func TestPowerCutAtEachWrite(t *testing.T) {
	all := wrecks(t, newSeed(t), 70, faults{})
	for _, x := range all {
		if err := x.check(); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d power cuts", len(all))
}

// TestPowerCutInRecovery cuts the power again while the first cut is repaired.
func TestPowerCutInRecovery(t *testing.T) {
	seed := newSeed(t)
	rng := rand.New(rand.NewPCG(seed, 3))
	all := wrecks(t, seed, 60, faults{})
	again := 0
	for range 12 {
		x := all[rng.IntN(len(all))]
		var second []wreck
		var mu sync.Mutex
		e, err := Open(Options{Dir: "queue", CacheSize: 1 << 20, FS: errorfs.Wrap(x.fs, errorfs.InjectorFunc(func(op errorfs.Op) error {
			if op.Kind.ReadOrWrite() == errorfs.OpIsWrite && op.Kind != errorfs.OpFileClose {
				mu.Lock()
				defer mu.Unlock()
				second = append(second, wreck{powerCut(x.fs, rng.IntN(101), rng), fmt.Sprintf("%s, then %d on %s", x.op, op.Kind, op.Path), x.allowed})
			}
			return nil
		}))})
		if err != nil {
			t.Fatal(err)
		}
		if err := e.Close(); err != nil {
			t.Fatal(err)
		}
		for n := 0; n < len(second); n += 1 + len(second)/10 {
			again++
			if err := second[n].check(); err != nil {
				t.Fatal(err)
			}
		}
	}
	t.Logf("%d second power cuts", again)
}

// TestPlantedBugsAreFound shows that the checker would see what it looks for.
func TestPlantedBugsAreFound(t *testing.T) {
	for name, f := range map[string]faults{
		"the log is not synced":               {noSync: true},
		"a file is not synced":                {noFileSync: true},
		"a directory is not synced":           {noDirSync: true},
		"the ack comes before the sync":       {earlyAck: true},
		"a notice comes after what caused it": {lateEnqueue: true},
		"a result is not told to observers":   {untold: true},
	} {
		t.Run(name, func(t *testing.T) {
			for seed := uint64(1); seed < 20; seed++ {
				for _, x := range wrecks(t, seed, 60, f) {
					if err := x.check(); err != nil {
						t.Logf("seed %d: %.300s", seed, err)
						return
					}
				}
			}
			t.Error("nobody noticed")
		})
	}
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
