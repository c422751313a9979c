package simdisk

import (
	"fmt"
	"hash/maphash"
	"math/rand/v2"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Trial is one workload that has run, and how to judge what a crash left of it.
// Check and Recover are called from many goroutines at once.
type Trial struct {
	// Log of the disk that the workload ran on.
	Log *Log
	// Check opens what a crash at that position of the log left, and says what
	// is wrong with it. The disk is its own.
	Check func(d *Disk, at int) error
	// Recover opens and closes what a crash left, for a crash in the midst of
	// that; nil: there is none.
	Recover func(d *Disk) error
	// Oracle tells two positions apart at which different things are right; nil:
	// all differ. Disks that are the same are checked once for each answer.
	Oracle func(at int) uint64
}

// Checker explores crashes. Its zero value does so as Env says.
type Checker struct {
	// Command is how the test is run, for whoever is to repeat a failure.
	Command string
	// Seed of the first trial; the next one has the next number. 0: by chance.
	Seed uint64
	// States to explore at least, with as many trials as it takes; 0: one trial.
	States int
	// Exhaust: with up to so many writes and names open, all combinations of
	// them are explored; 0: 12.
	Exhaust int
	// Most per position, all the same; 0: no limit.
	Most int
	// Sample combinations by chance where there are more; 0: 24.
	Sample int
	// Again: of so many recoveries one is crashed itself; 0: 50.
	Again int
	// At repeats one crash alone, by its name.
	At string
	// Last: only crashes at the end of the log.
	Last bool
	// Order of names; nil: PebbleOrder.
	Order Order
	// Workers; 0: one for each processor.
	Workers int
	// Progress is told every second how far it is; nil: nobody.
	Progress func(Report)
}

// Report is what was explored.
type Report struct {
	// Seed of the first trial.
	Seed uint64
	// Trials is how many there were.
	Trials int64
	// Positions of their logs.
	Positions int64
	// Built is how many disks were made, with those that came out the same.
	Built int64
	// States is how many of them were recovered and checked.
	States int64
	// Recoveries that were crashed themselves; InRecovery is how many of States
	// came of that.
	Recoveries, InRecovery int64
	// Violations is how many of States were not right.
	Violations int64
	// Took is the time that it took.
	Took time.Duration
}

// String is one line of a table whose head is ReportHead.
func (r Report) String() string {
	return fmt.Sprintf("%20d %6d %9d %9d %9d %10d %11d %10d %7.1fs", r.Seed, r.Trials, r.Positions, r.Built, r.States, r.Recoveries, r.InRecovery, r.Violations, r.Took.Seconds())
}

// ReportHead names the columns of a Report.
const ReportHead = "                seed trials positions     built    states recoveries in recovery violations    time"

// Env takes what a Checker leaves open from the environment: CRASH_SEED,
// CRASH_STATES and CRASH_AT.
func (c Checker) Env() (Checker, error) {
	for _, v := range []struct {
		name string
		set  func(n uint64)
	}{
		{"CRASH_SEED", func(n uint64) { c.Seed = n }},
		{"CRASH_STATES", func(n uint64) { c.States, c.Most, c.Exhaust, c.Sample = int(n), 0, 0, 0 }},
	} {
		if text := os.Getenv(v.name); text != "" {
			n, err := strconv.ParseUint(text, 10, 63)
			if err != nil {
				return c, fmt.Errorf("%s is %q: it wants a number", v.name, text)
			}
			v.set(n)
		}
	}
	c.At = os.Getenv("CRASH_AT")
	return c, nil
}

// Violation is a crash after which not all was right.
type Violation struct {
	// Seed of the trial.
	Seed uint64
	// At names the crash: position and combination, and those in the recovery.
	At string
	// After is the last operation before it.
	After string
	// Command of the Checker.
	Command string
	// Err is what is wrong.
	Err error
}

func (v *Violation) Error() string {
	return fmt.Sprintf("seed %d, crash %s, after %s: %v\nrepeat it with: CRASH_SEED=%d CRASH_AT=%s %s", v.Seed, v.At, v.After, v.Err, v.Seed, v.At, v.Command)
}

func (v *Violation) Unwrap() error { return v.Err }

// Run explores the crashes of trials. Its error is the first Violation, or that
// of a trial which could not be run.
func (c Checker) Run(trial func(seed uint64) (*Trial, error)) (Report, error) {
	c.defaults()
	r := &run{Checker: c, seen: map[uint64]bool{}, hash: maphash.MakeSeed(), began: time.Now()}
	r.report.Seed = c.Seed
	stop := r.tick()
	defer stop()
	for seed := c.Seed; ; seed++ {
		t, err := trial(seed)
		if err != nil {
			return r.now(), fmt.Errorf("seed %d: %w", seed, err)
		}
		t.Log.Stop()
		atomic.AddInt64(&r.report.Trials, 1)
		if err := r.explore(t, seed); err != nil {
			return r.now(), err
		}
		if n := r.now(); c.At != "" || n.States >= int64(c.States) {
			return n, nil
		}
	}
}

func (c *Checker) defaults() {
	for _, d := range []struct {
		field *int
		value int
	}{{&c.Exhaust, 12}, {&c.Sample, 24}, {&c.Again, 50}, {&c.Workers, runtime.GOMAXPROCS(0)}} {
		if *d.field == 0 {
			*d.field = d.value
		}
	}
	if c.Seed == 0 {
		c.Seed = uint64(rand.Uint32())
	}
}

// run is one Run.
type run struct {
	Checker
	hash   maphash.Seed
	began  time.Time
	report Report
	failed atomic.Bool

	mu    sync.Mutex
	seen  map[uint64]bool
	first error
}

// now is the report so far.
func (r *run) now() Report {
	n := Report{Seed: r.report.Seed}
	n.Trials, n.Positions = atomic.LoadInt64(&r.report.Trials), atomic.LoadInt64(&r.report.Positions)
	n.Built, n.States = atomic.LoadInt64(&r.report.Built), atomic.LoadInt64(&r.report.States)
	n.Recoveries, n.InRecovery = atomic.LoadInt64(&r.report.Recoveries), atomic.LoadInt64(&r.report.InRecovery)
	n.Violations = atomic.LoadInt64(&r.report.Violations)
	n.Took = time.Since(r.began)
	return n
}

func (r *run) tick() (stop func()) {
	if r.Progress == nil {
		return func() {}
	}
	t, done := time.NewTicker(time.Second), make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-t.C:
				r.Progress(r.now())
			case <-done:
				return
			}
		}
	})
	return func() { t.Stop(); close(done); wg.Wait() }
}

// new tells whether a disk was not yet seen under that oracle, and notes it.
func (r *run) new(sum uint64, oracle uint64) bool {
	atomic.AddInt64(&r.report.Built, 1)
	key := maphash.Comparable(r.hash, [2]uint64{sum, oracle})
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.seen[key] {
		return false
	}
	r.seen[key] = true
	return true
}

func (r *run) fail(err error) {
	atomic.AddInt64(&r.report.Violations, 1)
	r.failed.Store(true)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.first == nil {
		r.first = err
	}
}

// crash is a disk to check.
type crash struct {
	disk *Disk
	at   int // of the trial's log
	name string
	last string
}

func (r *run) explore(t *Trial, seed uint64) error {
	todo := make(chan crash, 4*r.Workers)
	var wg sync.WaitGroup
	for range r.Workers {
		wg.Go(func() {
			for c := range todo {
				if !r.failed.Load() {
					r.check(t, seed, c)
				}
			}
		})
	}
	want, _, _ := strings.Cut(r.At, "/")
	r.crashes(t.Log, crashesOf{seed: seed, most: r.Most, sample: r.Sample, exhaust: r.Exhaust, want: want, last: r.Last}, func(c crash, sum uint64, disk func() *Disk) bool {
		oracle := uint64(c.at)
		if t.Oracle != nil {
			oracle = t.Oracle(c.at)
		}
		if want != "" || r.new(sum, oracle+seed<<32) {
			c.disk = disk()
			todo <- c
		}
		return !r.failed.Load()
	})
	close(todo)
	wg.Wait()
	atomic.AddInt64(&r.report.Positions, int64(len(t.Log.ops)+1))
	if r.first == nil && r.At != "" && atomic.LoadInt64(&r.report.States) == 0 {
		return fmt.Errorf("seed %d: there is no crash %q", seed, r.At)
	}
	return r.first
}

// crashesOf says which crashes of a log.
type crashesOf struct {
	seed                  uint64
	most, sample, exhaust int
	want                  string // this one alone; "" for all
	last                  bool   // those at the end alone
}

// crashes calls each for the crashes of a log until it returns false.
func (r *run) crashes(l *Log, o crashesOf, each func(c crash, sum uint64, disk func() *Disk) bool) {
	p := newPlatter(l, r.Order, r.hash)
	last := "nothing"
	for at := 0; ; at++ {
		slots := p.slots()
		here := newPosition(p, slots)
		open := 0
		for _, s := range slots {
			open += s.states - 1
		}
		n, counted := combinations(slots, 1<<20), open <= o.exhaust
		if counted && o.most > 0 && n > o.most || !counted {
			n, counted = o.sample, false
			if o.most > 0 {
				n = min(n, o.most)
			}
		}
		if o.last && at < len(l.ops) {
			n = 0
		}
		for i := range n {
			name := fmt.Sprintf("%d.%d", at, i)
			kind := ""
			if !counted {
				kind = "s" // a sample is not the combination of that number
			}
			if name += kind; o.want != "" && name != o.want {
				continue
			}
			var c choice
			if counted {
				c = nth(slots, i)
			} else {
				c = sample(slots, rand.New(rand.NewPCG(o.seed, uint64(at)<<32|uint64(i))))
			}
			d := p.decide(slots, c)
			if !each(crash{at: at, name: name, last: last}, here.sum(d), d.disk) {
				return
			}
		}
		if at == len(l.ops) {
			return
		}
		last = l.ops[at].String()
		p.apply(&l.ops[at])
	}
}

func (r *run) violation(seed uint64, c crash, err error) {
	r.fail(&Violation{Seed: seed, At: c.name, After: c.last, Command: r.Command, Err: err})
}

// check recovers from a crash and, now and then, crashes that.
func (r *run) check(t *Trial, seed uint64, c crash) {
	_, inside, again := strings.Cut(r.At, "/")
	n := atomic.AddInt64(&r.report.States, 1)
	if r.At == "" {
		again = t.Recover != nil && n%int64(r.Again) == 0
	}
	var second *Disk
	if again {
		second = c.disk.Clone()
	}
	if !again || r.At == "" {
		if err := t.Check(c.disk, c.at); err != nil {
			r.violation(seed, c, err)
			return
		}
	}
	if !again {
		return
	}
	atomic.AddInt64(&r.report.Recoveries, 1)
	l := second.Record()
	err := t.Recover(second)
	l.Stop()
	if err != nil {
		r.violation(seed, c, fmt.Errorf("recovery: %w", err))
		return
	}
	sum := uint64(c.at)
	if t.Oracle != nil {
		sum = t.Oracle(c.at)
	}
	r.crashes(l, crashesOf{seed: seed + uint64(c.at), most: 4, sample: 4, exhaust: 2, want: inside}, func(in crash, h uint64, disk func() *Disk) bool {
		if inside == "" && !r.new(h, sum+seed<<32) {
			return !r.failed.Load()
		}
		in.disk = disk()
		atomic.AddInt64(&r.report.States, 1)
		atomic.AddInt64(&r.report.InRecovery, 1)
		if err := t.Check(in.disk, c.at); err != nil {
			in.name, in.last = c.name+"/"+in.name, c.last+", then "+in.last
			r.violation(seed, in, err)
			return false
		}
		return !r.failed.Load()
	})
}

// FailEach calls do with a new disk whose n-th I/O fails, for n = 0, step,
// 2*step and so on, until all I/Os of do had their turn. Then the disk is as good
// as new, and check is called. It returns how many I/Os failed.
func FailEach(f Fault, step int, do func(d *Disk, n int) (check func() error)) (failed int, err error) {
	for n := 0; ; n += step {
		d := New()
		d.Fail(n, f)
		check := do(d, n)
		hit := d.Heal()
		if err := check(); err != nil {
			return failed, fmt.Errorf("I/O %d failed with %w (short %v, persistent %v): %w", n, f.Err, f.Short, f.Persistent, err)
		}
		if !hit {
			return failed, nil
		}
		failed++
	}
}
