package pop3

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/stagecoach-mta/stagecoach/plugins/imap/admission"
	"github.com/stagecoach-mta/stagecoach/sdk/fail"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
	"github.com/stagecoach-mta/stagecoach/sdk/storage"
)

// maxLine is the longest command: RFC 2449 section 4 says 255 octets, a SASL
// response may be longer (RFC 5034 section 4).
const maxLine = 12 << 10

// session is one connection. Its goroutine alone touches it, but for leave.
type session struct {
	s      *Server
	raw    net.Conn
	conn   net.Conn
	source netip.Prefix
	begun  time.Time
	in     *bufio.Reader
	out    *bufio.Writer
	secure bool
	going  atomic.Bool

	user             string
	attempts, errors int
	ended            bool

	// After the login.
	account string
	store   storage.Account
	drop    *maildrop
}

func newSession(s *Server, nc net.Conn, source netip.Prefix) *session {
	return &session{s: s, raw: nc, source: source, begun: time.Now()}
}

// use talks over nc from now on; what was buffered of the old connection is
// gone, as RFC 2595 section 4 demands.
func (ss *session) use(nc net.Conn, secure bool) {
	ss.conn, ss.secure = nc, secure
	ss.in = bufio.NewReaderSize(nc, 512)
	ss.out = bufio.NewWriterSize(writer{ss}, 2048)
}

// writer gives every piece its deadline.
type writer struct{ ss *session }

func (w writer) Write(p []byte) (int, error) {
	w.ss.conn.SetWriteDeadline(time.Now().Add(w.ss.s.config.WriteTimeout))
	return w.ss.conn.Write(p)
}

// leave asks the client to go as soon as it waits.
func (ss *session) leave() {
	ss.going.Store(true)
	ss.raw.SetReadDeadline(time.Unix(1, 0))
}

func (ss *session) serve(implicitTLS bool) {
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
	ss.ok("%s POP3 server ready", ss.s.host.Hostname)
	for !ss.ended {
		line, err := ss.readLine()
		if err != nil {
			ss.farewell(err)
			break
		}
		ss.command(line)
	}
	ss.out.Flush()
}

var errTooLong = errors.New("line too long")

// readLine reads a command. Replies go out before it waits: those to commands
// sent together go out together (RFC 2449 section 6.6).
func (ss *session) readLine() (string, error) {
	var line []byte
	for {
		if ss.in.Buffered() == 0 {
			if err := ss.out.Flush(); err != nil {
				return "", err
			}
			ss.conn.SetReadDeadline(ss.deadline())
			if ss.going.Load() {
				return "", os.ErrDeadlineExceeded
			}
		}
		part, err := ss.in.ReadSlice('\n')
		if len(line)+len(part) > maxLine {
			return "", errTooLong
		}
		line = append(line, part...)
		switch {
		case err == nil:
			return strings.TrimSuffix(strings.TrimSuffix(string(line), "\n"), "\r"), nil
		case err != bufio.ErrBufferFull:
			return "", err
		}
	}
}

func (ss *session) deadline() time.Time {
	if ss.drop == nil {
		return ss.begun.Add(ss.s.config.LoginTimeout)
	}
	return time.Now().Add(ss.s.config.IdleTimeout)
}

// farewell says why the session ends. RFC 1939 section 3: a time-out removes
// nothing.
func (ss *session) farewell(err error) {
	switch {
	case errors.Is(err, errTooLong):
		ss.fail("Line too long")
	case errors.Is(err, os.ErrDeadlineExceeded) && ss.going.Load():
		ss.fail("[SYS/TEMP] Server is going away")
	case errors.Is(err, os.ErrDeadlineExceeded):
		ss.fail("Idle for too long")
	}
}

func (ss *session) ok(format string, args ...any) {
	fmt.Fprintf(ss.out, "+OK "+format+"\r\n", args...)
}

func (ss *session) fail(format string, args ...any) {
	fmt.Fprintf(ss.out, "-ERR "+format+"\r\n", args...)
}

// wrong is fail for what the client did wrong; too much of it ends the session.
func (ss *session) wrong(format string, args ...any) {
	ss.fail(format, args...)
	if ss.errors++; ss.errors >= ss.s.config.MaxErrors {
		ss.fail("Too many errors")
		ss.ended = true
	}
}

// problem tells of a failure of the storage or the directory, with RFC 2449's
// and RFC 3206's codes. The text is ours: theirs is for the log.
func (ss *session) problem(err error, doing string) {
	ss.s.host.Log.Error().Err(err).Str("user", ss.user).Msg("cannot " + doing)
	switch fail.KindOf(err) {
	case fail.Invalid, fail.NotFound, fail.Denied, fail.Unsupported:
		ss.fail("[SYS/PERM] Cannot %s", doing)
	default:
		ss.fail("[SYS/TEMP] Cannot %s now, try again later", doing)
	}
}

func (ss *session) call() (context.Context, context.CancelFunc) {
	return context.WithTimeout(ss.s.ctx, ss.s.config.StorageTimeout)
}

// mayLogIn: a password only goes over TLS, or where the operator allowed it.
func (ss *session) mayLogIn() bool { return ss.secure || ss.s.host.InsecureAuth }

// login checks a password, takes the maildrop and looks into it.
func (ss *session) login(identity, user, password string) {
	ss.user = user
	ctx, cancel := ss.call()
	defer cancel()
	answer, err := ss.s.host.Directory.Authenticate(ctx, &v1.AuthenticateRequest{
		Username: user, Password: password, AuthorizationIdentity: identity,
		ClientIp: ss.source.Addr().String(), Service: "pop3",
	})
	log := ss.s.host.Log.With().Str("user", user).Stringer("client", ss.raw.RemoteAddr()).Logger()
	switch {
	case fail.Is(err, fail.Denied), fail.Is(err, fail.NotFound), fail.Is(err, fail.Invalid):
		wait := ss.s.gate.Failed(ss.source)
		log.Info().Dur("delay", wait).Msg("login refused")
		admission.Wait(ss.s.ctx, wait)
		ss.fail("[AUTH] Authentication failed")
		if ss.attempts++; ss.attempts >= ss.s.config.MaxLoginAttempts {
			ss.ended = true
		}
		return
	case err != nil:
		ss.problem(err, "check the password")
		return
	}
	account := answer.GetAccount()
	if !ss.s.gate.Join(account) {
		log.Info().Msg("maildrop in use")
		ss.fail("[IN-USE] Another session has the maildrop, try again later")
		return
	}
	store, err := ss.s.host.Storage.Open(ctx, account)
	if err == nil {
		ss.drop, err = openMaildrop(ctx, store)
	}
	if err != nil {
		ss.s.gate.Part(account)
		ss.problem(err, "open the maildrop")
		return
	}
	ss.account, ss.store = account, store
	count, size := ss.drop.total()
	log.Info().Str("account", account).Bool("tls", ss.secure).Int("messages", count).Msg("login")
	ss.ok("%d messages (%d octets)", count, size)
}

// send streams a message, at most lines lines of its body (all if negative).
func (ss *session) send(n int, lines int) {
	m := ss.drop.messages[n-1]
	begun := false
	// A slow client may take its time: each write has its own limit.
	ctx, cancel := context.WithTimeout(ss.s.ctx, 24*time.Hour)
	defer cancel()
	err := ss.drop.open(ctx, m, func(r io.Reader) error {
		begun = true
		ss.ok("%d octets", m.size)
		return stuff(ss.out, r, lines)
	})
	switch {
	case err == nil && begun:
	case begun:
		// The answer cannot be completed, and anything that follows would be
		// taken for its rest.
		ss.s.host.Log.Error().Err(err).Str("account", ss.account).Msg("cannot complete a message")
		ss.ended = true
		ss.raw.Close()
	case err == nil:
		ss.fail("[SYS/PERM] The message was removed by another client")
	default:
		ss.problem(err, "read the message")
	}
}
