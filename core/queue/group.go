package queue

import (
	"context"
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"
)

// errClosed is the answer of a queue that was closed.
var errClosed = errors.New("the queue is closed")

// maxGroup is where a batch is full, in octets: far below the size that the
// database treats apart (half a memtable).
const maxGroup = 2 << 20

// group is what is committed with one sync. It is filled under Engine.mu.
//
// Rejected: leaving the grouping to the database. Its commit pipeline runs in
// the caller's goroutine, which hangs with its locks held when the log fails;
// here only one goroutine can hang, and every waiter learns of the stop. It also
// lets the counts be one plain record, because groups are committed in order.
type group struct {
	batch  *pebble.Batch
	delta  counts
	fresh  laneHeads // the earliest new entries of the due index
	lanes  []laneDue // new entries in lanes
	places []moved   // in the index by destination
	key    []byte    // the last one of those
	sync   bool      // somebody waits until it is on stable storage
	ended  []*lease  // leases that end with this group
	gone   []string  // files to remove after it
	ends   []ending  // messages that end with it
	fed    bool      // it has observations
	// history of the mail that it is about; the committer encodes it.
	history []entry
	done    chan struct{}
	err     error // read after done
}

func newGroup(db *pebble.DB) *group {
	return &group{batch: db.NewBatchWithSize(32 << 10), done: make(chan struct{})}
}

func (g *group) empty() bool { return g.batch.Empty() && len(g.history) == 0 }

// addDue enters d into the index and remembers it for the scans.
func (g *group) addDue(d due) error {
	if d.at == never {
		return nil
	}
	g.note(d)
	return g.batch.Set(d.key(), nil, nil)
}

// note makes d claimable when the group is committed.
func (g *group) note(d due) {
	if d.at != never {
		g.fresh.lower(d)
	}
}

// removeDue: an entry is set once and removed once, what SingleDelete asks for;
// the two vanish together at the next flush instead of leaving a tombstone in
// the way of every Claim.
func (g *group) removeDue(d due) error {
	if d.at == never {
		return nil
	}
	return g.batch.SingleDelete(d.key(), nil)
}

// join returns the group to fill; mu is held.
func (e *Engine) join() (*group, error) {
	for {
		if err := e.stop.err(); err != nil {
			return nil, err
		}
		if e.closing.Load() {
			return nil, errClosed
		}
		if e.group.batch.Len() < maxGroup {
			return e.group, nil
		}
		e.changed.Wait()
	}
}

// filled tells the committer that g has something that is to last; mu is held.
func (e *Engine) filled(g *group) {
	g.sync = true
	e.changed.Broadcast()
}

// wait returns when g is on stable storage.
func (e *Engine) wait(g *group) error {
	select {
	case <-g.done:
		return g.err
	case <-e.stop.down:
		return e.stop.err()
	}
}

// commitLoop is the one goroutine that writes.
func (e *Engine) commitLoop() {
	defer e.work.Done()
	defer func() {
		if p := recover(); p != nil { // the database panics when its log failed
			e.stop.stop(fmt.Errorf("%v", p))
			e.mu.Lock()
			e.changed.Broadcast()
			e.mu.Unlock()
		}
	}()
	for {
		e.mu.Lock()
		for e.group.empty() && !e.closing.Load() && e.stop.err() == nil {
			e.changed.Wait()
		}
		g := e.group
		if e.stop.err() != nil || g.empty() {
			e.mu.Unlock()
			return
		}
		e.group = newGroup(e.db)
		total := e.counts
		total.add(g.delta)
		e.changed.Broadcast() // room in the new group
		e.mu.Unlock()

		err := g.batch.Set(metaCounts, total.record(), nil)
		if err == nil {
			opt := pebble.NoSync
			if g.sync {
				opt = pebble.Sync
			}
			err = g.batch.Commit(opt)
		}
		if err != nil {
			e.stop.stop(err)
		}
		if e.stop.err() != nil {
			e.mu.Lock()
			e.changed.Broadcast()
			e.mu.Unlock()
			return
		}
		e.committed(g)
	}
}

// committed makes g visible and wakes who waits for it.
func (e *Engine) committed(g *group) {
	e.mu.Lock()
	e.counts.add(g.delta)
	e.stock.move(g.places)
	for _, l := range g.ended {
		if e.leases[l.id] == l {
			delete(e.leases, l.id)
		}
	}
	e.lower(g.fresh.heads)
	for _, d := range g.lanes {
		e.lanes.lower(d)
	}
	e.changed.Broadcast()
	e.mu.Unlock()
	e.history.write(g.history, e.o.Clock())
	e.tellEnds(g.ends)
	close(g.done)
	if g.fed {
		select {
		case e.fed <- struct{}{}:
		default: // nobody has looked since the last one
		}
	}
	_ = g.batch.Close()
	for _, path := range g.gone {
		if err := e.fs.Remove(path); err != nil {
			// The next start sweeps it.
			e.log.Warn().Err(err).Msg("queue: the file of an ended message stays until the next start")
		}
	}
}

// lower tells the scans of Claim and the scheduler of new entries; mu is held.
func (e *Engine) lower(ds []due) {
	earliest := int64(never)
	for _, d := range ds {
		e.lanes.lower(laneDue{fresh, d})
		earliest = min(earliest, d.at)
	}
	if earliest < e.known {
		e.known = earliest
		select {
		case e.wake <- struct{}{}:
		default: // the scheduler has not seen the last one yet
		}
	}
}

// check is the first step of every method.
func (e *Engine) check(ctx context.Context) error {
	if err := e.stop.err(); err != nil {
		return err
	}
	if e.closing.Load() {
		return errClosed
	}
	return ctx.Err()
}
