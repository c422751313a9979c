package schedule

import (
	"slices"
	"time"
)

// pool is what an attempt counts in, by what is known of its lane.
type pool uint8

const (
	proven  pool = iota // it answered at once, last time
	slow                // it took long, or did not answer
	local               // this machine
	unknown             // nothing is known yet
	pools
)

// count has n more (or less) in a pool. The slow ones have places of their own,
// the others share the workers, and the unknown ones get half of them.
func (s *Scheduler) occupy(p pool, n int) {
	if p == slow {
		s.slow += n
		return
	}
	s.working += n
	if p == unknown {
		s.unknown += n
	}
}

// slowStarts times Workers may run in lanes that are known to be slow, slowMost
// times when attempts become slow that began elsewhere.
const slowStarts, slowMost = 2, 4

// free tells whether another one of a pool may start.
func (s *Scheduler) free(p pool) bool {
	switch p {
	case slow:
		return s.slow < slowStarts*s.cfg.Workers
	case unknown:
		return s.working < s.cfg.Workers && s.unknown < max(s.cfg.Workers/2, 1)
	}
	return s.working < s.cfg.Workers
}

// quantum is what a lane may start in its turn, in costs.
const quantum = 4

func (s *Scheduler) arrived(e Arrived) {
	if s.coming > 0 && !e.More {
		s.coming--
	}
	if l := s.lanes[e.From]; l != nil && l.coming > 0 && !e.More {
		s.came(l, 1)
		defer s.offer(l)
	}
	for _, j := range e.Jobs {
		s.admit(j, e.From != Fresh && j.Lane == e.From)
	}
}

// came: n messages that the lane waited for are here, or will not come.
func (s *Scheduler) came(l *lane, n int) {
	n = min(n, l.coming)
	l.coming -= n
	s.occupy(l.comingIn, -n)
}

// admit takes a ticket into memory or has it parked.
func (s *Scheduler) admit(j Job, fetched bool) {
	j.Class = min(max(j.Class, 0), Classes-1)
	j.Cost = min(max(j.Cost, 1), MaxCost)
	l := s.lane(j.Lane)
	if l == nil {
		s.park(j, s.now.Add(s.jitter(time.Minute)), "", true)
		return
	}
	if until := l.shut(s.now); until.Sub(s.now) > patience {
		s.park(j, until, l.reason, false)
		s.settle(l)
		return
	}
	src := s.source(j.Source)
	defer s.forget(src)
	if src.until(s.now).Sub(s.now) > patience || src.full() && src.waiting >= src.keep() {
		s.park(j, src.slot(s.now), limited, false)
		s.settle(l)
		return
	}
	if s.waiting >= s.cfg.Waiting || !fetched && !s.fits(l, src) {
		s.park(j, s.now, "", false)
		return
	}
	l.push(waiter{j, fetched}, src)
	s.waiting++
	l.held = false
	s.offer(l)
}

const limited = "the sender's limit is reached"

// fits: each lane leaves room for others, and each source in it for others. As
// long as more waits in the queue, half of the lane's room is for that.
func (s *Scheduler) fits(l *lane, src *source) bool {
	room := s.room(l)
	if l.waiting >= room {
		return false
	}
	of := l.of(src)
	if of > 0 && of >= room-l.waiting {
		return false
	}
	return !l.store.due(s.now) || of < max(room/2-l.fresher, 1) && l.fresher < max(room/2, 1)
}

func (s *Scheduler) park(j Job, until time.Time, reason string, fresh bool) {
	s.out = append(s.out, Park{Ticket: j.Ticket, Until: until, Reason: reason, Fresh: fresh})
}

// parkAll empties the lane's memory.
func (s *Scheduler) parkAll(l *lane, until time.Time, reason string) {
	for l.waiting > 0 {
		w, src := l.last()
		s.waiting--
		s.park(w.Job, until, reason, false)
		s.forget(src)
	}
}

// parkStream does so with what one source has there: its limit is reached.
func (s *Scheduler) parkStream(l *lane, t *turns, src *source) {
	i := slices.Index(t.order, t.streams[src])
	st := t.order[i]
	for len(st.jobs) > 0 {
		w := st.jobs[0]
		st.jobs = st.jobs[1:]
		l.taken(w, t, i)
		s.waiting--
		s.park(w.Job, src.slot(s.now), limited, false)
	}
	s.forget(src)
}

// trim parks what the lane could not start while its leases run: it became
// slower than it was.
func (s *Scheduler) trim(l *lane) {
	if l.took <= 0 || l.waiting == 0 {
		return
	}
	fit := int(float64(l.allowed(s.cfg.Workers)) * float64(holdAtMost) / float64(l.took))
	if l.waiting <= 2*fit+2 {
		return
	}
	for l.waiting > fit+1 {
		w, src := l.last()
		s.waiting--
		s.park(w.Job, s.now, "", false)
		s.forget(src)
	}
}

func (s *Scheduler) finished(e Finished) {
	f := s.flights[e.Ticket]
	if f == nil {
		return
	}
	delete(s.flights, e.Ticket)
	s.young.remove(f)
	s.running--
	s.occupy(f.pool, -1)
	l, src := f.lane, f.src
	l.running--
	src.running--
	took := s.now.Sub(f.began)
	src.took += (took - src.took) / 8
	s.judge(l, f.began, e)
	s.trim(l)
	if !src.full() {
		s.unblock(src)
	}
	s.offer(l)
	s.forget(src)
}

func (s *Scheduler) backlog(e Backlog) {
	b, l := &s.fresh, (*lane)(nil)
	if e.Lane != Fresh {
		if l = s.lane(e.Lane); l == nil {
			if s.overlooked.IsZero() {
				s.overlooked = s.now.Add(time.Minute)
				s.timers.add(s.overlooked, nil, nil)
			}
			return
		}
		b = &l.store
	}
	class := min(max(e.Class, 0), Classes-1)
	switch {
	case e.Answer:
		short := b.asked - e.Fetched
		s.coming -= min(max(short, 0), s.coming)
		if l != nil {
			s.came(l, max(short, 0))
		}
		later, laterClass := b.later, b.laterClass
		*b = backlog{next: e.Next, class: class}
		b.add(later, laterClass)
	case b.fetching:
		// The answer under way may not know of it.
		if !e.Next.IsZero() && (b.later.IsZero() || e.Next.Before(b.later)) {
			b.later, b.laterClass = e.Next, class
		}
	default:
		b.add(e.Next, class)
	}
	if l != nil {
		s.offer(l)
	}
}

// wake offers all whose time has come.
func (s *Scheduler) wake() {
	for f := s.young.front; f != nil && !s.now.Before(f.began.Add(s.cfg.Slow)); f = s.young.front {
		s.young.remove(f)
		// Its worker is free for others, or at least it is one of the half.
		to := slow
		if s.slow >= slowMost*s.cfg.Workers {
			to = unknown
		}
		if f.pool != slow && !s.cfg.faults.onePool {
			s.occupy(f.pool, -1)
			s.occupy(to, 1)
			f.pool = to
		}
		f.lane.state = slow
		f.lane.took = max(f.lane.took, s.now.Sub(f.began))
		s.trim(f.lane)
		s.offer(f.lane)
	}
	for {
		t, ok := s.timers.pop(s.now)
		if !ok {
			break
		}
		switch {
		case t.lane != nil:
			s.offer(t.lane)
		case t.src != nil:
			t.src.deferred = false
			s.unblock(t.src)
			s.forget(t.src)
		}
	}
	if f := s.young.front; f != nil {
		s.timers.add(f.began.Add(s.cfg.Slow), nil, nil)
	}
	switch at := s.overlooked; {
	case at.IsZero():
	case at.After(s.now):
		s.timers.add(at, nil, nil)
	default:
		s.overlooked = time.Time{}
		s.out = append(s.out, List{})
	}
}

// offer puts a lane where it belongs: into a ring if it could start or fetch
// something, else to sleep until it can.
func (s *Scheduler) offer(l *lane) {
	if s.lanes[l.name] != l {
		return
	}
	s.count(l)
	class, ok := s.could(l)
	var want *ring
	if ok {
		want = &s.ready[l.state][class]
	}
	if l.in == want && ok {
		return
	}
	if l.in != nil {
		if l.in != &s.idle {
			s.offers--
		}
		l.in.remove(l)
	}
	if !ok {
		if l.waiting == 0 {
			l.deficit, l.inTurn = 0, false
		}
		s.settle(l)
		return
	}
	want.push(l)
	s.offers++
}

// could tells whether there is something to start or fetch, and of which class.
func (s *Scheduler) could(l *lane) (class int, ok bool) {
	start := l.waiting > 0 && !l.held && l.running < l.allowed(s.cfg.Workers)
	fetch := l.store.due(s.now) && !l.store.fetching
	if !fetch && !l.store.next.IsZero() && !l.store.fetching {
		s.timers.add(l.store.next, l, nil)
	}
	if !start && !fetch {
		return 0, false
	}
	if at := l.shut(s.now); at.After(s.now) {
		s.timers.add(at, l, nil)
		return 0, false
	}
	class = Classes - 1
	if start {
		class = l.queues[0].class
	} else if s.wanted(l) == 0 {
		if l.running+l.waiting+l.coming == 0 { // it lacks memory
			s.timers.add(s.now.Add(time.Second), l, nil)
		}
		return 0, false
	}
	if fetch {
		class = min(class, l.store.class)
	}
	return class, true
}

// count keeps startable.
func (s *Scheduler) count(l *lane) {
	n := 0
	if l.state != slow && l.state != unknown && !l.shut(s.now).After(s.now) {
		n = l.waiting
		if allowed := l.allowed(s.cfg.Workers); allowed < s.cfg.Workers {
			n = min(n, allowed-l.running)
		}
	}
	s.startable += max(n, 0) - l.counted
	l.counted = max(n, 0)
}

// run starts and fetches as much as there is room for.
func (s *Scheduler) run() {
	for s.offers > 0 {
		l := s.turn()
		if l == nil {
			break
		}
		s.serve(l)
	}
	s.fetchFresh()
}

// turn is the lane that is next: by class, and within it the rings in turn.
func (s *Scheduler) turn() *lane {
	warm := s.warm.at(s.now)
	if !warm.IsZero() {
		s.timers.add(warm, nil, nil)
	}
	for class := range Classes {
		for i := range pools {
			p := (s.last + 1 + i) % pools
			if p != local && !warm.IsZero() || !s.free(p) {
				continue
			}
			if l := s.ready[p][class].front; l != nil {
				s.last = p
				return l
			}
		}
	}
	return nil
}

// serve gives the lane its turn: deficit round robin.
func (s *Scheduler) serve(l *lane) {
	if n := s.wanted(l); n > 0 {
		s.fetch(l, n)
		s.offer(l)
		return
	}
	t, ok := (*turns)(nil), false
	if l.waiting > 0 && l.running < l.allowed(s.cfg.Workers) {
		t, ok = s.head(l)
		l.held = !ok
	}
	if !ok {
		s.offer(l)
		return
	}
	if !l.inTurn {
		l.deficit += quantum
		l.inTurn = true
	}
	if l.deficit < t.order[0].jobs[0].Cost {
		l.inTurn = false
		r := l.in
		r.remove(l)
		r.push(l)
		return
	}
	s.start(l, t)
	s.offer(l)
}

func (s *Scheduler) start(l *lane, t *turns) {
	w, src := l.take(t)
	s.waiting--
	l.deficit -= w.Cost
	f := &flight{job: w.Job, lane: l, src: src, began: s.now, pool: l.state}
	s.flights[w.Ticket] = f
	s.young.push(f)
	if f == s.young.front {
		s.timers.add(f.began.Add(s.cfg.Slow), nil, nil)
	}
	s.running++
	l.running++
	src.running++
	s.occupy(f.pool, 1)
	if !l.limits.Local {
		s.warm.starts++
	}
	l.bucket.take(l.limits.Rate, s.now)
	src.bucket.take(src.limits.Rate, s.now)
	s.out = append(s.out, Start{w.Ticket})
}

func (s *Scheduler) fetch(l *lane, n int) {
	l.store.fetching, l.store.asked = true, n
	l.coming += n
	s.coming += n
	if l.coming == n { // else the others count where they do
		l.comingIn = l.state
	}
	s.occupy(l.comingIn, n)
	s.out = append(s.out, Fetch{l.name, n})
}

// fetchFresh asks for what has no lane yet, unless there is enough to do that
// only lacks a worker: then it may as well wait in the queue.
func (s *Scheduler) fetchFresh() {
	b := &s.fresh
	if b.fetching || b.next.IsZero() {
		return
	}
	if !b.due(s.now) {
		s.timers.add(b.next, nil, nil)
		return
	}
	todo := s.startable + s.coming
	if todo > s.cfg.Workers && todo > 2*s.cfg.Workers-fetchLeast {
		return // a few at a time would cost a scan each
	}
	n := min(fetchMost, s.cfg.Waiting-s.waiting-s.coming, 2*s.cfg.Workers-todo)
	if n <= 0 {
		return
	}
	b.fetching, b.asked = true, n
	s.coming += n
	s.out = append(s.out, Fetch{Fresh, n})
}

// offerAll offers every lane, in an order that does not depend on the map's.
func (s *Scheduler) offerAll() {
	names := make([]string, 0, len(s.lanes))
	for name := range s.lanes {
		names = append(names, name)
	}
	if !s.cfg.faults.mapOrder {
		slices.Sort(names)
	}
	for _, name := range names {
		s.offer(s.lanes[name])
	}
}
