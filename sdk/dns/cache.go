package dns

import (
	"container/list"
	"sync"
	"time"
)

type question struct {
	name  string // lower case, with the final dot
	qtype uint16
}

// answer is a finished look-up: its values (the type follows the question's), or
// that the name does not exist, and until when that holds.
type answer struct {
	values  any
	err     error
	expires time.Time // zero: not to be kept
}

// cache is a bounded LRU. Values in it are shared: nobody changes them.
type cache struct {
	mu    sync.Mutex
	max   int
	order *list.List // front: used last; values are *entry
	byKey map[question]*list.Element
}

type entry struct {
	question
	answer
}

func newCache(max int) *cache {
	return &cache{max: max, order: list.New(), byKey: map[question]*list.Element{}}
}

func (c *cache) get(q question, now time.Time) (answer, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	el, ok := c.byKey[q]
	if !ok {
		return answer{}, false
	}
	e := el.Value.(*entry)
	if !now.Before(e.expires) {
		c.order.Remove(el)
		delete(c.byKey, q)
		return answer{}, false
	}
	c.order.MoveToFront(el)
	return e.answer, true
}

func (c *cache) put(q question, a answer) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if el, ok := c.byKey[q]; ok {
		el.Value.(*entry).answer = a
		c.order.MoveToFront(el)
		return
	}
	c.byKey[q] = c.order.PushFront(&entry{q, a})
	for c.order.Len() > c.max {
		last := c.order.Back()
		c.order.Remove(last)
		delete(c.byKey, last.Value.(*entry).question)
	}
}
