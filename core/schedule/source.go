package schedule

import "time"

// source is who sends. It is remembered while it has a ticket in memory, or is
// below its limits.
type source struct {
	name     string
	limits   SourceLimits
	bucket   bucket
	waiting  int
	running  int
	took     time.Duration
	horizon  time.Time // the place in time of the last that was parked for a limit
	blocked  []*lane   // lanes that have something of it and wait for it
	timer    time.Time
	deferred bool // it waits in timers
}

// bucket counts down a Rate: the time at which all of it would be free again.
type bucket struct{ full time.Time }

// at is when the next start may be, with room for burst at once; zero: now.
func (b *bucket) at(r Rate, now time.Time, burst int) time.Time {
	if !r.limited() {
		return time.Time{}
	}
	at := b.full.Add(-r.every() * time.Duration(burst-1))
	if !at.After(now) {
		return time.Time{}
	}
	return at
}

func (b *bucket) take(r Rate, now time.Time) {
	if !r.limited() {
		return
	}
	if b.full.Before(now) {
		b.full = now
	}
	b.full = b.full.Add(r.every())
}

func (s *Scheduler) sourceLimits(name string) SourceLimits {
	if s.cfg.Source == nil {
		return SourceLimits{}
	}
	return s.cfg.Source(name)
}

func (s *Scheduler) source(name string) *source {
	src := s.sources[name]
	if src == nil {
		src = &source{name: name, limits: s.sourceLimits(name)}
		s.sources[name] = src
	}
	return src
}

// until is when the source may start another one; zero: now. Its whole rate may
// be used at once: a user sends three mails, and then none for an hour.
func (src *source) until(now time.Time) time.Time {
	return src.bucket.at(src.limits.Rate, now, src.limits.Rate.N)
}

// full: another has to end first.
func (src *source) full() bool {
	return src.limits.AtOnce > 0 && src.running >= src.limits.AtOnce
}

// slot gives the next place in time to what a limit keeps out: not all of it
// comes back at the same moment, to be sent away again.
func (src *source) slot(now time.Time) time.Time {
	step := max(src.took, 100*time.Millisecond)
	if n := src.limits.AtOnce; n > 0 {
		step /= time.Duration(n)
	}
	if src.limits.Rate.limited() {
		step = max(step, src.limits.Rate.every())
	}
	from := now
	if at := src.until(now); at.After(from) {
		from = at
	}
	if src.horizon.After(from) {
		from = src.horizon
	}
	src.horizon = from.Add(step)
	return src.horizon
}

// keep is how many of a limited source may wait in memory.
func (src *source) keep() int {
	if src.limits.AtOnce > 0 {
		return 2 * src.limits.AtOnce
	}
	return 1 << 30
}

// block has l offered again when src can start something.
func (s *Scheduler) block(l *lane, src *source) {
	for _, b := range src.blocked {
		if b == l {
			return
		}
	}
	src.blocked = append(src.blocked, l)
	at := src.until(s.now)
	if at.IsZero() {
		// A Finished frees it. The timer is for a lane that was told and could
		// not use the place.
		at = s.now.Add(time.Second)
	}
	s.timers.add(at, nil, src)
}

// unblock offers what waits for src.
func (s *Scheduler) unblock(src *source) {
	ls := src.blocked
	src.blocked = nil
	for _, l := range ls {
		l.held = false
		s.offer(l)
	}
}

// forget drops a source with nothing in memory and all of its limits free.
func (s *Scheduler) forget(src *source) {
	if src.waiting+src.running > 0 || len(src.blocked) > 0 || src.deferred {
		return
	}
	free := src.bucket.full
	if src.horizon.After(free) {
		free = src.horizon
	}
	if free.After(s.now) {
		src.deferred = true
		s.timers.add(free, nil, src)
		return
	}
	delete(s.sources, src.name)
}
