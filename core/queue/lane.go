package queue

import (
	"bytes"
	"context"
	"errors"
	"hash/fnv"
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
	// the highest priority first; Due names no others. Of one priority the buckets
	// of senders take turns, also from one call to the next, and in each the
	// longest due is first: how much one sender has there delays no other. rest
	// is what is left there; its Next is zero when nothing is.
	ClaimLane(ctx context.Context, lane string, now time.Time, max int, lease time.Duration) (claims []*Claim, rest Lane, err error)
	// EachLane calls each for every lane that something waits in, leased or not,
	// until it returns false. It reads a key for each priority and bucket of a lane
	// at most, and no message; what is due is told without a look for what has been
	// due for longer.
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

// fresh is the lane of what waits in none: its places are those of the due index.
const fresh = ""

// bucketOf the sender: who logged in, else the reverse-path's domain. Not the whole
// address: of a list each mail has another one (VERP).
func bucketOf(e *Envelope) byte {
	name := e.Client.GetUser()
	if name == "" {
		name = domainOf(e.Sender)
	}
	h := fnv.New32a()
	_, _ = h.Write([]byte(strings.ToLower(name)))
	n := h.Sum32()
	return byte(n ^ n>>8 ^ n>>16 ^ n>>24)
}

// lanePrefix leads all keys of a lane. Names hold no NUL: laneName sees to that.
func lanePrefix(lane string) []byte {
	k := make([]byte, 0, len(lane)+laneKeyLen)
	if lane == fresh {
		return append(k, keyDue)
	}
	k = append(k, keyLane)
	k = append(k, lane...)
	return append(k, 0)
}

// laneKeyLen is the length of a lane's key without the name.
const laneKeyLen = 1 + 1 + placeLen

func (d laneDue) key() []byte { return d.appendPlace(lanePrefix(d.lane)) }

func parseLaneDue(k []byte) (laneDue, bool) {
	end := bytes.IndexByte(k, 0)
	if end < 1 || k[0] != keyLane {
		return laneDue{}, false
	}
	d, ok := parsePlace(k[end+1:])
	return laneDue{string(k[1:end]), d}, ok
}

// behind is where the next class or bucket of a lane may begin.
func (d laneDue) behind() []byte {
	k := append(lanePrefix(d.lane), byte(d.class), d.bucket)
	return append(k, bytes.Repeat([]byte{0xff}, placeLen-1)...) // one octet more than a place has
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
			ds = slices.Insert(ds, n, laneDue{r.lane, due{s.class, s.bucket, at, i}})
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

// Park is part of Lanes.
func (e *Engine) Park(ctx context.Context, c *Claim, changes []Change, keep bool) error {
	return e.commit(ctx, c, changes, keep, false)
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
	now := nanos(e.o.Clock())
	for it.First(); it.Valid(); {
		d, ok := parseLaneDue(it.Key())
		if !ok {
			it.Next()
			continue
		}
		first := d
		for n := d; ok && n.lane == d.lane; n, ok = parseLaneDue(it.Key()) {
			if first.at = min(first.at, n.at); first.at <= now || !it.SeekGE(n.behind()) {
				break
			}
		}
		if first.at <= now {
			end := lanePrefix(d.lane)
			end[len(end)-1]++
			it.SeekGE(end)
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
