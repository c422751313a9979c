package stream

import (
	"context"
	"sync"
	"time"

	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// callContext is the context of a call at its serving end. Most handlers are done
// before anybody waits for its end: the channel and the timer of one are made only
// when somebody does.
type callContext struct {
	// Context is the session's. When that ends, the server ends its calls.
	context.Context
	end time.Time // the deadline; zero: none

	mu    sync.Mutex
	err   error
	done  chan struct{} // nil: nobody has asked
	timer *time.Timer
	// after are called when it ends; contexts that were made of this one.
	after map[*func()]struct{}
	// drained: it was ended because the process is to end.
	drained bool
}

var _ context.Context = (*callContext)(nil)

func newCallContext(session context.Context, call *v1.Call) *callContext {
	c := &callContext{Context: session}
	if ms := call.GetDeadlineMs(); ms > 0 {
		c.end = time.Now().Add(time.Duration(ms) * time.Millisecond)
	}
	return c
}

// endless tells whether the call has no deadline (a Watch).
func (c *callContext) endless() bool { return c.end.IsZero() }

// Deadline implements context.Context.
func (c *callContext) Deadline() (time.Time, bool) {
	if d, ok := c.Context.Deadline(); ok && (c.end.IsZero() || d.Before(c.end)) {
		return d, true
	}
	return c.end, !c.end.IsZero()
}

// Done implements context.Context.
func (c *callContext) Done() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.done == nil {
		c.done = make(chan struct{})
		if c.err != nil {
			close(c.done)
		} else if !c.end.IsZero() {
			c.timer = time.AfterFunc(time.Until(c.end), func() { c.cancel(context.DeadlineExceeded) })
		}
	}
	return c.done
}

// Err implements context.Context.
func (c *callContext) Err() error {
	c.mu.Lock()
	err := c.err
	c.mu.Unlock()
	if err != nil {
		return err
	}
	if err = c.Context.Err(); err == nil && !c.end.IsZero() && !time.Now().Before(c.end) {
		err = context.DeadlineExceeded
	}
	if err != nil {
		c.cancel(err)
		return c.Err() // somebody may have ended it meanwhile for another reason
	}
	return nil
}

// AfterFunc is what the context package asks a context of another kind for: so a
// context made of this one needs no goroutine that waits for this one's end.
func (c *callContext) AfterFunc(f func()) (stop func() bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		go f()
		return func() bool { return false }
	}
	if c.after == nil {
		c.after = map[*func()]struct{}{}
	}
	c.after[&f] = struct{}{}
	return func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		_, there := c.after[&f]
		delete(c.after, &f)
		return there
	}
}

// drain ends the call because the process is to end.
func (c *callContext) drain() {
	c.mu.Lock()
	c.drained = c.drained || c.err == nil
	c.mu.Unlock()
	c.cancel(context.Canceled)
}

func (c *callContext) wasDrained() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.drained
}

// cancel ends it, unless it has ended.
func (c *callContext) cancel(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return
	}
	c.err = err
	if c.timer != nil {
		c.timer.Stop()
	}
	if c.done != nil {
		close(c.done)
	}
	for f := range c.after {
		go (*f)()
	}
	c.after = nil
}
