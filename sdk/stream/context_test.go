package stream

import (
	"context"
	"errors"
	"runtime"
	"testing"
	"time"

	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

type wordKey struct{}

func TestContextOfACall(t *testing.T) {
	session, end := context.WithCancel(context.WithValue(context.Background(), wordKey{}, "luggage"))
	defer end()
	newCall := func(ms int64) *callContext { return newCallContext(session, &v1.Call{DeadlineMs: ms}) }

	c := newCall(0)
	if _, ok := c.Deadline(); ok || !c.endless() || c.Err() != nil || c.Value(wordKey{}) != "luggage" {
		t.Errorf("without a deadline: %v, %v", c.Err(), c.Value(wordKey{}))
	}
	c.cancel(context.Canceled)
	c.cancel(context.DeadlineExceeded)
	<-c.Done()
	if !errors.Is(c.Err(), context.Canceled) || c.wasDrained() {
		t.Errorf("cancelled: %v, drained %v", c.Err(), c.wasDrained())
	}
	c.drain()
	if c.wasDrained() {
		t.Error("drained after its end")
	}

	c = newCall(0)
	c.drain()
	if !errors.Is(c.Err(), context.Canceled) || !c.wasDrained() {
		t.Errorf("drained: %v, %v", c.Err(), c.wasDrained())
	}

	// A deadline ends it whether or not somebody waits.
	c = newCall(1)
	if d, ok := c.Deadline(); !ok || time.Until(d) > time.Millisecond {
		t.Errorf("deadline %v %v", d, ok)
	}
	<-c.Done()
	if !errors.Is(c.Err(), context.DeadlineExceeded) {
		t.Errorf("waited for: %v", c.Err())
	}
	c = newCall(1)
	eventually(t, "the deadline passes unwatched", func() bool { return errors.Is(c.Err(), context.DeadlineExceeded) })
	<-c.Done()

	// The session's end is seen before the server has told the call of it.
	c = newCall(60_000)
	end()
	if !errors.Is(c.Err(), context.Canceled) {
		t.Errorf("after the session's end: %v", c.Err())
	}
	<-c.Done()
	var cut context.CancelFunc
	session, cut = context.WithTimeout(context.Background(), time.Minute)
	defer cut()
	late := newCall(3_600_000)
	if d, ok := late.Deadline(); !ok || time.Until(d) > time.Minute {
		t.Errorf("deadline %v %v, later than the session's", d, ok)
	}
}

// TestContextsOfACallsContext: they end with it, and nobody waits in a goroutine of
// its own until it does.
func TestContextsOfACallsContext(t *testing.T) {
	c := newCallContext(context.Background(), &v1.Call{DeadlineMs: 60_000})
	before := runtime.NumGoroutine()
	type held struct {
		ctx    context.Context
		cancel context.CancelFunc
	}
	var all []held
	for range 50 {
		ctx, cancel := context.WithCancel(c)
		all = append(all, held{ctx, cancel})
	}
	if n := runtime.NumGoroutine() - before; n > 10 {
		t.Errorf("%d goroutines for %d contexts", n, len(all))
	}
	for _, h := range all[:25] {
		h.cancel()
	}
	if n := len(c.after); n != 25 {
		t.Errorf("%d still wait, of whom 25 do", n)
	}
	called := make(chan struct{})
	stop := context.AfterFunc(c, func() { close(called) })
	c.cancel(context.DeadlineExceeded)
	<-called
	if stop() {
		t.Error("stopped what was called")
	}
	for _, h := range all[25:] {
		<-h.ctx.Done()
		if !errors.Is(h.ctx.Err(), context.DeadlineExceeded) || !errors.Is(context.Cause(h.ctx), context.DeadlineExceeded) {
			t.Errorf("%v, cause %v", h.ctx.Err(), context.Cause(h.ctx))
		}
		h.cancel()
	}
	later := make(chan struct{})
	c.AfterFunc(func() { close(later) })
	<-later
}
