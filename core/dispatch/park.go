package dispatch

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/stagecoach-mta/stagecoach/core/queue"
	"github.com/stagecoach-mta/stagecoach/core/schedule"
)

// park puts a group back into the queue: its turn has not come.
func (j *job) park(ctx context.Context, g *group, p *schedule.Park) error {
	changes := make([]queue.Change, 0, len(g.recipients))
	for _, r := range g.recipients {
		changes = append(changes, *j.parks(r, g, p))
	}
	return j.commit(ctx, j.complete(g, changes))
}

// parks is what that makes of one recipient. A mail whose time is over is given
// up, tried or not: its destination has not answered for all of it.
func (j *job) parks(r *queue.Recipient, g *group, p *schedule.Park) *queue.Change {
	if !j.Clock().Before(j.expires()) {
		return j.later(r, untried(r, p.Reason))
	}
	c := &queue.Change{
		Index: r.Index, State: queue.Waiting, Next: p.Until, Reason: p.Reason, Lane: g.lane, Account: r.Account, Detail: r.Detail,
	}
	if p.Fresh {
		c.Lane = ""
	}
	return c
}

// untried is what there is to say of a recipient without an attempt: the last
// one, or why there was none.
func untried(r *queue.Recipient, reason string) *queue.Attempt {
	if r.Last != nil {
		last := *r.Last
		return &last
	}
	return reply(451, "4.4.1", "Not tried: "+cmp.Or(reason, "the destination has not taken what came before"))
}

// recheck is when a recipient is to be looked at though its lane is shut: for the
// notice of its delay, and when its time is over.
func (j *job) recheck(c *queue.Change) time.Time {
	at := j.noticeAt()
	if !at.IsZero() && !c.Notified && !j.recipient(c.Index).DelayNotified && at.After(j.Clock()) && at.Before(j.expires()) {
		return at
	}
	return j.expires()
}

// leave tells the scheduler what the end of the lease makes claimable: what was
// parked meanwhile, and what others could not claim because of it.
func (j *job) leave(failed error) {
	if !j.arrived {
		j.event(schedule.Arrived{From: j.from})
	}
	for _, b := range j.parked {
		j.event(b)
	}
	class := classOf(j.claim.Priority)
	for _, r := range j.claim.Recipients {
		due := slices.Contains(j.claim.Due, r.Index)
		if r.State != queue.Waiting || r.Lane == "" || due && failed == nil {
			continue
		}
		next := r.Next
		if due { // it would fail again
			next = j.Clock().Add(afterError)
		}
		j.event(schedule.Backlog{Lane: r.Lane, Next: next, Class: class})
	}
}
