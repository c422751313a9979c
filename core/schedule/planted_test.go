package schedule

import (
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

// The checkers of promises 6 and 7, apart from their tests: TestPlantedBugsAreFound
// shows that each would see what it looks for.

// concurrencyFollows: a lane has more attempts at once with each answer, and half of
// them as soon as the peer has enough.
func concurrencyFollows(cfg Config) error {
	cfg.Limits = twenty
	b := newBench(nil, cfg)
	b.arrive(600, Job{Lane: "a"})
	if len(b.starts) != 1 {
		return fmt.Errorf("%d at first, want 1", len(b.starts))
	}
	last := 0
	for range 10 {
		b.now = b.now.Add(time.Second)
		b.finish(Answered, 0)
		_, running := b.s.Waiting()
		if running < last {
			return fmt.Errorf("%d after %d", running, last)
		}
		last = running
	}
	if last != 20 {
		return fmt.Errorf("%d at once after 10 rounds of answers, want 20", last)
	}
	// The peer has enough: one of them, while others run well.
	began := b.starts
	b.now = b.now.Add(time.Second)
	b.step(Finished{Ticket: began[0], Result: Answered})
	b.step(Finished{Ticket: began[1], Result: Throttled})
	l := b.s.lanes["a"]
	if l.allowed(64) != 10 {
		return fmt.Errorf("%d are allowed after one 421, want 10", l.allowed(64))
	}
	// Its siblings say the same: that is no news.
	for _, ticket := range began[2:6] {
		b.step(Finished{Ticket: ticket, Result: Throttled})
	}
	if l.allowed(64) != 10 || l.throttles != 0 {
		return fmt.Errorf("%d are allowed after five 421 of one moment, want 10", l.allowed(64))
	}
	return nil
}

// slowLanesDelayNobody: a hundred lanes take long to answer, and neither one that
// answers at once nor one that is new waits for them.
func slowLanesDelayNobody(cfg Config) error {
	cfg.Workers, cfg.Limits = 16, twenty
	w := newWorld(6, cfg)
	from := w.now.Add(time.Minute)
	for i := range 100 {
		lane := fmt.Sprint("slow", i)
		w.peers[lane] = &peer{kind: "slow", answer: sluggish}
		for range 5 {
			w.put(from, lane, "tom@hanks.example")
		}
	}
	for _, name := range []string{"known", "new"} {
		w.peers[name] = &peer{kind: "healthy", answer: healthy}
	}
	w.put(from.Add(-time.Second), "known", "tom@hanks.example")
	var known []*mail
	for i := range 100 {
		known = append(known, w.put(from.Add(time.Duration(i)*10*time.Second), "known", "tom@hanks.example"))
	}
	first := w.put(from, "new", "tom@hanks.example")
	w.run(time.Time{})
	for n, m := range known {
		if wait := m.end.Sub(m.put); wait > 200*time.Millisecond || m.end.IsZero() {
			return fmt.Errorf("mail %d waited %s behind slow lanes", n, wait)
		}
	}
	// Each of a hundred others has a worker for five seconds, eight at a time.
	if wait := first.end.Sub(first.put); wait > 70*time.Second {
		return fmt.Errorf("a lane that nothing was known of waited %s", wait)
	}
	return nil
}

// aRestartIsGentle: with a large backlog something starts at once, and what starts in
// a second grows step by step, wherever the backlog lies.
func aRestartIsGentle(cfg Config, where string) error {
	cfg.Workers, cfg.Limits = 512, twenty
	w := newWorld(8, cfg)
	w.keepStarts = true
	for i := range 2000 {
		lane := fmt.Sprint("d", i)
		w.peers[lane] = &peer{kind: "healthy", answer: healthy}
		for range 5 {
			m := w.put(w.now, lane, "tom@hanks.example")
			if where == "stored" {
				w.events = w.events[:len(w.events)-1]
				w.at(w.now, func() { w.shelve(m, lane, w.now) })
			}
		}
	}
	begin := w.now
	w.run(time.Time{})
	if first := w.starts[0].Sub(begin); first > 50*time.Millisecond {
		return fmt.Errorf("the first start after %s", first)
	}
	var second [20]int
	for _, at := range w.starts {
		second[min(int(at.Sub(begin)/time.Second), 19)]++
	}
	for s, most := range []int{300, 1200, 4800} {
		if second[s] > most {
			return fmt.Errorf("%d starts in second %d", second[s], s+1)
		}
	}
	for _, m := range w.mails {
		if m.end.IsZero() {
			return fmt.Errorf("a mail was forgotten")
		}
	}
	if took := w.now.Sub(begin); took > 30*time.Second {
		return fmt.Errorf("it took %s", took)
	}
	return nil
}

// probesSpread: lanes that went dead at one moment are not tried again at one moment,
// and each of them by one attempt after longer and longer waits.
func probesSpread(cfg Config) error {
	const lanes = 200
	cfg.Workers, cfg.Limits = 1000, twenty
	w := newWorld(9, cfg)
	w.keepStarts = true
	from := w.now.Add(time.Hour)
	for i := range lanes {
		lane := fmt.Sprint("d", i)
		w.peers[lane] = &peer{kind: "dead", answer: dead}
		for range 50 {
			w.put(from, lane, "tom@hanks.example")
		}
	}
	w.run(from.Add(20 * time.Minute))
	var again []time.Time
	for _, at := range w.starts {
		if at.Sub(from) > 40*time.Second { // the first attempts are over
			again = append(again, at)
		}
	}
	if len(again) < lanes || len(again) > 8*lanes {
		return fmt.Errorf("%d attempts after the first in 20 minutes, of %d dead lanes", len(again), lanes)
	}
	if n := greatest(again, 100*time.Millisecond); n > lanes/10 {
		return fmt.Errorf("%d of %d dead lanes were tried again in a tenth of a second", n, lanes)
	}
	return nil
}

// replays: the same events give the same actions at the same times, down to the last.
func replays(cfg Config, world func(seed uint64, cfg Config) *world) error {
	cfg.Limits, cfg.Workers, cfg.Waiting = twenty, 8, 100
	var first string
	for n := range 3 {
		w := world(11, cfg)
		sum, steps := fnv.New64a(), 0
		w.saw = func(e Event, as []Action) {
			steps++
			fmt.Fprintf(sum, "%s %T", w.now, e)
			for _, a := range as {
				fmt.Fprintf(sum, " %T %+v", a, a)
			}
		}
		traffic(w, 1500, 40, "")
		for minute := range 30 {
			w.at(w.now.Add(time.Duration(minute)*time.Minute), func() { w.step(Revived{}) })
		}
		w.run(w.now.Add(6 * time.Hour))
		text := fmt.Sprintf("%d steps, sum %x", steps, sum.Sum64())
		if n == 0 {
			first = text
		}
		if text != first {
			return fmt.Errorf("run %d: %s, and the first time: %s", n+1, text, first)
		}
	}
	return nil
}

func TestTheSameEventsGiveTheSameActions(t *testing.T) {
	if err := replays(Config{}, newWorld); err != nil {
		t.Error(err)
	}
}

func TestDeadLanesAreNotTriedAtOneMoment(t *testing.T) {
	if err := probesSpread(Config{}); err != nil {
		t.Error(err)
	}
}

// TestPlantedBugsAreFound: each half-sentence of promises 6 and 7 of the queue that is
// the scheduler's, broken on purpose.
func TestPlantedBugsAreFound(t *testing.T) {
	bug := func(f faults) Config { return Config{faults: f} }
	for name, check := range map[string]func() error{
		"6: what failed together is tried again together": func() error { return probesSpread(bug(faults{sameMoment: true})) },
		"6: a dead lane is never shut":                    func() error { return probesSpread(bug(faults{neverShut: true})) },
		"6: concurrency does not grow":                    func() error { return concurrencyFollows(bug(faults{deaf: true})) },
		"6: concurrency does not shrink":                  func() error { return concurrencyFollows(bug(faults{stubborn: true})) },
		"6: a slow lane keeps its workers":                func() error { return slowLanesDelayNobody(bug(faults{onePool: true})) },
		"6: a restart with parked mail has no brake":      func() error { return aRestartIsGentle(bug(faults{coldStart: true}), "stored") },
		"6: a restart with fresh mail has no brake":       func() error { return aRestartIsGentle(bug(faults{coldStart: true}), "fresh") },
		"7: the step goes by the order of a map":          func() error { return replays(bug(faults{mapOrder: true}), newWorld) },
		"7: the step has a clock of its own": func() error {
			return replays(Config{}, func(seed uint64, cfg Config) *world {
				w := newWorld(seed, cfg)
				w.clock = func() time.Time { return w.now.Add(time.Duration(time.Now().UnixNano() % int64(time.Second))) }
				return w
			})
		},
		"7: the step has dice of its own": func() error {
			return replays(Config{}, func(seed uint64, cfg Config) *world {
				w := newWorld(seed, cfg)
				w.s.random = rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64()))
				return w
			})
		},
	} {
		t.Run(name, func(t *testing.T) {
			err := check()
			if err == nil {
				t.Fatal("nobody noticed the planted bug")
			}
			t.Logf("the planted bug was found, as it must be: %s", strings.TrimSpace(err.Error()))
		})
	}
}
