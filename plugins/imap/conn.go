package imap

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"sync/atomic"
	"time"
)

// conn is a connection: its lines, its octets and its time limits. One goroutine
// reads and writes it; others may only hangUp, wake and close it.
type conn struct {
	server *Server
	source netip.Prefix
	begun  time.Time
	// raw is the socket; stream is what is talked over: raw, TLS on it, or a
	// compression on either.
	raw    net.Conn
	stream io.ReadWriter
	secure bool
	in     *bufio.Reader
	out    output

	loggedIn bool
	// waiting: the client may be silent for long, and may be told things.
	waiting bool
	woken   atomic.Bool
	reason  atomic.Pointer[string]
}

// What ends a wait for the client.
var (
	errWoken     = errors.New("woken")
	errHungUp    = errors.New("hung up")
	errIdle      = errors.New("idle for too long")
	errNoLogin   = errors.New("took too long to log in")
	errTooLong   = errors.New("line or literal too long")
	errHalfFrame = errors.New("the rest of a command did not come")
)

func newConn(s *Server, nc net.Conn, source netip.Prefix) *conn {
	c := &conn{server: s, raw: nc, source: source, begun: time.Now()}
	c.out.c = c
	c.use(nc)
	return c
}

// use talks over stream from now on; what was read ahead from the old one is gone
// (RFC 9051 section 6.2.1).
func (c *conn) use(stream io.ReadWriter) {
	c.stream = stream
	c.in = bufio.NewReaderSize(reader{c}, 1024)
}

// reader reads from the network: replies go out before it waits, and the deadline
// is the one of what is waited for.
type reader struct{ c *conn }

func (r reader) Read(p []byte) (int, error) {
	c := r.c
	if err := c.out.flush(); err != nil {
		return 0, err
	}
	for {
		limit, late := c.deadline()
		c.raw.SetReadDeadline(limit)
		if c.waiting {
			// Both are set before the deadline is moved, so none is missed.
			switch {
			case c.reason.Load() != nil:
				return 0, errHungUp
			case c.woken.Swap(false):
				return 0, errWoken
			}
		}
		n, err := c.stream.Read(p)
		if n > 0 {
			c.waiting = false
			return n, nil
		}
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			return 0, err
		}
		if !time.Now().Before(limit) {
			return 0, late
		}
	}
}

// restart gives the client the time to log in anew.
func (c *conn) restart() { c.begun = time.Now() }

func (ss *session) handshakeContext() (context.Context, context.CancelFunc) {
	return context.WithDeadline(ss.ctx, ss.begun.Add(ss.s.config.LoginTimeout))
}

func (c *conn) deadline() (time.Time, error) {
	switch {
	case !c.loggedIn:
		return c.begun.Add(c.server.config.LoginTimeout), errNoLogin
	case c.waiting:
		return time.Now().Add(c.server.config.IdleTimeout), errIdle
	}
	return time.Now().Add(c.server.config.ReadTimeout), errHalfFrame
}

// hangUp asks the client to go: at once if it waits, else after its command.
func (c *conn) hangUp(why string) {
	c.reason.CompareAndSwap(nil, &why)
	c.raw.SetReadDeadline(time.Unix(1, 0))
}

// wake makes a read that waits for the client return errWoken.
func (c *conn) wake() {
	c.woken.Store(true)
	c.raw.SetReadDeadline(time.Unix(1, 0))
}

// firstLine reads the line that the client may take its time for.
func (c *conn) firstLine(limit int) ([]byte, error) {
	c.waiting = c.in.Buffered() == 0
	defer func() { c.waiting = false }()
	return c.readLine(nil, limit)
}

// readLine reads to the line end, which it leaves out, and appends to b.
func (c *conn) readLine(b []byte, limit int) ([]byte, error) {
	for {
		part, err := c.in.ReadSlice('\n')
		if len(b)+len(part) > limit {
			return nil, errTooLong
		}
		b = append(b, part...)
		if err == bufio.ErrBufferFull {
			continue
		}
		if err != nil {
			return nil, err
		}
		b = b[:len(b)-1]
		if n := len(b); n > 0 && b[n-1] == '\r' {
			b = b[:n-1]
		}
		return b, nil
	}
}
