package schedule

import (
	"container/heap"
	"time"
)

// ring is a list of lanes that take turns.
type ring struct {
	front, back *lane
	n           int
}

func (r *ring) push(l *lane) {
	l.in, l.prev, l.next = r, r.back, nil
	if r.back != nil {
		r.back.next = l
	} else {
		r.front = l
	}
	r.back = l
	r.n++
}

func (r *ring) remove(l *lane) {
	if l.prev != nil {
		l.prev.next = l.next
	} else {
		r.front = l.next
	}
	if l.next != nil {
		l.next.prev = l.prev
	} else {
		r.back = l.prev
	}
	l.in, l.prev, l.next = nil, nil, nil
	r.n--
}

// flight is a ticket under way.
type flight struct {
	job        Job
	lane       *lane
	src        *source
	began      time.Time
	pool       pool
	young      bool
	prev, next *flight
}

// flightList is in the order of their beginning.
type flightList struct{ front, back *flight }

func (q *flightList) push(f *flight) {
	f.young, f.prev, f.next = true, q.back, nil
	if q.back != nil {
		q.back.next = f
	} else {
		q.front = f
	}
	q.back = f
}

func (q *flightList) remove(f *flight) {
	if !f.young {
		return
	}
	if f.prev != nil {
		f.prev.next = f.next
	} else {
		q.front = f.next
	}
	if f.next != nil {
		f.next.prev = f.prev
	} else {
		q.back = f.prev
	}
	f.young, f.prev, f.next = false, nil, nil
}

// timers wake lanes and sources; nil for both: the scheduler as a whole. Each
// has one entry that counts, the earliest: its timer. Others are passed over.
type timers struct {
	heap   timerHeap
	global time.Time
}

type timer struct {
	at   time.Time
	lane *lane
	src  *source
}

func (t *timers) add(at time.Time, l *lane, src *source) {
	own := t.own(l, src)
	if !own.IsZero() && !at.Before(*own) {
		return
	}
	*own = at
	heap.Push(&t.heap, timer{at, l, src})
}

func (t *timers) own(l *lane, src *source) *time.Time {
	switch {
	case l != nil:
		return &l.timer
	case src != nil:
		return &src.timer
	}
	return &t.global
}

// pop gives the next one that is due and counts.
func (t *timers) pop(now time.Time) (timer, bool) {
	for len(t.heap) > 0 && !t.heap[0].at.After(now) {
		e := heap.Pop(&t.heap).(timer)
		if own := t.own(e.lane, e.src); own.Equal(e.at) {
			*own = time.Time{}
			return e, true
		}
	}
	return timer{}, false
}

// first is when the next one is due; zero: there is none.
func (t *timers) first() time.Time {
	for len(t.heap) > 0 {
		e := t.heap[0]
		if t.own(e.lane, e.src).Equal(e.at) {
			return e.at
		}
		heap.Pop(&t.heap)
	}
	return time.Time{}
}

type timerHeap []timer

var _ heap.Interface = (*timerHeap)(nil)

func (h timerHeap) Len() int           { return len(h) }
func (h timerHeap) Less(i, j int) bool { return h[i].at.Before(h[j].at) }
func (h timerHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *timerHeap) Push(x any)        { *h = append(*h, x.(timer)) }
func (h *timerHeap) Pop() any {
	old := *h
	e := old[len(old)-1]
	old[len(old)-1] = timer{}
	*h = old[:len(old)-1]
	return e
}
