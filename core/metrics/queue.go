package metrics

import (
	"context"
	"time"

	"github.com/stagecoach-mta/stagecoach/core/deliver"
	"github.com/stagecoach-mta/stagecoach/core/dsn"
	"github.com/stagecoach-mta/stagecoach/core/queue"
	"github.com/stagecoach-mta/stagecoach/core/spool"
)

// counted counts what becomes durable.
type counted struct {
	queue.Queue
	meters *Meters

	put, result, park *series
	outcomes          [queue.EndedDiscarded + 1]outcome
}

// outcome is what is counted of a mail that has ended.
type outcome struct{ mails, life *series }

func (q *counted) hasEnded(o queue.Outcome, age time.Duration) {
	q.outcomes[o].mails.add(1)
	q.meters.mailTime.observe(q.outcomes[o].life, age)
}

// operations are the words of `stagecoach queue` for what an operator does.
var operations = map[queue.OpKind]string{
	queue.Hold: "hold", queue.ReleaseHold: "release", queue.Retry: "retry",
	queue.Remove: "delete", queue.Fail: "bounce", queue.Redirect: "redirect",
}

// hasOperated counts what the queue did for an operator; the notices of that are in no
// Commit. What came of mails that ended by it is told by hasEnded.
func (q *counted) hasOperated(o queue.Operated) {
	q.meters.operated.with(operations[o.Kind]).add(int64(o.Recipients))
	for _, env := range o.Notices {
		q.added(env)
	}
}

var _ queue.Queue = (*counted)(nil)

func (q *counted) Put(ctx context.Context, env *queue.Envelope, body spool.Body) error {
	begin := time.Now()
	err := q.Queue.Put(ctx, env, body)
	if err == nil {
		q.meters.commitTime.observe(q.put, time.Since(begin))
		q.added(env)
	}
	return err
}

func (q *counted) added(env *queue.Envelope) {
	q.meters.queued.with(env.Origin).add(1)
	q.meters.queuedBytes.with(env.Origin).add(env.Size)
	if a := dsn.ActionOf(env); a != "" {
		q.meters.notices.with(string(a)).add(1)
	}
}

// Commit counts what became of recipients once it is journalled: a result that a
// crash makes us repeat was never counted.
func (q *counted) Commit(ctx context.Context, c *queue.Claim, changes []queue.Change, keep bool) error {
	begin := time.Now()
	if err := q.Queue.Commit(ctx, c, changes, keep); err != nil {
		return err
	}
	q.meters.commitTime.observe(q.result, time.Since(begin))
	for i := range changes {
		ch := &changes[i]
		q.meters.results.with(ch.Deliver, stateWord(ch)).add(1)
		for _, n := range ch.Enqueue {
			q.added(n.Envelope)
		}
	}
	return nil
}

// Passed counts a mail as one that came into the queue and left it.
func (q *counted) Passed(env *queue.Envelope, changes []queue.Change) {
	q.Queue.Passed(env, changes)
	q.added(env)
	for i := range changes {
		q.meters.results.with(changes[i].Deliver, stateWord(&changes[i])).add(1)
	}
	q.hasEnded(queue.OutcomeOf(func(yield func(queue.State) bool) {
		for i := range changes {
			if !yield(changes[i].State) {
				return
			}
		}
	}), 0)
}

// Park puts recipients off without an attempt.
func (q *counted) Park(ctx context.Context, c *queue.Claim, changes []queue.Change, keep bool) error {
	begin := time.Now()
	if err := q.Queue.Park(ctx, c, changes, keep); err != nil {
		return err
	}
	q.meters.commitTime.observe(q.park, time.Since(begin))
	for i := range changes {
		q.meters.results.with(changes[i].Deliver, stateWord(&changes[i])).add(1)
	}
	return nil
}

// stateWord names a change. One that waits without an attempt was put off: it is
// not its turn, its destination is shut, or a route or filter said so.
func stateWord(c *queue.Change) string {
	if c.State != queue.Waiting {
		return c.State.String()
	}
	if c.Attempt == nil {
		return "postponed"
	}
	return "deferred"
}

// transport times a deliver block's attempts.
type transport struct {
	deliver.Transport
	attempts *vec
	series   *series
}

var _ deliver.Transport = (*transport)(nil)

func (t *transport) Deliver(ctx context.Context, job *deliver.Job) []deliver.Outcome {
	begin := time.Now()
	out := t.Transport.Deliver(ctx, job)
	t.attempts.observe(t.series, time.Since(begin))
	return out
}
