package schedule

import (
	"container/heap"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"
)

// world is a queue and its destinations in simulated time: what the dispatcher
// and the disk are in the server.
type world struct {
	now    time.Time
	s      *Scheduler
	random *rand.Rand
	peers  map[string]*peer
	mails  []*mail
	events eventHeap
	seq    int
	fresh  shelf
	stored map[string]*shelf
	sleep  time.Time

	retry  []time.Duration
	expire time.Duration

	starts      []time.Time
	keepStarts  bool
	running     int
	maxWaiting  int
	maxRunning  int
	maxLanes    int
	fetches     int
	parks       int
	outstanding int
	steps       int
	// noTurns is a bug to be found: the disk gives out the longest due first.
	noTurns bool

	// clock is what a step is told; saw is told of the step.
	clock func() time.Time
	saw   func(Event, []Action)
}

// peer answers an attempt.
type peer struct {
	kind string
	// answer tells how long it takes and what comes of it; n run, this one too.
	answer func(w *world, p *peer, m *mail) (time.Duration, Result, time.Duration)
	n, top int
	recent []time.Time
	opened time.Time // its first answer
}

type mail struct {
	id       int
	lane     string
	source   string
	class    int
	cost     int
	put, end time.Time
	attempts int
	bounced  bool
	at       time.Time
	inLane   bool
	leased   bool
}

type event struct {
	at  time.Time
	seq int
	do  func()
}

type eventHeap []event

func (h eventHeap) Len() int { return len(h) }
func (h eventHeap) Less(i, j int) bool {
	return h[i].at.Before(h[j].at) || h[i].at.Equal(h[j].at) && h[i].seq < h[j].seq
}
func (h eventHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h *eventHeap) Push(x any)   { *h = append(*h, x.(event)) }
func (h *eventHeap) Pop() any {
	old := *h
	e := old[len(old)-1]
	*h = old[:len(old)-1]
	return e
}

func newWorld(seed uint64, cfg Config) *world {
	w := &world{
		now: time.Date(2026, 11, 26, 8, 0, 0, 0, time.UTC), random: rand.New(rand.NewPCG(seed, 1)),
		peers: map[string]*peer{}, stored: map[string]*shelf{}, expire: 5 * 24 * time.Hour,
	}
	for _, m := range []int{5, 15, 30, 60, 120, 180} {
		w.retry = append(w.retry, time.Duration(m)*time.Minute)
	}
	w.clock, w.saw = func() time.Time { return w.now }, func(Event, []Action) {}
	w.s = New(cfg, w.now, rand.New(rand.NewPCG(seed, 2)))
	return w
}

func (w *world) at(t time.Time, do func()) {
	w.seq++
	heap.Push(&w.events, event{t, w.seq, do})
}

// put a mail into the queue at t.
func (w *world) put(t time.Time, lane, source string) *mail {
	m := &mail{id: len(w.mails), lane: lane, source: source, class: 9, cost: 1, put: t}
	w.mails = append(w.mails, m)
	w.at(t, func() { w.shelve(m, Fresh, t) })
	return m
}

// shelve puts a mail into an index and tells the scheduler.
func (w *world) shelve(m *mail, lane string, at time.Time) {
	m.at, m.inLane = at, lane != Fresh
	sh := &w.fresh
	if lane != Fresh {
		if sh = w.stored[lane]; sh == nil {
			sh = &shelf{}
			w.stored[lane] = sh
		}
	}
	sh.put(entry{m.class, at, m}, w.noTurns)
	w.step(Backlog{Lane: lane, Next: at, Class: m.class})
}

// step runs one step and does as it says.
func (w *world) step(e Event) {
	w.steps++
	actions := slices.Clone(w.s.Step(w.clock(), e))
	w.saw(e, actions)
	for _, a := range actions {
		switch a := a.(type) {
		case Start:
			w.start(w.mails[a.Ticket])
		case Park:
			w.parks++
			m := w.mails[a.Ticket]
			lane := m.lane
			if a.Fresh {
				lane = Fresh
			}
			w.at(w.now.Add(time.Millisecond), func() { w.shelve(m, lane, a.Until) })
		case Fetch:
			w.at(w.now.Add(time.Millisecond), func() { w.fetch(a) })
		case List:
			w.at(w.now.Add(time.Millisecond), w.list)
		case Sleep:
			if !a.Until.IsZero() && (w.sleep.IsZero() || a.Until.Before(w.sleep) || !w.sleep.After(w.now)) {
				w.sleep = a.Until
				w.at(a.Until, func() { w.step(Ticked{}) })
			}
		}
	}
	waiting, running := w.s.Waiting()
	w.maxWaiting, w.maxRunning = max(w.maxWaiting, waiting+w.s.coming), max(w.maxRunning, running)
	w.maxLanes = max(w.maxLanes, len(w.s.lanes))
}

// list tells what is stored of each lane.
func (w *world) list() {
	var names []string
	for name, sh := range w.stored {
		if len(sh.rows) > 0 {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	for _, name := range names {
		next, class := w.stored[name].next()
		w.step(Backlog{Lane: name, Next: next, Class: class})
	}
}

// fetch takes what is due, and tells what is next.
func (w *world) fetch(a Fetch) {
	w.fetches++
	sh := &w.fresh
	if a.Lane != Fresh {
		sh = w.stored[a.Lane]
	}
	var got []*mail
	for sh != nil && len(got) < a.N {
		m := sh.take(w.now)
		if m == nil {
			break
		}
		got = append(got, m)
	}
	answer := Backlog{Lane: a.Lane, Answer: true, Fetched: len(got)}
	if sh != nil {
		answer.Next, answer.Class = sh.next()
	}
	w.step(answer)
	for _, m := range got {
		if !w.now.Before(m.put.Add(w.expire)) {
			m.end, m.bounced = w.now, true
			w.step(Arrived{From: a.Lane})
			continue
		}
		w.step(Arrived{From: a.Lane, Jobs: []Job{{Ticket: uint64(m.id), Lane: m.lane, Source: m.source, Class: m.class, Cost: m.cost}}})
	}
}

func (w *world) start(m *mail) {
	p := w.peers[m.lane]
	p.n++
	p.top = max(p.top, p.n)
	m.attempts++
	if w.keepStarts {
		w.starts = append(w.starts, w.now)
	}
	took, result, wait := p.answer(w, p, m)
	w.at(w.now.Add(took), func() {
		p.n--
		switch result {
		case Answered:
			m.end = w.now
		default:
			d := w.retry[min(m.attempts-1, len(w.retry)-1)]
			d += time.Duration(w.random.Int64N(int64(d/4) + 1))
			if at := w.now.Add(d); at.Before(m.put.Add(w.expire)) {
				w.shelve(m, m.lane, at)
			} else {
				m.end, m.bounced = w.now, true
			}
		}
		w.step(Finished{Ticket: uint64(m.id), Result: result, Wait: wait, Reason: p.kind})
	})
}

// run until nothing is left to happen, or until end.
func (w *world) run(end time.Time) {
	for len(w.events) > 0 {
		if !end.IsZero() && w.events[0].at.After(end) {
			w.now = end
			return
		}
		e := heap.Pop(&w.events).(event)
		if e.at.After(w.now) {
			w.now = e.at
		}
		e.do()
	}
}

// The kinds of destinations.

func healthy(w *world, _ *peer, _ *mail) (time.Duration, Result, time.Duration) {
	return 50*time.Millisecond + time.Duration(w.random.Int64N(int64(100*time.Millisecond))), Answered, 0
}

func sluggish(w *world, _ *peer, _ *mail) (time.Duration, Result, time.Duration) {
	return 20*time.Second + time.Duration(w.random.Int64N(int64(40*time.Second))), Answered, 0
}

func dead(*world, *peer, *mail) (time.Duration, Result, time.Duration) {
	return 30 * time.Second, Unreachable, 0
}

func greylisting(w *world, _ *peer, m *mail) (time.Duration, Result, time.Duration) {
	if w.now.Sub(m.put) < 5*time.Minute {
		return 60 * time.Millisecond, Deferred, 0
	}
	return 90 * time.Millisecond, Answered, 0
}

// throttling takes three connections and one mail a second.
func throttling(w *world, p *peer, _ *mail) (time.Duration, Result, time.Duration) {
	p.recent = slices.DeleteFunc(p.recent, func(t time.Time) bool { return w.now.Sub(t) >= time.Minute })
	if p.n > 3 || len(p.recent) >= 60 {
		return 40 * time.Millisecond, Throttled, 0
	}
	p.recent = append(p.recent, w.now)
	return 100 * time.Millisecond, Answered, 0
}

// outcome of the mails to one kind of destination.
type outcome struct {
	kind                                   string
	peers, mails, delivered, bounced, open int
	attempts, top                          int
	waits                                  []time.Duration
}

func (o *outcome) percentile(p float64) time.Duration {
	if len(o.waits) == 0 {
		return 0
	}
	return o.waits[min(int(p*float64(len(o.waits))), len(o.waits)-1)]
}

func (w *world) outcomes() []*outcome {
	by := map[string]*outcome{}
	var all []*outcome
	of := func(kind string) *outcome {
		if by[kind] == nil {
			by[kind] = &outcome{kind: kind}
			all = append(all, by[kind])
		}
		return by[kind]
	}
	for _, p := range w.peers {
		o := of(p.kind)
		o.peers++
		o.top = max(o.top, p.top)
	}
	for _, m := range w.mails {
		o := of(w.peers[m.lane].kind)
		o.mails++
		o.attempts += m.attempts
		switch {
		case m.end.IsZero():
			o.open++
		case m.bounced:
			o.bounced++
		default:
			o.delivered++
			o.waits = append(o.waits, m.end.Sub(m.put))
		}
	}
	for _, o := range all {
		slices.Sort(o.waits)
	}
	slices.SortFunc(all, func(a, b *outcome) int { return b.peers - a.peers + strings.Compare(a.kind, b.kind) })
	return all
}

func short(d time.Duration) string {
	switch {
	case d < time.Second:
		return d.Round(time.Millisecond).String()
	case d < time.Hour:
		return d.Round(100 * time.Millisecond).String()
	}
	return d.Round(time.Minute).String()
}

func (w *world) table() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%-12s %6s %8s %9s %8s %6s %9s %10s %10s %8s\n",
		"destinations", "", "mails", "delivered", "bounced", "open", "att./mail", "wait p50", "wait p99", "at once")
	for _, o := range w.outcomes() {
		fmt.Fprintf(&b, "%-12s %6d %8d %9d %8d %6d %9.2f %10s %10s %8d\n", o.kind, o.peers, o.mails, o.delivered, o.bounced, o.open,
			float64(o.attempts)/float64(max(o.mails, 1)), short(o.percentile(.5)), short(o.percentile(.99)), o.top)
	}
	fmt.Fprintf(&b, "in memory at most: %d tickets waiting, %d under way, %d lanes; %d fetches, %d parked, %d steps\n",
		w.maxWaiting, w.maxRunning, w.maxLanes, w.fetches, w.parks, w.steps)
	return b.String()
}
