package queue

import (
	"cmp"
	"slices"
	"strings"
	"time"
)

// Outcome is what became of a message as a whole.
type Outcome uint8

// A message ends once it has no open recipient any more. Recipients that became
// others count by those.
const (
	EndedDelivered Outcome = iota // to all that were not discarded
	EndedPartly                   // to some; others failed
	EndedFailed
	EndedDiscarded
)

func (o Outcome) String() string {
	return [...]string{"delivered", "partly", "failed", "discarded"}[o]
}

// OutcomeOf states that have all ended.
func OutcomeOf(states func(yield func(State) bool)) Outcome {
	delivered, failed := false, false
	for s := range states {
		delivered = delivered || s == Delivered
		failed = failed || s == Failed
	}
	switch {
	case delivered && failed:
		return EndedPartly
	case delivered:
		return EndedDelivered
	case failed:
		return EndedFailed
	}
	return EndedDiscarded
}

// ending is a message that a group ends.
type ending struct {
	outcome Outcome
	id      id
}

func (s *state) outcome() Outcome {
	return OutcomeOf(func(yield func(State) bool) {
		for i := range s.rs {
			if !yield(s.rs[i].state) {
				return
			}
		}
	})
}

// Operated is what an operator's action did to a message.
type Operated struct {
	Kind OpKind
	// Recipients that it changed.
	Recipients int
	// Notices that became durable with it.
	Notices []*Envelope
}

// OnOperate has f told of each operator's action that changed something, when that is on
// stable storage. f must return at once; only the last one is told.
func (e *Engine) OnOperate(f func(Operated)) { e.onOperate.Store(&f) }

// OnEnd has f told of each message that has ended, when that is on stable storage, and
// how long it was in the queue. f must return at once; only the last one is told.
func (e *Engine) OnEnd(f func(o Outcome, age time.Duration)) { e.onEnd.Store(&f) }

func (e *Engine) tellEnds(ends []ending) {
	f := e.onEnd.Load()
	if f == nil || len(ends) == 0 {
		return
	}
	now := e.o.Clock()
	for _, d := range ends {
		(*f)(d.outcome, max(now.Sub(d.id.time()), 0))
	}
}

// Destination is what waits for one domain by one deliver block, "" before the first
// decision.
type Destination struct {
	Deliver, Domain     string
	Messages, Bytes     int64
	Recipients, Waiting int64
	// Tried are those that wait after an attempt, and Held those of an operator.
	Tried, Held int64
}

// Destinations are the top ones by open recipients, from what is kept in memory, and
// the sum of all others. ok is false while that is not known: shortly after a start,
// and with more ways than are kept.
func (e *Engine) Destinations(top int) (ds []Destination, others Destination, ok bool) {
	select {
	case <-e.stock.taken:
	default:
		return nil, others, false
	}
	e.mu.Lock()
	ls := make([]line, 0, len(e.stock.ways))
	for w, s := range e.stock.ways {
		ls = append(ls, line{w, *s})
	}
	ok = e.stock.ways != nil
	e.mu.Unlock()
	slices.SortFunc(ls, func(a, b line) int {
		return cmp.Or(cmp.Compare(b.recipients, a.recipients), strings.Compare(a.domain, b.domain), strings.Compare(a.deliver, b.deliver))
	})
	for n := range ls {
		l := &ls[n]
		if n < top {
			ds = append(ds, Destination{Deliver: l.deliver, Domain: l.domain})
			ds[n].add(&l.sum)
		} else {
			others.add(&l.sum)
		}
	}
	return ds, others, ok
}

func (d *Destination) add(s *sum) {
	d.Messages += s.messages
	d.Bytes += s.bytes
	d.Recipients += s.recipients
	d.Held += s.held
	d.Tried += s.tried
	d.Waiting += s.recipients - s.held
}
