package queue

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/cockroachdb/pebble/v2"
)

// Lanes is the part of a Queue that keeps apart what was routed and cannot go
// now. A recipient waits in the lane that a Change names: Claim gives it out only
// at its Recheck, ClaimLane when it is due there. The lease is one per message:
// what is leased for one lane is passed over for others until it is given back.
type Lanes interface {
	// Park is a Commit of changes that only say where recipients wait. It does
	// not wait for the disk: what a power cut loses of it is claimable as it was
	// before. When it returns, ClaimLane sees the change.
	Park(ctx context.Context, c *Claim, changes []Change, keep bool) error
	// ClaimLane leases up to max messages that have a recipient due in the lane,
	// the highest priority and the longest due first; Due names no others. rest
	// is what is left there; its Next is zero when nothing is.
	ClaimLane(ctx context.Context, lane string, now time.Time, max int, lease time.Duration) (claims []*Claim, rest Lane, err error)
	// EachLane calls each for every lane that something waits in, leased or not,
	// until it returns false. It reads a few keys per lane and no message.
	EachLane(ctx context.Context, each func(Lane) bool) error
}

var _ Lanes = (*Engine)(nil)

// Lane is what waits in one lane.
type Lane struct {
	Name string
	// Next is when the first of it is due.
	Next time.Time
	// Priority is the highest of what waits.
	Priority int
}

// laneDue is a place in a lane's own due index. A message has at most one in each
// lane: where its earliest recipient of that lane is due.
type laneDue struct {
	lane string
	due
}

// lanePrefix leads all keys of a lane. Names hold no NUL: laneName sees to that.
func lanePrefix(lane string) []byte {
	k := make([]byte, 0, 1+len(lane)+1+dueKeyLen)
	k = append(k, keyLane)
	k = append(k, lane...)
	return append(k, 0)
}

func (d laneDue) key() []byte {
	k := append(lanePrefix(d.lane), byte(d.class))
	k = binary.BigEndian.AppendUint64(k, uint64(d.at))
	return binary.BigEndian.AppendUint64(k, uint64(d.id))
}

func parseLaneDue(k []byte) (laneDue, bool) {
	end := bytes.IndexByte(k, 0)
	if end < 1 || k[0] != keyLane || len(k) != end+dueKeyLen || k[end+1] >= classes {
		return laneDue{}, false
	}
	place := k[end+1:]
	return laneDue{string(k[1:end]), due{
		int(place[0]), int64(binary.BigEndian.Uint64(place[1:])), id(binary.BigEndian.Uint64(place[9:])),
	}}, true
}

// laneName is a name that a key can hold.
func laneName(s string) string {
	const most = 400
	if len(s) > most {
		s = s[:most]
	}
	return strings.ReplaceAll(s, "\x00", "?")
}

// laneDues are the places where the message belongs in the lanes, by name.
func (s *state) laneDues(i id) (ds []laneDue) {
	for _, r := range s.rs {
		if r.lane == "" || r.state != Waiting {
			continue
		}
		at := max(r.next, s.notBefore)
		n, found := slices.BinarySearchFunc(ds, r.lane, func(d laneDue, lane string) int { return strings.Compare(d.lane, lane) })
		if found {
			ds[n].at = min(ds[n].at, at)
		} else {
			ds = slices.Insert(ds, n, laneDue{r.lane, due{s.class, at, i}})
		}
	}
	return ds
}

// moveLanes brings the message's entries in the lanes up to date. Like those of
// the due index each is set once and removed once.
func (g *group) moveLanes(st *state, i id) error {
	if len(st.lanes) == 0 && !st.parked() {
		return nil
	}
	now := st.laneDues(i)
	for _, d := range st.lanes {
		if !slices.Contains(now, d) {
			if err := g.batch.SingleDelete(d.key(), nil); err != nil {
				return err
			}
		}
	}
	for _, d := range now {
		if !slices.Contains(st.lanes, d) {
			if err := g.batch.Set(d.key(), nil, nil); err != nil {
				return err
			}
		}
	}
	g.lanes = append(g.lanes, now...)
	st.lanes = now
	return nil
}

// entry is the key by which a scan found a message.
func (s *state) entry() []byte {
	if len(s.lanes) > 0 {
		return s.lanes[0].key()
	}
	return s.indexed.key()
}

// stands tells whether the message is where a scan found it.
func (s *state) stands(found *state) bool {
	if len(found.lanes) > 0 {
		return slices.Contains(s.lanes, found.lanes[0])
	}
	return s.indexed == found.indexed
}

func (s *state) parked() bool {
	return slices.ContainsFunc(s.rs, func(r recipientState) bool { return r.lane != "" && r.state == Waiting })
}

// laneCursors are where the scans of lanes begin, as Engine.cursors are for the
// due index. A lane and class that has none is scanned from its start: it only
// takes longer.
type laneCursors map[laneClass]due

type laneClass struct {
	lane  string
	class int
}

// maxLaneCursors bounds their memory.
const maxLaneCursors = 1 << 16

func (c laneCursors) lower(d laneDue) {
	at := laneClass{d.lane, d.class}
	if from, ok := c[at]; ok && d.before(from) {
		c[at] = d.due
	}
}

func (c laneCursors) set(lane string, from due) {
	if len(c) >= maxLaneCursors {
		clear(c)
	}
	c[laneClass{lane, from.class}] = from
}

// Park is part of Lanes.
func (e *Engine) Park(ctx context.Context, c *Claim, changes []Change, keep bool) error {
	return e.commit(ctx, c, changes, keep, false)
}

// ClaimLane is part of Lanes.
func (e *Engine) ClaimLane(ctx context.Context, lane string, now time.Time, most int, term time.Duration) ([]*Claim, Lane, error) {
	lane = laneName(lane)
	rest := Lane{Name: lane}
	if err := e.check(ctx); err != nil {
		return nil, rest, err
	}
	e.claiming.Lock()
	defer e.claiming.Unlock()
	until := now.Add(term)
	e.mu.Lock()
	e.expire(nanos(now))
	e.mu.Unlock()
	s := &laneScan{e: e, lane: lane, now: nanos(now), next: never, best: classes}
	claims, err := s.run(now, until, most)
	if err != nil {
		for _, c := range claims {
			_ = e.Release(ctx, c)
		}
		return nil, rest, err
	}
	if s.next != never {
		rest.Next, rest.Priority = time.Unix(0, s.next).UTC(), 9-s.best
	}
	return claims, rest, nil
}

// laneScan is one ClaimLane.
type laneScan struct {
	e    *Engine
	lane string
	now  int64
	next int64 // of what is left
	best int   // its class
}

func (s *laneScan) run(now, until time.Time, most int) (claims []*Claim, err error) {
	prefix := lanePrefix(s.lane)
	upper := append([]byte(nil), prefix...)
	upper[len(upper)-1] = 1
	it, err := s.e.db.NewIter(&pebble.IterOptions{LowerBound: prefix, UpperBound: upper})
	if err != nil {
		return nil, err
	}
	defer it.Close()
	for class := 0; class < classes; class++ {
		from := s.begin(class)
		if !it.SeekGE(laneDue{s.lane, from}.key()) {
			s.end(from, due{class, never, 0})
			break
		}
		if d, ok := parseLaneDue(it.Key()); ok && d.class > class {
			s.end(from, due{class, never, 0})
			class = d.class - 1
			continue
		}
		upto := from
		claims, upto, err = s.class(it, class, upto, now, until, most, claims)
		if err != nil {
			s.end(from, from)
			return claims, err
		}
		s.end(from, upto)
	}
	return claims, it.Error()
}

// begin takes the cursor of a class; while the scan runs it stands at the end.
func (s *laneScan) begin(class int) due {
	s.e.mu.Lock()
	defer s.e.mu.Unlock()
	from, ok := s.e.lanes[laneClass{s.lane, class}]
	if !ok {
		from = due{class: class}
	}
	s.e.lanes.set(s.lane, due{class, never, 0})
	return from
}

// end puts it where the scan stopped, or where something came meanwhile.
func (s *laneScan) end(from, upto due) {
	s.e.mu.Lock()
	defer s.e.mu.Unlock()
	at := laneClass{s.lane, from.class}
	if now, ok := s.e.lanes[at]; !ok || upto.before(now) {
		s.e.lanes.set(s.lane, upto)
	}
	if s.e.lanes[at] == (due{class: from.class, at: never}) {
		delete(s.e.lanes, at) // nothing is left: the start is as good
	}
}

// class claims what is due of one class, from where it stands.
func (s *laneScan) class(it *pebble.Iterator, class int, upto due, now, until time.Time, most int, claims []*Claim) ([]*Claim, due, error) {
	left := func(d due) {
		s.next, s.best = min(s.next, d.at), min(s.best, class)
	}
	valid := true
	for valid && len(claims) < most {
		var batch []*lease
		for valid && len(claims)+len(batch) < most {
			d, ok := parseLaneDue(it.Key())
			if ok && d.class != class {
				valid = false
				break
			}
			if ok && d.at > s.now {
				left(d.due)
				var err error
				claims, err = s.e.load(batch, now, until, claims, s.lane)
				return claims, d.due, err
			}
			if ok {
				if l := s.e.lease(d.id, until); l != nil {
					l.state = &state{lanes: []laneDue{d}}
					batch = append(batch, l)
				}
				upto = d.next()
			}
			valid = it.Next()
		}
		var err error
		if claims, err = s.e.load(batch, now, until, claims, s.lane); err != nil {
			return claims, upto, err
		}
	}
	if valid {
		if d, ok := parseLaneDue(it.Key()); ok && d.class == class {
			left(d.due)
			return claims, upto, nil
		}
	}
	return claims, due{class, never, 0}, it.Error()
}

// EachLane is part of Lanes.
func (e *Engine) EachLane(ctx context.Context, each func(Lane) bool) error {
	if err := e.check(ctx); err != nil {
		return err
	}
	it, err := e.db.NewIter(&pebble.IterOptions{LowerBound: []byte{keyLane}, UpperBound: []byte{keyLane + 1}})
	if err != nil {
		return err
	}
	defer it.Close()
	for it.First(); it.Valid(); {
		d, ok := parseLaneDue(it.Key())
		if !ok {
			it.Next()
			continue
		}
		first := d
		for it.SeekGE(laneDue{d.lane, due{class: d.class + 1}}.key()); it.Valid(); {
			n, ok := parseLaneDue(it.Key())
			if !ok || n.lane != d.lane {
				break
			}
			first.at = min(first.at, n.at)
			it.SeekGE(laneDue{d.lane, due{class: n.class + 1}}.key())
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if !each(Lane{Name: d.lane, Next: time.Unix(0, first.at).UTC(), Priority: 9 - d.class}) {
			return nil
		}
	}
	return it.Error()
}

// reenter gives a message with a corrupt result the places that the rest of its
// records stand for, and removes the one by which it was found: else it would
// wait for ever. Both may be done twice, so nothing is taken to be set once.
func (e *Engine) reenter(s *stored, found []byte) {
	e.mu.Lock()
	defer e.mu.Unlock()
	g, err := e.join()
	if err != nil {
		return
	}
	err = g.batch.Delete(found, nil)
	enter := func(key []byte) {
		if err == nil {
			err = g.batch.Delete(key, nil)
		}
		if err == nil {
			err = g.batch.Set(key, nil, nil)
		}
	}
	if d := s.state.indexed; d.at != never {
		enter(d.key())
		g.note(d)
	}
	for _, d := range s.state.lanes {
		enter(d.key())
		g.lanes = append(g.lanes, d)
	}
	if err != nil {
		e.stop.stop(err)
		return
	}
	e.filled(g)
}

// unindex removes an index entry whose message is not there: its record was
// corrupt and is set aside. Ids are never used again, so nothing comes there.
func (e *Engine) unindex(key []byte) {
	_, c, err := e.db.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return // it was removed while the scan ran
	}
	if err == nil {
		_ = c.Close()
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	g, err := e.join()
	if err != nil {
		return
	}
	if err := g.batch.Delete(key, nil); err != nil {
		e.stop.stop(err)
		return
	}
	e.filled(g)
}
