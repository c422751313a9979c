package server

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/netip"
	"os"
	"runtime/debug"
	"time"

	"github.com/emersion/go-smtp"
)

// Conn is one client's connection. A Session may call its methods from the
// goroutine that calls the Session.
type Conn struct {
	srv   *Server
	raw   net.Conn // as accepted; other goroutines use this one only
	nc    net.Conn // raw, or TLS over it
	label string
	id    string

	ctx     context.Context
	session Session

	// Who the client is.
	remote, local net.Addr
	ip            netip.Addr // of remote; invalid if it has none
	counted       netip.Addr // in srv.perIP
	tls           *tls.ConnectionState
	hello         Hello
	authUser      string
	xclient       XClient
	tolerateLF    bool
	xclientOK     bool
	early         bool

	in     input
	wait   *waiter
	small  []byte // to wait with, where there is no waiter
	out    []byte
	outBuf *[outSize]byte

	readBy, writeBy time.Time // deadlines as set
	limitBy         time.Time // for the line or message being read, however it drips; zero: none
	bulk            bool      // reading a message
	kicked          bool      // Shutdown has ended a read once

	tx           transaction
	mailOpts     MailOptions
	rcptOpts     smtp.RcptOptions
	utf8         bool // the last transaction has or had SMTPUTF8
	transactions int
	refused      int // recipients refused for good beyond those accepted
	errors       int
	closing      bool // after the replies gathered so far
	cutOff       bool // while the client is still sending
}

// transaction is from MAIL to the end of the message.
type transaction struct {
	open    bool
	binary  bool // BODY=BINARYMIME
	chunked bool // BDAT has begun
	rcpts   int  // accepted
	scan    bodyScanner
	sink    sink
}

// ID names the connection in logs; unique within the process and, as far as the
// clock moves on, across restarts.
func (c *Conn) ID() string { return c.id }

// Listener is the label of the listener that accepted the connection.
func (c *Conn) Listener() string { return c.label }

// RemoteAddr is the client's address, as told by PROXY or XCLIENT if they were used.
func (c *Conn) RemoteAddr() net.Addr { return c.remote }

// RemoteIP is the same as an IP, IPv4 never mapped into IPv6; the zero Addr if
// the client came by something else.
func (c *Conn) RemoteIP() netip.Addr { return c.ip }

// LocalAddr is the address that the client connected to.
func (c *Conn) LocalAddr() net.Addr { return c.local }

// TLS is nil for plain text.
func (c *Conn) TLS() *tls.ConnectionState { return c.tls }

// Hello is the last greeting accepted; zero before it and after STARTTLS.
func (c *Conn) Hello() Hello { return c.hello }

// Early tells whether the client spoke before its turn: before the banner, or behind
// EHLO before the reply to it (RFC 5321 section 4.3.1, RFC 2920 section 3.1).
func (c *Conn) Early() bool { return c.early }

// spoke tells whether something has come that was not read yet.
func (c *Conn) spoke() bool {
	if c.in.r == c.in.w && c.wait != nil {
		c.in.w += c.wait.poll(&c.in)
	}
	return c.in.r < c.in.w
}

// AuthUser is who has authenticated, empty for nobody.
func (c *Conn) AuthUser() string { return c.authUser }

// SetAuthUser replaces the name that AUTH gave, such as by its canonical form; for
// use within an Authenticator's methods and later.
func (c *Conn) SetAuthUser(name string) { c.authUser = name }

// Protocol is the "with" clause of a Received field (RFC 3848, RFC 6531 section 4.3).
func (c *Conn) Protocol() string {
	if c.hello.Verb == "HELO" {
		return "SMTP"
	}
	name := "ESMTP"
	if c.srv.LMTP {
		name = "LMTP"
	}
	if c.utf8 {
		name = "UTF8SMTP"
		if c.srv.LMTP {
			name = "UTF8LMTP"
		}
	}
	if c.tls != nil {
		name += "S"
	}
	if c.authUser != "" {
		name += "A"
	}
	return name
}

func newConn(s *Server, nc net.Conn, label string) *Conn {
	c := &Conn{srv: s, raw: nc, nc: nc, label: label, id: s.nextID(), wait: newWaiter(nc)}
	c.setAddrs(nc.RemoteAddr(), nc.LocalAddr())
	return c
}

// setAddrs is for whatever tells who the client is.
func (c *Conn) setAddrs(remote, local net.Addr) {
	c.remote, c.local = remote, local
	c.ip = addrIP(remote)
	c.tolerateLF = inAny(c.srv.TolerateBareLF, c.ip)
}

func addrIP(a net.Addr) netip.Addr {
	if tcp, ok := a.(*net.TCPAddr); ok {
		return tcp.AddrPort().Addr().Unmap().WithZone("")
	}
	return netip.Addr{}
}

// serve is the life of the connection.
func (c *Conn) serve() {
	ctx, cancel := context.WithCancel(c.srv.ctx)
	c.ctx = ctx
	defer c.end(cancel)
	if !c.begin() {
		return
	}
	for !c.closing {
		line, err := c.readLine(false)
		switch err {
		case nil:
			c.command(line)
		case errLineTooLong:
			c.fail(500, smtp.EnhancedCode{5, 5, 2}, "Line too long")
		case errBareLF:
			c.fail(500, smtp.EnhancedCode{5, 5, 2}, "Bare LF: end commands with CRLF")
		default:
			c.readFailed(err)
		}
	}
	c.flush()
	if c.in.r < c.in.w || c.cutOff {
		c.linger()
	}
}

// begin is everything up to the banner.
func (c *Conn) begin() bool {
	if inAny(c.srv.ProxyProtocolFrom, c.ip) {
		if err := c.readProxyHeader(); err != nil {
			c.log("PROXY header missing or bad", err)
			return false
		}
	}
	// Whom the PROXY header names, not the proxy: everybody comes through it, and
	// where both networks hold it everybody could say who they are.
	c.xclientOK = inAny(c.srv.XClientFrom, c.ip)
	// Those who use XCLIENT are many clients behind one address, counted when named.
	if !c.xclientOK && !c.srv.admit(c) {
		c.srv.Log.Warn().Str("conn", c.id).Stringer("client", c.remote).Int("limit", c.srv.MaxConnectionsPerIP).Msg("too many connections of one client")
		if !c.srv.ImplicitTLS { // a handshake only to say no would be the wrong gift
			c.write(c.tooManyOfYou())
			c.flush()
		}
		return false
	}
	if c.srv.ImplicitTLS {
		if err := c.startTLS(); err != nil {
			c.log("TLS handshake failed", err)
			return false
		}
	}
	if !c.greet(true) {
		c.flush()
		return false
	}
	return true
}

func (c *Conn) tooManyOfYou() Reply {
	return c.hostReply(421, smtp.EnhancedCode{4, 7, 0}, "Too many connections from your address, try again later")
}

// greet asks the Backend and writes the banner, or the refusal in its place.
func (c *Conn) greet(first bool) bool {
	session, err := c.srv.Backend.NewSession(c.ctx, c)
	if err != nil {
		c.writeError(err)
		return false
	}
	if first && !c.srv.ImplicitTLS { // under TLS the client began to speak
		c.early = c.spoke()
	}
	c.session = session
	kind := "ESMTP"
	if c.srv.LMTP {
		kind = "LMTP"
	}
	c.write(c.hostReply(220, smtp.NoEnhancedCode, kind+" ready"))
	return true
}

// end is the only place where a connection ends.
func (c *Conn) end(cancel context.CancelFunc) {
	if p := recover(); p != nil {
		c.logPanic(p)
		c.out = c.out[:0]
		c.write(c.hostReply(421, smtp.EnhancedCode{4, 3, 0}, "Trouble of this server, try again later"))
		c.flush()
	}
	cancel()
	c.nc.Close()
	c.raw.Close()
	defer func() {
		if p := recover(); p != nil {
			c.logPanic(p)
		}
		c.in.discard()
		c.releaseOut()
		c.srv.dismiss(c)
		c.srv.done(c)
	}()
	c.reset()
	if c.session != nil {
		c.session.Close()
	}
}

// logPanic is for a bug in a Session: it costs one connection, not the server.
func (c *Conn) logPanic(p any) {
	c.srv.Log.Error().Str("conn", c.id).Interface("panic", p).Bytes("stack", debug.Stack()).Msg("connection ended by a panic")
}

// reset ends the transaction without a message.
func (c *Conn) reset() {
	if c.tx.open {
		c.tx = transaction{}
		c.session.Reset()
	}
}

// readFailed ends the connection after an error of a read. A client that waits
// is told why.
func (c *Conn) readFailed(err error) {
	c.closing = true
	switch {
	case errors.Is(err, errDraining):
		c.write(c.hostReply(421, smtp.EnhancedCode{4, 3, 2}, "Shutting down, try again later"))
	case errors.Is(err, os.ErrDeadlineExceeded):
		c.write(c.hostReply(421, smtp.EnhancedCode{4, 4, 2}, "Timeout, closing"))
		c.cutOff = c.bulk
	}
}

func (c *Conn) log(what string, err error) {
	c.srv.Log.Info().Str("conn", c.id).Stringer("client", c.remote).Err(err).Msg(what)
}

// write adds a reply to the batch.
func (c *Conn) write(r Reply) {
	c.takeOut()
	c.out = appendReply(c.out, r, c.utf8)
	c.flushFull()
}

// flushFull keeps a client that sends and never reads from filling the memory. A
// failed write shows again at the next read.
func (c *Conn) flushFull() {
	if len(c.out) >= outSize-512 && c.flush() != nil {
		c.closing = true
	}
}

// hostReply begins with the host's name: where RFC 5321 section 4.2 has Domain, and in every 421.
func (c *Conn) hostReply(code int, e smtp.EnhancedCode, text string) Reply {
	return Reply{code, e, []string{c.srv.Hostname + " " + text}}
}

// fail answers for a mistake in the protocol, and counts it.
func (c *Conn) fail(code int, e smtp.EnhancedCode, text string) {
	c.write(NewReply(code, e, text))
	c.errors++
	if c.errors >= c.srv.MaxErrors {
		c.tooMany("errors")
	}
}

// tooMany ends the connection, if nothing else has.
func (c *Conn) tooMany(what string) {
	if c.closing {
		return
	}
	c.log("too many "+what, nil)
	c.write(c.hostReply(421, smtp.EnhancedCode{4, 7, 0}, "Too many "+what+", closing"))
	c.closing, c.cutOff = true, true
}

// writeError answers for an error of the Session.
func (c *Conn) writeError(err error) {
	r := ReplyOf(err)
	var se *smtp.SMTPError
	if !errors.As(err, &se) {
		c.srv.Log.Error().Str("conn", c.id).Err(err).Msg("session failed")
	}
	c.write(r)
	if r.Code == 421 {
		c.closing = true
	}
}
