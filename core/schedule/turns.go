package schedule

import "slices"

// turns are the waiting tickets of one lane and class; its sources take turns.
type turns struct {
	class   int
	order   []*stream // the front one is next
	streams map[*source]*stream
}

// stream is what waits of one source.
type stream struct {
	src  *source
	jobs []waiter
}

type waiter struct {
	Job
	fetched bool
}

func (l *lane) push(w waiter, src *source) {
	i, found := slices.BinarySearchFunc(l.queues, w.Class, func(t *turns, class int) int { return t.class - class })
	if !found {
		t := l.spare
		if l.spare = nil; t == nil {
			t = &turns{streams: make(map[*source]*stream)}
		}
		t.class = w.Class
		l.queues = slices.Insert(l.queues, i, t)
	}
	t := l.queues[i]
	st := t.streams[src]
	if st == nil {
		st = &stream{src: src}
		t.streams[src] = st
		t.order = append(t.order, st)
	}
	st.jobs = append(st.jobs, w)
	l.waiting++
	src.waiting++
	if !w.fetched {
		l.fresher++
	}
}

// of is how many of a source wait in the lane.
func (l *lane) of(src *source) (n int) {
	for _, t := range l.queues {
		if st := t.streams[src]; st != nil {
			n += len(st.jobs)
		}
	}
	return n
}

// taken keeps the books of a ticket that does not wait any more; t.order[i] is
// where it waited.
func (l *lane) taken(w waiter, t *turns, i int) {
	st := t.order[i]
	l.waiting--
	st.src.waiting--
	if !w.fetched {
		l.fresher--
	}
	if len(st.jobs) > 0 {
		return
	}
	t.order = slices.Delete(t.order, i, i+1)
	delete(t.streams, st.src)
	if len(t.order) == 0 {
		l.spare = t
		l.queues = slices.DeleteFunc(l.queues, func(o *turns) bool { return o == t })
	}
}

// head finds the ticket whose turn it is, of a source that may start one. The
// sources before it, which may not, come last from then on.
func (s *Scheduler) head(l *lane) (*turns, bool) {
	for i := 0; i < len(l.queues); i++ {
		t := l.queues[i]
		for n := len(t.order); n > 0; n-- {
			src := t.order[0].src
			until := src.until(s.now)
			if until.IsZero() && !src.full() {
				return t, true
			}
			if until.Sub(s.now) > patience {
				s.parkStream(l, t, src)
				continue
			}
			s.block(l, src)
			t.order = append(t.order[1:], t.order[0])
		}
		if len(t.order) == 0 {
			i-- // all of it was parked
		}
	}
	return nil, false
}

// take removes the front ticket of t; the next source is next.
func (l *lane) take(t *turns) (waiter, *source) {
	st := t.order[0]
	w := st.jobs[0]
	st.jobs = st.jobs[1:]
	if len(st.jobs) > 0 {
		t.order = append(t.order[1:], st)
		l.taken(w, t, len(t.order)-1)
	} else {
		l.taken(w, t, 0)
	}
	return w, st.src
}

// last removes the ticket that waits in vain the longest: the last of the
// lowest class.
func (l *lane) last() (waiter, *source) {
	t := l.queues[len(l.queues)-1]
	i := len(t.order) - 1
	st := t.order[i]
	w := st.jobs[len(st.jobs)-1]
	st.jobs = st.jobs[:len(st.jobs)-1]
	l.taken(w, t, i)
	return w, st.src
}
