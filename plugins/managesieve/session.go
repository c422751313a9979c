package managesieve

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/stagecoach-mta/stagecoach/plugins/sieve/engine"
	"github.com/stagecoach-mta/stagecoach/plugins/sieve/scripts"
)

// session is one connection. Its goroutine alone touches it, but for Leave.
type session struct {
	s      *Server
	raw    net.Conn
	conn   net.Conn
	source netip.Prefix
	begun  time.Time
	in     reader
	out    *bufio.Writer
	secure bool
	going  atomic.Bool

	attempts, errors int
	ended            bool

	user    string
	account scripts.Account // nil before the login
}

func (ss *session) use(nc net.Conn, secure bool) {
	ss.conn, ss.secure = nc, secure
	ss.in = reader{in: bufio.NewReaderSize(nc, 4096)}
	ss.out = bufio.NewWriterSize(nc, 4096)
}

// Leave is part of connections.Session.
func (ss *session) Leave() {
	ss.going.Store(true)
	ss.raw.SetReadDeadline(time.Unix(1, 0))
}

// Serve is part of connections.Session.
func (ss *session) Serve(implicitTLS bool) {
	defer func() {
		if ss.conn != nil {
			// TLS says that nothing follows; clients tell that from a cut.
			ss.conn.Close()
		}
	}()
	nc, secure := ss.raw, false
	if implicitTLS {
		c, err := ss.s.handshake(ss.raw, ss.begun.Add(ss.s.config.LoginTimeout))
		if err != nil {
			ss.s.host.Log.Debug().Err(err).Stringer("client", ss.raw.RemoteAddr()).Msg("no TLS")
			return
		}
		nc, secure = c, true
	}
	ss.use(nc, secure)
	ss.capabilities()
	ss.ok("", ss.s.host.Hostname+" ManageSieve server ready")
	for !ss.ended {
		cmd, err := ss.next()
		switch {
		case errors.Is(err, errSyntax):
			ss.wrong("A command is a word with strings and numbers")
		case err != nil:
			ss.farewell(err)
			ss.ended = true
		default:
			ss.do(cmd)
		}
	}
	_ = ss.flush()
}

// next reads a command; replies go out before it waits.
func (ss *session) next() (*command, error) {
	if err := ss.wait(); err != nil {
		return nil, err
	}
	ss.in.limit = maxPlainArg
	if ss.account != nil {
		ss.in.limit = int64(ss.s.config.MaxScriptSize)
	}
	return ss.in.command()
}

// wait gets ready to read.
func (ss *session) wait() error {
	if err := ss.flush(); err != nil {
		return err
	}
	ss.conn.SetReadDeadline(ss.deadline())
	if ss.going.Load() {
		return os.ErrDeadlineExceeded
	}
	return nil
}

func (ss *session) deadline() time.Time {
	if ss.account == nil {
		return ss.begun.Add(ss.s.config.LoginTimeout)
	}
	return time.Now().Add(ss.s.config.IdleTimeout)
}

func (ss *session) flush() error {
	ss.conn.SetWriteDeadline(time.Now().Add(ss.s.config.WriteTimeout))
	return ss.out.Flush()
}

func (ss *session) farewell(err error) {
	switch {
	case errors.Is(err, errTooLong), errors.Is(err, errTooLarge):
		ss.reply("BYE", "", "Too long: "+err.Error())
	case errors.Is(err, os.ErrDeadlineExceeded) && ss.going.Load():
		ss.reply("BYE", "TRYLATER", "Server is going away")
	case errors.Is(err, os.ErrDeadlineExceeded):
		ss.reply("BYE", "", "Idle for too long")
	}
}

func (ss *session) reply(word, code, text string) {
	// What is never taken must not fill the memory.
	ss.conn.SetWriteDeadline(time.Now().Add(ss.s.config.WriteTimeout))
	if code != "" {
		code = " (" + code + ")"
	}
	fmt.Fprintf(ss.out, "%s%s %s\r\n", word, code, quote(text))
}

func (ss *session) ok(code, text string) { ss.reply("OK", code, text) }
func (ss *session) no(code, text string) { ss.reply("NO", code, text) }

// wrong is no for what is no command; too much of it ends the session.
func (ss *session) wrong(text string) {
	ss.no("", text)
	if ss.errors++; ss.errors >= ss.s.config.MaxErrors {
		ss.reply("BYE", "", "Too many errors")
		ss.ended = true
	}
}

// mayLogIn: a password only goes over TLS, or where the operator allowed it.
func (ss *session) mayLogIn() bool { return ss.secure || ss.s.host.InsecureAuth }

// capabilities is RFC 5804 section 1.7.
func (ss *session) capabilities() {
	say := func(name string, value ...string) {
		line := quote(name)
		for _, v := range value {
			line += " " + quote(v)
		}
		ss.out.WriteString(line + "\r\n")
	}
	say("IMPLEMENTATION", "Stagecoach ManageSieve")
	say("SASL", strings.Join(ss.mechanisms(), " "))
	say("SIEVE", strings.Join(ss.s.engine.Extensions(), " "))
	if !ss.secure && ss.account == nil && ss.s.host.TLS != nil {
		say("STARTTLS")
	}
	say("NOTIFY", strings.Join(engine.NotifyMethods(), " "))
	say("MAXREDIRECTS", fmt.Sprint(ss.s.engine.MaxRedirects))
	say("UNAUTHENTICATE")
	if ss.account != nil {
		say("OWNER", ss.user)
	}
	say("VERSION", "1.0")
}

func (ss *session) startTLS() {
	switch {
	case ss.secure || ss.account != nil || ss.s.host.TLS == nil:
		ss.no("", "STARTTLS is not possible here")
		return
	case ss.in.in.Buffered() > 0:
		// What came in the clear must not count after the handshake.
		ss.reply("BYE", "", "Nothing may follow STARTTLS before the handshake")
		ss.ended = true
		return
	}
	ss.ok("", "Begin TLS negotiation now")
	if ss.flush() != nil {
		ss.ended = true
		return
	}
	_ = ss.raw.SetDeadline(ss.begun.Add(ss.s.config.LoginTimeout))
	c, err := ss.s.handshake(ss.raw, ss.begun.Add(ss.s.config.LoginTimeout))
	if err != nil {
		ss.s.host.Log.Debug().Err(err).Stringer("client", ss.raw.RemoteAddr()).Msg("no TLS")
		ss.ended = true
		return
	}
	ss.use(c, true)
	ss.capabilities()
	ss.ok("", "TLS is on")
}
