package pop3

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/stagecoach-mta/stagecoach/sdk/fail"
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
	// out is small, so that sessions that wait cost little, or, while something
	// long goes out, a large one of the pool.
	out, small *bufio.Writer
	secure     bool
	// cut: the client took no more.
	cut   bool
	going atomic.Bool

	user             string
	attempts, errors int
	ended            bool

	// After the login.
	account string
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
	ss.small = bufio.NewWriterSize(writer{ss}, 1024)
	ss.out = ss.small
}

// large is the most that is written at once.
const large = 32 << 10

var writers = sync.Pool{New: func() any { return bufio.NewWriterSize(nil, large) }}

// enlarge makes out a large buffer, until settle.
func (ss *session) enlarge() {
	if ss.out != ss.small {
		return
	}
	ss.small.Flush()
	ss.out = writers.Get().(*bufio.Writer)
	ss.out.Reset(writer{ss})
}

// settle sends what is buffered, before the session waits for the client.
func (ss *session) settle() error {
	err := ss.out.Flush()
	if ss.out != ss.small {
		ss.out.Reset(nil)
		writers.Put(ss.out)
		ss.out = ss.small
	}
	return err
}

// writer gives every piece its deadline.
type writer struct{ ss *session }

func (w writer) Write(p []byte) (int, error) {
	w.ss.conn.SetWriteDeadline(time.Now().Add(w.ss.s.config.WriteTimeout))
	n, err := w.ss.conn.Write(p)
	w.ss.cut = w.ss.cut || err != nil
	return n, err
}

// Leave is part of connections.Session.
func (ss *session) Leave() {
	ss.going.Store(true)
	ss.raw.SetReadDeadline(time.Unix(1, 0))
}

// Serve is part of connections.Session.
func (ss *session) Serve(implicitTLS bool) {
	defer ss.close()
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
	_ = ss.settle()
}

func (ss *session) close() {
	ss.release()
	if ss.conn != nil {
		// TLS says that nothing follows; clients tell that from a cut.
		ss.conn.Close()
	}
}

var errTooLong = errors.New("line too long")

// readLine reads a command. Replies go out before it waits: those to commands
// sent together go out together (RFC 2449 section 6.6).
func (ss *session) readLine() (string, error) {
	var line []byte
	for {
		if !ss.lineBuffered() {
			if err := ss.settle(); err != nil {
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

// lineBuffered tells whether a whole command came in already.
func (ss *session) lineBuffered() bool {
	b, _ := ss.in.Peek(ss.in.Buffered())
	return bytes.IndexByte(b, '\n') >= 0
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
func (ss *session) problem(err error, user, doing string) {
	ss.s.host.Log.Error().Err(err).Str("user", user).Stringer("client", ss.raw.RemoteAddr()).Msg("cannot " + doing)
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
