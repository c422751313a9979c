// Package client is the sending side of SMTP (RFC 5321) and LMTP (RFC 2033):
// one connection, many mails, a reply for each recipient.
//
// It never rewrites a message: what it cannot send as it is (8-bit content to a
// server without 8BITMIME, SMTPUTF8 to a server without it) it refuses with the
// reply that belongs into the DSN. It does not look up hosts, choose a TLS
// policy or retry: package nexthop does. AUTH= on MAIL and
// RRVS are not passed on.
package client

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/emersion/go-sasl"
)

// Timeouts of the phases of RFC 5321 section 4.5.3.2. Zero takes the default,
// the value of the RFC where it names one.
type Timeouts struct {
	Connect  time.Duration // TCP connection; 30 s
	Banner   time.Duration // 5 min
	Hello    time.Duration // EHLO, RSET, NOOP, AUTH; 5 min
	TLS      time.Duration // STARTTLS and handshake; 2 min
	Mail     time.Duration // 5 min
	Rcpt     time.Duration // 5 min
	DataInit time.Duration // the 354 to DATA; 2 min
	Write    time.Duration // without any octet being taken; 3 min
	DataDone time.Duration // the reply to the end of data; 10 min
	Quit     time.Duration // 10 s
}

func (t Timeouts) withDefaults() Timeouts {
	def := func(d *time.Duration, v time.Duration) {
		if *d <= 0 {
			*d = v
		}
	}
	def(&t.Connect, 30*time.Second)
	def(&t.Banner, 5*time.Minute)
	def(&t.Hello, 5*time.Minute)
	def(&t.TLS, 2*time.Minute)
	def(&t.Mail, 5*time.Minute)
	def(&t.Rcpt, 5*time.Minute)
	def(&t.DataInit, 2*time.Minute)
	def(&t.Write, 3*time.Minute)
	def(&t.DataDone, 10*time.Minute)
	def(&t.Quit, 10*time.Second)
	return t
}

// Config of a connection.
type Config struct {
	// LocalName is said in EHLO: our host name, or an address literal.
	LocalName string
	// LMTP speaks LHLO and expects a reply per recipient after the data.
	LMTP bool
	// TLS, if set, is spoken from the first octet (RFC 8314 section 3.3). For
	// STARTTLS leave it nil and call StartTLS.
	TLS      *tls.Config
	Timeouts Timeouts
	// NoChunking sends DATA even if the server offers CHUNKING.
	NoChunking bool
	// NoPipelining waits for each reply even if the server offers PIPELINING.
	NoPipelining bool
}

// Phase is the step of the dialogue that a reply or an error belongs to.
type Phase string

const (
	PhaseConnect Phase = "connect"
	PhaseBanner  Phase = "banner"
	PhaseHello   Phase = "EHLO"
	PhaseTLS     Phase = "STARTTLS"
	PhaseAuth    Phase = "AUTH"
	PhaseMail    Phase = "MAIL"
	PhaseRcpt    Phase = "RCPT"
	PhaseData    Phase = "DATA"        // the command, or a BDAT
	PhaseBody    Phase = "body"        // while the message was sent
	PhaseDone    Phase = "end of data" // after the whole message
	PhaseReset   Phase = "RSET"
	PhaseNoop    Phase = "NOOP"
	PhaseQuit    Phase = "QUIT"
	PhaseLocal   Phase = "local" // decided here; nothing was sent
)

// Error is a failed step: Reply is what the server said, or Code 0 if the
// connection broke, which Err then explains.
type Error struct {
	Phase Phase
	Reply Reply
	Err   error
}

func (e *Error) Error() string {
	if e.Reply.Code != 0 {
		return fmt.Sprintf("%s refused: %s", e.Phase, e.Reply)
	}
	return fmt.Sprintf("%s: %v", e.Phase, e.Err)
}

func (e *Error) Unwrap() error { return e.Err }

// ErrNotOffered: the server does not offer the extension asked for.
var ErrNotOffered = errors.New("the server does not offer it")

// Conn is one connection. Its methods must not be called concurrently; Close
// may be called at any time.
type Conn struct {
	cfg    Config
	base   *progressConn
	nc     net.Conn // base, or TLS over it
	br     *bufio.Reader
	ext    map[string]string
	banner Reply
	// broken: the dialogue is out of step or over; only Close is left.
	broken bool
	// dirty: a transaction was begun and not ended; RSET goes first.
	dirty bool
}

// Dial connects and greets. network is tcp or unix.
func Dial(ctx context.Context, network, addr string, cfg Config) (*Conn, error) {
	d := net.Dialer{Timeout: cfg.Timeouts.withDefaults().Connect}
	nc, err := d.DialContext(ctx, network, addr)
	if err != nil {
		return nil, &Error{Phase: PhaseConnect, Err: err}
	}
	return New(ctx, nc, cfg)
}

// New greets over a connection made elsewhere: TLS if the config has one, the
// banner, EHLO, or HELO if the server knows no EHLO. On an error, an *Error,
// the connection is closed.
func New(ctx context.Context, nc net.Conn, cfg Config) (*Conn, error) {
	cfg.Timeouts = cfg.Timeouts.withDefaults()
	c := &Conn{cfg: cfg, base: &progressConn{Conn: nc, writeTimeout: cfg.Timeouts.Write}}
	c.setConn(c.base)
	if err := c.guard(ctx, c.greet); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

func (c *Conn) setConn(nc net.Conn) {
	c.nc = nc
	c.br = bufio.NewReaderSize(nc, maxReplyLine)
}

// guard runs f and ends the connection if the context ends first.
func (c *Conn) guard(ctx context.Context, f func() error) error {
	if c.broken {
		return &Error{Phase: PhaseConnect, Err: net.ErrClosed}
	}
	if err := ctx.Err(); err != nil {
		c.broken = true
		return &Error{Phase: PhaseConnect, Err: err}
	}
	stop := context.AfterFunc(ctx, func() { c.base.Conn.Close() })
	err := f()
	if !stop() {
		c.broken = true
		var e *Error
		if errors.As(err, &e) && e.Reply.Code == 0 {
			e.Err = context.Cause(ctx)
		}
	}
	return err
}

func (c *Conn) greet() error {
	if c.cfg.LocalName == "" || strings.ContainsAny(c.cfg.LocalName, " \r\n\t\x00") {
		return &Error{Phase: PhaseHello, Err: fmt.Errorf("the local name %q cannot be said in EHLO", c.cfg.LocalName)}
	}
	if c.cfg.TLS != nil {
		if err := c.handshake(c.cfg.TLS); err != nil {
			return err
		}
	}
	r, err := c.read(PhaseBanner, c.cfg.Timeouts.Banner)
	if err != nil {
		return err
	}
	c.banner = r
	if r.Class() != 2 {
		return &Error{Phase: PhaseBanner, Reply: r}
	}
	return c.hello()
}

func (c *Conn) hello() error {
	verb := "EHLO "
	if c.cfg.LMTP {
		verb = "LHLO " // RFC 2033 section 4.1
	}
	c.ext = nil
	r, err := c.cmd(PhaseHello, c.cfg.Timeouts.Hello, verb+c.cfg.LocalName)
	if err != nil {
		return err
	}
	if r.Class() == 2 {
		c.ext = parseExtensions(r.Text)
		return nil
	}
	if c.cfg.LMTP || r.Class() != 5 {
		return &Error{Phase: PhaseHello, Reply: r}
	}
	// RFC 5321 section 3.2: a server that knows no EHLO.
	r, err = c.cmd(PhaseHello, c.cfg.Timeouts.Hello, "HELO "+c.cfg.LocalName)
	if err != nil {
		return err
	}
	if r.Class() != 2 {
		return &Error{Phase: PhaseHello, Reply: r}
	}
	return nil
}

// parseExtensions reads the lines after the first; keywords know no case
// (RFC 5321 section 4.1.1.1).
func parseExtensions(text string) map[string]string {
	ext := map[string]string{}
	for i, line := range strings.Split(text, "\n") {
		if i == 0 {
			continue
		}
		key, params, _ := strings.Cut(strings.TrimSpace(line), " ")
		key = strings.ToUpper(key)
		if rest, ok := strings.CutPrefix(key, "AUTH="); ok {
			key, params = "AUTH", rest+" "+params // the form before RFC 4954
		}
		if old := ext[key]; key == "AUTH" && old != "" {
			params = old + " " + params
		}
		ext[key] = strings.TrimSpace(params)
	}
	return ext
}

// Extension tells whether the server offers a keyword, and its parameters.
func (c *Conn) Extension(keyword string) (params string, ok bool) {
	params, ok = c.ext[strings.ToUpper(keyword)]
	return
}

// AuthMechanisms are the offered ones in upper case.
func (c *Conn) AuthMechanisms() []string {
	return strings.Fields(strings.ToUpper(c.ext["AUTH"]))
}

// MaxRecipients is RCPTMAX of LIMITS (RFC 9422), or 0.
func (c *Conn) MaxRecipients() int { return c.limit("RCPTMAX") }

// MaxMails is MAILMAX of LIMITS (RFC 9422), or 0.
func (c *Conn) MaxMails() int { return c.limit("MAILMAX") }

func (c *Conn) limit(name string) int {
	for _, p := range strings.Fields(c.ext["LIMITS"]) {
		if k, v, ok := strings.Cut(p, "="); ok && strings.EqualFold(k, name) {
			if n, err := strconv.Atoi(v); err == nil && n > 0 {
				return n
			}
		}
	}
	return 0
}

// Banner is the greeting.
func (c *Conn) Banner() Reply { return c.banner }

// TLS is the state of the encryption; ok is false without one.
func (c *Conn) TLS() (state tls.ConnectionState, ok bool) {
	if t, isTLS := c.nc.(*tls.Conn); isTLS {
		return t.ConnectionState(), true
	}
	return state, false
}

// Usable tells whether another command may be sent.
func (c *Conn) Usable() bool { return !c.broken }

// StartTLS upgrades (RFC 3207) and greets again. If the server refused
// (Error.Reply is set) the connection can be used on in plain; after any other
// error it cannot. It returns ErrNotOffered without sending anything.
func (c *Conn) StartTLS(ctx context.Context, cfg *tls.Config) error {
	if _, ok := c.ext["STARTTLS"]; !ok {
		return &Error{Phase: PhaseTLS, Err: ErrNotOffered}
	}
	return c.guard(ctx, func() error {
		r, err := c.cmd(PhaseTLS, c.cfg.Timeouts.TLS, "STARTTLS")
		if err != nil {
			return err
		}
		if r.Code != 220 {
			return &Error{Phase: PhaseTLS, Reply: r}
		}
		// RFC 3207 section 5: what came in plain must not be taken for the
		// answer to something said under TLS.
		if c.br.Buffered() > 0 {
			c.broken = true
			return &Error{Phase: PhaseTLS, Err: errors.New("the server went on in plain after 220")}
		}
		if err := c.handshake(cfg); err != nil {
			return err
		}
		return c.hello()
	})
}

func (c *Conn) handshake(cfg *tls.Config) error {
	t := tls.Client(c.base, cfg)
	c.base.SetReadDeadline(time.Now().Add(c.cfg.Timeouts.TLS))
	if err := t.Handshake(); err != nil {
		c.broken = true
		return &Error{Phase: PhaseTLS, Err: err}
	}
	c.setConn(t)
	return nil
}

// Auth logs in (RFC 4954). What is secret never appears in an error.
func (c *Conn) Auth(ctx context.Context, mech sasl.Client) error {
	if _, ok := c.ext["AUTH"]; !ok {
		return &Error{Phase: PhaseAuth, Err: ErrNotOffered}
	}
	name, ir, err := mech.Start()
	if err != nil {
		return &Error{Phase: PhaseAuth, Err: err}
	}
	line := "AUTH " + name
	if ir != nil {
		if len(ir) == 0 {
			line += " =" // section 4: an empty initial response
		} else {
			line += " " + base64.StdEncoding.EncodeToString(ir)
		}
	}
	return c.guard(ctx, func() error {
		r, err := c.cmd(PhaseAuth, c.cfg.Timeouts.Hello, line)
		for range 16 {
			if err != nil {
				return err
			}
			if r.Code != 334 {
				if r.Class() == 2 {
					return nil
				}
				return &Error{Phase: PhaseAuth, Reply: r}
			}
			challenge, derr := base64.StdEncoding.DecodeString(r.Text)
			var resp []byte
			if derr == nil {
				resp, derr = mech.Next(challenge)
			}
			if derr != nil {
				// Section 4: "*" cancels.
				if r, err = c.cmd(PhaseAuth, c.cfg.Timeouts.Hello, "*"); err != nil {
					return err
				}
				return &Error{Phase: PhaseAuth, Err: fmt.Errorf("gave up at the server's challenge: %w", derr)}
			}
			r, err = c.cmd(PhaseAuth, c.cfg.Timeouts.Hello, base64.StdEncoding.EncodeToString(resp))
		}
		c.broken = true
		return &Error{Phase: PhaseAuth, Err: errors.New("the server's challenges do not end")}
	})
}

// Reset ends an open transaction.
func (c *Conn) Reset(ctx context.Context) error {
	return c.simple(ctx, PhaseReset, c.cfg.Timeouts.Hello, "RSET")
}

// Noop asks whether the server is still there.
func (c *Conn) Noop(ctx context.Context) error {
	return c.simple(ctx, PhaseNoop, c.cfg.Timeouts.Hello, "NOOP")
}

// Quit says good-bye, waits shortly for the answer and closes.
func (c *Conn) Quit(ctx context.Context) error {
	defer c.Close()
	return c.simple(ctx, PhaseQuit, c.cfg.Timeouts.Quit, "QUIT")
}

func (c *Conn) simple(ctx context.Context, p Phase, timeout time.Duration, line string) error {
	return c.guard(ctx, func() error {
		r, err := c.cmd(p, timeout, line)
		if err != nil {
			return err
		}
		if r.Class() != 2 {
			return &Error{Phase: p, Reply: r}
		}
		c.dirty = c.dirty && p != PhaseReset
		return nil
	})
}

// Close closes at once, without QUIT. It never waits for the peer.
func (c *Conn) Close() error { return c.base.Conn.Close() }

func (c *Conn) cmd(p Phase, timeout time.Duration, line string) (Reply, error) {
	if _, err := c.nc.Write([]byte(line + "\r\n")); err != nil {
		c.broken = true
		return Reply{}, &Error{Phase: p, Err: ioError(err)}
	}
	return c.read(p, timeout)
}

// read reads one reply, all of it within the time-out.
func (c *Conn) read(p Phase, timeout time.Duration) (Reply, error) {
	c.nc.SetReadDeadline(time.Now().Add(timeout))
	r, err := readReply(c.br)
	if err != nil {
		c.broken = true
		return Reply{}, &Error{Phase: p, Err: ioError(err)}
	}
	if r.Code == 421 {
		c.broken = true // RFC 5321 section 3.8: the server closes
	}
	return r, nil
}
