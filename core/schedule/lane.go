package schedule

import "time"

const (
	startAtOnce = 2
	// patience: a wait that is shorter is waited for in memory.
	patience = 10 * time.Second
	// holdAtMost is how long a ticket should wait in memory: its lease runs.
	holdAtMost = 5 * time.Minute

	deadFirst, deadMost         = time.Minute, 30 * time.Minute
	throttleFirst, throttleMost = 30 * time.Second, 15 * time.Minute
	// A storage or a plugin of this machine is started again in a moment, and mail
	// that waits for it is waited for.
	localFirst, localMost = time.Second, 30 * time.Second
	// askedMost bounds what a peer may ask for.
	askedMost = time.Hour
	// crowded is the wait after "too many connections" while others run well.
	crowded = 5 * time.Second
	// lostMost broken connections in succession are a dead lane.
	lostMost = 3
)

// backlog is what the queue has, as far as is known.
type backlog struct {
	next     time.Time // zero: nothing
	class    int
	fetching bool
	asked    int
	// later came in addition while it was being fetched.
	later      time.Time
	laterClass int
}

func (b *backlog) due(now time.Time) bool { return !b.next.IsZero() && !b.next.After(now) }

// add merges what came in addition.
func (b *backlog) add(next time.Time, class int) {
	if next.IsZero() {
		return
	}
	if b.next.IsZero() {
		b.next, b.class = next, class
		return
	}
	if next.Before(b.next) {
		b.next = next
	}
	b.class = min(b.class, class)
}

// lane is one destination.
type lane struct {
	name   string
	limits Limits
	bucket bucket

	queues  []*turns // one per class that waits, ascending
	spare   *turns   // an empty one, to be used again
	waiting int
	fresher int // of waiting, those that no Fetch brought
	running int
	coming  int
	// comingIn is the pool that coming counts in, counted is what of waiting is
	// startable.
	comingIn pool
	counted  int
	// held: all that waits, waits for its source.
	held  bool
	store backlog

	// window is how many may run at once: it grows by one per answer until
	// threshold, then by one per window.
	window, threshold float64
	// failures, throttles and losses in succession; each leaves one probe.
	failures, throttles, losses int
	notBefore                   time.Time // nothing starts before
	opens                       time.Time // of a warm start
	reason                      string
	decided                     time.Time // the last time that it shrank or closed
	answered                    time.Time // the last answer
	// state of what is known: lanes that answer at once never wait for others.
	state pool
	took  time.Duration // smoothed time of an attempt

	timer   time.Time // the earliest entry in timers
	deficit int
	inTurn  bool
	place
}

// place of a lane in a ring.
type place struct {
	in         *ring
	prev, next *lane
}

func (s *Scheduler) limits(name string) Limits {
	var l Limits
	if s.cfg.Limits != nil {
		l = s.cfg.Limits(name)
	}
	if l.Start <= 0 {
		l.Start = startAtOnce
	}
	if l.AtOnce > 0 {
		l.Start = min(l.Start, l.AtOnce)
	}
	return l
}

// lane finds or makes a lane; nil when there is no room for another.
func (s *Scheduler) lane(name string) *lane {
	if l := s.lanes[name]; l != nil {
		return l
	}
	for len(s.lanes) >= s.cfg.Lanes {
		l := s.idle.front
		if l == nil {
			return nil
		}
		s.idle.remove(l)
		delete(s.lanes, l.name)
	}
	l := &lane{name: name, limits: s.limits(name), state: unknown}
	l.reset(s.cfg.Workers)
	if l.limits.Local {
		l.state = local
	} else {
		l.opens = s.warm.opening(s.now, s.random)
	}
	s.lanes[name] = l
	return l
}

func (l *lane) reset(workers int) {
	l.window, l.threshold = float64(l.limits.Start), float64(l.most(workers))
	if l.limits.Local {
		l.window = l.threshold
	}
}

func (l *lane) most(workers int) int {
	if l.limits.AtOnce > 0 {
		return min(l.limits.AtOnce, workers)
	}
	return workers
}

// allowed is how many may run at once: one to see whether it answers, or does
// again.
func (l *lane) allowed(workers int) int {
	if l.failures+l.throttles > 0 || l.losses >= lostMost || l.state == unknown {
		return 1
	}
	return max(1, min(int(l.window), l.most(workers)))
}

// shut is until when nothing starts there, for reasons of time alone.
func (l *lane) shut(now time.Time) time.Time {
	until := l.notBefore
	if l.opens.After(until) {
		until = l.opens
	}
	if at := l.bucket.at(l.limits.Rate, now, 1); at.After(until) {
		until = at
	}
	return until
}

// judge learns from an attempt that began at began.
func (s *Scheduler) judge(l *lane, began time.Time, e Finished) {
	if e.Result == Untried || s.cfg.faults.deaf {
		return
	}
	took := s.now.Sub(began)
	if l.took == 0 {
		l.took = took
	}
	l.took += (took - l.took) / 8
	switch e.Result {
	case Answered, Deferred:
		l.failures, l.losses, l.answered = 0, 0, s.now
		if took < s.cfg.Slow {
			l.state = proven
			if l.limits.Local {
				l.state = local
			}
		}
		if e.Result == Deferred { // it says nothing about the lane
			if l.throttles == 0 {
				l.open()
			}
			return
		}
		// A window that is not used up has not been tried.
		if l.throttles == 0 && float64(l.running+1) >= l.window-1 {
			if l.window < l.threshold {
				l.window++
			} else {
				l.window += 1 / l.window
			}
			l.window = min(l.window, float64(l.most(s.cfg.Workers)))
		}
		l.throttles = 0
		l.open()
	case Throttled:
		l.failures, l.losses = 0, 0
		if began.Before(l.decided) {
			s.asked(l, e) // part of what was seen before
			return
		}
		others := l.answered.After(began) && e.Wait == 0
		s.shrink(l)
		if others {
			s.close(l, crowded, "throttled: "+e.Reason)
			return
		}
		l.throttles++
		wait := l.pause(throttleFirst, throttleMost, l.throttles)
		if e.Wait > 0 {
			wait = min(e.Wait, askedMost)
		}
		s.close(l, wait, "throttled: "+e.Reason)
	case Lost, Unreachable:
		if began.Before(l.decided) {
			return
		}
		if l.answered.After(began) { // others got through
			s.shrink(l)
			return
		}
		l.state = slow
		if l.losses++; e.Result == Lost && l.losses < lostMost {
			s.shrink(l)
			return
		}
		l.failures++
		s.shrink(l)
		l.window = float64(l.limits.Start)
		s.close(l, l.pause(deadFirst, deadMost, l.failures), e.Reason)
	}
}

// asked lengthens a wait by what another connection was told.
func (s *Scheduler) asked(l *lane, e Finished) {
	if until := s.now.Add(min(e.Wait, askedMost)); e.Wait > 0 && until.After(l.notBefore) {
		l.notBefore = until
	}
}

func (s *Scheduler) shrink(l *lane) {
	if s.cfg.faults.stubborn {
		return
	}
	l.window = max(1, l.window/2)
	l.threshold = max(l.window, 2)
	l.decided = s.now
}

// close lets nothing start for about wait: a quarter of it is chance, so that
// lanes that were closed together do not open together.
func (s *Scheduler) close(l *lane, wait time.Duration, reason string) {
	if l.decided = s.now; s.cfg.faults.neverShut {
		return
	}
	l.notBefore = s.now.Add(s.jitter(wait))
	l.reason = reason
	if wait > patience {
		s.parkAll(l, l.notBefore, reason)
	}
}

func (l *lane) open() { l.notBefore, l.reason = time.Time{}, "" }

func (l *lane) revive() {
	l.failures, l.throttles, l.losses = 0, 0, 0
	l.open()
}

func (s *Scheduler) jitter(d time.Duration) time.Duration {
	if s.cfg.faults.sameMoment {
		return d
	}
	return d + time.Duration(s.random.Int64N(int64(d/4)+1))
}

// pause after the nth failure in succession.
func (l *lane) pause(first, most time.Duration, n int) time.Duration {
	if l.limits.Local {
		first, most = localFirst, localMost
	}
	return doubled(first, most, n)
}

// doubled is first after one failure, twice that after two, up to most.
func doubled(first, most time.Duration, n int) time.Duration {
	return min(first<<min(n-1, 20), most)
}

// room is how many tickets the lane may have in memory: half of what is free,
// so that each other lane still finds something, and no more than it can start
// while their leases run.
func (s *Scheduler) room(l *lane) int {
	n := (s.cfg.Waiting - s.waiting - s.coming) / 2
	allowed := l.allowed(s.cfg.Workers)
	if l.took > 0 {
		n = min(n, int(float64(allowed)*float64(holdAtMost)/float64(l.took)))
	}
	if r := l.limits.Rate; r.limited() {
		n = min(n, int(time.Minute/r.every()))
	}
	return max(n, 1)
}

// wanted is how many messages to fetch for the lane now.
func (s *Scheduler) wanted(l *lane) int {
	have := l.waiting + l.coming
	if l.store.fetching || !l.store.due(s.now) || have > l.allowed(s.cfg.Workers)/2 {
		return 0
	}
	n := 2*l.allowed(s.cfg.Workers) - have
	if l.allowed(s.cfg.Workers) == 1 {
		n = 1 - have - l.running // a probe, or one at a time
	}
	if r := l.limits.Rate; r.limited() {
		n = min(n, 1+int(patience/r.every()))
	}
	if free := s.cfg.Waiting - s.waiting - s.coming; n > free {
		n = free
	}
	return max(0, min(n, fetchMost, s.room(l)))
}

// fetchMost messages are fetched at once, and fetchLeast if there is enough to do.
const fetchMost, fetchLeast = 64, 16

// settle remembers or forgets a lane with nothing to do.
func (s *Scheduler) settle(l *lane) {
	if l.waiting+l.coming+l.running > 0 || !l.store.next.IsZero() || l.in != nil {
		return
	}
	learned := l.state != unknown || s.now.Before(l.notBefore) || l.failures+l.throttles > 0
	if !learned {
		delete(s.lanes, l.name)
		return
	}
	s.idle.push(l)
	for s.idle.n > idleMost {
		old := s.idle.front
		s.idle.remove(old)
		delete(s.lanes, old.name)
	}
}

// idleMost lanes are remembered for what was learned about them alone.
const idleMost = 8192
