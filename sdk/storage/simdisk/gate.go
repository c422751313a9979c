package simdisk

import (
	"sync"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// Gate holds syncs up, so that the callers who come in the meantime share the next
// one: always the same callers, in the order in which the test lets them come. It
// is open at first; its methods are safe for concurrent use.
type Gate struct {
	mu      sync.Mutex
	moved   sync.Cond
	shut    bool
	waiting int
	passes  int
}

// NewGate is an open gate.
func NewGate() *Gate {
	g := &Gate{}
	g.moved.L = &g.mu
	return g
}

// FS is fs with the syncs of the paths that match picks behind the gate.
func (g *Gate) FS(fs vfs.FS, match func(path string) bool) vfs.FS {
	return lie{fs, func(path string, sync func() error) error {
		if match(path) {
			g.wait()
		}
		return sync()
	}}
}

func (g *Gate) wait() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.shut {
		return
	}
	g.waiting++
	g.moved.Broadcast()
	for g.shut && g.passes == 0 {
		g.moved.Wait()
	}
	g.waiting--
	if g.passes > 0 {
		g.passes--
	}
}

// Shut has every sync from now on wait.
func (g *Gate) Shut() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.shut = true
}

// Meet returns when a sync waits.
func (g *Gate) Meet() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for g.waiting <= g.passes {
		g.moved.Wait()
	}
}

// Pass lets one that waits go on.
func (g *Gate) Pass() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.passes++
	g.moved.Broadcast()
}

// Open lets all go on.
func (g *Gate) Open() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.shut, g.passes = false, 0
	g.moved.Broadcast()
}
