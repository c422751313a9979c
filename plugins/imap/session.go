package imap

import (
	"context"
	"errors"
	"runtime/debug"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/rs/zerolog"

	"github.com/stagecoach-mta/stagecoach/plugins/imap/wire"
	"github.com/stagecoach-mta/stagecoach/sdk/fail"
	"github.com/stagecoach-mta/stagecoach/sdk/storage"
)

// maxMistakes in a row end a connection: who speaks another protocol, or nothing
// that anybody could understand.
const maxMistakes = 20

// session is a client's connection with what it knows of itself. Its goroutine
// alone touches it.
type session struct {
	*conn
	s      *Server
	ctx    context.Context
	cancel context.CancelFunc
	log    zerolog.Logger

	attempts, mistakes int
	ended              bool
	// code of the OK reply to the command at hand: "READ-WRITE".
	code string

	account string
	store   storage.Account
	// enabled extensions (RFC 5161), and CONDSTORE, which any use of it enables.
	rev2, condstore, qresync, uidOnly, metadata bool

	// The selected mailbox, if there is one.
	box      *view
	readOnly bool
	changes  *subscription
	// saved is the result that "$" stands for (RFC 9051 section 6.4.4.1).
	saved []uint32
	// updating results (RFC 5267).
	updating []*updating
	// watching is what NOTIFY asked for.
	watching *watching
	// ahead of the next STATUS.
	ahead ahead
	// annotations that changed are told of.
	annotations *annotationsWatch
	// lastWords end the session after the reply at hand.
	lastWords string
}

func (s *Server) newSession(c *conn) *session {
	ss := &session{conn: c, s: s, log: s.host.Log.With().Stringer("client", c.raw.RemoteAddr()).Logger()}
	ss.ctx, ss.cancel = context.WithCancel(s.ctx)
	return ss
}

// serve runs the session to its end.
func (ss *session) serve(implicitTLS bool) {
	defer ss.close()
	defer func() {
		if p := recover(); p != nil {
			ss.log.Error().Interface("panic", p).Bytes("stack", debug.Stack()).Msg("session failed")
		}
	}()
	if implicitTLS && ss.handshake() != nil {
		return
	}
	ss.out.line("* OK [CAPABILITY %s] %s IMAP server ready", ss.capabilities(), ss.s.host.Hostname)
	for !ss.ended {
		cmd, err := ss.readCommand()
		switch {
		case errors.Is(err, errWoken):
			ss.tellUnasked()
		case err != nil:
			ss.farewell(err)
		case cmd == nil:
			ss.mistake()
		default:
			ss.run(cmd)
			cmd.done()
		}
	}
	_ = ss.out.flush()
}

func (ss *session) close() {
	ss.cancel()
	ss.forget()
	// TLS says that nothing follows; clients tell that from a cut.
	if c, ok := ss.stream.(interface{ Close() error }); ok {
		c.Close()
	}
	ss.raw.Close()
}

// forget what the login brought.
func (ss *session) forget() {
	ss.leaveBox()
	ss.unwatch()
	ss.unwatchAnnotations()
	if ss.account != "" {
		ss.s.gate.Part(ss.account)
	}
	ss.account, ss.store, ss.loggedIn = "", nil, false
	ss.ahead.list.Store(nil)
	ss.rev2, ss.condstore, ss.qresync, ss.uidOnly, ss.metadata, ss.out.utf8 = false, false, false, false, false, false
}

// bye ends the session with a word (RFC 9051 section 7.1.5).
func (ss *session) bye(text string) {
	if !ss.ended {
		ss.out.line("* BYE %s", text)
	}
	ss.ended = true
}

func (ss *session) farewell(err error) {
	switch {
	case errors.Is(err, errHungUp):
		ss.bye(*ss.reason.Load())
	case errors.Is(err, errTooLong):
		ss.bye("Line or literal too long")
	case errors.Is(err, errIdle):
		ss.bye("Idle for too long")
	case errors.Is(err, errNoLogin):
		ss.bye("Took too long to log in")
	case errors.Is(err, errHalfFrame):
		ss.bye("The rest of the command did not come")
	}
	ss.ended = true
}

func (ss *session) mistake() {
	if ss.mistakes++; ss.mistakes >= maxMistakes {
		ss.bye("Too many mistakes")
	}
}

// states in which a command may come.
type states int

const (
	stranger states = 1 << iota
	known
	selected
	always = stranger | known | selected
)

func (ss *session) state() states {
	switch {
	case ss.box != nil:
		return selected
	case ss.account != "":
		return known
	}
	return stranger
}

// handler runs a command. What it returns becomes the reply: nil is OK, a
// wire.SyntaxError BAD, an *imap.Error itself, and all else NO [UNAVAILABLE].
type handler struct {
	in  states
	run func(*session, *command) error
	// numbers: messages keep their numbers until the reply (RFC 9051 section
	// 7.5.1), so no EXPUNGE is told.
	numbers bool
	// byNumber: the command names messages by number, which UIDONLY forbids
	// (RFC 9586).
	byNumber bool
	// silent: the handler has replied.
	silent bool
}

// run a command and reply.
func (ss *session) run(cmd *command) {
	h, ok := commands[cmd.name]
	state := ss.state()
	var err error
	switch {
	case !ok:
		err = wire.SyntaxError("Unknown command")
	case ss.uidOnly && h.byNumber:
		err = errUIDRequired
	case h.in&state != 0:
		ss.code = ""
		err = h.run(ss, cmd)
		ss.note(cmd)
	case state == stranger:
		err = wire.SyntaxError("Log in first")
	case h.in&selected != 0:
		err = wire.SyntaxError("Select a mailbox first")
	default:
		err = wire.SyntaxError("Not after the login")
	}
	if h.silent && err == nil || ss.ended {
		return
	}
	ss.finish(cmd, err, h)
}

func (ss *session) finish(cmd *command, err error, h handler) {
	var syntax wire.SyntaxError
	var reply *imap.Error
	switch {
	case err == nil:
		ss.mistakes = 0
		reply = &imap.Error{Type: imap.StatusResponseTypeOK, Code: imap.ResponseCode(ss.code), Text: cmd.name + " completed"}
	case errors.As(err, &syntax):
		reply = &imap.Error{Type: imap.StatusResponseTypeBad, Text: string(syntax)}
	case errors.As(err, &reply):
	case errors.Is(err, errTorn) || ss.out.err != nil:
		ss.ended = true
		return
	default:
		errors.As(ss.refusal(err), &reply)
	}
	if reply.Type == imap.StatusResponseTypeBad {
		ss.mistake()
	} else {
		ss.poll(cmd, !h.numbers || cmd.byUID())
	}
	ss.answer(cmd.tag, reply)
	if err == wire.OpenQuote {
		ss.lastWords = "Out of step"
	}
	if ss.lastWords != "" {
		ss.bye(ss.lastWords)
	}
}

// errTorn: a reply was begun that cannot be completed, so the connection ends.
var errTorn = errors.New("torn reply")

// end of a command's arguments: handlers look here before they do anything.
func (cmd *command) end() error {
	cmd.p.End()
	return cmd.p.Err()
}

// call is the context of one request to the storage.
func (ss *session) call() (context.Context, context.CancelFunc) {
	return context.WithTimeout(ss.ctx, ss.s.config.StorageTimeout)
}

// long is the context of a request that streams messages to the client, as slow
// as that may be: the writes have their own limit.
func (ss *session) long() (context.Context, context.CancelFunc) {
	return context.WithTimeout(ss.ctx, 24*time.Hour)
}

func no(code imap.ResponseCode, text string) error {
	return &imap.Error{Type: imap.StatusResponseTypeNo, Code: code, Text: text}
}

func bad(text string) error { return wire.SyntaxError(text) }

var errReadOnly = no(imap.ResponseCodeNoPerm, "The mailbox was opened read-only")

// refusal makes IMAP's answer of the storage's or the directory's.
func (ss *session) refusal(err error) error {
	var already *imap.Error
	var syntax wire.SyntaxError
	if err == nil || errors.As(err, &already) || errors.As(err, &syntax) || errors.Is(err, errTorn) {
		return err
	}
	switch fail.KindOf(err) {
	case fail.NotFound:
		return errNoMailbox
	case fail.Exists:
		return no(imap.ResponseCodeAlreadyExists, "There is a mailbox of that name already")
	case fail.Invalid:
		return no(imap.ResponseCodeCannot, "The name or value is not allowed")
	case fail.Denied:
		return no(imap.ResponseCodeNoPerm, "Not permitted")
	case fail.OverQuota:
		return no(imap.ResponseCodeOverQuota, "The account is full: delete something first")
	case fail.TooLarge:
		return no(imap.ResponseCodeTooBig, "Too big")
	case fail.NoSpace:
		return no(imap.ResponseCodeUnavailable, "The server's disk is full, try again later")
	case fail.Conflict:
		return no(imap.ResponseCodeInUse, "Changed meanwhile, try again")
	case fail.Unsupported:
		return no(imap.ResponseCodeCannot, "The storage cannot do that")
	}
	if ss.ctx.Err() == nil {
		ss.log.Warn().Err(err).Str("account", ss.account).Msg("the storage or the directory does not answer as it should")
	}
	return no(imap.ResponseCodeUnavailable, "Not available now, try again later")
}
