package queue

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/cockroachdb/pebble/v2"
)

// Claim is part of Queue: what waits in no lane is claimed as that of a lane is, so its
// senders take turns too.
func (e *Engine) Claim(ctx context.Context, now time.Time, most int, term time.Duration) ([]*Claim, error) {
	claims, _, err := e.claimLane(ctx, fresh, now, most, term)
	return claims, err
}

// lease takes the message; nil when somebody has it.
func (e *Engine) lease(i id, until time.Time) *lease {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.leases[i] != nil {
		return nil
	}
	return e.take(i, nanos(until))
}

// take makes a lease that is busy; mu is held and nobody has the message.
func (e *Engine) take(i id, until int64) *lease {
	e.token++
	l := &lease{id: i, token: e.token, until: until, busy: true}
	e.leases[i] = l
	return l
}

// ready ends the time in which a lease cannot be used; mu is held.
func (e *Engine) ready(l *lease) {
	l.busy = false
	e.expiry = min(e.expiry, l.until)
	e.changed.Broadcast()
}

// load reads the leased messages, for a lane or for none. The scan's view may be
// older than the lease: what is no longer due where the index had it is let go.
func (e *Engine) load(batch []*lease, now, until time.Time, claims []*Claim, lane string) ([]*Claim, error) {
	if len(batch) == 0 {
		return claims, nil
	}
	it, err := e.messageIter(0)
	if err != nil {
		e.drop(batch)
		return claims, err
	}
	defer it.Close()
	for n, l := range batch {
		s, err := readMessage(it, l.id)
		if err != nil { // of the disk, not of the record
			e.drop(batch[n:])
			return claims, err
		}
		if s == nil {
			e.unindex(l.state.entry())
			e.drop(batch[n : n+1])
			continue
		}
		if s.err != nil {
			e.setAside(s, l.state.entry())
			e.drop(batch[n : n+1])
			continue
		}
		if !s.state.stands(l.state) {
			if len(s.bad) > 0 {
				e.reenter(s, l.state.entry())
			}
			e.drop(batch[n : n+1])
			continue
		}
		if len(s.bad) > 0 {
			e.setAsideJournal(s)
		}
		claims = append(claims, &Claim{
			Envelope: s.env, Due: s.state.dueNow(now, lane), Token: l.token, Until: until,
		})
		e.mu.Lock()
		l.state = s.state
		e.fold(l, s)
		e.ready(l)
		e.mu.Unlock()
	}
	return claims, nil
}

// drop ends leases that were of no use.
func (e *Engine) drop(ls []*lease) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, l := range ls {
		if e.leases[l.id] == l {
			delete(e.leases, l.id)
		}
	}
	e.changed.Broadcast()
}

// foldAfter so many journal records the message's record is written anew.
const foldAfter = 64

// fold replaces a long journal; nobody waits for it. mu is held.
func (e *Engine) fold(l *lease, s *stored) {
	if s.state.journal-s.state.first < foldAfter {
		return
	}
	key := messageKey(l.id)
	rec, err := encodeEnvelope(key, s.env, s.state.file)
	if err != nil {
		return
	}
	g, err := e.join()
	if err != nil {
		return
	}
	err = g.batch.Set(key, rec, nil)
	for seq := s.state.first; seq < s.state.journal && err == nil; seq++ {
		err = g.batch.SingleDelete(journalKey(l.id, seq), nil)
	}
	if err != nil {
		e.stop.stop(err)
		return
	}
	l.state.first = l.state.journal
	e.filled(g)
}

// expire ends the leases that ran out before n; mu is held.
func (e *Engine) expire(n int64) {
	if n < e.expiry {
		return
	}
	e.expiry = never
	for i, l := range e.leases {
		switch {
		case l.busy:
		case l.until <= n:
			delete(e.leases, i)
			e.again(l)
		default:
			e.expiry = min(e.expiry, l.until)
		}
	}
}

// again makes a message claimable whose entry stands behind the cursor; mu is
// held.
func (e *Engine) again(l *lease) {
	if d := l.state.indexed; d.at != never {
		e.lower([]due{d})
	}
	for _, d := range l.state.lanes {
		e.lanes.lower(d)
	}
}

// Release is part of Queue.
func (e *Engine) Release(ctx context.Context, c *Claim) error {
	if err := e.stop.err(); err != nil {
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	l, err := e.held(c)
	if err != nil {
		return err
	}
	delete(e.leases, l.id)
	e.again(l)
	e.changed.Broadcast()
	return nil
}

// held finds c's lease, when nobody uses it; mu is held, and given up to wait.
func (e *Engine) held(c *Claim) (*lease, error) {
	i, err := parseID(c.ID)
	if err != nil {
		return nil, err
	}
	for {
		if err := e.stop.err(); err != nil {
			return nil, err
		}
		l := e.leases[i]
		if l == nil || l.token != c.Token {
			return nil, ErrLeaseLost
		}
		if !l.busy {
			return l, nil
		}
		e.changed.Wait()
	}
}

// NextDue is part of Queue.
func (e *Engine) NextDue(ctx context.Context) (time.Time, bool, error) {
	if err := e.check(ctx); err != nil {
		return time.Time{}, false, err
	}
	heads, err := e.freshHeads()
	if err != nil {
		return time.Time{}, false, err
	}
	e.mu.Lock()
	at := e.expiry // a lease that runs out makes its message due
	if len(e.leases) == 0 {
		at = never
	}
	e.mu.Unlock()
	slices.SortFunc(heads, func(a, b due) int { return cmp.Compare(a.at, b.at) })
	for _, h := range heads {
		if h.at >= at {
			break
		}
		d, err := e.firstUnleased(h)
		if err != nil {
			return time.Time{}, false, err
		}
		at = min(at, d)
	}
	e.mu.Lock()
	e.known = min(e.known, at)
	e.mu.Unlock()
	if at == never {
		return time.Time{}, false, nil
	}
	return time.Unix(0, at).UTC(), true, nil
}

// freshHeads are where the due index begins, and have what is committed from here on
// reported by Wake.
func (e *Engine) freshHeads() ([]due, error) {
	e.claiming.Lock()
	defer e.claiming.Unlock()
	e.mu.Lock()
	e.known = never
	l := e.lanes.of[fresh]
	if l != nil {
		defer e.mu.Unlock()
		return slices.Clone(l.heads), nil
	}
	e.mu.Unlock()
	s := &laneScan{e: e, lane: fresh} // a claim of nothing learns them
	var heads []due
	_, err := s.claim(time.Time{}, time.Time{}, func(hs []due) { heads = slices.Clone(hs) })
	return heads, err
}

// firstUnleased looks on in one class and bucket.
func (e *Engine) firstUnleased(from due) (int64, error) {
	it, err := e.db.NewIter(&pebble.IterOptions{LowerBound: from.key(), UpperBound: laneDue{fresh, from}.behind()})
	if err != nil {
		return never, err
	}
	defer it.Close()
	for valid := it.First(); valid; valid = it.Next() {
		d, ok := parseDue(it.Key())
		e.mu.Lock()
		leased := ok && e.leases[d.id] != nil
		e.mu.Unlock()
		if ok && !leased {
			return d.at, nil
		}
	}
	return never, it.Error()
}
