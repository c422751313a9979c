package server

import (
	"bytes"
	"fmt"
	"io"

	"github.com/emersion/go-smtp"
)

// bodyScanner turns what DATA (or a text BDAT) sends into the message and finds
// its end. It looks at blocks, not octets: one search per line for LF, and one
// pass each per block for CR and NUL.
//
// Invariants: only CRLF.CRLF ends a message (the CRLF of the DATA command counts
// as the first). A fault never ends it; the caller reads on to the real end, so
// that no octet of a message is ever read as a command.
type bodyScanner struct {
	dots       bool // DATA: undo dot-stuffing and look for the end
	tolerateLF bool // a bare LF becomes CRLF
	maxLine    int  // without CRLF; 0: none

	afterCRLF bool // the next octet begins a line; DATA begins so
	afterLF   bool // the same after a tolerated LF: stuffing is undone, but this is no end
	cr        bool // the last octet was CR, and LF may follow in the next block
	lineLen   int  // of the line so far
	bareCRs   int  // CRs minus CRLFs
	fault     bodyFault
	scratch   []byte // where a block grows when LF becomes CRLF
}

type bodyFault int

const (
	faultNone bodyFault = iota
	faultBareLF
	faultBareCR
	faultNUL
	faultLongLine
)

// reply is the refusal for f.
func (f bodyFault) reply(maxLine int) Reply {
	var text string
	switch f {
	case faultBareLF:
		text = "The message has a bare LF: lines end with CRLF (RFC 5321 section 2.3.8)"
	case faultBareCR:
		text = "The message has a bare CR: lines end with CRLF (RFC 5321 section 2.3.8)"
	case faultNUL:
		text = "The message has a NUL: encode it (RFC 5322 section 4)"
	case faultLongLine:
		text = fmt.Sprintf("The message has a line of more than %d octets: encode it", maxLine)
	}
	return NewReply(554, smtp.EnhancedCode{5, 6, 0}, text)
}

func (s *bodyScanner) flag(f bodyFault) {
	if s.fault == faultNone {
		s.fault = f
	}
}

// scan takes n octets of b and returns what they add to the message, in b's own
// memory (or scratch), and whether they end it. It leaves up to two octets
// when only the next ones tell whether this is the end.
func (s *bodyScanner) scan(b []byte) (n int, out []byte, end bool) {
	var (
		i, w, from int  // b[from:i] is message but not yet moved to b[w:]
		grown      bool // output is in scratch
	)
	move := func(to int) {
		if grown {
			s.scratch = append(s.scratch, b[from:to]...)
		} else {
			if w != from {
				copy(b[w:], b[from:to])
			}
			w += to - from
		}
	}
	for i < len(b) {
		if s.dots && b[i] == '.' && (s.afterCRLF || s.afterLF) {
			if s.afterCRLF {
				rest := b[i+1:]
				if len(rest) == 0 || len(rest) == 1 && rest[0] == '\r' {
					n = i
					break
				}
				if rest[0] == '\r' && rest[1] == '\n' {
					n, end = i+3, true
					break
				}
			}
			// RFC 5321 section 4.5.2: the first of a line's dots is not the message's.
			move(i)
			i++
			from = i
		}
		s.afterCRLF, s.afterLF = false, false
		j := bytes.IndexByte(b[i:], '\n')
		if j < 0 {
			if i < len(b) {
				s.lineLen += len(b) - i
				s.cr = b[len(b)-1] == '\r'
				i = len(b)
			}
			n = i
			break
		}
		j += i
		length := s.lineLen + j - i
		switch {
		case j > i && b[j-1] == '\r' || j == i && s.cr:
			length--
			s.bareCRs--
			s.afterCRLF = true
		case s.tolerateLF:
			move(j)
			if !grown {
				s.scratch = append(s.scratch[:0], b[:w]...)
				grown = true
			}
			s.scratch = append(s.scratch, "\r\n"...)
			from = j + 1
			s.bareCRs-- // of the one just made
			s.afterLF = true
		default:
			s.flag(faultBareLF)
		}
		if s.maxLine > 0 && length > s.maxLine {
			s.flag(faultLongLine)
		}
		s.lineLen, s.cr = 0, false
		i = j + 1
		n = i
	}
	move(i)
	out = b[:w]
	if grown {
		out = s.scratch
	}
	s.check(out)
	return n, out, end
}

// check looks for what no search for LF finds.
func (s *bodyScanner) check(out []byte) {
	s.bareCRs += bytes.Count(out, []byte{'\r'})
	if s.bareCRs > 1 || s.bareCRs == 1 && !s.cr {
		s.flag(faultBareCR)
	}
	if bytes.IndexByte(out, 0) >= 0 {
		s.flag(faultNUL)
	}
	if s.maxLine > 0 && s.lineLen > s.maxLine+1 { // the one may be the CR of its end
		s.flag(faultLongLine)
	}
}

// finish is for a text that ends without CRLF.CRLF (BDAT).
func (s *bodyScanner) finish() {
	if s.cr {
		s.flag(faultBareCR)
	}
	if s.maxLine > 0 && s.lineLen > s.maxLine {
		s.flag(faultLongLine)
	}
}

// sink writes to the Session until something is wrong with the message.
type sink struct {
	w    io.Writer
	size int64
	max  int64 // 0: none
	err  error // why the message is refused
}

func (k *sink) write(b []byte) {
	if k.err != nil || len(b) == 0 {
		return
	}
	k.size += int64(len(b))
	if k.max > 0 && k.size > k.max {
		k.err = tooBig(k.max).Err()
		return
	}
	_, k.err = k.w.Write(b)
}

func tooBig(limit int64) Reply {
	// RFC 1870 section 6.1
	return NewReply(552, smtp.EnhancedCode{5, 3, 4}, fmt.Sprintf("Message is larger than %d octets", limit))
}

// data is the DATA command.
func (c *Conn) data(arg string) {
	if arg != "" {
		c.fail(501, smtp.EnhancedCode{5, 5, 4}, "DATA takes no argument")
		return
	}
	if !c.mayBeginBody() {
		return
	}
	if c.tx.binary {
		// RFC 3030 section 3
		c.fail(503, smtp.EnhancedCode{5, 5, 1}, "A BINARYMIME message is sent with BDAT")
		return
	}
	if c.tx.chunked {
		c.fail(503, smtp.EnhancedCode{5, 5, 1}, "DATA cannot follow BDAT")
		return
	}
	w, err := c.session.Body(c.ctx)
	if err != nil {
		c.reset()
		c.writeError(err)
		return
	}
	c.startBody(w)
	c.write(Reply{354, smtp.NoEnhancedCode, []string{"End the message with CRLF.CRLF"}})
	s := &c.tx.scan
	s.dots, s.afterCRLF = true, true
	c.beginBulk()
	for {
		if b := c.in.unread(); len(b) > 0 {
			n, out, end := s.scan(b)
			c.in.r += n
			if s.fault == faultNone {
				c.tx.sink.write(out)
			}
			if end {
				break
			}
		}
		if err := c.fill(c.srv.DataTimeout); err != nil {
			// What is still to come is message, not commands: no way back.
			c.readFailed(err)
			return
		}
	}
	c.endBulk()
	c.endBody()
}

// mayBeginBody answers for a DATA or BDAT out of order.
func (c *Conn) mayBeginBody() bool {
	switch {
	case !c.tx.open:
		c.fail(503, smtp.EnhancedCode{5, 5, 1}, "MAIL first")
	case c.tx.rcpts == 0 && c.srv.LMTP:
		c.fail(503, smtp.EnhancedCode{5, 5, 1}, "No valid recipients") // RFC 2033 section 4.2
	case c.tx.rcpts == 0:
		c.write(NewReply(554, smtp.EnhancedCode{5, 5, 1}, "No valid recipients")) // RFC 5321 section 3.3
	default:
		return true
	}
	return false
}

// startBody makes the transaction ready for the message.
func (c *Conn) startBody(w io.Writer) {
	c.tx.sink = sink{w: w, max: c.srv.MaxSize}
	c.tx.scan = bodyScanner{tolerateLF: c.tolerateLF, maxLine: c.srv.MaxBodyLine}
}

// bodyFault returns why the message so far is refused, or nil.
func (c *Conn) bodyFault() error {
	if f := c.tx.scan.fault; f != faultNone {
		return f.reply(c.srv.MaxBodyLine).Err()
	}
	return c.tx.sink.err
}

// endBody answers for a whole message.
func (c *Conn) endBody() {
	want := 1
	if c.srv.LMTP {
		want = c.tx.rcpts // RFC 2033 section 4.2
	}
	if err := c.bodyFault(); err != nil {
		c.reset()
		for range want {
			c.writeError(err)
		}
		return
	}
	c.tx = transaction{}
	replies := c.session.Done(c.ctx)
	for i := range want {
		r := Reply{Code: 451, Enhanced: smtp.EnhancedCode{4, 3, 0}, Lines: []string{"No result for this recipient"}}
		if i < len(replies) && replies[i].Code != 0 {
			r = replies[i]
		}
		if !r.refused() {
			c.errors = 0
		}
		c.write(r)
		if r.Code == 421 {
			c.closing = true
		}
	}
}
