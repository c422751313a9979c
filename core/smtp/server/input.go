package server

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"os"
	"sync"
	"time"
)

// blockSize is what one read may bring, and the most a command line may take.
const blockSize = 32 << 10

// An idle connection holds none of these: it takes a block when octets have
// arrived and gives it back when all are used (see takeBlock and release).
var (
	blocks  = sync.Pool{New: func() any { return new([blockSize]byte) }}
	outBufs = sync.Pool{New: func() any { return new([outSize]byte) }}
)

// outSize is how much reply text gathers before it is written without waiting for
// the end of the batch.
const outSize = 2048

var (
	errLineTooLong = errors.New("line too long")
	errBareLF      = errors.New("line ended by a bare LF")
	errDraining    = errors.New("server is shutting down")
)

// input is the connection's unread octets, block[r:w].
type input struct {
	block *[blockSize]byte
	r, w  int
}

func (in *input) unread() []byte {
	if in.block == nil {
		return nil
	}
	return in.block[in.r:in.w]
}

func (in *input) takeBlock() {
	if in.block == nil {
		in.block = blocks.Get().(*[blockSize]byte)
	}
}

// release gives an empty block back.
func (in *input) release() {
	if in.r == in.w && in.block != nil {
		blocks.Put(in.block)
		in.block = nil
	}
	if in.r == in.w {
		in.r, in.w = 0, 0
	}
}

// discard forgets what is unread.
func (in *input) discard() {
	in.r = in.w
	in.release()
}

// fill waits until something more has arrived. It is the only place that waits
// for the client, and thus the only one that must flush: replies to all commands
// that came in one batch leave in one write (RFC 2920 section 3.2).
// The caller leaves room in the block.
func (c *Conn) fill(timeout time.Duration) error {
	if err := c.flush(); err != nil {
		return err
	}
	if c.in.r == c.in.w {
		if !c.bulk {
			c.in.release()
			c.releaseOut()
		}
		c.in.r, c.in.w = 0, 0
	} else if c.in.r > 0 {
		c.in.w = copy(c.in.block[:], c.in.unread())
		c.in.r = 0
	}
	for {
		c.armRead(timeout)
		// Set after the deadline, so that one of the two always sees Shutdown: this
		// line its flag, or the read below its deadline in the past.
		if c.srv.draining.Load() && !c.tx.open {
			return errDraining
		}
		n, err := c.read()
		if n > 0 {
			c.in.w += n
			return nil
		}
		if errors.Is(err, os.ErrDeadlineExceeded) && c.srv.draining.Load() && !c.kicked {
			c.kicked = true // by Shutdown: the transaction may go on
			c.readBy = time.Time{}
			continue
		}
		if err == nil {
			err = io.ErrNoProgress
		}
		return err
	}
}

// read reads once into the room behind the unread octets.
func (c *Conn) read() (int, error) {
	if c.wait != nil {
		return c.wait.read(&c.in)
	}
	if c.in.block != nil || c.bulk {
		c.in.takeBlock()
		return c.nc.Read(c.in.block[c.in.w:])
	}
	// Nothing else to wait on without a buffer (TLS has one of its own): a small one
	// that belongs to the connection.
	if c.small == nil {
		c.small = make([]byte, 512)
	}
	n, err := c.nc.Read(c.small)
	if n > 0 {
		c.in.takeBlock()
		copy(c.in.block[:], c.small[:n])
	}
	return n, err
}

// armRead makes reads fail after timeout, or up to an eighth later: a deadline
// that is about right is left alone, as setting one costs as much as a read.
func (c *Conn) armRead(timeout time.Duration) {
	by := time.Now().Add(timeout)
	if !c.limitBy.IsZero() && c.limitBy.Before(by) {
		by = c.limitBy
	}
	if late := c.readBy.Sub(by); late < 0 || late > timeout/8 {
		c.readBy = by.Add(timeout / 8)
		c.nc.SetReadDeadline(c.readBy)
	}
}

func (c *Conn) armWrite(timeout time.Duration) {
	by := time.Now().Add(timeout)
	if late := c.writeBy.Sub(by); late < 0 || late > timeout/8 {
		c.writeBy = by.Add(timeout / 8)
		c.nc.SetWriteDeadline(c.writeBy)
	}
}

// flush writes the replies gathered so far.
func (c *Conn) flush() error {
	if len(c.out) == 0 {
		return nil
	}
	c.armWrite(c.srv.CommandTimeout)
	_, err := c.nc.Write(c.out)
	c.out = c.out[:0]
	return err
}

func (c *Conn) takeOut() {
	if c.outBuf == nil {
		c.outBuf = outBufs.Get().(*[outSize]byte)
		c.out = c.outBuf[:0]
	}
}

func (c *Conn) releaseOut() {
	if c.outBuf != nil {
		outBufs.Put(c.outBuf)
		c.outBuf, c.out = nil, nil
	}
}

// readLine returns the next line without its end. It is valid until the next
// read. After errLineTooLong and errBareLF the line is gone and the connection
// can go on.
func (c *Conn) readLine(auth bool) ([]byte, error) {
	seen := 0
	defer func() { c.limitBy = time.Time{} }()
	for {
		b := c.in.unread()
		limit := c.srv.MaxLine
		if auth || len(b) >= 5 && bytes.EqualFold(b[:5], []byte("AUTH ")) {
			limit = c.srv.MaxAuthLine
		}
		if i := bytes.IndexByte(b[seen:], '\n'); i >= 0 {
			i += seen
			c.in.r += i + 1
			if i+1 > limit {
				return nil, errLineTooLong
			}
			if i > 0 && b[i-1] == '\r' {
				return b[:i-1], nil
			}
			if !c.tolerateLF {
				return nil, errBareLF
			}
			return b[:i], nil
		}
		if len(b) >= limit {
			return nil, c.skipLine()
		}
		seen = len(b)
		if seen > 0 && c.limitBy.IsZero() {
			c.limitBy = time.Now().Add(c.srv.CommandTimeout) // for all of the line, once begun
		}
		if err := c.fill(c.srv.CommandTimeout); err != nil {
			return nil, err
		}
	}
}

// skipLine drops the rest of a line that is too long. It may take a message's
// time, no longer.
func (c *Conn) skipLine() error {
	c.beginBulk()
	defer c.endBulk()
	for {
		b := c.in.unread()
		if i := bytes.IndexByte(b, '\n'); i >= 0 {
			c.in.r += i + 1
			return errLineTooLong
		}
		c.in.r = c.in.w
		if err := c.fill(c.srv.CommandTimeout); err != nil {
			return err
		}
	}
}

// beginBulk: until endBulk the block is kept between reads, and MessageTimeout runs.
func (c *Conn) beginBulk() {
	c.bulk = true
	c.limitBy = time.Now().Add(c.srv.MessageTimeout)
}

func (c *Conn) endBulk() {
	c.bulk = false
	c.limitBy = time.Time{}
}

// linger lets the last reply arrive although the client is still sending: closing
// with unread input would make the kernel throw the reply away with a reset.
func (c *Conn) linger() {
	if t, ok := c.nc.(*tls.Conn); ok {
		_ = t.CloseWrite()
	}
	half, ok := c.raw.(interface{ CloseWrite() error })
	if !ok || half.CloseWrite() != nil {
		return
	}
	c.in.takeBlock()
	c.raw.SetReadDeadline(time.Now().Add(lingerTime))
	for left := lingerSize; left > 0; {
		n, err := c.raw.Read(c.in.block[:])
		if err != nil {
			return
		}
		left -= n
	}
}

const (
	lingerTime = 2 * time.Second
	lingerSize = 1 << 20
)
