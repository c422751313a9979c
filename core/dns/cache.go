package dns

import (
	"container/list"
	"sync"
	"time"

	"github.com/miekg/dns"
)

type question struct {
	name  string // lower case, final dot
	qtype uint16
}

// answer is a finished look-up: records or an error, and until when it holds.
type answer struct {
	rrs     []dns.RR
	err     *Error
	expires time.Time
}

// cache is a bounded LRU. Records in it are shared: nobody changes them.
type cache struct {
	mu    sync.Mutex
	max   int
	order *list.List // front: used last; values are *entry
	byKey map[question]*list.Element
}

type entry struct {
	key question
	ans answer
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
	if !now.Before(e.ans.expires) {
		c.order.Remove(el)
		delete(c.byKey, q)
		return answer{}, false
	}
	c.order.MoveToFront(el)
	return e.ans, true
}

func (c *cache) put(q question, a answer) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if el, ok := c.byKey[q]; ok {
		el.Value.(*entry).ans = a
		c.order.MoveToFront(el)
		return
	}
	c.byKey[q] = c.order.PushFront(&entry{key: q, ans: a})
	for c.order.Len() > c.max {
		last := c.order.Back()
		c.order.Remove(last)
		delete(c.byKey, last.Value.(*entry).key)
	}
}
