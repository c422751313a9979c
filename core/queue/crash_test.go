package queue

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/stagecoach-mta/stagecoach/core/spool"
	"github.com/stagecoach-mta/stagecoach/sdk/storage/simdisk"
)

// history is what a workload did, by the position in the disk's log at which it
// began and at which it was acknowledged.
type history struct {
	log    *simdisk.Log
	states []string
	begun  []int // of each state
	acks   []ack
	claims []issued
	puts   []issuedID
	judged simdisk.Judged
}

type ack struct{ at, state int }

type issued struct {
	at    int
	claim *Claim
}

type issuedID struct {
	at int
	id string
}

func (h *history) add(s string) {
	if n := len(h.states); n > 0 && h.states[n-1] == s {
		return
	}
	h.states, h.begun = append(h.states, s), append(h.begun, h.log.Len())
}

// reached is the acknowledgement of a state that others have followed.
func (h *history) reached(s string) {
	for i := len(h.states) - 1; i >= 0; i-- {
		if h.states[i] == s {
			h.acks = append(h.acks, ack{h.log.Len(), i})
			return
		}
	}
}

func (h *history) ack() { h.acks = append(h.acks, ack{h.log.Len(), len(h.states) - 1}) }

// allowed are the states from the last one that was acknowledged at a position to
// the one that was under way.
func (h *history) allowed(at int) (from, to int) {
	for _, a := range h.acks {
		if a.at <= at {
			from = a.state
		}
	}
	for i, b := range h.begun {
		if b <= at {
			to = i
		}
	}
	return from, to
}

// oracle tells positions apart that allow different states.
func (h *history) oracle(at int) uint64 {
	from, to := h.allowed(at)
	return uint64(from)<<16 | uint64(to)
}

// workload does random things to a queue on a disk.
type workload struct {
	steps  int
	faults faults
	wrap   func(*world, vfs.FS) vfs.FS // a bug below the queue
	disk   *simdisk.Disk               // which may fail; nil: a new one
	clock  func() time.Time            // a bug: not the one handed in; nil: none
}

// run does them. When the queue stops, that is the end of it; what it refuses
// leaves no trace.
func (l workload) run(t testing.TB, seed uint64) (*simdisk.Trial, error) {
	d, steady := l.disk, &simdisk.Steady{}
	if d == nil {
		d = simdisk.New()
	}
	h := &history{log: d.Record()}
	w := newWorld(t, seed, Options{FS: d, Tune: steady.Tune, faults: l.faults})
	if l.wrap != nil {
		w.o.FS = l.wrap(w, d)
	}
	w.o.FS = w.gated(w.o.FS)
	if l.clock != nil {
		w.o.Clock = l.clock
		w.complain = func(string, ...any) {}
	}
	w.reached = func(m model) { h.reached(m.String()) }
	h.add("")
	w.doing = func(m model) { h.add(m.String()) }
	w.claimed = func(c *Claim) { h.claims = append(h.claims, issued{h.log.Len(), c}) }
	w.stored = func(id string) { h.puts = append(h.puts, issuedID{h.log.Len(), id}) }
	mayFail := l.disk != nil || l.faults != faults{} || l.wrap != nil
	if l.faults != (faults{}) { // what the queue says may be wrong: what the disks hold is asked
		w.complain = func(string, ...any) {}
	}
	trial := &simdisk.Trial{Log: h.log, Check: h.check, Recover: recoverQueue, Oracle: h.oracle}
	err := w.open()
	for n := 0; n < l.steps && err == nil; n++ {
		switch {
		case n == l.steps/2: // crashes in a restart too
			if err = w.e.Close(); err == nil {
				err = w.open()
			}
		case l.disk == nil && n%20 == 19:
			err = w.guarded(func() error { return errors.Join(w.e.db.Flush(), steady.Sweep(w.e.db)) })
		case l.disk != nil && n%10 == 9: // one that fails for ever is tried again for ever
			err = w.guarded(func() error { _, err := w.e.db.AsyncFlush(); return err })
		case l.disk == nil && n%20 == 9:
			err = w.guarded(func() error {
				return errors.Join(w.e.db.Compact(context.Background(), []byte{0}, []byte{0xff}, false), steady.Sweep(w.e.db))
			})
		case l.disk == nil && n%6 == 4:
			err = w.together()
		default:
			err = w.step()
		}
		if err != nil && mayFail && w.e != nil && w.e.check(context.Background()) == nil {
			err = nil
			h.add(w.now.String())
		}
		if err == nil && !w.lazy {
			h.ack()
		}
	}
	if w.e != nil {
		err = errors.Join(err, w.e.Close())
	}
	if mayFail {
		err = nil
	}
	return trial, err
}

func recovered(d *simdisk.Disk) (*Engine, error) {
	o := Options{FS: d, Dir: "queue", Clock: (&fakeClock{start.Add(24 * time.Hour)}).Now, CacheSize: 1 << 20, Tune: new(simdisk.Steady).Tune}
	e, err := Open(o)
	if err != nil {
		return nil, err
	}
	<-e.swept
	return e, nil
}

func recoverQueue(d *simdisk.Disk) error {
	e, err := recovered(d)
	if err != nil {
		return err
	}
	return e.Close()
}

// check opens what a crash left and says what is wrong with what is found there.
func (h *history) check(d *simdisk.Disk, at int) error {
	e, err := recovered(d)
	if err != nil {
		return err
	}
	if _, err := d.Stat("queue/db.damaged"); err == nil {
		return errors.Join(errors.New("what a power cut tore is taken for damage"), e.Close())
	}
	content, err := simdisk.SumDB(e.db)
	if err != nil {
		return errors.Join(err, e.Close())
	}
	content += d.Sum("queue/body")
	err = h.judged.Once(content, h.oracle(at)<<32|uint64(h.given(at)), func() error { return h.judge(e, d, at) })
	return errors.Join(err, e.Close())
}

// given is how many ids and claims were given out before a position.
func (h *history) given(at int) (n int) {
	for _, p := range h.puts {
		if p.at <= at {
			n++
		}
	}
	for _, c := range h.claims {
		if c.at <= at {
			n++
		}
	}
	return n
}

func (h *history) judge(e *Engine, d *simdisk.Disk, at int) error {
	from, to := h.allowed(at)
	m, err := read(e)
	if err != nil {
		return err
	}
	if !slices.Contains(h.states[from:to+1], m.String()) {
		return fmt.Errorf("found\n%s\nwhich is none of\n%s", m, strings.Join(h.states[from:to+1], "\nor\n"))
	}
	if e.Corrupted() > 0 {
		return errors.New("a record is corrupt")
	}
	if err := counted(e, m); err != nil {
		return err
	}
	if err := indexed(e); err != nil {
		return err
	}
	if err := claimable(e, m); err != nil {
		return err
	}
	if err := noOrphans(d, m); err != nil {
		return err
	}
	if err := summed(e); err != nil {
		return err
	}
	return h.fenced(e, at)
}

// fenced: nothing of before the crash has a say, and nothing new looks like it.
func (h *history) fenced(e *Engine, at int) error {
	ctx := context.Background()
	env := mailTo("meg@ryan.example")
	if err := e.Put(ctx, env, spool.FromBytes([]byte("after the crash"))); err != nil {
		return fmt.Errorf("the first Put after a crash: %w", err)
	}
	for _, p := range h.puts {
		if p.at <= at && p.id == env.ID {
			return fmt.Errorf("the id %s is given out again", p.id)
		}
	}
	c, err := e.Claim(ctx, start.Add(365*24*time.Hour), 1, time.Minute)
	if err != nil || len(c) != 1 || c[0].ID != env.ID {
		return fmt.Errorf("the first Put after a crash is not claimed: %v %w", c, err)
	}
	var old *Claim
	for _, i := range h.claims {
		if i.at > at {
			break
		}
		if old = i.claim; old.Token >= c[0].Token {
			return fmt.Errorf("the token %d is given out after %d", c[0].Token, old.Token)
		}
	}
	if old != nil {
		if err := e.Commit(ctx, old, []Change{{Index: old.Recipients[0].Index, State: Delivered}}, false); !errors.Is(err, ErrLeaseLost) {
			return fmt.Errorf("a claim of before the crash commits: %w", err)
		}
	}
	if err := e.Commit(ctx, c[0], []Change{{State: Delivered}}, false); err != nil {
		return fmt.Errorf("the first Commit after a crash: %w", err)
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

// summed: the checksum of each large body is in its message's record.
func summed(e *Engine) error {
	var wrong error
	err := e.scan(0, func(s *stored) bool {
		if s.state.file.large {
			sum, err := sumOf(e.fs, e.bodyPath(s.id))
			if err != nil || !s.state.file.summed || sum != s.state.file.sum {
				wrong = errors.Join(fmt.Errorf("the checksum of the file is %08x, the record says %+v", sum, s.state.file), err)
			}
		}
		return wrong == nil
	})
	return cmp.Or(wrong, err)
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

// TestCrash is promises 1 and 3 of the queue, and 4 as far as it is about what is
// torn.
func TestCrash(t *testing.T) {
	c := simdisk.Checker{Command: "go test ./core/queue -run '^TestCrash$'", Most: 4, Sample: 4, Exhaust: 2}
	explore(t, c, func(seed uint64) (*simdisk.Trial, error) { return workload{steps: 60}.run(t, seed) })
}

// explore runs a checker as the environment wants it.
func explore(t *testing.T, c simdisk.Checker, trial func(seed uint64) (*simdisk.Trial, error)) {
	t.Helper()
	c, err := c.Env()
	if err != nil {
		t.Fatal(err)
	}
	if c.States > 0 {
		c.Progress = func(r simdisk.Report) { fmt.Fprintf(os.Stderr, "\r%s", r) }
	}
	r, err := c.Run(trial)
	t.Logf("\n%s\n%s", simdisk.ReportHead, r)
	if err != nil {
		t.Fatal(err)
	}
}

// TestEachFault fails each I/O of a workload in turn: the queue goes on without
// what it refused, or stops, and the next start has all that it acknowledged.
// This is promise 2, too: a disk that failed a sync once has lost what it was for.
func TestEachFault(t *testing.T) {
	step := 9
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
			failed, err := failEach(t, f, step, nil)
			t.Logf("%d I/Os", failed)
			if err != nil || failed < 10 {
				t.Fatalf("%d I/Os failed: %v", failed, err)
			}
		})
	}
}

func failEach(t *testing.T, f simdisk.Fault, step int, wrap func(*world, vfs.FS) vfs.FS) (int, error) {
	c, err := simdisk.Checker{Command: "go test ./core/queue -run '^TestEachFault$'", Exhaust: 3, Sample: 4, Most: 4, Last: true}.Env()
	if err != nil {
		t.Fatal(err)
	}
	c.States, c.Last = 0, true
	if c.Seed == 0 {
		c.Seed = uint64(rand.Uint32()) + 1
	}
	return simdisk.FailEach(f, step, func(d *simdisk.Disk, _ int) func() error {
		trial, err := workload{steps: 30, disk: d, wrap: wrap}.run(t, c.Seed)
		return func() error {
			if err != nil {
				return err
			}
			_, err := c.Run(func(uint64) (*simdisk.Trial, error) { return trial, nil })
			return err
		}
	})
}
