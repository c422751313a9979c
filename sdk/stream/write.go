package stream

import (
	"errors"
	"io"
	"sync"
)

// atOnce is how many octets of calls without an answer a caller may add to by
// writing itself. gRPC takes 64 KiB that the other side has not read before Send
// waits (internal/transport, defaultWriteQuota), and what was answered was read.
const atOnce = 32 << 10

// prefix is what gRPC writes before a message, in octets.
const prefix = 5

// rounds of writing that a caller makes before it goes and waits for its answer.
const rounds = 4

// writer sends a Conn's frames, in the order of its queue, by one goroutine at a
// time: the caller whose frame finds nobody writing, and with it those of the
// callers that come meanwhile; or the writer's own, where Send may wait for the
// other side. Conn.mu guards all but s.
//
// A peer that answers calls which it has not read can make a caller wait beyond
// its deadline, until the session ends; by then others have given up theirs, and
// the host ends it (see Abandoned).
type writer struct {
	s FrameStream
	// buffered: Send does not wait for the other side to read.
	buffered bool
	queue    []outgoing
	spare    []outgoing
	open     int  // octets of frames whose calls were not answered
	busy     bool // somebody writes, or was told to
	wake     chan struct{}
	sending  sync.Mutex // one Send, or CloseSend, at a time
}

// outgoing is a frame to write; call is set for a Call frame.
type outgoing struct {
	frame *packed
	call  *call
}

func (w *writer) init(s FrameStream) {
	w.s, w.wake = s, make(chan struct{}, 1)
	_, w.buffered = s.(messages)
}

// put queues a frame of k's; begins tells that it is the call's first. mine: the
// caller, when it has unlocked, is to flush.
func (w *writer) put(p *packed, k *call, begins bool) (mine bool) {
	n := len(p.frame) + prefix
	k.octets += n
	w.open += n
	o := outgoing{frame: p}
	if begins {
		o.call = k
	}
	w.queue = append(w.queue, o)
	if w.busy {
		return false
	}
	w.busy = true
	if begins && w.buffered && w.open <= atOnce {
		return true
	}
	signal(w.wake)
	return false
}

// run sends what callers do not, until the session ends.
func (w *writer) run(c *Conn) {
	for {
		select {
		case <-c.done:
			if s, ok := w.s.(interface{ CloseSend() error }); ok {
				w.sending.Lock()
				_ = s.CloseSend()
				w.sending.Unlock()
			}
			return
		case <-w.wake:
			w.send(c, 0)
		}
	}
}

// send writes what is queued until nothing is and somebody else may begin. A caller
// does so for most rounds at most, and not where Send may wait: then the writer's
// own goroutine, which has no such bound (0), goes on.
func (w *writer) send(c *Conn, most int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for n := 0; len(w.queue) > 0; n++ {
		if most > 0 && (n == most || w.open > atOnce) {
			signal(w.wake)
			return
		}
		batch := w.queue
		w.queue = w.spare[:0]
		w.spare = nil
		c.mu.Unlock()
		w.write(c, batch)
		clear(batch)
		c.mu.Lock()
		w.spare = batch
	}
	w.busy = false
}

// write sends these frames.
func (w *writer) write(c *Conn, batch []outgoing) {
	w.sending.Lock()
	defer w.sending.Unlock()
	for _, o := range batch {
		if o.call != nil && !c.markSent(o.call) {
			continue
		}
		if err := o.frame.send(w.s); err != nil {
			// io.EOF means that Recv knows the reason.
			if !errors.Is(err, io.EOF) {
				c.end(err)
			}
			return
		}
	}
}

// markSent notes that the call is about to be written; false if the session has
// ended, so that what was never written is known to be so.
func (c *Conn) markSent(k *call) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return false
	}
	k.sent = true
	return true
}
