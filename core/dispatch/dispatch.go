// Package dispatch takes due mail from the queue, lets it be routed and delivered
// and journals what became of it. It owns the order of these steps and how many
// run at a time; it knows neither SMTP nor the configuration's syntax.
package dispatch

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"github.com/stagecoach-mta/stagecoach/core/deliver"
	"github.com/stagecoach-mta/stagecoach/core/directory"
	"github.com/stagecoach-mta/stagecoach/core/filter"
	"github.com/stagecoach-mta/stagecoach/core/queue"
	"github.com/stagecoach-mta/stagecoach/core/route"
	"github.com/stagecoach-mta/stagecoach/core/schedule"
)

const (
	// lease is longer than any delivery may take.
	lease      = 40 * time.Minute
	jobTimeout = 35 * time.Minute
	// workerIdle is how long a goroutine waits for another message.
	workerIdle = time.Second
	// maxDepth of recipients that come from recipients (redirect, alias).
	maxDepth = 16
)

// Plan is what one generation of the configuration says about delivery.
type Plan struct {
	Routes      *route.Table
	Directories *directory.Set
	// Transports by deliver block.
	Transports map[string]deliver.Transport
	// Storages are the deliver blocks whose Delivered means that a repetition by the
	// same message id is known and stores nothing: AtOnce is for them.
	Storages map[string]bool
	// RouteFilters by route name, DeliverFilters by deliver block.
	RouteFilters, DeliverFilters map[string]filter.Chain
	Editing                      filter.Editing

	// Retry are the waits after the first, second … attempt; the last repeats.
	Retry       []time.Duration
	Expire      time.Duration
	DelayNotice time.Duration
	// PerDestination is how many deliveries run at once to one destination, if
	// Limits says nothing else of it.
	PerDestination int
	// Limits of a destination of a deliver block; nil: none.
	Limits func(ref, destination string) schedule.Limits
	// Source is what a sender's mails are counted by, given the reverse-path and
	// the login name; nil: the reverse-path. SourceLimits are its limits; nil: none.
	Source       func(sender, user string) string
	SourceLimits func(source string) schedule.SourceLimits
	// Revive has the transports forget who did not answer; nil: they remember none.
	Revive func()
	// Reports makes DSNs.
	Reports Reporter
}

// Options of a Dispatcher.
type Options struct {
	Queue queue.Queue
	// Plan returns the current generation; a job keeps the one it began with.
	Plan func() *Plan
	// Workers is how many deliveries run at the same time, Waiting how many more
	// may wait in memory for a busy destination: schedule.Config.
	Workers, Waiting int
	// Routed is told how long a message's routing took; nil: nobody is.
	Routed func(time.Duration)
	Clock  func() time.Time
	Log    zerolog.Logger
}

// Dispatcher is the queue's engine room.
type Dispatcher struct {
	Options
	next    chan claimed
	telling chan struct{} // filters being told of results
	jobs    sync.WaitGroup
	signal  chan struct{} // there is something for Run

	// patience of AtOnce with a storage, and until when it is not tried because one
	// was slow, in nanoseconds.
	patience time.Duration
	shunned  atomic.Int64

	mu         sync.Mutex
	scheduler  *schedule.Scheduler
	planned    *Plan // that the scheduler knows
	tickets    map[uint64]*ticket
	lastTicket uint64
	fetches    []schedule.Fetch
	listing    bool
	until      time.Time // the scheduler's next own step
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
	d := &Dispatcher{
		Options: o,
		next:    make(chan claimed),
		telling: make(chan struct{}, o.Workers),
		signal:  make(chan struct{}, 1),
		tickets: make(map[uint64]*ticket),

		patience: atOncePatience,
	}
	d.scheduler = d.newScheduler()
	return d
}

// worker works on one message after the other, as long as they come: a
// goroutine's stack has to grow for the first one only.
func (d *Dispatcher) worker(ctx context.Context, c claimed) {
	idle := time.NewTimer(workerIdle)
	defer idle.Stop()
	for {
		d.work(ctx, c)
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
func (d *Dispatcher) work(ctx context.Context, c claimed) {
	ctx, cancel := context.WithTimeout(ctx, jobTimeout)
	defer cancel()
	j := &job{Dispatcher: d, plan: d.Plan(), claim: c.Claim, from: c.from, hands: make(map[int32]deliver.Hand), log: d.Log.With().Str("queue_id", c.ID).Logger()}
	err := j.run(ctx)
	defer func() { j.leave(err) }()
	if err != nil {
		if errors.Is(err, queue.ErrLeaseLost) || errors.Is(err, queue.ErrNotFound) {
			j.log.Warn().Err(err).Msg("somebody else has this message now")
			return
		}
		if ctx.Err() == nil {
			j.log.Error().Err(err).Msg("this message stays in the queue")
		}
		// The claim's context may be over; giving the lease back must not hang on it.
		if err := d.Queue.Release(context.WithoutCancel(ctx), c.Claim); err != nil && !errors.Is(err, queue.ErrLeaseLost) {
			j.log.Error().Err(err).Msg("give the lease back")
		}
	}
}
