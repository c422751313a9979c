package metrics

import (
	"context"
	"io"
	"time"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"

	"github.com/stagecoach-mta/stagecoach/core/smtp/server"
)

// backend counts the sessions of one listener.
type backend struct {
	server.Backend
	meters   *Meters
	listener string

	bytes, receiveTime, acceptTime *series
}

var _ server.Backend = (*backend)(nil)

// NewSession wraps the session; one that takes AUTH still does.
func (b *backend) NewSession(ctx context.Context, c *server.Conn) (server.Session, error) {
	inner, err := b.Backend.NewSession(ctx, c)
	if err != nil {
		b.meters.turnedAway.with(b.listener).add(1)
		return nil, err
	}
	b.meters.connections.with(b.listener).add(1)
	b.meters.open.with(b.listener).add(1)
	s := &session{Session: inner, backend: b}
	if a, ok := inner.(server.Authenticator); ok {
		return &authSession{session: s, auth: a}, nil
	}
	return s, nil
}

// session counts one connection's transactions.
type session struct {
	server.Session
	backend *backend
	// open: a message is being read, and Done has not come.
	open bool
	// began is when the transaction did.
	began time.Time
	body  bodyWriter
}

var _ server.Session = (*session)(nil)

func (s *session) count(v *vec, result string) { v.with(s.backend.listener, result).add(1) }

// result of a command is its reply's class.
func result(err error) string {
	if err == nil {
		return accepted
	}
	return resultOf(server.ReplyOf(err))
}

func resultOf(r server.Reply) string {
	switch r.Code / 100 {
	case 2:
		return accepted
	case 5:
		return refused
	}
	return deferred
}

func (s *session) Mail(ctx context.Context, from server.Path, opts *server.MailOptions) error {
	s.began = time.Now()
	err := s.Session.Mail(ctx, from, opts)
	s.count(s.backend.meters.transactions, result(err))
	return err
}

func (s *session) Rcpt(ctx context.Context, to server.Path, opts *smtp.RcptOptions) error {
	err := s.Session.Rcpt(ctx, to, opts)
	s.count(s.backend.meters.recipients, result(err))
	return err
}

func (s *session) Body(ctx context.Context) (io.Writer, error) {
	w, err := s.Session.Body(ctx)
	if err != nil {
		s.count(s.backend.meters.messages, result(err))
		return nil, err
	}
	s.open = true
	s.body = bodyWriter{w, s.backend.bytes}
	return &s.body, nil
}

type bodyWriter struct {
	io.Writer
	bytes *series
}

func (w *bodyWriter) Write(p []byte) (int, error) {
	n, err := w.Writer.Write(p)
	w.bytes.add(int64(n))
	return n, err
}

// Done counts a message by the best answer that any of its recipients got.
func (s *session) Done(ctx context.Context) []server.Reply {
	end := time.Now()
	replies := s.Session.Done(ctx)
	now := time.Now()
	s.backend.meters.acceptTime.observe(s.backend.acceptTime, now.Sub(end))
	s.backend.meters.receiveTime.observe(s.backend.receiveTime, now.Sub(s.began))
	s.open = false
	best := deferred // what the engine says where a reply is missing
	for i, r := range replies {
		switch got := resultOf(r); {
		case got == accepted, i == 0, got == deferred && best == refused:
			best = got
		}
		if best == accepted {
			break
		}
	}
	s.count(s.backend.meters.messages, best)
	return replies
}

func (s *session) Reset() {
	if s.open {
		s.open = false
		s.count(s.backend.meters.messages, "aborted")
	}
	s.Session.Reset()
}

func (s *session) Close() {
	s.backend.meters.open.with(s.backend.listener).add(-1)
	s.Session.Close()
}

// authSession is a session whose listener offers AUTH.
type authSession struct {
	*session
	auth server.Authenticator
}

var (
	_ server.Session       = (*authSession)(nil)
	_ server.Authenticator = (*authSession)(nil)
)

func (s *authSession) AuthPlain(ctx context.Context, mech, identity, username, password string) error {
	err := s.auth.AuthPlain(ctx, mech, identity, username, password)
	s.count(s.backend.meters.logins, loginResult(err))
	return err
}

func (s *authSession) AuthSASL(ctx context.Context, mech string) (sasl.Server, error) {
	x, err := s.auth.AuthSASL(ctx, mech)
	if err != nil {
		s.count(s.backend.meters.logins, loginResult(err))
		return nil, err
	}
	return &exchange{Server: x, session: s.session}, nil
}

// loginResult: an error that is no reply means wrong credentials, see
// server.Authenticator.
func loginResult(err error) string {
	if _, reply := err.(*smtp.SMTPError); err != nil && !reply {
		return refused
	}
	return result(err)
}

// exchange counts how a SASL exchange ends.
type exchange struct {
	sasl.Server
	session *session
}

func (x *exchange) Next(response []byte) ([]byte, bool, error) {
	challenge, done, err := x.Server.Next(response)
	if done || err != nil {
		x.session.count(x.session.backend.meters.logins, loginResult(err))
	}
	return challenge, done, err
}

// AuthUser hands on what the engine asks of a mechanism; empty: it did not say.
func (x *exchange) AuthUser() string {
	if named, ok := x.Server.(interface{ AuthUser() string }); ok {
		return named.AuthUser()
	}
	return ""
}
