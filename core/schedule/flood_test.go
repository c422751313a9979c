package schedule

import (
	"container/heap"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// shelf is one index of the queue: by sender, class and time. As on the disk the
// senders that have something due take turns.
type shelf struct {
	rows []*row
	turn int
}

// row is what one sender has there.
type row struct {
	source string
	h      mailHeap
}

type entry struct {
	class int
	at    time.Time
	m     *mail
}

type mailHeap []entry

func (h mailHeap) Len() int { return len(h) }
func (h mailHeap) Less(i, j int) bool {
	if h[i].class != h[j].class {
		return h[i].class < h[j].class
	}
	if !h[i].at.Equal(h[j].at) {
		return h[i].at.Before(h[j].at)
	}
	return h[i].m.id < h[j].m.id
}
func (h mailHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h *mailHeap) Push(x any)   { *h = append(*h, x.(entry)) }
func (h *mailHeap) Pop() any {
	old := *h
	e := old[len(old)-1]
	*h = old[:len(old)-1]
	return e
}

func (s *shelf) put(e entry, noTurns bool) {
	source := e.m.source
	if noTurns {
		source = ""
	}
	n, found := slices.BinarySearchFunc(s.rows, source, func(r *row, source string) int { return strings.Compare(r.source, source) })
	if !found {
		s.rows = slices.Insert(s.rows, n, &row{source: source})
		if n < s.turn {
			s.turn++
		}
	}
	heap.Push(&s.rows[n].h, e)
}

// next is when the first of it is due, and the best class of all.
func (s *shelf) next() (at time.Time, class int) {
	for n, r := range s.rows {
		e := r.h[0]
		if n == 0 || e.at.Before(at) {
			at = e.at
		}
		if n == 0 || e.class < class {
			class = e.class
		}
	}
	return at, class
}

// take gives out what is due of the best class, of the sender whose turn it is.
func (s *shelf) take(now time.Time) *mail {
	best := -1
	for i := range s.rows {
		n := (s.turn + i) % len(s.rows)
		if e := s.rows[n].h[0]; !e.at.After(now) && (best < 0 || e.class < s.rows[best].h[0].class) {
			best = n
		}
	}
	if best < 0 {
		return nil
	}
	r := s.rows[best]
	e := heap.Pop(&r.h).(entry)
	s.turn = best + 1
	if len(r.h) == 0 {
		s.rows = slices.Delete(s.rows, best, best+1)
		s.turn = best
	}
	return e.m
}

const flooder = "list@flood.example"

// narrow is down for an hour; then it takes a second for a mail, and gets no more than
// two at once.
func narrow(w *world, p *peer, _ *mail) (time.Duration, Result, time.Duration) {
	if w.now.Before(floodBegan.Add(time.Hour)) {
		return 30 * time.Second, Unreachable, 0
	}
	if p.opened.IsZero() {
		p.opened = w.now
	}
	return time.Second, Answered, 0
}

var floodBegan = time.Date(2026, 11, 26, 8, 0, 0, 0, time.UTC)

// flood is a world of destinations that are down, and fifty senders who write to them
// meanwhile. The flooder sends there five times as much as all of these, at once.
func flood(mails, destinations int, flooded, noTurns bool) *world {
	w := newWorld(*simSeed, Config{Waiting: min(4096, mails/60), Limits: func(string) Limits { return Limits{AtOnce: 2} }})
	w.noTurns = noTurns
	narrows := max(destinations/20, 1)
	lane := func(n int) string { return fmt.Sprintf("d%d.narrow.example", n%narrows) }
	for n := range narrows {
		w.peers[lane(n)] = &peer{kind: "narrow", answer: narrow}
	}
	if flooded {
		for n := range mails / 4 {
			w.put(floodBegan, lane(n), flooder)
		}
	}
	for range mails / 20 {
		at := floodBegan.Add(time.Duration(w.random.Int64N(int64(time.Hour))))
		w.put(at, lane(w.random.IntN(narrows)), fmt.Sprintf("sender%d@hanks.example", w.random.IntN(50)))
	}
	w.run(time.Time{})
	return w
}

// waitsOf are the times that the flooder's mails took, and those of all others, since
// their destination answered again.
func (w *world) waitsOf() (floods, others outcome) {
	for _, m := range w.mails {
		o := &others
		if m.source == flooder {
			o = &floods
		}
		o.mails++
		if m.end.IsZero() || m.bounced {
			o.open++
		} else {
			from := m.put
			if opened := w.peers[m.lane].opened; opened.After(from) {
				from = opened
			}
			o.waits = append(o.waits, m.end.Sub(from))
		}
	}
	slices.Sort(floods.waits)
	slices.Sort(others.waits)
	return floods, others
}

// A sender who floods destinations while they are down delays no other sender when they
// answer again: all of it waits on the disk, and there the senders take turns too.
func TestSimulationOfAFlood(t *testing.T) {
	began := time.Now()
	_, alone := flood(*simMails, *simDestinations, false, false).waitsOf()
	w := flood(*simMails, *simDestinations, true, false)
	floods, others := w.waitsOf()
	_, unfair := flood(*simMails, *simDestinations, true, true).waitsOf()
	if *simVerbose {
		fmt.Printf("one sender floods %d destinations, each of which was down and takes two mails a second; simulated in %s\n", max(*simDestinations/20, 1), time.Since(began).Round(10*time.Millisecond))
		fmt.Printf("%-42s %8s %10s %10s %10s\n", "senders", "mails", "wait p50", "wait p99", "longest")
		for _, r := range []struct {
			name string
			*outcome
		}{{"fifty, without the flood", &alone}, {"fifty, beside the flood", &others}, {"who floods", &floods}, {"fifty, if the disk's order were time alone", &unfair}} {
			fmt.Printf("%-42s %8d %10s %10s %10s\n", r.name, r.mails, short(r.percentile(.5)), short(r.percentile(.99)), short(r.percentile(1)))
		}
		fmt.Printf("in memory at most: %d tickets waiting; %d parked, %d fetches\n", w.maxWaiting, w.parks, w.fetches)
	}
	most := 2 * alone.percentile(.99)
	if p := others.percentile(.99); p > most {
		t.Errorf("beside a flood others wait up to %s (p99), and without it %s", p, alone.percentile(.99))
	}
	if unfair.percentile(.99) <= most {
		t.Errorf("without turns they wait %s: nothing here would tell", unfair.percentile(.99))
	}
	for _, o := range []outcome{alone, others, floods, unfair} {
		if o.open > 0 {
			t.Errorf("%d mails were not delivered", o.open)
		}
	}
	if w.parks < len(w.mails)/2 || w.maxWaiting > 4096 {
		t.Errorf("%d of %d were parked, %d waited in memory: this is not about the disk", w.parks, len(w.mails), w.maxWaiting)
	}
}
