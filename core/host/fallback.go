package host

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"time"
)

// fallback is what a generation that did not come up gives way to. Only one with
// exclusive data has it: its predecessor had to end before it could show that it
// works, and its data may not be out of reach because it does not.
type fallback struct {
	spec      *Spec
	listeners []*listener
	addresses []string
	// program that ran, if it is known: its file may have been replaced. nil: what
	// its path names, as for a script, whose modules lie beside it.
	program *os.File
	// stands is what is told while it serves in another one's place; "": nothing.
	stands string
}

// fallBackTo makes g give way to old if it does not come up. It returns before
// anybody has ended old's process.
func (g *generation) fallBackTo(old *generation) {
	if !slices.Equal(old.spec.Listeners, g.spec.Listeners) {
		return // its sockets are closed by then
	}
	g.fallback = &fallback{spec: old.spec, listeners: old.listeners, addresses: old.addresses}
	old.inst.mu.Lock()
	p, program := old.process, old.program
	old.inst.mu.Unlock()
	path := "" // of the program
	switch {
	case program != nil:
		path = "/proc/self/fd/" + strconv.Itoa(int(program.Fd()))
	case p != nil && !p.script && p.child.living() != 0:
		path = "/proc/" + p.child.ID() + "/exe"
	default:
		return
	}
	if f, err := os.Open(path); err == nil {
		g.fallback.program = f
	}
}

// decided lets go of what nobody needs any more.
func (g *generation) decided() {
	g.inst.mu.Lock()
	defer g.inst.mu.Unlock()
	if g.fallback != nil && g.fallback.program != nil {
		g.fallback.program.Close()
	}
	g.fallback = nil
}

// undecided tells whether g may still give way. What ended by somebody's SIGKILL has
// shown nothing.
func (g *generation) undecided(p *process) bool {
	if g.fallback == nil || g.ctx.Err() != nil {
		return false
	}
	if p == nil {
		return true
	}
	select {
	case <-p.child.reaped:
		return !p.child.killed()
	default:
		return true
	}
}

// giveWay puts another generation in the place of g, of what was there before. That
// one gives way to g's own again if it does not come up either.
func (g *generation) giveWay(problem error) {
	t := &g.h.timing
	state := Restarting
	if g.tries >= t.breaker {
		state = Failed
	}
	g.inst.troubles.end(problem, NotStarted)
	g.set(state, nil, problem.Error())
	if g.tries > 0 {
		select {
		case <-time.After(g.backoff(g.tries)):
		case <-g.ctx.Done():
			return
		}
	}
	to := g.fallback
	next := newGeneration(g.h, g.inst, to.spec)
	next.fingerprint, next.listeners, next.addresses = g.fingerprint, to.listeners, to.addresses
	next.program, next.stands, next.tries, next.begun = to.program, to.stands, g.tries+1, true
	next.predecessor = g
	next.fallback = &fallback{spec: g.spec, listeners: g.listeners, addresses: g.addresses, program: g.program, stands: g.stands}
	log := g.h.logger(g.spec.Instance)
	if next.tries == 1 {
		next.stands = fmt.Sprintf("is as it was before the last change: what was to replace it did not come up (%v)", problem)
		log.Error().Msgf("plugin did not come up and gives way to the one that was there before, with its configuration: %v; "+
			"when you have mended it, run `stagecoach plugin reload %s`", problem, g.spec.Instance)
	} else {
		log.Error().Int("tries", next.tries).Msgf("plugin did not come up, neither as it is nor as it was: %v", problem)
	}
	// A plugin that changes its user changes whose its data is.
	if err := own(next.spec); err != nil {
		log.Error().Err(err).Msg("the data directory cannot be given back to the plugin's user")
	}
	taken := false
	g.inst.update(func() {
		if g.ctx.Err() != nil || g.inst.removed || g.inst.gen != g {
			return
		}
		taken = true
		g.inst.gen = next
		// They are the next one's now.
		g.program, g.fallback = nil, nil
		next.lastError = problem.Error()
	})
	if !taken {
		return // it ends, and lets go of both
	}
	g.h.tasks.Go(func() { g.retire(context.Background(), false) })
	g.h.tasks.Go(func() { next.supervise(nil, false) })
}

// release closes what the generation holds for other starts than its first.
func (g *generation) release() {
	g.decided()
	g.inst.mu.Lock()
	defer g.inst.mu.Unlock()
	if g.program != nil {
		g.program.Close()
		g.program = nil
	}
}
