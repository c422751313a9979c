package local

import (
	"context"
	"sync"
)

// turns lets one at a time work on a name.
type turns struct {
	mu   sync.Mutex
	busy map[string]chan struct{} // closed when the one who has it leaves
}

// enter waits for the name's turn; the caller ends it by leave.
func (t *turns) enter(ctx context.Context, name string) (leave func(), err error) {
	for {
		t.mu.Lock()
		busy := t.busy[name]
		if busy == nil {
			break
		}
		t.mu.Unlock()
		select {
		case <-busy:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	defer t.mu.Unlock()
	if t.busy == nil {
		t.busy = map[string]chan struct{}{}
	}
	mine := make(chan struct{})
	t.busy[name] = mine
	return func() {
		t.mu.Lock()
		delete(t.busy, name)
		t.mu.Unlock()
		close(mine)
	}, nil
}
