// Package dispatch takes due mail from the queue, lets it be routed and delivered
// and journals what became of it. It owns the order of these steps and how many
// run at a time; it knows neither SMTP nor the configuration's syntax.
package dispatch

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"github.com/stagecoach-mta/stagecoach/core/deliver"
	"github.com/stagecoach-mta/stagecoach/core/directory"
	"github.com/stagecoach-mta/stagecoach/core/filter"
	"github.com/stagecoach-mta/stagecoach/core/queue"
	"github.com/stagecoach-mta/stagecoach/core/route"
)

const (
	// lease is longer than any delivery may take.
	lease      = 40 * time.Minute
	jobTimeout = 35 * time.Minute
	// workerIdle is how long a goroutine waits for another message.
	workerIdle = time.Second
	// idlePoll bounds how long a missed wake-up could matter.
	idlePoll = 30 * time.Second
	// maxDepth of recipients that come from recipients (redirect, alias).
	maxDepth = 16
)

// Plan is what one generation of the configuration says about delivery.
type Plan struct {
	Routes      *route.Table
	Directories *directory.Set
	// Transports by deliver block.
	Transports map[string]deliver.Transport
	// RouteFilters by route name, DeliverFilters by deliver block.
	RouteFilters, DeliverFilters map[string]filter.Chain
	Editing                      filter.Editing

	// Retry are the waits after the first, second … attempt; the last repeats.
	Retry       []time.Duration
	Expire      time.Duration
	DelayNotice time.Duration
	// PerDestination is how many deliveries run at once to one destination.
	PerDestination int
	// Reports makes DSNs.
	Reports Reporter
}

// Options of a Dispatcher.
type Options struct {
	Queue queue.Queue
	// Plan returns the current generation; a job keeps the one it began with.
	Plan func() *Plan
	// Workers is how many messages are worked on at the same time, Waiting how
	// many more may wait in memory for a busy destination.
	Workers, Waiting int
	Clock            func() time.Time
	Log              zerolog.Logger
}

// Dispatcher is the queue's engine room.
type Dispatcher struct {
	Options
	workers chan struct{}
	held    chan struct{} // claims in memory, working or waiting
	next    chan *queue.Claim
	telling chan struct{} // filters being told of results
	limits  *limits
	jobs    sync.WaitGroup
}

// New prepares a Dispatcher; Run starts it.
func New(o Options) *Dispatcher {
	if o.Workers <= 0 {
		o.Workers = 100
	}
	if o.Waiting <= 0 {
		o.Waiting = 4096
	}
	if o.Clock == nil {
		o.Clock = time.Now
	}
	return &Dispatcher{
		Options: o,
		workers: make(chan struct{}, o.Workers),
		held:    make(chan struct{}, o.Workers+o.Waiting),
		next:    make(chan *queue.Claim),
		telling: make(chan struct{}, o.Workers),
		limits:  newLimits(),
	}
}

// Run works until ctx ends, then waits for the jobs under way: they see the end
// of ctx and give up what is not yet handed over.
func (d *Dispatcher) Run(ctx context.Context) error {
	defer d.jobs.Wait()
	for {
		claimed, err := d.claim(ctx)
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			if errors.Is(err, queue.ErrStopped) {
				return err
			}
			d.Log.Error().Err(err).Msg("claim from the queue")
		}
		if claimed > 0 && err == nil {
			continue
		}
		if !d.idle(ctx) {
			return nil
		}
	}
}

// idle waits until something may be due; false when ctx ended.
func (d *Dispatcher) idle(ctx context.Context) bool {
	wait := idlePoll
	if at, ok, err := d.Queue.NextDue(ctx); err == nil && ok {
		wait = min(wait, max(at.Sub(d.Clock()), time.Millisecond))
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
	case <-d.Queue.Wake():
	}
	return true
}

// claim takes as many due messages as there is room for and starts on them.
func (d *Dispatcher) claim(ctx context.Context) (int, error) {
	// Wait for room for one, then ask for as many as fit.
	select {
	case d.held <- struct{}{}:
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	room := 1
	for room < 64 {
		select {
		case d.held <- struct{}{}:
			room++
			continue
		default:
		}
		break
	}
	claims, err := d.Queue.Claim(ctx, d.Clock(), room, lease)
	for range room - len(claims) {
		<-d.held
	}
	for _, c := range claims {
		d.jobs.Add(1)
		select {
		case d.next <- c:
		default:
			go d.worker(ctx, c)
		}
	}
	return len(claims), err
}

// worker works on one message after the other, as long as they come: a
// goroutine's stack has to grow for the first one only.
func (d *Dispatcher) worker(ctx context.Context, c *queue.Claim) {
	idle := time.NewTimer(workerIdle)
	defer idle.Stop()
	for {
		d.work(ctx, c)
		<-d.held
		d.jobs.Done()
		idle.Reset(workerIdle)
		select {
		case c = <-d.next:
		case <-idle.C:
			return
		case <-ctx.Done():
			return
		}
	}
}

// work brings one claimed message forward.
func (d *Dispatcher) work(ctx context.Context, c *queue.Claim) {
	ctx, cancel := context.WithTimeout(ctx, jobTimeout)
	defer cancel()
	j := &job{Dispatcher: d, plan: d.Plan(), claim: c, hands: make(map[int32]deliver.Hand), log: d.Log.With().Str("queue_id", c.ID).Logger()}
	if err := j.run(ctx); err != nil {
		if errors.Is(err, queue.ErrLeaseLost) || errors.Is(err, queue.ErrNotFound) {
			j.log.Warn().Err(err).Msg("somebody else has this message now")
			return
		}
		j.log.Error().Err(err).Msg("this message stays in the queue")
		// The claim's context may be over; giving the lease back must not hang on it.
		if err := d.Queue.Release(context.WithoutCancel(ctx), c); err != nil && !errors.Is(err, queue.ErrLeaseLost) {
			j.log.Error().Err(err).Msg("give the lease back")
		}
	}
}

// Revive forgets which destinations were dead: an operator flushes the queue.
func (d *Dispatcher) Revive() { d.limits.revive() }
