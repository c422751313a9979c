// Package admission decides who may come in: connections per address and per
// account, and how long a wrong password makes its sender wait. The access
// plugins use it. It does not check passwords.
package admission

import (
	"context"
	"net"
	"net/netip"
	"sync"
	"time"
)

// Limits of a Gate; 0 means no limit.
type Limits struct {
	PerAddress int
	PerAccount int
	Total      int
	// Delay is what the first wrong password of an address costs; each further
	// one doubles it up to MaxDelay. An hour without one forgives.
	Delay, MaxDelay time.Duration
}

// Gate counts. Its methods may be called concurrently.
type Gate struct {
	limits Limits

	mu        sync.Mutex
	total     int
	addresses map[netip.Prefix]int
	accounts  map[string]int
	failures  map[netip.Prefix]failure
	swept     time.Time
}

type failure struct {
	count int
	last  time.Time
}

// forgiven is how long an address must be without a wrong password.
const forgiven = time.Hour

// New makes a Gate.
func New(l Limits) *Gate {
	return &Gate{
		limits:    l,
		addresses: map[netip.Prefix]int{},
		accounts:  map[string]int{},
		failures:  map[netip.Prefix]failure{},
	}
}

// Source is the network that a peer is counted as: an IPv4 address, or the /64
// of an IPv6 address, of which a customer has as many addresses as he likes.
func Source(a net.Addr) netip.Prefix {
	host, _, err := net.SplitHostPort(a.String())
	if err != nil {
		return netip.Prefix{}
	}
	ip, err := netip.ParseAddr(host)
	if err != nil {
		return netip.Prefix{}
	}
	ip = ip.Unmap().WithZone("")
	bits := 32
	if ip.Is6() {
		bits = 64
	}
	p, _ := ip.Prefix(bits)
	return p
}

// Host is the peer's address without its port, as a log or a directory wants it.
func Host(a net.Addr) string {
	host, _, err := net.SplitHostPort(a.String())
	if err != nil {
		return a.String()
	}
	return host
}

// Enter counts a connection; false if there are too many. Leave undoes it.
func (g *Gate) Enter(from netip.Prefix) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if over(g.total, g.limits.Total) || over(g.addresses[from], g.limits.PerAddress) {
		return false
	}
	g.total++
	g.addresses[from]++
	return true
}

// Leave is the end of a connection that Enter let in.
func (g *Gate) Leave(from netip.Prefix) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.total--
	drop(g.addresses, from)
}

// Join counts a session of an account; false if there are too many. Part undoes it.
func (g *Gate) Join(account string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if over(g.accounts[account], g.limits.PerAccount) {
		return false
	}
	g.accounts[account]++
	return true
}

// Part is the end of a session that Join let in.
func (g *Gate) Part(account string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	drop(g.accounts, account)
}

// Failed notes a wrong password and returns how long its sender has to wait.
func (g *Gate) Failed(from netip.Prefix) time.Duration {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := time.Now()
	if now.Sub(g.swept) > forgiven {
		for k, f := range g.failures {
			if now.Sub(f.last) > forgiven {
				delete(g.failures, k)
			}
		}
		g.swept = now
	}
	f := g.failures[from]
	if now.Sub(f.last) > forgiven {
		f.count = 0
	}
	f.count++
	f.last = now
	g.failures[from] = f
	return g.delay(f.count)
}

func (g *Gate) delay(count int) time.Duration {
	d := g.limits.Delay
	for i := 1; i < count && d < g.limits.MaxDelay; i++ {
		d *= 2
	}
	return min(d, g.limits.MaxDelay)
}

// Wait waits, or returns earlier when ctx ends.
func Wait(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

func over(n, limit int) bool { return limit > 0 && n >= limit }

func drop[K comparable](m map[K]int, k K) {
	if m[k]--; m[k] <= 0 {
		delete(m, k)
	}
}
