package nexthop

import (
	"sync"
	"time"
)

const (
	// silentFor is how long an address that did not answer is passed over; it
	// doubles with each look that finds it silent, up to silentMost.
	silentFor, silentMost = time.Minute, 4 * time.Minute
	// silentAfter is what it takes to be silent: to hear a refusal costs nothing.
	silentAfter = 2 * time.Second
	// silentHosts are remembered.
	silentHosts = 4096
)

// hosts remembers addresses that did not answer: a thousand domains may share a
// mail exchanger, and one of them has waited for it already. After its time one
// mail looks again, and the others still pass over it.
type hosts struct {
	clock func() time.Time

	mu     sync.Mutex
	silent map[string]*silence
}

type silence struct {
	until  time.Time
	looks  int
	reason string
}

func newHosts(clock func() time.Time) *hosts {
	return &hosts{clock: clock, silent: make(map[string]*silence)}
}

// pass tells why an address is not to be tried now; "" if it is. look is how long
// the one that tries may take: others pass over the address until then.
func (h *hosts) pass(addr string, look time.Duration) string {
	h.mu.Lock()
	defer h.mu.Unlock()
	s := h.silent[addr]
	if s == nil {
		return ""
	}
	now := h.clock()
	if now.Before(s.until) {
		return s.reason
	}
	s.until = now.Add(look) // this one looks
	return ""
}

// failed: nobody answered at addr.
func (h *hosts) failed(addr, reason string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := h.clock()
	s := h.silent[addr]
	if s == nil {
		if len(h.silent) >= silentHosts {
			h.sweep(now)
		}
		s = &silence{}
		h.silent[addr] = s
	}
	s.until, s.reason = now.Add(min(silentFor<<min(s.looks, 10), silentMost)), reason
	s.looks++
}

// sweep forgets those whose time is over; if none is, any.
func (h *hosts) sweep(now time.Time) {
	for addr, s := range h.silent {
		if !now.Before(s.until) {
			delete(h.silent, addr)
		}
	}
	for addr := range h.silent {
		if len(h.silent) < silentHosts {
			return
		}
		delete(h.silent, addr)
	}
}

// Revive forgets which hosts did not answer: an operator knows better.
func (t *Transport) Revive() {
	t.hosts.mu.Lock()
	defer t.hosts.mu.Unlock()
	clear(t.hosts.silent)
}

// answered: somebody did.
func (h *hosts) answered(addr string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.silent, addr)
}

// shared tells whether other destinations may have the same hosts. Smarthosts are
// one destination: when to look at them is its scheduler's to say.
func (p *Plan) shared() bool { return p.Source == FromMX || p.Source == FromAddress }
