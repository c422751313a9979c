// Package observe brings the queue's feed to the observers: filters that want
// to know all that happened, at least once and in order, without anybody
// waiting for them. It decides nothing about a mail.
package observe

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"github.com/stagecoach-mta/stagecoach/core/queue"
	"github.com/stagecoach-mta/stagecoach/sdk/fail"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
	"github.com/stagecoach-mta/stagecoach/sdk/stream"
)

const (
	// batch is how many observations one call holds at most.
	batch = 100
	// An observer that fails is asked again after backoff, which doubles.
	backoff, backoffMax = 100 * time.Millisecond, 30 * time.Second
	sweepEvery          = 10 * time.Minute
	defaultTimeout      = 30 * time.Second
)

// Observer is a filter that is told.
type Observer struct {
	// Name is the instance: "filter.webhook.audit". Its place in the feed is
	// remembered under it.
	Name    string
	Caller  stream.Caller
	Timeout time.Duration
}

// Options of a Pump.
type Options struct {
	Feed  queue.Feed
	Clock func() time.Time
	Log   zerolog.Logger
}

// Pump reads the feed and tells the observers, each at its own pace.
type Pump struct {
	Options
	ctx    context.Context
	cancel context.CancelFunc
	all    sync.WaitGroup

	mu      sync.Mutex
	keep    time.Duration
	running map[string]*teller
	// news is closed, and made anew, when the feed has grown.
	news chan struct{}
}

// teller brings the feed to one observer.
type teller struct {
	observer Observer
	cancel   context.CancelFunc
	done     chan struct{}
	seen     uint64 // guarded by Pump.mu
}

// New makes a pump without observers; Close ends it.
func New(o Options) *Pump {
	p := &Pump{Options: o, running: map[string]*teller{}, news: make(chan struct{})}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	p.all.Go(p.listen)
	return p
}

// Set exchanges the observers. One that stays goes on where it was; a new one
// begins with what happens from now on. What nobody has seen within keep is
// forgotten. Without observers the feed is off.
func (p *Pump) Set(observers []Observer, keep time.Duration) error {
	if err := p.Feed.SetFeed(len(observers) > 0); err != nil {
		return err
	}
	gone := map[string]*teller{}
	wanted := map[string]Observer{}
	for _, o := range observers {
		wanted[o.Name] = o
	}
	p.mu.Lock()
	p.keep = keep
	for name, t := range p.running {
		// Its caller or time-out may have changed: a new teller takes over.
		t.cancel()
		gone[name] = t
		delete(p.running, name)
	}
	p.mu.Unlock()
	for _, t := range gone {
		<-t.done
	}
	for _, o := range wanted {
		seen, err := p.place(o.Name, gone[o.Name])
		if err != nil {
			return err
		}
		ctx, cancel := context.WithCancel(p.ctx)
		t := &teller{observer: o, cancel: cancel, done: make(chan struct{}), seen: seen}
		p.mu.Lock()
		p.running[o.Name] = t
		p.mu.Unlock()
		p.all.Go(func() {
			defer close(t.done)
			p.tell(ctx, t)
		})
	}
	return nil
}

// place is where an observer goes on: where its teller before this one stood,
// whose last note may not be in the feed yet, or what the feed knows.
func (p *Pump) place(name string, before *teller) (uint64, error) {
	if before != nil {
		return before.seen, nil // it has ended, nobody writes it
	}
	seen, known, err := p.Feed.Seen(name)
	if err != nil || known {
		return seen, err
	}
	seen = p.Feed.Latest()
	return seen, p.Feed.SetSeen(name, seen, 0)
}

// Close gives up what is under way: it is told again by the next run.
func (p *Pump) Close() {
	p.cancel()
	p.all.Wait()
}

// listen passes the feed's signal on to all tellers and forgets what is too old.
func (p *Pump) listen() {
	sweep := time.NewTicker(sweepEvery)
	defer sweep.Stop()
	for {
		select {
		case <-p.Feed.Fed():
			p.mu.Lock()
			close(p.news)
			p.news = make(chan struct{})
			p.mu.Unlock()
		case <-sweep.C:
			p.Sweep()
		case <-p.ctx.Done():
			return
		}
	}
}

// Sweep forgets observations that are older than what the operator keeps.
func (p *Pump) Sweep() {
	p.mu.Lock()
	keep, some := p.keep, len(p.running) > 0
	p.mu.Unlock()
	if !some || keep <= 0 {
		return
	}
	upto, any, err := p.Feed.ForgetFeed(p.ctx, p.Clock().Add(-keep))
	if err != nil || !any {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for name, t := range p.running {
		if t.seen < upto {
			p.Log.Error().Str("observer", name).Dur("keep", keep).Msg("observations were forgotten before the observer took them: it was away too long")
		}
	}
}

func (p *Pump) tell(ctx context.Context, t *teller) {
	failures := 0
	for ctx.Err() == nil {
		p.mu.Lock()
		news, seen := p.news, t.seen
		p.mu.Unlock()
		os, err := p.Feed.Observations(ctx, seen, batch)
		if err == nil && len(os) > 0 {
			err = p.ask(ctx, t, os)
		}
		switch {
		case err != nil:
			failures++
			if failures == 1 && ctx.Err() == nil {
				p.Log.Warn().Str("observer", t.observer.Name).Err(err).Msg("observer did not take its observations; they are kept and told again")
			}
			wait := min(backoff<<min(failures-1, 10), backoffMax)
			pause(ctx, wait/2+rand.N(wait/2+1))
		case len(os) == 0:
			select {
			case <-news:
			case <-ctx.Done():
			}
		default:
			failures = 0
		}
	}
}

// ask tells one batch and remembers that it was taken.
func (p *Pump) ask(ctx context.Context, t *teller, os []*v1.Observation) error {
	timeout := t.observer.Timeout
	if timeout <= 0 {
		timeout = defaultTimeout
	}
	call, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	reply, err := t.observer.Caller.Call(call, &v1.Call{Request: &v1.Call_Filter{Filter: &v1.FilterCall{
		Event: v1.FilterEvent_OBSERVE, Recipient: -1, Observations: os,
	}}})
	if err != nil {
		return err
	}
	if reply.GetFilter() == nil {
		return fail.New(fail.Internal, "answered something that is not a filter's reply")
	}
	last := os[len(os)-1].GetSequence()
	p.mu.Lock()
	t.seen = last
	done := last
	for _, other := range p.running {
		done = min(done, other.seen)
	}
	p.mu.Unlock()
	return p.Feed.SetSeen(t.observer.Name, last, done)
}

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
