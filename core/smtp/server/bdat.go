package server

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/emersion/go-smtp"
)

// bdat is the BDAT command of RFC 3030. Its chunk follows at once, so whatever is
// wrong with the command, the chunk is read first and never taken for commands.
func (c *Conn) bdat(arg string) {
	sizeText, rest, _ := strings.Cut(arg, " ")
	size, err := strconv.ParseInt(sizeText, 10, 64)
	if err != nil || sizeText[0] < '0' || sizeText[0] > '9' {
		// Nobody knows where the next command begins.
		c.fail(501, smtp.EnhancedCode{5, 5, 4}, "BDAT SIZE [LAST]; closing, as the end of the chunk is unknown")
		c.closing, c.cutOff = true, true
		return
	}
	rest = strings.TrimSpace(rest)
	last := strings.EqualFold(rest, "LAST")
	switch {
	case !last && rest != "":
		if c.skipChunk(size) {
			c.fail(501, smtp.EnhancedCode{5, 5, 4}, "BDAT SIZE [LAST]")
		}
		return
	case !c.tx.open || c.tx.rcpts == 0:
		if c.skipChunk(size) {
			c.mayBeginBody()
		}
		return
	case !c.tx.chunked && !c.beginChunks(size, last):
		return
	}
	if !c.readChunk(size) {
		return
	}
	if last {
		c.tx.scan.finish()
		c.endBody()
		return
	}
	if err := c.bodyFault(); err != nil {
		// RFC 3030 section 2: the transaction failed; chunks yet to come get 503.
		c.reset()
		c.writeError(err)
		return
	}
	c.write(OK(fmt.Sprintf("%d octets received", size)))
}

// beginChunks is for the first chunk. If the message is refused it answers and
// skips the chunk.
func (c *Conn) beginChunks(size int64, last bool) bool {
	replies := 1
	if last && c.srv.LMTP {
		replies = c.tx.rcpts
	}
	w, err := c.session.Body(c.ctx)
	if err != nil {
		c.reset()
		if c.skipChunk(size) {
			for range replies {
				c.writeError(err)
			}
		}
		return false
	}
	c.startBody(w)
	c.tx.chunked = true
	return true
}

// readChunk hands size octets to the Session. It returns false when the connection failed.
func (c *Conn) readChunk(size int64) bool {
	c.beginBulk()
	defer c.endBulk()
	for size > 0 {
		if b := c.in.unread(); len(b) > 0 {
			b = b[:min(int64(len(b)), size)]
			out := b
			if !c.tx.binary {
				_, out, _ = c.tx.scan.scan(b)
			}
			c.in.r += len(b)
			size -= int64(len(b))
			if c.tx.scan.fault == faultNone {
				c.tx.sink.write(out)
			}
			continue
		}
		if err := c.fill(c.srv.DataTimeout); err != nil {
			c.readFailed(err)
			return false
		}
	}
	return true
}

// skipChunk drops size octets.
func (c *Conn) skipChunk(size int64) bool {
	c.beginBulk()
	defer c.endBulk()
	for {
		n := min(int64(len(c.in.unread())), size)
		c.in.r += int(n)
		size -= n
		if size == 0 {
			return true
		}
		if err := c.fill(c.srv.DataTimeout); err != nil {
			c.readFailed(err)
			return false
		}
	}
}
