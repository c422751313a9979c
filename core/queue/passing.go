package queue

import "context"

// Passing is mail that needs no place in the queue: a storage has it before anybody
// is promised anything. What the storage does not take at once is put as any other
// mail, by the id that the storage was given: so it knows it again.
type Passing interface {
	// Reserve sets env.ID to the id that a Put of env will keep it by. It writes
	// nothing; an id that comes to nothing is never given out again. False: env is
	// to be put, because an observer is to hear of it, or because the queue stopped.
	Reserve(ctx context.Context, env *Envelope) bool
	// Passed tells the mail journal of a mail that was reserved and has reached its
	// end: what came of all its recipients. The queue knows nothing of it.
	Passed(env *Envelope, changes []Change)
}

var _ Passing = (*Engine)(nil)

// Reserve is part of Queue.
func (e *Engine) Reserve(ctx context.Context, env *Envelope) bool {
	if e.check(ctx) != nil || e.feeding.Load() || len(env.Recipients) == 0 {
		return false
	}
	number(env.Recipients)
	env.reserved = e.ids.next(e.o.Clock())
	env.ID = env.reserved.String()
	return true
}

// Passed is part of Queue. It writes the record itself: for the committer it would
// be a group with nothing to commit.
func (e *Engine) Passed(env *Envelope, changes []Change) {
	if !e.keeping.Load() || e.stop.err() != nil {
		return
	}
	now := e.o.Clock()
	told := *env
	told.MessageID, told.From, told.Subject = cut(env.MessageID), cut(env.From), cut(env.Subject)
	e.history.write([]entry{
		{id: env.reserved, at: now.UnixMicro(), env: &told},
		{id: env.reserved, at: now.UnixMicro(), changes: changes},
	}, now)
}
