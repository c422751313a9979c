package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/emersion/go-smtp"
)

// Send does one mail transaction. The Result tells about each recipient; the
// error is nil as long as the dialogue stayed in step, whatever was refused.
// With an error, an *Error, the connection is of no more use, and the Result
// holds what was known before. A server that says 421 has decided about the
// recipients that were open; see Usable for the connection.
//
// MAIL, RCPT and DATA leave in one flight where PIPELINING is offered. BDAT
// waits for the replies to RCPT though RFC 3030 allows it in the same flight: a
// server that refuses a chunk and does not skip it would run the message as
// commands, and the round trips are the same as with DATA.
func (c *Conn) Send(ctx context.Context, t *Transaction) (*Result, error) {
	res := &Result{Recipients: make([]RcptResult, len(t.Recipients))}
	if len(t.Recipients) == 0 {
		return res, nil
	}
	err := c.guard(ctx, func() error { return c.send(t, res) })
	return res, err
}

// command is one line of a flight, with what to do with its reply.
type command struct {
	line    string
	phase   Phase
	timeout time.Duration
	reply   func(Reply)
}

// flight bounds what may be sent before the replies are read: beyond the
// buffers of both sides, client and server would wait for each other
// (RFC 2920 section 3.1).
const (
	flightCommands = 256
	flightOctets   = 32 << 10
)

func (c *Conn) send(t *Transaction, res *Result) error {
	p, left, err := c.prepare(t, res)
	if err != nil || !left {
		return err
	}
	_, pipelining := c.ext["PIPELINING"]
	pipelining = pipelining && !c.cfg.NoPipelining
	to := c.cfg.Timeouts

	var mail, data Reply
	var accepted []int
	var cmds []command
	if c.dirty {
		// RFC 5321 section 4.1.1.5: whatever the reply, MAIL tells.
		cmds = append(cmds, command{"RSET", PhaseReset, to.Hello, func(Reply) {}})
	}
	cmds = append(cmds, command{p.mail, PhaseMail, to.Mail, func(r Reply) { mail = r }})
	for i, line := range p.rcpts {
		if line == "" {
			continue
		}
		cmds = append(cmds, command{line, PhaseRcpt, to.Rcpt, func(r Reply) {
			switch {
			case mail.Class() != 2:
				res.Recipients[i] = RcptResult{Phase: PhaseMail, Reply: mail}
			case r.Class() == 2:
				accepted = append(accepted, i)
			default:
				res.Recipients[i] = RcptResult{Phase: PhaseRcpt, Reply: r}
			}
		}})
	}
	dataCmd := command{"DATA", PhaseData, to.DataInit, func(r Reply) { data = r }}
	c.dirty = true
	if pipelining && !p.bdat {
		err = c.exchange(append(cmds, dataCmd), res)
	} else {
		err = c.exchangeBy(cmds, res, pipelining, func() bool { return mail.Code != 0 && mail.Class() != 2 })
	}
	if err != nil {
		return err
	}
	if mail.Code != 0 && mail.Class() != 2 {
		fill(res, p, RcptResult{Phase: PhaseMail, Reply: mail})
		c.dirty = false
	}
	if c.broken {
		return nil // 421: fill has told everybody
	}
	if p.bdat {
		if len(accepted) == 0 {
			return nil
		}
		return c.sendBody(t, p, res, accepted)
	}
	if !pipelining && len(accepted) > 0 {
		if err := c.exchange([]command{dataCmd}, res); err != nil || c.broken {
			return err
		}
	}
	switch {
	case data.Code == 354 && len(accepted) == 0:
		// RFC 2920 section 3.1: the server waits for a message all the same;
		// an empty one tells it that there is none. How many replies an LMTP
		// server would give to that nobody says.
		if c.cfg.LMTP {
			c.broken = true
			return nil
		}
		_, err := c.cmd(PhaseDone, to.DataDone, ".")
		return err
	case data.Code == 354:
		return c.sendBody(t, p, res, accepted)
	case len(accepted) > 0 && data.Class() < 4:
		c.broken = true
		return &Error{Phase: PhaseData, Err: errGarbage{fmt.Sprintf("%s to DATA", data)}}
	}
	for _, i := range accepted {
		res.Recipients[i] = RcptResult{Phase: PhaseData, Reply: data}
	}
	return nil
}

// exchangeBy sends the commands together or one by one; stop ends the latter.
func (c *Conn) exchangeBy(cmds []command, res *Result, together bool, stop func() bool) error {
	if together {
		return c.exchange(cmds, res)
	}
	for i := range cmds {
		if stop() {
			return nil
		}
		if err := c.exchange(cmds[i:i+1], res); err != nil || c.broken {
			return err
		}
	}
	return nil
}

// exchange sends commands in as few flights as is safe and reads the replies.
// A 421 decides about every recipient that is open.
func (c *Conn) exchange(cmds []command, res *Result) error {
	for len(cmds) > 0 {
		var b strings.Builder
		n := 0
		for n < len(cmds) && n < flightCommands && (n == 0 || b.Len()+len(cmds[n].line) < flightOctets) {
			b.WriteString(cmds[n].line)
			b.WriteString("\r\n")
			n++
		}
		if _, err := io.WriteString(c.nc, b.String()); err != nil {
			// The server may have said why it closed.
			return c.lost(cmds[0].phase, err, res, nil)
		}
		for _, cmd := range cmds[:n] {
			r, err := c.read(cmd.phase, cmd.timeout)
			if err != nil {
				return err
			}
			if r.Class() == 3 && r.Code != 354 || r.Code == 354 && cmd.phase != PhaseData {
				c.broken = true
				return &Error{Phase: cmd.phase, Err: errGarbage{r.String()}}
			}
			if r.Code == 421 {
				fillOpen(res, RcptResult{Phase: cmd.phase, Reply: r})
				return nil
			}
			cmd.reply(r)
		}
		cmds = cmds[n:]
	}
	return nil
}

// fillOpen gives the result to recipients that have none.
func fillOpen(res *Result, r RcptResult) {
	for i := range res.Recipients {
		if res.Recipients[i].Phase == "" {
			res.Recipients[i] = r
		}
	}
}

func fill(res *Result, p plan, r RcptResult) {
	for i, line := range p.rcpts {
		if line != "" {
			res.Recipients[i] = r
		}
	}
}

// sendBody sends the message for the accepted recipients and reads what became
// of it.
func (c *Conn) sendBody(t *Transaction, p plan, res *Result, accepted []int) error {
	body, err := t.Body()
	if err == nil {
		defer body.Close()
		final := func() { res.EndOfData = true }
		if p.bdat {
			err = sendChunk(c.nc, body, t.Size, p.binary, final)
		} else {
			err = sendDotted(c.nc, body, final)
		}
	} else {
		err = errSource{err}
	}
	if err != nil {
		var src errSource
		if !errors.As(err, &src) {
			return c.lost(PhaseBody, err, res, accepted)
		}
		// The server has a part of the message: only closing the connection
		// keeps it from taking that for the whole.
		c.broken = true
		if errors.Is(err, errBareLine) {
			for _, i := range accepted {
				res.Recipients[i] = localResult(550, smtp.EnhancedCode{5, 6, 0}, "", errBareLine.Error())
			}
		}
		return &Error{Phase: PhaseLocal, Err: err}
	}

	if !c.cfg.LMTP {
		r, err := c.read(PhaseDone, c.cfg.Timeouts.DataDone)
		if err == nil && r.Class() == 3 {
			c.broken = true
			err = &Error{Phase: PhaseDone, Err: errGarbage{r.String()}}
		}
		if err != nil {
			return err
		}
		for _, i := range accepted {
			res.Recipients[i] = RcptResult{Phase: PhaseDone, Reply: r}
		}
		c.dirty = r.Class() != 2
		return nil
	}
	// RFC 2033 section 4.2: a reply for each accepted RCPT, in their order.
	for n, i := range accepted {
		r, err := c.read(PhaseDone, c.cfg.Timeouts.DataDone)
		if err == nil && r.Class() == 3 {
			c.broken = true
			err = &Error{Phase: PhaseDone, Err: errGarbage{r.String()}}
		}
		if err != nil {
			return err
		}
		if r.Code == 421 {
			for _, j := range accepted[n:] {
				res.Recipients[j] = RcptResult{Phase: PhaseDone, Reply: r}
			}
			return nil
		}
		res.Recipients[i] = RcptResult{Phase: PhaseDone, Reply: r}
	}
	c.dirty = false
	return nil
}

// lost is called when writing failed. A server that refuses in the middle (552,
// 421) closes without reading on: its reply may be there already.
func (c *Conn) lost(p Phase, cause error, res *Result, accepted []int) error {
	c.broken = true
	grace := 2 * time.Second
	if errors.Is(cause, os.ErrDeadlineExceeded) {
		grace = 100 * time.Millisecond // it had time enough to say something
	}
	c.nc.SetReadDeadline(time.Now().Add(grace))
	r, err := readReply(c.br)
	if err == nil && r.Class() >= 4 {
		result := RcptResult{Phase: p, Reply: r}
		for _, i := range accepted {
			res.Recipients[i] = result
		}
		if accepted == nil {
			fillOpen(res, result)
		}
		return nil
	}
	if errors.Is(cause, os.ErrDeadlineExceeded) {
		cause = &ioFailure{"the server stopped reading", cause}
	} else {
		cause = ioError(cause)
	}
	return &Error{Phase: p, Err: cause}
}
