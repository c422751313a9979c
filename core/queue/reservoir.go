package queue

import (
	"math/rand/v2"
	"slices"
)

// reservoir is a sample of the queued messages, each as likely as another, while they
// come and go. What is lost is made up for by what comes next: random pairing, as
// Gemulla, Lehner and Haas have it ("A Dip in the Reservoir", VLDB 2006).
type reservoir struct {
	ids []id
	at  map[id]int
	n   int64 // messages that it stands for
	// Losses that are not made up for: of those in the sample, and of others.
	in, out int64
}

// reservoirSize is how many messages an estimate is made of; below thinReservoir, as
// when most of a long queue has gone, it is filled anew.
const reservoirSize, thinReservoir = 2000, 500

func newReservoir() reservoir { return reservoir{at: map[id]int{}} }

func (r *reservoir) add(i id) {
	if _, twice := r.at[i]; twice {
		return
	}
	r.n++
	switch {
	case r.in+r.out > 0:
		if rand.Int64N(r.in+r.out) >= r.in {
			r.out--
			return
		}
		r.in--
		r.put(i)
	case len(r.ids) < reservoirSize:
		r.put(i)
	default:
		if n := rand.Int64N(r.n); n < reservoirSize {
			delete(r.at, r.ids[n])
			r.ids[n], r.at[i] = i, int(n)
		}
	}
}

func (r *reservoir) put(i id) {
	r.at[i] = len(r.ids)
	r.ids = append(r.ids, i)
}

func (r *reservoir) remove(i id) {
	r.n--
	n, ok := r.at[i]
	if !ok {
		r.out++
		return
	}
	r.in++
	last := len(r.ids) - 1
	r.ids[n] = r.ids[last]
	r.at[r.ids[n]] = n
	r.ids = r.ids[:last]
	delete(r.at, i)
}

func (r *reservoir) move(i id, lost bool) {
	if lost {
		r.remove(i)
	} else {
		r.add(i)
	}
}

// thin tells whether a better sample is to be had.
func (r *reservoir) thin() bool { return len(r.ids) < thinReservoir && r.n > int64(len(r.ids)) }

// sample is a copy, oldest first.
func (r *reservoir) sample() []id {
	ids := slices.Clone(r.ids)
	slices.Sort(ids)
	return ids
}
