package stream

import (
	"sync"
	"time"
)

// patience is how long a goroutine waits for another call.
const patience = time.Second

// idle are the goroutines that have answered a call and wait for the next: their
// stacks have grown. The one that was used last gets it, and every patience those
// are let go that had nothing to do for so long. Its server's mu guards it.
type idle struct {
	list []chan<- incoming
	// least is how few of them there were since the last time.
	least int
	timer *time.Timer // nil: nobody is looked at
	ended bool
}

// give hands the call to one that waits; false if none does.
func (i *idle) give(in incoming) bool {
	last := len(i.list) - 1
	if last < 0 {
		return false
	}
	i.list[last] <- in // has room
	i.list = i.list[:last]
	i.least = min(i.least, last)
	return true
}

// add takes one that waits. Its channel has room for one call, and is closed when
// none comes.
func (i *idle) add(mu *sync.Mutex, next chan<- incoming) {
	if i.ended {
		close(next)
		return
	}
	i.list = append(i.list, next)
	if i.timer == nil {
		i.timer = time.AfterFunc(patience, func() {
			mu.Lock()
			defer mu.Unlock()
			i.letGo()
		})
	}
}

// letGo ends those that were not used since it was last called.
func (i *idle) letGo() {
	if i.ended {
		return
	}
	for _, next := range i.list[:i.least] {
		close(next)
	}
	rest := copy(i.list, i.list[i.least:])
	clear(i.list[rest:])
	i.list = i.list[:rest]
	if i.least = rest; rest > 0 {
		i.timer.Reset(patience)
	} else {
		i.timer = nil
	}
}

// end lets all go, and those that come later.
func (i *idle) end() {
	i.ended = true
	for _, next := range i.list {
		close(next)
	}
	i.list = nil
	if i.timer != nil {
		i.timer.Stop()
	}
}
