package protocol

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync/atomic"
	"time"
)

// Macros are Sendmail's by name: one letter, or several in braces.
type Macros map[string]string

// usual macros of each stage: those that Sendmail and Postfix give without being
// told, so that a milter made for them finds what it looks for.
var usual = map[Stage][]string{
	StageConnect: {"j", "_", "v", "{daemon_name}", "{daemon_addr}", "{client_addr}", "{client_name}", "{client_ptr}", "{client_port}", "{client_resolve}"},
	StageHelo:    {"{tls_version}", "{cipher}", "{cipher_bits}"},
	StageMail:    {"i", "{auth_type}", "{auth_authen}", "{auth_author}", "{mail_addr}", "{mail_host}", "{mail_mailer}"},
	StageRcpt:    {"i", "{rcpt_addr}", "{rcpt_host}", "{rcpt_mailer}"},
	StageData:    {"i"},
	StageEOH:     {"i"},
	StageEOM:     {"i"},
}

// Conn is a connection to a milter after the negotiation. It is for one goroutine
// at a time. After an error it is of no use but to be closed.
type Conn struct {
	// Options that were agreed on; read only.
	Options Options
	// Patience is how long an answer, or a sign that one is being worked on, may
	// take.
	Patience time.Duration
	// Deadline ends all waiting, whatever progress there is; zero: never.
	Deadline time.Time

	nc          net.Conn
	r           *bufio.Reader
	w           *bufio.Writer
	interrupted atomic.Bool
}

// Open negotiates on a connection that was just made. It closes nc if that fails.
func Open(nc net.Conn, offer Options, patience time.Duration, deadline time.Time) (*Conn, error) {
	c := &Conn{Patience: patience, Deadline: deadline, nc: nc, r: bufio.NewReader(nc), w: bufio.NewWriterSize(nc, 32<<10)}
	code, data, err := c.exchange(CommandNegotiate, offer.packet())
	if err == nil && Command(code) != CommandNegotiate {
		err = broken("it answers the negotiation with %q", string(rune(code)))
	}
	if err == nil {
		c.Options, err = parseOptions(data, offer)
	}
	if err != nil {
		_ = nc.Close()
		return nil, fmt.Errorf("negotiate: %w", err)
	}
	return c, nil
}

// Offer is what is offered to a milter that may do these actions; chunk is how
// much of a body may go at once (64 KiB, 256 KiB or 1 MiB).
func Offer(actions Actions, chunk int64) Options {
	o := Options{Version: Version, Actions: actions, Steps: allButSize}
	if chunk >= 256<<10 {
		o.Steps |= MaxData256K
	}
	if chunk >= 1<<20 {
		o.Steps |= MaxData1M
	}
	return o
}

// chunk is how much of a body goes at once: one octet less than the size, as
// libmilter counts.
func (c *Conn) chunk() int {
	switch {
	case c.Options.Steps&MaxData1M != 0:
		return 1<<20 - 1
	case c.Options.Steps&MaxData256K != 0:
		return 256<<10 - 1
	}
	return 64<<10 - 1
}

// Interrupt ends what waits, and all that would wait after it; it may be called
// from another goroutine.
func (c *Conn) Interrupt() {
	c.interrupted.Store(true)
	_ = c.nc.SetDeadline(time.Unix(1, 0))
}

// Close ends the connection without a word.
func (c *Conn) Close() error { return c.nc.Close() }

// Quit says goodbye and ends the connection.
func (c *Conn) Quit() error {
	_ = c.nc.SetDeadline(time.Now().Add(time.Second))
	err := writePacket(c.w, byte(CommandQuit))
	if err == nil {
		err = c.w.Flush()
	}
	return errors.Join(err, c.nc.Close())
}

// ErrPatience: the milter did not answer in time.
var ErrPatience = errors.New("the milter does not answer")

// errConnFail is ConnFail, which is no verdict.
var errConnFail = errors.New("the milter says that it cannot serve")

// arm bounds the next wait.
func (c *Conn) arm() error {
	at := time.Now().Add(c.Patience)
	if !c.Deadline.IsZero() && c.Deadline.Before(at) {
		at = c.Deadline
	}
	err := c.nc.SetDeadline(at)
	// After the deadline, not before it: Interrupt may come in between.
	if c.interrupted.Load() {
		return ErrPatience
	}
	return err
}

func (c *Conn) exchange(command Command, data ...[]byte) (code byte, answer []byte, err error) {
	if err = c.arm(); err == nil {
		err = writePacket(c.w, byte(command), data...)
	}
	if err == nil {
		err = c.w.Flush()
	}
	if err == nil {
		code, answer, err = readPacket(c.r)
	}
	return code, answer, c.explain(err)
}

func (c *Conn) explain(err error) error {
	var late net.Error
	if errors.As(err, &late) && late.Timeout() {
		return fmt.Errorf("%w: %w", ErrPatience, err)
	}
	return err
}

// send writes a command that has no answer; it may stay in the buffer.
func (c *Conn) send(command Command, data ...[]byte) error {
	if err := c.arm(); err != nil {
		return err
	}
	return c.explain(writePacket(c.w, byte(command), data...))
}

// macros are sent before their command, also if that is not wanted: they hold for
// what comes after it.
func (c *Conn) macros(command Command, stage Stage, facts Macros) error {
	names, named := c.Options.Macros[stage]
	if !named {
		names = usual[stage]
	}
	data := []byte{byte(command)}
	for _, name := range names {
		value, known := facts[name]
		if !known && len(name) == 1 {
			value, known = facts["{"+name+"}"]
		}
		if !known && len(name) == 3 && name[0] == '{' {
			value, known = facts[name[1:2]]
		}
		if known {
			data = append(data, text(name, value)...)
		}
	}
	if len(data) == 1 {
		return nil
	}
	return c.send(CommandMacros, data)
}

// ask sends a command unless the milter does not want to hear it, and reads the
// answer unless it gives none.
func (c *Conn) ask(command Command, unwanted, silent Steps, data ...[]byte) (Answer, error) {
	if c.Options.Steps&unwanted != 0 {
		return Answer{Code: Continue}, nil
	}
	if c.Options.Steps&silent != 0 {
		return Answer{Code: Continue}, c.send(command, data...)
	}
	code, got, err := c.exchange(command, data...)
	for err == nil {
		var a *Answer
		var change *Change
		if a, change, err = parse(code, got); err != nil {
			break
		}
		switch {
		case change != nil:
			return Answer{}, broken("it changes the message (%q) before the end of it", string(change.Code))
		case a.Code == Skip && (command != CommandBody || c.Options.Steps&CanSkip == 0):
			return Answer{}, broken("it skips what cannot be skipped")
		case a.Code == ConnFail:
			return Answer{}, errConnFail
		case a.Code != Progress:
			return *a, nil
		}
		code, got, err = c.next()
	}
	return Answer{}, err
}

// next reads a further packet, with new patience.
func (c *Conn) next() (byte, []byte, error) {
	if err := c.arm(); err != nil {
		return 0, nil, err
	}
	code, data, err := readPacket(c.r)
	return code, data, c.explain(err)
}

// Family of a client's address (SMFIA_…).
type Family byte

// The families.
const (
	Unknown Family = 'U'
	Inet    Family = '4'
	Inet6   Family = '6'
)

// Connect tells of a client; address and port are not told of an unknown family.
func (c *Conn) Connect(host string, family Family, port uint16, address string, facts Macros) (Answer, error) {
	if err := c.macros(CommandConnect, StageConnect, facts); err != nil {
		return Answer{}, err
	}
	data := append(text(host), byte(family))
	if family != Unknown {
		data = append(binary.BigEndian.AppendUint16(data, port), text(address)...)
	}
	return c.ask(CommandConnect, NoConnect, NoReplyConnect, data)
}

// Helo tells the name that the client gave.
func (c *Conn) Helo(name string, facts Macros) (Answer, error) {
	if err := c.macros(CommandHelo, StageHelo, facts); err != nil {
		return Answer{}, err
	}
	return c.ask(CommandHelo, NoHelo, NoReplyHelo, text(name))
}

// Mail begins a message; sender has no brackets, args are ESMTP parameters.
func (c *Conn) Mail(sender string, args []string, facts Macros) (Answer, error) {
	if err := c.macros(CommandMail, StageMail, facts); err != nil {
		return Answer{}, err
	}
	return c.ask(CommandMail, NoMail, NoReplyMail, text("<"+sender+">"), text(args...))
}

// Rcpt tells one recipient, without brackets.
func (c *Conn) Rcpt(recipient string, args []string, facts Macros) (Answer, error) {
	if err := c.macros(CommandRcpt, StageRcpt, facts); err != nil {
		return Answer{}, err
	}
	return c.ask(CommandRcpt, NoRcpt, NoReplyRcpt, text("<"+recipient+">"), text(args...))
}

// Unknown tells a command that the server does not know, as the client sent it.
func (c *Conn) Unknown(line string) (Answer, error) {
	if c.Options.Version < 3 {
		return Answer{Code: Continue}, nil
	}
	return c.ask(CommandUnknown, NoUnknown, NoReplyUnknown, text(line))
}

// Data tells that the recipients are all.
func (c *Conn) Data(facts Macros) (Answer, error) {
	if err := c.macros(CommandData, StageData, facts); err != nil {
		return Answer{}, err
	}
	if c.Options.Version < 4 {
		return Answer{Code: Continue}, nil
	}
	return c.ask(CommandData, NoData, NoReplyData)
}

// Header tells a field. value is what stands after the colon; its lines end in
// LF or CRLF, and the milter sees LF.
func (c *Conn) Header(name string, value []byte) (Answer, error) {
	if c.Options.Steps&LeadingSpace == 0 && len(value) > 0 && value[0] == ' ' {
		value = value[1:]
	}
	value = bytes.ReplaceAll(value, []byte("\r\n"), []byte("\n"))
	return c.ask(CommandHeader, NoHeaders, NoReplyHeader, text(name, string(value)))
}

// EOH tells that the header has ended.
func (c *Conn) EOH(facts Macros) (Answer, error) {
	if err := c.macros(CommandEOH, StageEOH, facts); err != nil {
		return Answer{}, err
	}
	return c.ask(CommandEOH, NoEOH, NoReplyEOH)
}

// Body tells the body in parts, up to its end or until the milter has seen
// enough; Skip counts as Continue.
func (c *Conn) Body(body io.Reader) (Answer, error) {
	if c.Options.Steps&NoBody != 0 {
		return Answer{Code: Continue}, nil
	}
	buf := make([]byte, c.chunk())
	for {
		n, err := io.ReadFull(body, buf)
		end := errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
		if err != nil && !end {
			return Answer{}, fmt.Errorf("read the message: %w", err)
		}
		if n > 0 {
			a, err := c.ask(CommandBody, 0, NoReplyBody, buf[:n])
			if err != nil || a.Code != Continue && a.Code != Skip {
				return a, err
			}
			end = end || a.Code == Skip
		}
		if end {
			return Answer{Code: Continue}, nil
		}
	}
}

// EndOfMessage asks for the verdict and for what shall be changed, in the
// milter's order. max bounds the octets of all changes, a new body's above all.
func (c *Conn) EndOfMessage(facts Macros, max int64) (Answer, []Change, error) {
	if err := c.macros(CommandEOM, StageEOM, facts); err != nil {
		return Answer{}, nil, err
	}
	var changes []Change
	var size int64
	code, data, err := c.exchange(CommandEOM)
	for {
		if err != nil {
			return Answer{}, nil, err
		}
		a, change, err2 := parse(code, data)
		switch {
		case err2 != nil:
			return Answer{}, nil, err2
		case a != nil && a.Code == Skip:
			return Answer{}, nil, broken("it skips what cannot be skipped")
		case a != nil && a.Code == ConnFail:
			return Answer{}, nil, errConnFail
		case a != nil && a.Code != Progress:
			return *a, changes, nil
		case change != nil:
			if c.Options.Actions&needs[change.Code] == 0 {
				return Answer{}, nil, broken("it changes what it did not ask to change (%q)", string(change.Code))
			}
			if size += int64(len(data)); size > max {
				return Answer{}, nil, fmt.Errorf("the milter changes more than %d octets", max)
			}
			if changes = append(changes, *change); len(changes) > maxChanges {
				return Answer{}, nil, broken("more than %d changes", maxChanges)
			}
		}
		code, data, err = c.next()
	}
}

// Abort has the milter forget the message; it may be told the next one.
func (c *Conn) Abort() error { return c.send(CommandAbort) }

// CanServeAnother tells whether another client may come on this connection.
func (c *Conn) CanServeAnother() bool { return c.Options.Version >= 6 }

// NextClient ends a client's session; Connect comes next.
func (c *Conn) NextClient() error { return c.send(CommandQuitNC) }
