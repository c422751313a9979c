package dispatch

import (
	"context"
	"sync"
	"time"
)

// limits keeps how many deliveries run to each destination, and which of them
// are known to be dead for now.
type limits struct {
	mu   sync.Mutex
	dest map[string]*destination
}

type destination struct {
	running, waiting int
	// free is closed and replaced when a place becomes free.
	free chan struct{}
	// deadUntil: nobody tries before; failures grows it.
	deadUntil time.Time
	failures  int
	reason    string
}

func newLimits() *limits { return &limits{dest: make(map[string]*destination)} }

// acquire waits for a place at the destination. If it is dead, dead says until
// when and why, and no place is taken.
func (l *limits) acquire(ctx context.Context, key string, limit int, now func() time.Time) (dead *destination, err error) {
	for {
		l.mu.Lock()
		d := l.dest[key]
		if d == nil {
			d = &destination{free: make(chan struct{})}
			l.dest[key] = d
		}
		if now().Before(d.deadUntil) {
			copied := *d
			l.mu.Unlock()
			return &copied, nil
		}
		// A destination that failed gets one try at a time until it answers.
		allowed := limit
		if d.failures > 0 {
			allowed = 1
		}
		if limit <= 0 || d.running < allowed {
			d.running++
			l.mu.Unlock()
			return nil, nil
		}
		d.waiting++
		free := d.free
		l.mu.Unlock()
		select {
		case <-free:
		case <-ctx.Done():
			err = ctx.Err()
		}
		l.mu.Lock()
		d.waiting--
		l.mu.Unlock()
		if err != nil {
			return nil, err
		}
	}
}

// release gives the place back. unreachable is why nobody there answered; ""
// when somebody did.
func (l *limits) release(key, unreachable string, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	d := l.dest[key]
	d.running--
	if unreachable == "" {
		d.failures, d.deadUntil, d.reason = 0, time.Time{}, ""
	} else if !now.Before(d.deadUntil) { // several that failed together are one failure
		d.failures++
		d.reason = unreachable
		d.deadUntil = now.Add(min(time.Duration(d.failures)*deadStep, deadMax))
	}
	close(d.free)
	d.free = make(chan struct{})
	if d.running == 0 && d.waiting == 0 && d.failures == 0 {
		delete(l.dest, key)
	}
	if len(l.dest) > maxDestinations {
		l.sweep(now)
	}
}

const (
	deadStep        = time.Minute
	deadMax         = 10 * time.Minute
	maxDestinations = 10000
)

// sweep forgets dead destinations whose time is over.
func (l *limits) sweep(now time.Time) {
	for k, d := range l.dest {
		if d.running == 0 && d.waiting == 0 && now.After(d.deadUntil) {
			delete(l.dest, k)
		}
	}
}

// revive forgets that destinations were dead: an operator flushes the queue.
func (l *limits) revive() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, d := range l.dest {
		d.deadUntil, d.failures = time.Time{}, 0
	}
}
