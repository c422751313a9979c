package queue

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/cockroachdb/pebble/v2"
)

// stock is what the index by destination adds up to, kept in memory from the start
// on: Breakdown is to be there at once, however much waits. It is taken from the
// index as the start has found it, in the background; what is committed meanwhile is
// added to it all the same, so nobody waits for anybody.
type stock struct {
	taken  chan struct{} // closed when it is all of the queue
	opened counts        // what the record of the counts said at the start
	ways   map[way]*sum  // nil: there are too many to keep
	// minutes are how many messages came in each, by their ids.
	minutes map[int64]int64
	sample  reservoir
	// While a sample is being drawn: what has changed since it was begun.
	drawing bool
	changes []moved
}

// sum is what goes one way.
type sum struct {
	messages, bytes         int64
	recipients, held, tried int64
	oldest                  id // none of its messages is older
}

func (s *sum) add(d *destination, sign int64) {
	s.messages += sign
	s.bytes += sign * d.size
	s.recipients += sign * d.recipients
	s.held += sign * d.held
	s.tried += sign * d.tried
}

func (s *sum) empty() bool { return *s == sum{oldest: s.oldest} }

// maxWays are kept, to bound the memory: about 250 octets each. Beyond that the
// index is read when somebody asks.
const maxWays = 50_000

func newStock() stock {
	return stock{taken: make(chan struct{}), ways: map[way]*sum{}, minutes: map[int64]int64{}, sample: newReservoir()}
}

// minuteOf counts from idStart.
func minuteOf(i id) int64 { return int64(i>>epochBits) / time.Minute.Microseconds() }

// move counts places that were gained and lost; mu is held, or nobody else has s.
func (s *stock) move(ms []moved) {
	for i := range ms {
		m := &ms[i]
		sign := int64(1)
		if m.lost {
			sign = -1
		}
		s.add(&m.destination, sign)
		if m.first && s.drawing {
			s.changes = append(s.changes, moved{destination{id: m.id}, m.lost})
		} else if m.first {
			s.sample.move(m.id, m.lost)
		}
	}
}

// draw begins a sample, drawn ends it: r is of all that was there at the beginning.
func (s *stock) draw() { s.drawing = true }

func (s *stock) drawn(r reservoir) {
	for _, m := range s.changes {
		r.move(m.id, m.lost)
	}
	s.sample, s.drawing, s.changes = r, false, nil
}

func (s *stock) add(d *destination, sign int64) {
	if d.first {
		s.addMinute(minuteOf(d.id), sign)
	}
	if s.ways == nil {
		return
	}
	at := s.ways[d.way]
	if at == nil {
		if len(s.ways) >= maxWays {
			s.ways = nil
			return
		}
		at = &sum{oldest: d.id}
		s.ways[way{strings.Clone(d.domain), strings.Clone(d.deliver)}] = at
	}
	at.add(d, sign)
	if sign > 0 {
		at.oldest = min(at.oldest, d.id)
	}
	if at.empty() {
		delete(s.ways, d.way)
	}
}

func (s *stock) addMinute(m, n int64) {
	if s.minutes[m] += n; s.minutes[m] == 0 {
		delete(s.minutes, m)
	}
}

// merge adds what was there at the start; mu is held.
func (s *stock) merge(o *stock) {
	for m, n := range o.minutes {
		s.addMinute(m, n)
	}
	if o.ways == nil || s.ways == nil || len(s.ways)+len(o.ways) > maxWays {
		s.ways = nil
		return
	}
	for w, add := range o.ways {
		at := s.ways[w]
		if at == nil {
			s.ways[w] = add
			continue
		}
		at.messages += add.messages
		at.bytes += add.bytes
		at.recipients += add.recipients
		at.held += add.held
		at.tried += add.tried
		at.oldest = min(at.oldest, add.oldest)
	}
	maps.DeleteFunc(s.ways, func(_ way, at *sum) bool { return at.empty() })
}

// takeStock reads the index as it was at the start, and compares it with the counts.
func (e *Engine) takeStock(at *pebble.Snapshot) error {
	was := newStock()
	var found counts
	err := eachDestination(at, func(d *destination) bool {
		was.add(d, 1)
		found.add(d.counts())
		if d.first {
			was.sample.add(d.id)
		}
		return !e.closing.Load() && e.stop.err() == nil
	})
	if err != nil || e.closing.Load() || e.stop.err() != nil {
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.stock.merge(&was)
	e.stock.drawn(was.sample)
	if wrong := found.minus(e.stock.opened); wrong != (counts{}) {
		e.log.Error().Int64("messages", wrong.messages).Int64("recipients", wrong.recipients).
			Msg("queue: the counts were off by this much and are put right; `stagecoach queue check` on the stopped queue looks at the rest")
		e.counts.add(wrong)
	}
	close(e.stock.taken)
	return nil
}

// stocked waits until the stock is all of the queue.
func (e *Engine) stocked(ctx context.Context) error {
	select {
	case <-e.stock.taken:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-e.stop.down:
		return e.stop.err()
	case <-e.swept: // it was given up, or was quick
		select {
		case <-e.stock.taken:
			return nil
		default:
			return cmp.Or(e.check(ctx), errClosed)
		}
	}
}

// line is a way with what goes it.
type line struct {
	way
	sum
}

func (l *line) name() string {
	if l.deliver == "" {
		return l.domain
	}
	return l.deliver + " " + l.domain
}

// greatest sorts by recipients and cuts; top 0: all.
func greatest(ls []line, top int) []line {
	slices.SortFunc(ls, func(a, b line) int {
		return cmp.Or(cmp.Compare(b.recipients, a.recipients), strings.Compare(a.name(), b.name()))
	})
	if top > 0 && len(ls) > top {
		ls = ls[:top]
	}
	return ls
}

// keptBreakdown is that of the whole queue but for senders and reasons, and reads no
// message.
func (e *Engine) keptBreakdown(ctx context.Context, top int) (*Breakdown, error) {
	if err := e.stocked(ctx); err != nil {
		return nil, err
	}
	e.mu.Lock()
	c, minutes := e.counts, maps.Clone(e.stock.minutes)
	tooMany := e.stock.ways == nil
	ls := make([]line, 0, len(e.stock.ways))
	for w, s := range e.stock.ways {
		ls = append(ls, line{w, *s})
	}
	e.mu.Unlock()
	b := &Breakdown{
		Messages: c.messages, Bytes: c.bytes, Recipients: c.recipients, Waiting: c.recipients - c.held, Held: c.held, Tried: c.tried,
	}
	var err error
	if tooMany {
		ls, err = e.countWays(ctx, top)
	} else {
		ls, err = e.withOldest(greatest(ls, top))
	}
	b.Destinations = make([]Share, len(ls))
	for n := range ls {
		l := &ls[n]
		b.Destinations[n] = Share{l.name(), l.messages, l.recipients, l.bytes, l.oldest.time()}
	}
	now := minuteOf(idAt(e.o.Clock()))
	ages := make([]int64, len(ageBounds)+1)
	for m, n := range minutes {
		ages[ageClass(now-m)] += n
	}
	b.Ages = agesOf(ages)
	return b, err
}

// withOldest looks up the oldest message of each way, and remembers how far it looked.
func (e *Engine) withOldest(ls []line) ([]line, error) {
	it, err := e.db.NewIter(&pebble.IterOptions{LowerBound: []byte{keyDestination}, UpperBound: []byte{keyDestination + 1}})
	if err != nil {
		return nil, err
	}
	defer it.Close()
	for n := range ls {
		l := &ls[n]
		prefix := l.appendPrefix(nil)
		if !it.SeekGE(binary.BigEndian.AppendUint64(prefix, uint64(l.oldest))) || !bytes.HasPrefix(it.Key(), prefix) {
			continue // all of it has ended a moment ago
		}
		if d, ok := parseDestination(it.Key()); ok {
			l.oldest = d.id
		}
	}
	if err := it.Error(); err != nil {
		return nil, err
	}
	return ls, nil
}

// countWays adds up the index, way by way.
func (e *Engine) countWays(ctx context.Context, top int) (ls []line, err error) {
	most := max(2*top, 1000)
	err = eachDestination(e.db, func(d *destination) bool {
		if n := len(ls); n == 0 || ls[n-1].way != d.way {
			if top > 0 && n >= most {
				ls = greatest(ls, top)
			}
			ls = append(ls, line{way: d.way, sum: sum{oldest: d.id}})
		}
		ls[len(ls)-1].add(d, 1)
		return ctx.Err() == nil
	})
	return greatest(ls, top), cmp.Or(err, ctx.Err())
}

// sampled are the ids of a fair sample of the queue.
func (e *Engine) sampled(ctx context.Context) ([]id, error) {
	if err := e.stocked(ctx); err != nil {
		return nil, err
	}
	e.mu.Lock()
	ids, thin := e.stock.sample.sample(), e.stock.sample.thin() && !e.stock.drawing
	if thin {
		e.stock.draw()
	}
	e.mu.Unlock()
	if !thin {
		return ids, nil
	}
	r := newReservoir()
	err := eachDestination(e.db, func(d *destination) bool {
		if d.first {
			r.add(d.id)
		}
		return ctx.Err() == nil
	})
	e.mu.Lock()
	defer e.mu.Unlock()
	if err = cmp.Or(err, ctx.Err()); err != nil {
		r = e.stock.sample // the old one goes on
	}
	e.stock.drawn(r)
	return e.stock.sample.sample(), err
}
