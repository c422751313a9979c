package queue

import (
	"context"
	"fmt"
	"slices"
)

// Commit is part of Queue.
func (e *Engine) Commit(ctx context.Context, c *Claim, changes []Change, keep bool) error {
	return e.commit(ctx, c, changes, keep, true)
}

func (e *Engine) commit(ctx context.Context, c *Claim, changes []Change, keep, sync bool) error {
	if err := e.check(ctx); err != nil {
		return err
	}
	feed, err := e.observeCommit(ctx, c, changes)
	if err != nil {
		return err
	}
	fresh, err := e.prepareAll(c.ID, changes)
	if err != nil {
		return err
	}
	e.mu.Lock()
	l, g, err := e.joinHeld(c)
	if err == nil {
		err = known(l.state, changes)
	}
	if err != nil {
		e.mu.Unlock()
		for _, p := range fresh {
			e.undo(p)
		}
		return err
	}
	// A copy: the caller's changes stay as they are, but for the numbers of the
	// new recipients.
	changes = slices.Clone(changes)
	for i := range changes {
		changes[i].Lane = laneName(changes[i].Lane)
	}
	l.busy = true
	told := feed.of(l.state)
	if err = e.change(g, l, changes); err == nil && !e.o.faults.lateEnqueue {
		err = e.addAll(g, fresh)
	}
	if err == nil && !e.o.faults.untold {
		err = e.feed(g, told)
	}
	if err == nil {
		e.tellChanges(g, l.id, changes, fresh)
	}
	if err != nil {
		e.mu.Unlock()
		return err
	}
	if !keep || !l.state.open() {
		g.ended = append(g.ended, l)
	}
	if e.o.faults.noRetire {
		delete(e.leases, l.id)
		e.again(l)
	}
	if sync {
		e.filled(g)
	} else {
		e.changed.Broadcast() // the group is synced if another part of it wants that
	}
	e.mu.Unlock()
	if err := e.wait(g); err != nil {
		return err
	}
	for n, p := range fresh {
		envelopeOf(changes, n).ID = p.id.String()
	}
	if e.o.faults.lateEnqueue && len(fresh) > 0 {
		if err := e.enqueueLate(fresh); err != nil {
			return err
		}
	}
	if keep {
		e.mu.Lock()
		e.ready(l)
		e.mu.Unlock()
	}
	return nil
}

// joinHeld gives c's lease, usable now, and the group to fill; mu is held.
func (e *Engine) joinHeld(c *Claim) (*lease, *group, error) {
	for {
		l, err := e.held(c)
		if err != nil {
			return nil, nil, err
		}
		g, err := e.join() // which may wait
		if err != nil {
			return nil, nil, err
		}
		if e.leases[l.id] == l && !l.busy {
			return l, g, nil
		}
	}
}

// known refuses changes of recipients that the message does not have.
func known(s *state, changes []Change) error {
	for i := range changes {
		if s.find(changes[i].Index) == nil {
			return fmt.Errorf("the message has no recipient with index %d", changes[i].Index)
		}
		if changes[i].State > Discarded {
			return fmt.Errorf("recipient %d: unknown state %d", changes[i].Index, changes[i].State)
		}
	}
	return nil
}

// prepareAll prepares the messages that come of changes of the message named of.
func (e *Engine) prepareAll(of string, changes []Change) ([]*prepared, error) {
	var ps []*prepared
	parent, _ := readID(of)
	for i := range changes {
		for _, m := range changes[i].Enqueue {
			p, err := e.prepare(m.Envelope, m.Body)
			if err != nil {
				for _, p := range ps {
					e.undo(p)
				}
				return nil, err
			}
			p.told.parent = parent
			ps = append(ps, p)
		}
	}
	return ps, nil
}

// envelopeOf is the n-th of the new messages of changes.
func envelopeOf(changes []Change, n int) *Envelope {
	for i := range changes {
		if n < len(changes[i].Enqueue) {
			return changes[i].Enqueue[n].Envelope
		}
		n -= len(changes[i].Enqueue)
	}
	return nil
}

func (e *Engine) addAll(g *group, ps []*prepared) error {
	for _, p := range ps {
		if err := e.add(g, p); err != nil {
			return err
		}
	}
	return nil
}

// enqueueLate is the planted bug of a DSN that is not atomic with its reason.
func (e *Engine) enqueueLate(ps []*prepared) error {
	e.mu.Lock()
	g, err := e.join()
	if err == nil {
		err = e.addAll(g, ps)
		e.filled(g)
	}
	e.mu.Unlock()
	if err != nil {
		return err
	}
	return e.wait(g)
}

// indexLate is the planted bug of an index that is not atomic with its message.
func (e *Engine) indexLate(p *prepared) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	g, err := e.join()
	if err == nil {
		err = g.moveDestinations(nil, p.places)
		e.changed.Broadcast() // without a sync: a test's gate would meet it
	}
	return err
}

// change writes the changes of a leased message into g and brings the lease's
// state up to date; mu is held.
func (e *Engine) change(g *group, l *lease, changes []Change) error {
	st := l.state
	for i := range changes {
		for n, r := range changes[i].Add {
			r.Index, r.Parent = st.next+int32(n), changes[i].Index
		}
		st.next += int32(len(changes[i].Add))
	}
	before := st.destinations(l.id)
	st.apply(changes)
	after := st.destinations(l.id)
	if e.o.faults.staleIndex && st.open() {
		g.delta.add(total(after).minus(total(before)))
		before = after
	}
	err := g.moveDestinations(before, after)
	switch {
	case err != nil:
	case st.open():
		key := journalKey(l.id, st.journal)
		err = g.batch.Set(key, encodeJournal(key, changes), nil)
		st.journal++
		at := st.due(l.id)
		if at != st.indexed {
			if err == nil {
				err = g.removeDue(st.indexed)
			}
			if err == nil {
				err = g.addDue(at)
			}
			st.indexed = at
		} else {
			g.note(at) // the same place, but claimable again
		}
		if err == nil {
			err = g.moveLanes(st, l.id)
		}
	default:
		err = e.end(g, l)
	}
	if err != nil { // the group holds half a change
		e.stop.stop(err)
		return e.stop.err()
	}
	return nil
}

// end removes a message.
func (e *Engine) end(g *group, l *lease) error {
	st := l.state
	g.ends = append(g.ends, ending{st.outcome(), l.id})
	err := g.batch.Delete(messageKey(l.id), nil)
	for seq := st.first; seq < st.journal && err == nil; seq++ {
		err = g.batch.SingleDelete(journalKey(l.id, seq), nil)
	}
	if err != nil {
		return err
	}
	if st.file.large {
		g.gone = append(g.gone, e.bodyPath(l.id))
	} else if err = g.batch.SingleDelete(bodyKey(l.id), nil); err != nil {
		return err
	}
	for _, d := range st.lanes {
		if err := g.batch.SingleDelete(d.key(), nil); err != nil {
			return err
		}
	}
	st.lanes = nil
	err = g.removeDue(st.indexed)
	st.indexed.at = never
	return err
}
