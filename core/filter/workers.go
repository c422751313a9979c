package filter

import (
	"sync"
	"time"
)

// workers are goroutines that ask filters. A call goes deep, through the codec and
// gRPC, and a new goroutine would grow its stack for each: a quarter of what five
// filters cost this process. The one that was used last is used next, and those that
// nobody needed for a time end.
type workers struct {
	after time.Duration

	mu   sync.Mutex
	idle []chan func()
	// least is how few were idle since they were looked at.
	least int
	timer *time.Timer // nil: nobody is idle
}

// callers are shared by all chains: how many there are follows the questions under way.
var callers = workers{after: time.Second}

// do runs f beside the caller.
func (w *workers) do(f func()) {
	w.mu.Lock()
	if last := len(w.idle) - 1; last >= 0 {
		next := w.idle[last]
		w.idle = w.idle[:last]
		w.least = min(w.least, last)
		w.mu.Unlock()
		next <- f // has room
		return
	}
	w.mu.Unlock()
	go w.run(f)
}

func (w *workers) run(f func()) {
	next := make(chan func(), 1)
	for ok := true; ok; f, ok = <-next {
		f()
		w.mu.Lock()
		w.idle = append(w.idle, next)
		if w.timer == nil {
			w.timer = time.AfterFunc(w.after, w.rest)
		}
		w.mu.Unlock()
	}
}

// rest ends those that were not used since it was last called.
func (w *workers) rest() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, next := range w.idle[:w.least] {
		close(next)
	}
	left := copy(w.idle, w.idle[w.least:])
	clear(w.idle[left:])
	w.idle = w.idle[:left]
	if w.least = left; left > 0 {
		w.timer.Reset(w.after)
	} else {
		w.timer = nil
	}
}
