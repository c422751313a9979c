package ratelimit

import (
	"container/list"
	"sync"
	"time"
)

// windows are counters in windows that slide: of each key this window's count and
// the one's before, which counts for as much of it as still lies within the time.
// The keys longest unused go when there are too many.
type windows struct {
	most int

	mu    sync.Mutex
	byKey map[string]*list.Element // of *counter
	used  *list.List               // last used first
}

type counter struct {
	key           string
	start         time.Time // of this window
	now, previous int
}

func newWindows(most int) *windows {
	return &windows{most: most, byKey: map[string]*list.Element{}, used: list.New()}
}

// take counts one more if that is within the limit.
func (w *windows) take(key string, per time.Duration, limit int, at time.Time) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	c := w.slide(key, per, at)
	left := 1 - float64(at.Sub(c.start))/float64(per)
	if float64(c.now)+float64(c.previous)*left+1 > float64(limit) {
		return false
	}
	c.now++
	return true
}

// giveBack takes back what was counted at that moment.
func (w *windows) giveBack(key string, per time.Duration, at time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if c := w.slide(key, per, at); c.now > 0 {
		c.now--
	}
}

// slide finds a key's counter, brought to the time.
func (w *windows) slide(key string, per time.Duration, at time.Time) *counter {
	e := w.byKey[key]
	if e == nil {
		for len(w.byKey) >= w.most {
			last := w.used.Back()
			delete(w.byKey, last.Value.(*counter).key)
			w.used.Remove(last)
		}
		e = w.used.PushFront(&counter{key: key, start: at})
		w.byKey[key] = e
	}
	w.used.MoveToFront(e)
	c := e.Value.(*counter)
	switch passed := at.Sub(c.start); {
	case passed >= 2*per:
		c.start, c.now, c.previous = at, 0, 0
	case passed >= per:
		c.start, c.now, c.previous = c.start.Add(per), 0, c.now
	}
	return c
}
