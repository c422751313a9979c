package dispatch

import (
	"context"
	"errors"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/stagecoach-mta/stagecoach/core/queue"
	"github.com/stagecoach-mta/stagecoach/core/schedule"
)

const (
	// idlePoll bounds how long a missed wake-up could matter, and listEvery how
	// long a lane could be forgotten.
	idlePoll  = 30 * time.Second
	listEvery = 10 * time.Minute
	// afterError is how long what failed on our own side is left alone.
	afterError = 5 * time.Second
)

// ticket is one group's way through its lane.
type ticket struct {
	id   uint64
	lane string
	// at once is what was said when it came; else said gets one Start or Park.
	atOnce schedule.Action
	said   chan schedule.Action
}

// claimed is a message and the lane that it was claimed with.
type claimed struct {
	*queue.Claim
	from string
}

// laneOf names what shares one fate: a destination of a deliver block, or the
// queue that a hint names.
func laneOf(ref, destination, named string) string {
	switch {
	case named != "":
		destination = "queue " + named
	case destination == "":
		return ref
	}
	return ref + " " + strings.ReplaceAll(destination[:min(len(destination), 300)], "\x00", "?")
}

// config is what a plan says to the scheduler.
func (d *Dispatcher) config(p *Plan) schedule.Config {
	return schedule.Config{
		Workers: d.Workers, Waiting: d.Waiting,
		Limits: func(lane string) schedule.Limits {
			ref, destination, _ := strings.Cut(lane, " ")
			if destination == "" {
				return schedule.Limits{Local: true}
			}
			l := schedule.Limits{AtOnce: p.PerDestination}
			if p.Limits != nil {
				own := p.Limits(ref, destination)
				l.Rate = own.Rate
				if own.AtOnce > 0 {
					l.AtOnce = own.AtOnce
				}
			}
			return l
		},
		Source: p.SourceLimits,
	}
}

// event takes a step of the scheduler and hands on what it says.
func (d *Dispatcher) event(e schedule.Event) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.update()
	d.step(e)
}

// update tells the scheduler of a new plan; mu is held.
func (d *Dispatcher) update() {
	if p := d.Plan(); p != d.planned {
		d.planned = p
		d.step(schedule.Configured{Config: d.config(p)})
	}
}

// step does so; mu is held.
func (d *Dispatcher) step(e schedule.Event) {
	var abandoned []uint64
	signal := false
	for _, a := range d.scheduler.Step(d.Clock(), e) {
		switch a := a.(type) {
		case schedule.Start:
			if !d.tell(a.Ticket, a) {
				abandoned = append(abandoned, a.Ticket)
			}
		case schedule.Park:
			d.tell(a.Ticket, a)
		case schedule.Fetch:
			d.fetches = append(d.fetches, a)
			signal = true
		case schedule.List:
			d.listing = true
			signal = true
		case schedule.Sleep:
			signal = signal || !a.Until.IsZero() && (d.until.IsZero() || a.Until.Before(d.until))
			d.until = a.Until
		}
	}
	if signal {
		select {
		case d.signal <- struct{}{}:
		default: // it has not looked since the last one
		}
	}
	for _, id := range abandoned {
		d.step(schedule.Finished{Ticket: id, Result: schedule.Untried})
	}
}

// tell gives a ticket its word; false when nobody waits for it any more.
func (d *Dispatcher) tell(id uint64, a schedule.Action) bool {
	t := d.tickets[id]
	delete(d.tickets, id)
	switch {
	case t == nil:
	case t.said == nil:
		t.atOnce = a
	default:
		t.said <- a
	}
	return t != nil
}

// enter gives groups their tickets: they wait for their turn from here on.
func (d *Dispatcher) enter(e schedule.Arrived, c *queue.Claim, plan *Plan, groups []*group) {
	source := c.Sender
	if plan.Source != nil {
		source = plan.Source(c.Sender, c.Client.GetUser())
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, g := range groups {
		d.lastTicket++
		g.ticket = &ticket{id: d.lastTicket, lane: g.lane}
		d.tickets[g.ticket.id] = g.ticket
		e.Jobs = append(e.Jobs, schedule.Job{
			Ticket: g.ticket.id, Lane: g.lane, Source: source, Class: classOf(c.Priority), Cost: 1 + int(c.Size>>16),
		})
	}
	d.update()
	d.step(e)
	for _, g := range groups {
		if g.ticket.atOnce == nil {
			g.ticket.said = make(chan schedule.Action, 1)
		}
	}
}

func classOf(priority int) int { return 9 - min(max(priority, -9), 9) }

// await is the ticket's turn: nil, or where it is to be parked.
func (d *Dispatcher) await(ctx context.Context, t *ticket) (*schedule.Park, error) {
	said := t.atOnce
	if said == nil {
		select {
		case said = <-t.said:
		case <-ctx.Done():
		}
	}
	if p, ok := said.(schedule.Park); ok {
		return &p, nil
	}
	if said != nil {
		return nil, nil
	}
	d.mu.Lock()
	_, waits := d.tickets[t.id]
	delete(d.tickets, t.id) // should it be started, nobody is there
	d.mu.Unlock()
	if !waits {
		if _, started := (<-t.said).(schedule.Start); started {
			d.event(schedule.Finished{Ticket: t.id, Result: schedule.Untried})
		}
	}
	return nil, ctx.Err()
}

// Run works until ctx ends, then waits for the jobs under way: they see the end
// of ctx and give up what is not yet handed over.
func (d *Dispatcher) Run(ctx context.Context) error {
	defer d.jobs.Wait()
	d.mu.Lock()
	d.listing = true
	d.mu.Unlock()
	d.event(schedule.Backlog{Next: d.Clock()})
	timer := time.NewTimer(0)
	defer timer.Stop()
	list := time.NewTicker(listEvery)
	defer list.Stop()
	for {
		if _, err := d.turn(ctx); err != nil {
			return err
		}
		d.mu.Lock()
		until := d.until
		d.mu.Unlock()
		wait := idlePoll
		if !until.IsZero() {
			wait = min(wait, max(until.Sub(d.Clock()), 0))
		}
		timer.Reset(wait)
		select {
		case <-ctx.Done():
			return nil
		case <-d.signal:
		case <-d.Queue.Wake():
			d.event(schedule.Backlog{Next: d.Clock()})
		case <-timer.C:
			if wait == idlePoll {
				d.event(schedule.Backlog{Next: d.Clock()})
			} else {
				d.event(schedule.Ticked{})
			}
		case <-list.C:
			d.mu.Lock()
			d.listing = true
			d.mu.Unlock()
		}
	}
}

// turn fetches what the scheduler asked for, and tells how many messages that were.
func (d *Dispatcher) turn(ctx context.Context) (got int, err error) {
	for {
		d.mu.Lock()
		fetches, listing := d.fetches, d.listing
		d.fetches, d.listing = nil, false
		d.mu.Unlock()
		if len(fetches) == 0 && !listing {
			return got, nil
		}
		if listing {
			d.jobs.Go(func() { d.list(ctx) })
		}
		for _, f := range fetches {
			n, err := d.fetch(ctx, f)
			if err != nil {
				return got, err
			}
			got += n
		}
	}
}

// fetch claims messages and starts on them. Its error ends the dispatcher.
func (d *Dispatcher) fetch(ctx context.Context, f schedule.Fetch) (int, error) {
	answer := schedule.Backlog{Lane: f.Lane, Answer: true}
	now := d.Clock()
	var claims []*queue.Claim
	var err error
	if f.Lane != schedule.Fresh {
		var rest queue.Lane
		claims, rest, err = d.Queue.ClaimLane(ctx, f.Lane, now, f.N, lease)
		answer.Next, answer.Class = rest.Next, classOf(rest.Priority)
	} else if claims, err = d.Queue.Claim(ctx, now, f.N, lease); len(claims) > 0 {
		answer.Next = now // perhaps: the next claim tells
	} else if err == nil {
		answer.Next, _, err = d.Queue.NextDue(ctx)
	}
	if err != nil && ctx.Err() == nil {
		if errors.Is(err, queue.ErrStopped) {
			return 0, err
		}
		d.Log.Error().Err(err).Msg("claim from the queue")
		answer.Next = now.Add(afterError)
	}
	answer.Fetched = len(claims)
	d.event(answer)
	for _, c := range claims {
		d.jobs.Add(1)
		select {
		case d.next <- claimed{c, f.Lane}:
		default:
			go d.worker(ctx, claimed{c, f.Lane})
		}
	}
	return len(claims), nil
}

// list tells the scheduler of every lane of the queue.
func (d *Dispatcher) list(ctx context.Context) {
	err := d.Queue.EachLane(ctx, func(l queue.Lane) bool {
		d.event(schedule.Backlog{Lane: l.Name, Next: l.Next, Class: classOf(l.Priority)})
		return ctx.Err() == nil
	})
	if err != nil && ctx.Err() == nil {
		d.Log.Error().Err(err).Msg("list the queue's lanes")
	}
}

// Revive forgets which destinations were dead or throttled: an operator flushes
// the queue.
func (d *Dispatcher) Revive() {
	if p := d.Plan(); p.Revive != nil {
		p.Revive()
	}
	d.event(schedule.Revived{})
}

// Lanes calls each for every lane that the scheduler remembers, in no order.
func (d *Dispatcher) Lanes(each func(schedule.Lane)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.scheduler.Each(each)
}

// newScheduler seeds its jitter by chance: two servers of one kind shall not
// knock at the same moments.
func (d *Dispatcher) newScheduler() *schedule.Scheduler {
	return schedule.New(schedule.Config{Workers: d.Workers, Waiting: d.Waiting}, d.Clock(), rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64())))
}
