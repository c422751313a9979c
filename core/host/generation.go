package host

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"time"

	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// generation is one Spec of an instance under supervision: it keeps a process
// running until it is retired. A reload makes a new generation.
type generation struct {
	h    *Host
	inst *Instance
	spec *Spec
	// fingerprint tells whether another Spec is the same.
	fingerprint [32]byte
	listeners   []*listener
	addresses   []string
	ctx         context.Context
	cancel      context.CancelFunc
	// predecessor must have ended before this generation's Ready: it holds the
	// data directory. nil if that is not so.
	predecessor *generation
	begun       bool
	// tries are how many have given way before it, stands is what is told because
	// of that.
	tries      int
	stands     string
	supervised chan struct{}
	retireOnce sync.Once
	retired    chan struct{}

	// Guarded by inst.mu.
	// program to run instead of what the Spec's path names; nil: that.
	program   *os.File
	fallback  *fallback
	state     State
	since     time.Time
	process   *process
	describe  *v1.DescribeResponse
	interest  *v1.FilterInterest
	lastError string
	health    string
}

func newGeneration(h *Host, inst *Instance, s *Spec) *generation {
	g := &generation{
		h: h, inst: inst, spec: s, state: Starting, since: time.Now(),
		supervised: make(chan struct{}), retired: make(chan struct{}),
	}
	g.ctx, g.cancel = context.WithCancel(context.Background())
	return g
}

// launch starts a process and configures it.
func (g *generation) launch(ctx context.Context) (*process, error) {
	files := make([]*os.File, 0, len(g.listeners)+1)
	req := g.h.configureRequest(g)
	for _, l := range g.listeners {
		files = append(files, l.file)
	}
	if g.inst.place.data != nil {
		files = append(files, g.inst.place.data)
	}
	p, err := g.h.start(ctx, g.spec, g.program, g.inst.place.dir, files, g.inst.troubles)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, g.h.timing.start)
	defer cancel()
	if err := p.configure(ctx, req); err != nil {
		p.end()
		return nil, err
	}
	return p, nil
}

// open makes a launched process ready. It stays running if that fails.
func (g *generation) open(ctx context.Context, p *process) error {
	ctx, cancel := context.WithTimeout(ctx, g.h.timing.ready)
	defer cancel()
	return p.serve(ctx)
}

func (g *generation) set(state State, p *process, reason string) {
	g.inst.update(func() {
		if g.state != state {
			g.since = time.Now()
		}
		g.state, g.process = state, p
		if reason != "" {
			g.lastError = reason
		}
		if p != nil {
			g.describe, g.interest = p.describe, p.interest
		}
	})
}

// supervise keeps the instance running until retire. p is a process that is
// ready or, if opened is false, still wants its Ready; nil: there is none yet.
func (g *generation) supervise(p *process, opened bool) {
	defer close(g.supervised)
	log := g.h.logger(g.spec.Instance)
	if g.predecessor != nil {
		select {
		case <-g.predecessor.retired:
		case <-g.ctx.Done():
			g.set(Draining, p, "")
			return
		}
	}
	var problem error
	kind := NotStarted // of a problem that does not say
	if p == nil {
		p, problem = g.launch(g.ctx)
	}
	if !opened && problem == nil {
		problem = g.open(g.ctx, p)
	}
	crashes := 0
	for {
		began := time.Now()
		if problem == nil {
			g.decided()
			g.inst.troubles.calm()
			g.inst.troubles.state(FellBack, g.stands)
			g.set(Ready, p, "")
			log.Info().Str("pid", p.child.ID()).Msg("plugin is ready")
			problem, kind = g.watch(p), Crash
		}
		if g.ctx.Err() != nil {
			g.set(Draining, p, "")
			return
		}
		lived := time.Since(began)
		if p != nil && p.served.Load() {
			// It did its work until something ended it: the next one may too, so
			// the breaker is not for it, and the wait stays short.
			crashes = min(crashes, servedCrashes)
		}
		for problem != nil {
			if g.undecided(p) {
				if p != nil {
					p.end()
				}
				g.giveWay(problem)
				return
			}
			crashes = g.count(crashes, lived)
			state := Restarting
			if crashes >= g.h.timing.breaker {
				state = Failed
			}
			wait := g.backoff(crashes)
			g.inst.troubles.end(problem, kind)
			kind = NotStarted
			g.set(state, nil, problem.Error())
			log.Error().Int("crashes", crashes).Dur("next_try_ms", wait).Msgf("plugin is %s: %v", state, problem)
			if p != nil {
				p.end()
				p = nil
			}
			select {
			case <-time.After(wait):
			case <-g.ctx.Done():
				return
			}
			lived = 0
			if p, problem = g.launch(g.ctx); problem == nil {
				problem = g.open(g.ctx, p)
			}
			if g.ctx.Err() != nil {
				g.set(Draining, p, "")
				return
			}
		}
		g.inst.update(func() { g.inst.restarts++ })
	}
}

// servedCrashes is how many crashes in a row a process leaves behind that has
// answered calls: enough for a back-off, far from the breaker.
const servedCrashes = 3

// count is how many crashes in a row there were: a process that lived for a
// while forgives some of those before it.
func (g *generation) count(crashes int, lived time.Duration) int {
	switch t := &g.h.timing; {
	case lived >= t.settled:
		return 1
	case lived >= t.quick:
		return crashes/2 + 1
	}
	return crashes + 1
}

// backoff before the next attempt: it doubles, with jitter so that plugins that
// fell together do not rise together.
func (g *generation) backoff(crashes int) time.Duration {
	t := &g.h.timing
	wait := t.failedRetry
	if crashes < t.breaker {
		wait = min(t.backoff<<(crashes-1), t.backoffMax)
	}
	return wait/2 + rand.N(wait/2+1)
}

// watch returns why the process must be replaced, or nil when the generation is
// retired.
func (g *generation) watch(p *process) error {
	ctx, cancel := context.WithCancel(g.ctx)
	sick := make(chan error, 2)
	var probe sync.WaitGroup
	probe.Go(func() { sick <- g.probe(ctx, p) })
	probe.Go(func() { sick <- g.excess(ctx, p) })
	defer probe.Wait()
	defer cancel()
	select {
	case <-g.ctx.Done():
		return nil
	case err := <-sick:
		return err
	case <-p.child.exited:
	case <-p.sessionDone():
		// Usually because the process ended: then that is the reason. Its end may
		// take a while on a busy machine, and killing it does not change how it did.
		select {
		case <-p.child.exited:
		case <-time.After(50 * time.Millisecond):
			p.child.kill()
			<-p.child.reaped
			if p.child.killed() {
				return brokenSession(p.caller.Err())
			}
		}
	}
	text := "process ended " + p.epitaph()
	if box := g.spec.Sandbox; box != nil && box.Memory > 0 && endedAtLimit(text) {
		return endedFor(Memory, "%s; its sandbox allows it %d MB of memory", text, box.Memory>>20)
	}
	return errors.New(text)
}

// probe asks for the health until the process does not answer several times in
// a row (a stopped process, a deadlock), or ctx ends.
func (g *generation) probe(ctx context.Context, p *process) error {
	t := &g.h.timing
	misses := 0
	var missing time.Time
	for {
		// After a miss it asks again at once.
		if misses == 0 {
			select {
			case <-time.After(t.health):
			case <-ctx.Done():
				return nil
			}
		}
		one, cancel := context.WithTimeout(ctx, t.healthTimeout)
		resp, err := p.api.Health(one, &v1.HealthRequest{})
		cancel()
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			if misses == 0 {
				missing = time.Now()
			}
			misses++
			how := standstill(p.pid())
			if misses >= t.healthMisses {
				return endedFor(Unresponsive, "it does not answer health checks%s", how)
			}
			g.inst.troubles.state(Unresponsive, fmt.Sprintf("has not answered health checks for %s%s",
				(time.Since(missing)+t.healthTimeout).Round(time.Second), how))
			if one.Err() == nil { // it failed at once: do not spin
				select {
				case <-time.After(t.healthTimeout):
				case <-ctx.Done():
					return nil
				}
			}
		default:
			misses = 0
			g.inst.troubles.state(Unresponsive, "")
			g.report(p, resp)
			if err := g.stuck(p); err != nil {
				return err
			}
		}
	}
}

// stuckCalls given up and not ended make a process stuck, or as many as it takes
// at once if that is fewer.
const stuckCalls = 8

// stuck finds a process that is well and of no use: its calls were given up, it
// ends none of them, and new ones find no room.
func (g *generation) stuck(p *process) error {
	if p.caller == nil {
		return nil
	}
	n, since := p.caller.Abandoned()
	if n < min(stuckCalls, p.credits) || time.Since(since) < g.h.timing.stuck {
		return nil
	}
	return endedFor(Stuck, "it has not ended %d calls that were given up, and none at all for %s", n, time.Since(since).Round(time.Second))
}

// report notes a change of what the plugin says of its own health.
func (g *generation) report(p *process, resp *v1.HealthResponse) {
	detail := ""
	if !resp.GetOk() {
		detail = resp.GetDetail()
		if detail == "" {
			detail = "not well, without a reason"
		}
	}
	g.inst.mu.Lock()
	before := g.health
	g.health = detail
	g.inst.mu.Unlock()
	switch {
	case detail == before:
	case detail == "":
		p.log.Info().Msg("plugin is well again")
	default:
		p.log.Warn().Msg("plugin reports a problem: " + detail)
	}
}

// retire ends the generation: no restarts, drain, stop, at the latest when ctx
// ends. It returns when its process is gone. closing: all others end, too.
func (g *generation) retire(ctx context.Context, closing bool) {
	g.retireOnce.Do(func() {
		defer close(g.retired)
		g.cancel()
		if g.begun {
			<-g.supervised
		}
		g.inst.mu.Lock()
		p := g.process
		g.inst.mu.Unlock()
		if p != nil {
			ctx, cancel := context.WithDeadline(ctx, g.end(p, closing))
			defer cancel()
			p.stop(ctx)
			g.inst.update(func() { g.process = nil })
		}
		// Who waits for this generation waits for all before it.
		if g.predecessor != nil {
			<-g.predecessor.retired
		}
		g.release()
	})
	<-g.retired
}

// awaited tells whether somebody waits for the end of p: the end of the host, or a
// successor for its data.
func (g *generation) awaited(p *process, closing bool) bool {
	return closing || p.describe.GetNeeds().GetExclusive() && !g.inst.isRemoved()
}

// end is when p must have ended what it is at.
func (g *generation) end(p *process, closing bool) time.Time {
	t, now := &g.h.timing, time.Now()
	switch {
	case g.spec.StopTimeout > 0:
		return now.Add(g.spec.StopTimeout)
	case closing && g.spec.Kind == v1.Kind_KIND_ACCESS:
		return now.Add(t.leave)
	case g.awaited(p, closing):
		return now.Add(t.stop)
	}
	end := now.Add(t.drain)
	if last := p.lastDeadline(); last.After(end) {
		return last
	}
	return end
}
