package local

import (
	"sync"

	"github.com/stagecoach-mta/stagecoach/sdk/fail"
)

// gate counts the calls under way, so that the database is not closed under them.
type gate struct {
	mu     sync.Mutex
	inside int
	passed uint64 // calls in all
	closed bool
	empty  chan struct{}
}

func (g *gate) enter() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return fail.New(fail.Unavailable, "the storage is closing: try again")
	}
	g.inside++
	g.passed++
	return nil
}

// calls is how many have come so far.
func (g *gate) calls() uint64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.passed
}

func (g *gate) leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.inside--; g.inside == 0 && g.closed {
		close(g.empty)
	}
}

// close lets nobody in and waits until all are out; false if it was closed.
func (g *gate) close() bool {
	g.mu.Lock()
	if g.closed {
		g.mu.Unlock()
		return false
	}
	g.closed = true
	g.empty = make(chan struct{})
	if g.inside == 0 {
		close(g.empty)
	}
	g.mu.Unlock()
	<-g.empty
	return true
}
