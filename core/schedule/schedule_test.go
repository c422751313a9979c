package schedule

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// bench is a scheduler with the actions of its last step sorted.
type bench struct {
	t      testing.TB
	s      *Scheduler
	now    time.Time
	ticket uint64
	starts []uint64
	parks  []Park
	fetch  []Fetch
	sleep  time.Time
}

// newBench is past its warm start.
func newBench(t testing.TB, cfg Config) *bench {
	begin := time.Date(2026, 11, 26, 8, 0, 0, 0, time.UTC)
	return &bench{t: t, s: New(cfg, begin, rand.New(rand.NewPCG(7, 7))), now: begin.Add(time.Hour)}
}

func (b *bench) step(e Event) {
	b.starts, b.parks, b.fetch = nil, nil, nil
	for _, a := range b.s.Step(b.now, e) {
		switch a := a.(type) {
		case Start:
			b.starts = append(b.starts, a.Ticket)
		case Park:
			b.parks = append(b.parks, a)
		case Fetch:
			b.fetch = append(b.fetch, a)
		case Sleep:
			b.sleep = a.Until
		}
	}
}

// arrive n tickets of one message.
func (b *bench) arrive(n int, j Job) {
	var jobs []Job
	for range n {
		b.ticket++
		j.Ticket = b.ticket
		jobs = append(jobs, j)
	}
	b.step(Arrived{From: Fresh, Jobs: jobs})
}

// finish all that is in starts, and gather what starts then.
func (b *bench) finish(r Result, wait time.Duration) {
	var started []uint64
	var parked []Park
	for _, ticket := range b.starts {
		b.step(Finished{Ticket: ticket, Result: r, Wait: wait, Reason: "so it said"})
		started = append(started, b.starts...)
		parked = append(parked, b.parks...)
	}
	b.starts, b.parks = started, parked
}

func twenty(string) Limits { return Limits{AtOnce: 20} }

func TestConcurrencyGrowsWithAnswersAndShrinks(t *testing.T) {
	if err := concurrencyFollows(Config{}); err != nil {
		t.Error(err)
	}
}

func TestADeadLaneIsProbedByOneAndLessAndLess(t *testing.T) {
	b := newBench(t, Config{Limits: twenty})
	b.arrive(50, Job{Lane: "a"})
	b.now = b.now.Add(30 * time.Second)
	b.finish(Unreachable, 0)
	if len(b.starts) != 0 || len(b.parks) != 49 {
		t.Fatalf("%d started, %d parked: all is to wait", len(b.starts), len(b.parks))
	}
	p := b.parks[0]
	if wait := p.Until.Sub(b.now); wait < time.Minute || wait > 75*time.Second || p.Reason != "so it said" {
		t.Fatalf("parked for %s because of %q", wait, p.Reason)
	}
	// The queue has many more of it; nothing is fetched before, and one then.
	b.step(Backlog{Lane: "a", Next: b.now})
	if len(b.fetch) != 0 || b.sleep.Before(p.Until) {
		t.Fatalf("fetched %v, sleeps until %s", b.fetch, b.sleep)
	}
	waits := []time.Duration{2 * time.Minute, 4 * time.Minute, 8 * time.Minute, 16 * time.Minute, 30 * time.Minute, 30 * time.Minute}
	for n, want := range waits {
		b.now = b.sleep
		b.step(Ticked{})
		if !slices.Equal(b.fetch, []Fetch{{"a", 1}}) {
			t.Fatalf("probe %d: fetched %v", n, b.fetch)
		}
		b.step(Backlog{Lane: "a", Answer: true, Fetched: 1, Next: b.now})
		b.ticket++
		b.step(Arrived{From: "a", Jobs: []Job{{Ticket: b.ticket, Lane: "a"}}})
		if len(b.starts) != 1 || len(b.fetch) != 0 {
			t.Fatalf("probe %d: %d started, fetched %v", n, len(b.starts), b.fetch)
		}
		if n == len(waits)-1 {
			break
		}
		b.now = b.now.Add(30 * time.Second)
		b.finish(Unreachable, 0)
		if wait := b.sleep.Sub(b.now); wait < want || wait > want*5/4 {
			t.Fatalf("after %d failures it waits %s, want %s and up to a quarter more", n+2, wait, want)
		}
	}
	// It lives: what is in the queue comes again.
	b.now = b.now.Add(time.Second)
	b.step(Finished{Ticket: b.ticket, Result: Deferred})
	if len(b.fetch) != 1 || b.fetch[0].N != 4 {
		t.Fatalf("it answered; fetched %v", b.fetch)
	}
}

// A storage is there again in a moment: mail does not wait minutes for it.
func TestALocalLaneIsTriedAgainSoon(t *testing.T) {
	for _, r := range []Result{Unreachable, Throttled} {
		b := newBench(t, Config{Limits: func(string) Limits { return Limits{Local: true} }})
		b.arrive(1, Job{Lane: "a"})
		for n, want := range []time.Duration{1, 2, 4, 8, 16, 30, 30} {
			b.now = b.now.Add(time.Millisecond)
			b.finish(r, 0)
			want *= time.Second
			if wait := b.s.lanes["a"].notBefore.Sub(b.now); wait < want || wait > want*5/4 {
				t.Fatalf("result %d, failure %d: it waits %s, want %s and up to a quarter more", r, n+1, wait, want)
			}
			b.now = b.s.lanes["a"].notBefore
			b.arrive(1, Job{Lane: "a"})
			if len(b.starts) != 1 {
				t.Fatalf("result %d, failure %d: %d started after the wait", r, n+1, len(b.starts))
			}
		}
	}
}

func TestThrottledWaitsAsLongAsAsked(t *testing.T) {
	for _, c := range []struct {
		name     string
		wait     time.Duration
		min, max time.Duration
	}{
		{"it said nothing", 0, 30 * time.Second, 38 * time.Second},
		{"five minutes", 5 * time.Minute, 5 * time.Minute, 6*time.Minute + 15*time.Second},
		{"a day is too long", 24 * time.Hour, time.Hour, 75 * time.Minute},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(t, Config{Limits: twenty})
			b.arrive(10, Job{Lane: "a"})
			b.now = b.now.Add(time.Second)
			b.finish(Throttled, c.wait)
			if len(b.parks) != 9 || len(b.starts) != 0 {
				t.Fatalf("%d parked, %d started", len(b.parks), len(b.starts))
			}
			if wait := b.s.lanes["a"].notBefore.Sub(b.now); wait < c.min || wait > c.max {
				t.Errorf("it waits %s, want %s to %s", wait, c.min, c.max)
			}
			b.arrive(1, Job{Lane: "b"})
			if len(b.starts) != 1 {
				t.Error("another lane waits with it")
			}
		})
	}
}

func TestBrokenConnectionsCloseALaneLate(t *testing.T) {
	b := newBench(t, Config{Limits: func(string) Limits { return Limits{AtOnce: 1} }})
	b.arrive(10, Job{Lane: "a"})
	for n := range 3 {
		if len(b.starts) != 1 {
			t.Fatalf("%d started after %d broken connections", len(b.starts), n)
		}
		b.now = b.now.Add(time.Second)
		b.finish(Lost, 0)
	}
	if len(b.starts) != 0 || len(b.parks) != 7 {
		t.Fatalf("%d started, %d parked after three", len(b.starts), len(b.parks))
	}
}

func TestALaneKeepsItsRate(t *testing.T) {
	w := newWorld(3, Config{Limits: func(string) Limits { return Limits{AtOnce: 20, Rate: Rate{30, time.Minute}} }})
	w.peers["a"] = &peer{kind: "healthy", answer: healthy}
	w.keepStarts = true
	for range 200 {
		w.put(w.now.Add(time.Minute), "a", "tom@hanks.example")
	}
	w.run(time.Time{})
	if got := greatest(w.starts, time.Minute); got > 31 {
		t.Errorf("%d in a minute, 30 are allowed", got)
	}
	if took := w.starts[len(w.starts)-1].Sub(w.starts[0]); took > 7*time.Minute {
		t.Errorf("200 mails at 30 a minute took %s", took)
	}
	if len(w.starts) != 200 {
		t.Errorf("%d of 200 were tried", len(w.starts))
	}
}

// greatest number of times within any span.
func greatest(ts []time.Time, span time.Duration) (n int) {
	from := 0
	for i := range ts {
		for ts[i].Sub(ts[from]) >= span {
			from++
		}
		n = max(n, i-from+1)
	}
	return n
}

func TestASourceKeepsItsLimits(t *testing.T) {
	for _, c := range []struct {
		name   string
		limits SourceLimits
	}{
		{"rate", SourceLimits{Rate: Rate{60, time.Minute}}},
		{"at once", SourceLimits{AtOnce: 3}},
		{"both", SourceLimits{AtOnce: 3, Rate: Rate{60, time.Minute}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := Config{Limits: twenty, Source: func(s string) SourceLimits {
				if s == "bulk@hanks.example" {
					return c.limits
				}
				return SourceLimits{}
			}}
			w := newWorld(4, cfg)
			var bulk, meg []*mail
			top, now := 0, 0
			answer := func(w *world, p *peer, m *mail) (time.Duration, Result, time.Duration) {
				if m.source == "bulk@hanks.example" {
					now++
					top = max(top, now)
					w.at(w.now.Add(500*time.Millisecond), func() { now-- })
					return 500 * time.Millisecond, Answered, 0
				}
				return healthy(w, p, m)
			}
			for i := range 30 {
				w.peers[fmt.Sprint("d", i)] = &peer{kind: "healthy", answer: answer}
			}
			from := w.now.Add(time.Minute)
			for i := range 600 {
				bulk = append(bulk, w.put(from, fmt.Sprint("d", i%30), "bulk@hanks.example"))
			}
			for i := range 60 {
				meg = append(meg, w.put(from.Add(time.Duration(i)*time.Second), fmt.Sprint("d", i%30), "meg@ryan.example"))
			}
			w.run(time.Time{})
			last := from
			for _, m := range bulk {
				if m.end.IsZero() {
					t.Fatal("a mail was forgotten")
				}
				if m.end.After(last) {
					last = m.end
				}
			}
			took := last.Sub(from)
			if r := c.limits.Rate; r.limited() && (took < 8*time.Minute || took > 12*time.Minute) {
				t.Errorf("600 mails at 60 a minute, 60 of them at once, took %s", took)
			}
			if c.limits.AtOnce > 0 && (top > c.limits.AtOnce || took < 99*time.Second) {
				t.Errorf("%d at once, %s in all", top, took)
			}
			if took > 12*time.Minute {
				t.Errorf("it took %s", took)
			}
			for _, m := range meg {
				if wait := m.end.Sub(m.put); m.end.IsZero() || wait > time.Second {
					t.Fatalf("another sender waited %s", wait)
				}
			}
			if parks := w.parks; parks > 5000 {
				t.Errorf("%d times something was parked for 600 mails", parks)
			}
		})
	}
}

// Two senders of one lane: who sends ten waits about as long as ten take, and
// not for the ten thousand of the other, whatever of these is in the queue.
func TestSendersOfALaneShareIt(t *testing.T) {
	w := newWorld(5, Config{Limits: twenty})
	w.peers["a"] = &peer{kind: "healthy", answer: healthy}
	from := w.now.Add(time.Minute)
	var light []*mail
	for range 10000 {
		w.put(from, "a", "bulk@hanks.example")
	}
	for i := range 10 {
		light = append(light, w.put(from.Add(30*time.Second+time.Duration(i)*time.Millisecond), "a", "meg@ryan.example"))
	}
	w.run(time.Time{})
	for _, m := range light {
		if wait := m.end.Sub(m.put); m.end.IsZero() || wait > 2*time.Second {
			t.Errorf("a light sender's mail waited %s", wait)
		}
	}
	if took := w.now.Sub(from); took > 90*time.Second {
		t.Errorf("10000 mails of 100 ms at 20 at once took %s, want about 50s", took)
	}
}

func TestPriorityComesFirst(t *testing.T) {
	b := newBench(t, Config{Workers: 1, Limits: twenty})
	b.arrive(1, Job{Lane: "x", Class: 9})
	b.arrive(3, Job{Lane: "a", Class: 9})
	b.arrive(1, Job{Lane: "b", Class: 12})
	b.arrive(1, Job{Lane: "a", Class: 4}) // ticket 6
	b.arrive(1, Job{Lane: "c", Class: 2}) // ticket 7
	b.starts = []uint64{1}
	var order []uint64
	for len(b.starts) > 0 {
		b.now = b.now.Add(time.Second)
		b.finish(Answered, 0)
		order = append(order, b.starts...)
	}
	if want := []uint64{7, 6, 2, 3, 4, 5}; !slices.Equal(order, want) {
		t.Errorf("order %v, want %v", order, want)
	}
}

// Large mails cost their lane turns.
func TestLanesShareByCost(t *testing.T) {
	b := newBench(t, Config{Workers: 40, Limits: twenty})
	var began []uint64
	for n := range 8 {
		b.arrive(200, Job{Lane: fmt.Sprint("lane", n), Cost: []int{1, 8}[n/4]})
		began = append(began, b.starts...)
	}
	b.starts = began
	small, all := 0, 0
	for all < 800 {
		b.now = b.now.Add(time.Second)
		b.finish(Answered, 0)
		for _, ticket := range b.starts {
			all++
			if ticket <= 800 {
				small++
			}
		}
	}
	if small < 670 || small > 750 {
		t.Errorf("%d of %d starts were small ones, want eight of nine", small, all)
	}
}

func TestSlowLanesLeaveHalfOfTheWorkers(t *testing.T) {
	if err := slowLanesDelayNobody(Config{}); err != nil {
		t.Error(err)
	}
}

func TestARestartFiresNotAllAtOnce(t *testing.T) {
	for _, where := range []string{"stored", "fresh"} {
		t.Run(where, func(t *testing.T) {
			if err := aRestartIsGentle(Config{}, where); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestWithoutRoomForALaneItIsParkedFresh(t *testing.T) {
	b := newBench(t, Config{Lanes: 2, Limits: twenty})
	b.arrive(1, Job{Lane: "a"})
	b.arrive(1, Job{Lane: "b"})
	b.arrive(1, Job{Lane: "c"})
	if len(b.parks) != 1 || !b.parks[0].Fresh || !b.parks[0].Until.After(b.now) {
		t.Fatalf("parked %+v", b.parks)
	}
	b.now = b.now.Add(time.Second)
	b.step(Finished{Ticket: 1, Result: Answered})
	b.arrive(1, Job{Lane: "c"})
	if len(b.starts) != 1 {
		t.Error("an idle lane does not make room")
	}
}

func TestReviveOpensWhatIsClosed(t *testing.T) {
	b := newBench(t, Config{Limits: twenty})
	b.arrive(2, Job{Lane: "a"})
	b.now = b.now.Add(30 * time.Second)
	b.finish(Unreachable, 0)
	b.step(Backlog{Lane: "a", Next: b.now})
	b.step(Revived{})
	if len(b.fetch) != 1 {
		t.Fatalf("fetched %v", b.fetch)
	}
}

func TestAConfigurationHoldsAtOnce(t *testing.T) {
	b := newBench(t, Config{Limits: twenty})
	b.arrive(50, Job{Lane: "a"})
	for range 6 {
		b.now = b.now.Add(time.Second)
		b.finish(Answered, 0)
	}
	b.step(Configured{Config{Limits: func(string) Limits { return Limits{AtOnce: 3} }}})
	l := b.s.lanes["a"]
	if l.allowed(64) != 3 {
		t.Fatalf("%d are allowed, want 3", l.allowed(64))
	}
}

// What comes while an answer is under way is not lost, and an empty answer does
// not make the scheduler ask for ever.
func TestBacklogWhileFetching(t *testing.T) {
	b := newBench(t, Config{})
	b.step(Backlog{Next: b.now, Class: 9})
	if !slices.Equal(b.fetch, []Fetch{{Fresh, 64}}) {
		t.Fatalf("fetched %v", b.fetch)
	}
	b.step(Backlog{Next: b.now, Class: 9})
	if len(b.fetch) != 0 {
		t.Fatal("it is asked twice")
	}
	b.step(Backlog{Answer: true})
	if len(b.fetch) != 1 {
		t.Fatal("what came meanwhile is forgotten")
	}
	b.step(Backlog{Answer: true})
	if len(b.fetch) != 0 || !b.sleep.IsZero() || b.s.coming != 0 {
		t.Fatalf("fetched %v, sleeps until %s, %d coming", b.fetch, b.sleep, b.s.coming)
	}
}

// Whatever is configured and whatever peers do, no mail is forgotten.
func TestNothingIsForgotten(t *testing.T) {
	answers := []func(*world, *peer, *mail) (time.Duration, Result, time.Duration){healthy, sluggish, dead, greylisting, throttling}
	for seed := range uint64(40) {
		random := rand.New(rand.NewPCG(seed, 3))
		cfg := Config{
			Workers: 1 + random.IntN(20), Waiting: 4 + random.IntN(60), Lanes: 3 + random.IntN(20),
			Limits: func(name string) Limits {
				l := Limits{AtOnce: len(name) % 5}
				if name[len(name)-1]%3 == 0 {
					l.Rate = Rate{10, time.Minute}
				}
				l.Local = name[len(name)-1] == '7'
				return l
			},
			Source: func(name string) SourceLimits {
				l := SourceLimits{AtOnce: int(name[len(name)-1]) % 4}
				if name[len(name)-1]%2 == 0 {
					l.Rate = Rate{40, time.Minute}
				}
				return l
			},
		}
		w := newWorld(seed, cfg)
		for i := range 10 {
			w.peers[fmt.Sprint("d", i)] = &peer{kind: "any", answer: answers[random.IntN(len(answers))]}
		}
		for range 400 {
			m := w.put(w.now.Add(time.Duration(random.IntN(300))*time.Second), fmt.Sprint("d", random.IntN(10)), fmt.Sprint("s", random.IntN(5)))
			m.class, m.cost = random.IntN(Classes), random.IntN(40)
		}
		w.run(time.Time{})
		open := 0
		for _, m := range w.mails {
			if m.end.IsZero() {
				open++
			}
		}
		s := w.s
		if open > 0 || s.waiting != 0 || s.running != 0 || s.coming != 0 || s.working+s.slow+s.unknown != 0 || s.startable != 0 || s.offers != 0 || len(s.flights) != 0 {
			t.Errorf("seed %d: %d mails are open; %d waiting, %d running, %d coming, %d at work, %d startable, %d offers",
				seed, open, s.waiting, s.running, s.coming, s.working+s.slow, s.startable, s.offers)
		}
		if w.maxWaiting > cfg.Waiting || w.maxLanes > cfg.Lanes || w.maxRunning > 5*cfg.Workers {
			t.Errorf("seed %d: %d waiting of %d, %d lanes of %d, %d running of %d", seed, w.maxWaiting, cfg.Waiting, w.maxLanes, cfg.Lanes, w.maxRunning, cfg.Workers)
		}
	}
}

func BenchmarkStep(b *testing.B) {
	begin := time.Now()
	s := New(Config{Limits: func(string) Limits { return Limits{AtOnce: 64, Local: true} }}, begin, rand.New(rand.NewPCG(1, 1)))
	b.ReportAllocs()
	for i := range uint64(b.N) {
		s.Step(begin, Arrived{Jobs: []Job{{Ticket: i, Lane: "deliver.storage.mail", Source: "tom@hanks.example", Class: 9}}})
		s.Step(begin, Finished{Ticket: i, Result: Answered})
	}
}
