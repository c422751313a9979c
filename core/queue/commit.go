package queue

import (
	"context"
	"fmt"
	"slices"
	"time"
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
	fresh, err := e.prepareAll(changes)
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

func (e *Engine) prepareAll(changes []Change) ([]*prepared, error) {
	var ps []*prepared
	for i := range changes {
		for _, m := range changes[i].Enqueue {
			p, err := e.prepare(m.Envelope, m.Body)
			if err != nil {
				for _, p := range ps {
					e.undo(p)
				}
				return nil, err
			}
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
	before := st.count()
	st.apply(changes)
	var err error
	if st.open() {
		key := journalKey(l.id, st.journal)
		err = g.batch.Set(key, encodeJournal(key, changes), nil)
		st.journal++
		g.delta.add(st.count().minus(before))
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
	} else {
		err = e.end(g, l)
		g.delta.add(counts{}.minus(before))
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
	err := g.batch.Delete(messageKey(l.id), nil)
	for seq := st.first; seq < st.journal && err == nil; seq++ {
		err = g.batch.SingleDelete(journalKey(l.id, seq), nil)
	}
	if err != nil {
		return err
	}
	if st.large {
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

// Operate is part of Queue. What an operator does while a delivery runs holds
// for what comes after that attempt; a message that it ends takes the lease away.
func (e *Engine) Operate(ctx context.Context, text string, op Operation) error {
	if err := e.check(ctx); err != nil {
		return err
	}
	i, err := parseID(text)
	if err != nil {
		return err
	}
	if op.Kind < Hold || op.Kind > Remove {
		return fmt.Errorf("unknown operation %d", op.Kind)
	}
	var env *Envelope
	if e.feeding.Load() {
		if env, err = e.Get(ctx, text); err != nil {
			return err
		}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	l, own, err := e.takeOver(i)
	if err != nil {
		return err
	}
	// The group comes last: nothing may wait between it and its filling.
	g, err := e.join()
	if err == nil && !own && (e.leases[i] != l || l.busy) {
		e.mu.Unlock()
		err = e.Operate(ctx, text, op) // the holder was quicker
		e.mu.Lock()
		return err
	}
	var changes []Change
	var feed toldChanges
	late := false // the message has recipients that env does not know yet
	if err == nil {
		changes = op.changes(l.state, e.o.Clock())
		late = env != nil && !env.has(changes)
		feed, err = e.observeChanges(env, changes)
	}
	if err != nil || len(changes) == 0 || late {
		if own {
			delete(e.leases, i)
			e.again(l)
			e.changed.Broadcast()
		}
		if err == nil && late {
			e.mu.Unlock()
			err = e.Operate(ctx, text, op)
			e.mu.Lock()
		}
		return err
	}
	l.busy = true
	told := feed.of(l.state)
	if err := e.change(g, l, changes); err != nil {
		return err
	}
	if err := e.feed(g, told); err != nil {
		return err
	}
	ends := own || !l.state.open()
	if ends {
		g.ended = append(g.ended, l)
	}
	e.filled(g)
	e.mu.Unlock()
	err = e.wait(g)
	e.mu.Lock()
	if err == nil && !ends {
		e.ready(l)
	}
	return err
}

// takeOver gives the lease on a message, own or its holder's, with its state
// read; mu is held, and given up meanwhile.
func (e *Engine) takeOver(i id) (l *lease, own bool, err error) {
	for e.leases[i] != nil && e.leases[i].busy {
		if err := e.stop.err(); err != nil {
			return nil, false, err
		}
		e.changed.Wait()
	}
	if l = e.leases[i]; l != nil {
		return l, false, nil
	}
	l = e.take(i, never)
	e.mu.Unlock()
	var s *stored
	it, err := e.messageIter(i)
	if err == nil {
		s, err = readMessage(it, i)
		_ = it.Close()
	}
	e.mu.Lock()
	switch {
	case err != nil:
	case s == nil:
		err = fmt.Errorf("%w: %q", ErrNotFound, i)
	default:
		err = s.err
	}
	if err != nil {
		delete(e.leases, i)
		if s != nil { // corrupt: the next Claim sets it aside
			e.again(&lease{state: s.state})
		}
		e.changed.Broadcast()
		return nil, false, err
	}
	l.state = s.state
	return l, true, nil
}

// changes are what the operation does to the recipients that it is for.
func (op Operation) changes(s *state, now time.Time) []Change {
	var changes []Change
	for _, r := range s.rs {
		if !r.state.Open() || len(op.Recipients) > 0 && !slices.Contains(op.Recipients, r.index) {
			continue
		}
		c := Change{Index: r.index, operator: true, Reason: op.Reason}
		switch {
		case op.Kind == Hold && r.state == Waiting:
			c.State = Held
		case op.Kind == ReleaseHold && r.state == Held:
			c.State, c.Next, c.Reason, c.released = Waiting, now, "", true
		case op.Kind == Retry && r.state == Waiting:
			c.State, c.Next, c.Reason = Waiting, now, ""
			if !op.At.IsZero() {
				c.Next = op.At
			}
		case op.Kind == Remove:
			c.State = Discarded
		default:
			continue
		}
		changes = append(changes, c)
	}
	return changes
}
