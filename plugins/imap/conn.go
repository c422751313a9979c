package imap

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Limits of what one command may be. imapserver's own are larger and are thus
// never met: it goes on parsing in the middle of what it refused.
const (
	maxCommand      = 48 << 10
	maxLiteral      = 4 << 10
	maxContinuation = 4000
	maxTag          = 64
)

// phase is how much of a command the parser above has been given.
type phase int

const (
	// between commands.
	between phase = iota
	// message: the line that announces APPEND's message; the message follows.
	message
	// tail: the message; the rest of the command follows.
	tail
	// sent: the whole command.
	sent
)

func (p phase) String() string { return [...]string{"between", "message", "tail", "sent"}[p] }

// conn stands between the network (above TLS) and imapserver. It frames the
// client's commands itself, so that what the parser refuses is never run as a
// command, and it gathers the replies, so that a FETCH of 10,000 lines is not
// 10,000 writes.
//
// Invariants: the parser gets one command at a time, and the next one only after
// it answered with the tag; it never sees a literal but APPEND's message: the
// others reach it as quoted strings, with no line end in them. Only the
// parser's goroutine reads; any goroutine may write.
type conn struct {
	net.Conn
	server *Server
	secure bool
	source netip.Prefix
	begun  time.Time

	in    *bufio.Reader
	phase phase
	// inside: a part of the command has been read.
	inside   bool
	tag      string
	verb     string
	pending  []byte
	literal  int64
	nonSync  bool
	utf8     bool
	ended    bool
	upgrade  string
	loggedIn atomic.Bool
	reason   atomic.Pointer[string]

	closing sync.Once
	output
}

func newConn(s *Server, nc net.Conn, secure bool, source netip.Prefix) *conn {
	c := &conn{Conn: nc, server: s, secure: secure, source: source, begun: time.Now()}
	c.output.to, c.output.timeout = nc, s.config.WriteTimeout
	c.in = bufio.NewReaderSize(wire{c}, 1024)
	return c
}

// Deadlines are the conn's own business: see wire and output.
func (c *conn) SetDeadline(time.Time) error      { return nil }
func (c *conn) SetReadDeadline(time.Time) error  { return nil }
func (c *conn) SetWriteDeadline(time.Time) error { return nil }

func (c *conn) Write(p []byte) (int, error) { return c.output.write(p) }

// Close ends the connection, or hands it back to the server for STARTTLS.
func (c *conn) Close() error {
	c.closing.Do(func() {
		c.output.flush()
		c.server.finished(c)
	})
	return nil
}

// wire reads from the network. Replies go out before it waits, and the deadline
// is the one of what is waited for.
type wire struct{ c *conn }

func (w wire) Read(p []byte) (int, error) {
	c := w.c
	woken := false
	for {
		if err := c.output.beforeRead(); err != nil {
			return 0, err
		}
		c.Conn.SetReadDeadline(c.deadline())
		if why := c.reason.Load(); why != nil && c.waiting() {
			c.output.afterRead()
			return 0, c.bye(*why)
		}
		n, err := c.Conn.Read(p)
		c.output.afterRead()
		if n > 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
			return n, err
		}
		switch {
		case c.reason.Load() != nil && !woken:
			// The deadline was hangUp's: a command under way may go on.
			woken = true
			continue
		case !c.loggedIn.Load():
			return 0, c.bye("Took too long to log in")
		}
		return 0, c.bye("Idle for too long")
	}
}

// waiting: the client may be silent here for long.
func (c *conn) waiting() bool {
	return c.in.Buffered() == 0 && !c.inside && (c.phase == between || c.phase == sent)
}

func (c *conn) deadline() time.Time {
	switch {
	case !c.loggedIn.Load():
		return c.begun.Add(c.server.config.LoginTimeout)
	case c.waiting():
		return time.Now().Add(c.server.config.IdleTimeout)
	}
	return time.Now().Add(c.server.config.ReadTimeout)
}

// bye ends the connection with a word (RFC 9051 section 7.1.5).
func (c *conn) bye(text string) error {
	if !c.ended {
		c.ended = true
		c.output.untagged("* BYE " + text + "\r\n")
	}
	return io.EOF
}

// Read gives the parser the next piece of its command, or the next command.
func (c *conn) Read(p []byte) (int, error) {
	for len(c.pending) == 0 {
		if c.ended || c.upgrade != "" {
			return 0, io.EOF
		}
		answered, invited := c.output.answer()
		switch {
		case c.phase == message && answered:
			// Refused before it was read. What the client sends without being
			// invited is already on its way (RFC 7888) and is thrown away.
			if c.nonSync || invited {
				if err := c.discard(); err != nil {
					return 0, c.failed(err)
				}
			}
			c.phase = between
		case c.phase == message && c.literal > 0:
			if int64(len(p)) > c.literal {
				p = p[:c.literal]
			}
			n, err := c.in.Read(p)
			c.literal -= int64(n)
			if c.literal == 0 {
				c.phase = tail
			}
			if n > 0 {
				return n, nil
			}
			return 0, c.failed(err)
		case c.phase == message:
			c.phase = tail
		case c.phase == tail:
			if err := c.readTail(); err != nil {
				return 0, c.failed(err)
			}
		case c.phase == sent && !answered:
			if err := c.continuation(); err != nil {
				return 0, c.failed(err)
			}
		default:
			c.phase = between
			if err := c.readCommand(); err != nil {
				return 0, c.failed(err)
			}
		}
	}
	n := copy(p, c.pending)
	if c.pending = c.pending[n:]; len(c.pending) == 0 {
		c.pending = nil
	}
	return n, nil
}

// failed ends reading. To imapserver every end is an EOF: it would log others.
func (c *conn) failed(err error) error {
	c.ended = true
	if errors.Is(err, errTooLong) {
		c.ended = false
		return c.bye("Line or literal too long")
	}
	return io.EOF
}

var errTooLong = errors.New("too long")

// readLine reads to the line end and leaves that out.
func (c *conn) readLine(limit int) ([]byte, error) {
	var line []byte
	for {
		part, err := c.in.ReadSlice('\n')
		if len(line)+len(part) > limit {
			return nil, errTooLong
		}
		line = append(line, part...)
		c.inside = true
		if err == bufio.ErrBufferFull {
			continue
		}
		if err != nil {
			return nil, err
		}
		return bytes.TrimSuffix(bytes.TrimSuffix(line, []byte("\n")), []byte("\r")), nil
	}
}

// discard throws away a message that the client sends unasked, and what follows
// it in its command.
func (c *conn) discard() error {
	if _, err := io.CopyN(io.Discard, c.in, c.literal); err != nil {
		return err
	}
	c.literal = 0
	for {
		line, err := c.readLine(maxCommand)
		if err != nil {
			return err
		}
		if _, n, nonSync, ok := literalAt(line); !ok || !nonSync {
			return nil
		} else if n > maxLiteral {
			return errTooLong
		} else if _, err := io.CopyN(io.Discard, c.in, n); err != nil {
			return err
		}
	}
}

// readTail reads what follows APPEND's message. imapserver takes one message:
// with anything more it would not answer at all.
func (c *conn) readTail() error {
	line, err := c.readLine(maxContinuation)
	if err != nil {
		return err
	}
	if want := map[bool]string{false: "", true: ")"}[c.utf8]; string(line) != want {
		return c.bye("APPEND takes one message")
	}
	c.pending, c.phase = append(line, "\r\n"...), sent
	return nil
}

// continuation passes on a line that belongs to the command under way: a SASL
// response or DONE. For any other the parser wants more than a command has.
func (c *conn) continuation() error {
	if c.verb != "AUTHENTICATE" && c.verb != "IDLE" {
		return c.bye("Command could not be understood")
	}
	defer func() { c.inside = false }()
	line, err := c.readLine(maxContinuation)
	if err != nil {
		return err
	}
	if c.verb == "IDLE" && bytes.EqualFold(line, []byte("DONE")) {
		line = []byte("DONE")
	}
	c.pending = append(line, "\r\n"...)
	return nil
}

// readCommand reads a whole command up to its end or to APPEND's message.
func (c *conn) readCommand() error {
	defer func() { c.inside = false }()
	c.inside = false
	var command []byte
	spoilt := false
	for first := true; ; first = false {
		line, err := c.readLine(maxCommand - len(command))
		if err != nil {
			return err
		}
		if first {
			if len(bytes.TrimSpace(line)) == 0 {
				return nil
			}
			c.tag, c.verb = words(line)
			if len(c.tag) > maxTag || strings.ContainsAny(c.tag, "+*") {
				return c.bye("Bad tag")
			}
		}
		prefix, n, nonSync, ok := literalAt(line)
		if !ok {
			command = append(command, line...)
			break
		}
		if c.verb == "APPEND" && !(first && len(bytes.Fields(prefix)) == 2) {
			return c.announce(append(command, line...), n, nonSync)
		}
		if n > maxLiteral || len(command)+len(prefix)+2*int(n) > maxCommand {
			if nonSync {
				return errTooLong
			}
			// The client has not sent it and, without "+", will not.
			c.say("NO [TOOBIG] Literals are limited to " + strconv.Itoa(maxLiteral) + " octets here")
			return nil
		}
		if !nonSync {
			c.output.untagged("+ Ready for literal data\r\n")
		}
		value := make([]byte, n)
		if _, err := io.ReadFull(c.in, value); err != nil {
			return err
		}
		spoilt = spoilt || bytes.ContainsAny(value, "\r\n\x00")
		command = appendQuoted(append(command, prefix...), value)
	}
	switch {
	case spoilt:
		c.say("BAD Line ends and NUL are not allowed in this literal")
		return nil
	case c.verb == "STARTTLS" && c.canUpgrade():
		if c.in.Buffered() > 0 {
			// What came in the clear must not count after the handshake.
			return c.bye("Nothing may follow STARTTLS before the handshake")
		}
		c.upgrade = c.tag
		return nil
	case c.verb == "ID":
		c.output.untagged("* ID (\"name\" \"Stagecoach\")\r\n")
		c.say("OK ID completed")
		return nil
	}
	c.give(append(command, "\r\n"...), sent)
	return nil
}

// announce passes on the line that announces APPEND's message, if it may come.
func (c *conn) announce(line []byte, size int64, nonSync bool) error {
	switch {
	case !c.loggedIn.Load():
		return c.bye("Log in first")
	case nonSync && size > maxLiteral:
		// LITERAL- (RFC 7888 section 5).
		return errTooLong
	case size > int64(c.server.config.MaxMessage):
		if nonSync {
			return errTooLong
		}
		c.say(fmt.Sprintf("NO [TOOBIG] Messages are limited to %d octets", c.server.config.MaxMessage))
		return nil
	}
	c.literal, c.nonSync = size, nonSync
	c.utf8 = bytes.HasSuffix(line[:bytes.LastIndexByte(line, '{')], []byte("(~"))
	c.give(append(line, "\r\n"...), message)
	return nil
}

func (c *conn) give(b []byte, p phase) {
	c.pending, c.phase = b, p
	c.output.expect(c.tag)
}

// say answers the command at hand without the parser.
func (c *conn) say(text string) {
	c.output.untagged(c.tag + " " + text + "\r\n")
}

func (c *conn) canUpgrade() bool {
	return !c.secure && !c.loggedIn.Load() && c.server.host.TLS != nil
}

// words returns the tag and the command's name.
func words(line []byte) (tag, verb string) {
	tag, rest, _ := strings.Cut(string(line), " ")
	verb, _, _ = strings.Cut(rest, " ")
	return tag, strings.ToUpper(verb)
}

// literalAt tells whether a line ends with the announcement of a literal
// (RFC 9051 section 4.3), and what stands before it.
func literalAt(line []byte) (prefix []byte, size int64, nonSync, ok bool) {
	if !bytes.HasSuffix(line, []byte("}")) {
		return line, 0, false, false
	}
	i := bytes.LastIndexByte(line, '{')
	if i < 0 {
		return line, 0, false, false
	}
	digits := string(line[i+1 : len(line)-1])
	digits, nonSync = strings.CutSuffix(digits, "+")
	n, err := strconv.ParseUint(digits, 10, 62)
	if err != nil {
		return line, 0, false, false
	}
	return line[:i], int64(n), nonSync, true
}

// appendQuoted writes a value as a quoted string (RFC 9051 section 4.3).
func appendQuoted(b, value []byte) []byte {
	b = append(b, '"')
	for _, ch := range value {
		if ch == '"' || ch == '\\' {
			b = append(b, '\\')
		}
		b = append(b, ch)
	}
	return append(b, '"')
}

// hangUp asks the client to go: at once if it waits, else after its command.
func (c *conn) hangUp(why string) {
	c.reason.CompareAndSwap(nil, &why)
	c.Conn.SetReadDeadline(time.Unix(1, 0))
}
