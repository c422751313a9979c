package nexthop

import (
	"context"
	"sync"
	"time"

	"github.com/stagecoach-mta/stagecoach/core/smtp/client"
)

// hop is what a connection is good for: another mail may use it only if all of
// this is the same.
type hop struct {
	host    string // name: the certificate was checked for it
	network string
	addr    string
	tls     TLSMode
	verify  bool // the certificate
	login   bool
}

// conn is a connection with its pool's books.
type conn struct {
	*client.Conn
	hop    hop
	mails  int
	reused bool
	tls    string
	expiry *time.Timer
}

// pool keeps idle connections and counts open ones per hop. A place is taken
// with acquire and given back with release; idle connections hold theirs, so
// acquire hands them out or has them closed, and nothing waits for a place that
// only idles.
type pool struct {
	max  int
	idle time.Duration
	wg   sync.WaitGroup // connections being closed

	mu     sync.Mutex
	hops   map[hop]*places
	closed bool
}

type places struct {
	used    int // open or being opened, idle ones too
	idle    []*conn
	waiting []chan struct{}
}

func newPool(max int, idle time.Duration) *pool {
	return &pool{max: max, idle: idle, hops: map[hop]*places{}}
}

// acquire returns an idle connection, or nil and a place for a new one.
func (p *pool) acquire(ctx context.Context, h hop) (*conn, error) {
	for {
		p.mu.Lock()
		pl := p.hops[h]
		if pl == nil {
			pl = &places{}
			p.hops[h] = pl
		}
		if n := len(pl.idle); n > 0 {
			c := pl.idle[n-1] // used last: least likely to be closed by the peer
			pl.idle = pl.idle[:n-1]
			c.expiry.Stop()
			p.mu.Unlock()
			c.reused = true
			return c, nil
		}
		if pl.used < p.max {
			pl.used++
			p.mu.Unlock()
			return nil, nil
		}
		wait := make(chan struct{})
		pl.waiting = append(pl.waiting, wait)
		p.mu.Unlock()
		select {
		case <-wait:
		case <-ctx.Done():
			p.mu.Lock()
			pl.forget(wait)
			p.mu.Unlock()
			return nil, ctx.Err()
		}
	}
}

// forget takes a waiter back; if it was woken already, the next one is.
func (pl *places) forget(wait chan struct{}) {
	for i, w := range pl.waiting {
		if w == wait {
			pl.waiting = append(pl.waiting[:i], pl.waiting[i+1:]...)
			return
		}
	}
	pl.wake()
}

func (pl *places) wake() {
	if len(pl.waiting) > 0 {
		close(pl.waiting[0])
		pl.waiting = pl.waiting[1:]
	}
}

// release gives a place back without a connection.
func (p *pool) release(h hop) {
	p.mu.Lock()
	defer p.mu.Unlock()
	pl := p.hops[h]
	pl.used--
	pl.wake()
	if pl.used == 0 && len(pl.waiting) == 0 {
		delete(p.hops, h)
	}
}

// put keeps the connection for the next mail.
func (p *pool) put(c *conn) {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		p.quit(c)
		return
	}
	pl := p.hops[c.hop]
	pl.idle = append(pl.idle, c)
	c.expiry = time.AfterFunc(p.idle, func() { p.expire(c) })
	pl.wake()
	p.mu.Unlock()
}

func (p *pool) expire(c *conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return
	}
	pl := p.hops[c.hop]
	if pl == nil {
		return
	}
	for i, other := range pl.idle {
		if other == c {
			pl.idle = append(pl.idle[:i], pl.idle[i+1:]...)
			p.goodbye(c)
			return
		}
	}
}

// quit ends a connection politely, in the background: nobody waits for a 221.
func (p *pool) quit(c *conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.goodbye(c)
}

func (p *pool) goodbye(c *conn) {
	p.wg.Go(func() {
		if c.Usable() {
			_ = c.Quit(context.Background())
		} else {
			c.Close()
		}
		p.release(c.hop)
	})
}

func (p *pool) close() {
	p.mu.Lock()
	p.closed = true
	for _, pl := range p.hops {
		for _, c := range pl.idle {
			c.expiry.Stop()
			p.goodbye(c)
		}
		pl.idle = nil
	}
	p.mu.Unlock()
	p.wg.Wait()
}
