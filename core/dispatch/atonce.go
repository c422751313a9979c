package dispatch

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/stagecoach-mta/stagecoach/core/deliver"
	"github.com/stagecoach-mta/stagecoach/core/queue"
	"github.com/stagecoach-mta/stagecoach/core/spool"
)

const (
	// atOncePatience is how long a client waits for a storage before its mail is put
	// into the queue instead, and shunTime how long no other waits then.
	atOncePatience = 2 * time.Second
	shunTime       = 5 * time.Second
)

// AtOnce brings a mail that was just received, and that nobody was promised
// anything of, to where it ends, if that is a mailbox. True: the storage has it for
// all recipients, durably, and the mail journal knows; the promise of the 250 is the
// storage's. False: it is to be put into the queue as it is, whatever the reason.
//
// It may then be stored already: for some recipients, or for all when the storage's
// answer was late. So the queue keeps it by the id that the storage was given, and
// what the queue delivers again is stored once. A crash before the 250 leaves a
// mail in the mailbox whose sender was told nothing and sends it again: as one
// between the queue's sync and the 250 does.
//
// Only what the queue would do nothing else with goes this way: small mail to known
// mailboxes, due now, by a route and a deliver block without filters, of whose
// delivery nobody asked to be told.
func (d *Dispatcher) AtOnce(ctx context.Context, env *queue.Envelope, body spool.Body) bool {
	plan := d.Plan()
	if len(plan.Storages) == 0 || body.Path() != "" || !plain(env) || d.Clock().UnixNano() < d.shunned.Load() {
		return false
	}
	j := &job{Dispatcher: d, plan: plan, claim: &queue.Claim{Envelope: env}, body: body, hands: make(map[int32]deliver.Hand)}
	groups := make(map[string]*group, 1)
	for _, r := range env.Recipients {
		change, g, err := j.place(ctx, r, groups)
		if err != nil || change != nil || !plan.Storages[g.ref] || len(g.copies) > 0 ||
			len(plan.RouteFilters[g.route]) > 0 || len(plan.DeliverFilters[g.ref]) > 0 {
			return false
		}
	}
	if !d.Queue.Reserve(ctx, env) {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, d.patience)
	defer cancel()
	var changes []queue.Change
	for _, g := range groups {
		outcomes := g.transport.Deliver(ctx, &deliver.Job{Envelope: env, Recipients: g.recipients, Body: body, Key: env.ID + "/" + g.ref})
		if len(outcomes) != len(g.recipients) || slices.ContainsFunc(outcomes, undelivered) {
			if errors.Is(ctx.Err(), context.DeadlineExceeded) {
				d.shunned.Store(d.Clock().Add(shunTime).UnixNano())
			}
			return false
		}
		done := make([]queue.Change, 0, len(outcomes))
		for i, o := range outcomes {
			done = append(done, *j.outcome(g.recipients[i], o))
		}
		changes = append(changes, j.complete(g, done)...)
	}
	j.tellRoutes(changes)
	d.Queue.Passed(env, changes)
	if e := d.Log.Info(); e.Enabled() {
		j.log = d.Log.With().Str("queue_id", env.ID).Logger()
		j.tell(changes, nil)
	}
	return true
}

func undelivered(o deliver.Outcome) bool { return o.State() != queue.Delivered }

// plain tells whether nothing about the envelope is for the queue to mind.
func plain(env *queue.Envelope) bool {
	p := env.Parameters
	if env.Hints != nil || !env.NotBefore.IsZero() || !env.Expires.IsZero() || p.GetDeliverByMs() != 0 || p.GetHoldUntilMs() != 0 {
		return false
	}
	for _, r := range env.Recipients {
		if r.State != queue.Waiting || r.Account == "" || slices.ContainsFunc(r.Notify, success) {
			return false
		}
	}
	return true
}
