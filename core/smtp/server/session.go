package server

import (
	"context"
	"io"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"

	"github.com/stagecoach-mta/stagecoach/sdk/address"
)

// Backend makes a Session for each connection.
type Backend interface {
	// NewSession is called on connect, before the banner, and again after XCLIENT
	// has changed who the client is. An error takes the banner's place (as Mail's
	// does, 554 for a lasting refusal) and ends the connection.
	// ctx ends with the connection.
	NewSession(ctx context.Context, c *Conn) (Session, error)
}

// Session is what one connection does. The engine calls it from one goroutine,
// in the order that RFC 5321 allows, and never two methods at once.
//
// An error that is (or wraps) a *smtp.SMTPError is the reply; any other is logged
// and answered 451 4.3.0. A reply of 421 also ends the connection. Mail and Rcpt
// may return an SMTPError of code 2xx: success with a text of their own.
type Session interface {
	// Hello is called for each accepted EHLO, HELO or LHLO. An error refuses it.
	Hello(ctx context.Context, h Hello) error
	// Mail begins a transaction. opts, and Rcpt's, are the engine's again after the call.
	Mail(ctx context.Context, from Path, opts *MailOptions) error
	// Rcpt adds a recipient to it.
	Rcpt(ctx context.Context, to Path, opts *smtp.RcptOptions) error
	// Body is called at DATA or the first BDAT. An error refuses the message and the
	// transaction is Reset. The writer gets the message as it will be stored: dots
	// unstuffed, lines ended by CRLF (BINARYMIME: as sent), in blocks that it must
	// not keep. When a Write fails, the rest of the message is read and dropped,
	// then the error is the reply, and the transaction is Reset.
	Body(ctx context.Context) (io.Writer, error)
	// Done is called when the whole message was written, and ends the transaction:
	// no Reset follows. It returns one Reply, in LMTP one per accepted recipient in
	// order. What is missing is answered 451.
	Done(ctx context.Context) []Reply
	// Reset drops the open transaction: RSET, a message that was refused or cut off,
	// a new EHLO, STARTTLS, the end of the connection.
	Reset()
	// Close is called exactly once, when the connection is gone, after Reset if a
	// transaction was open.
	Close()
}

// Authenticator is a Session that takes AUTH. A nil error means authenticated.
// An error that is not a *smtp.SMTPError means wrong credentials (535 5.7.8); for
// a fault of the server's own return 454 4.7.0.
type Authenticator interface {
	// AuthPlain checks a password, for mech PLAIN and LOGIN. identity is the user
	// to act as, empty for username itself.
	AuthPlain(ctx context.Context, mech, identity, username, password string) error
	// AuthSASL returns the server's side of any other mechanism of Config.Auth; the
	// engine runs the exchange. If the result has a method AuthUser() string, the
	// name of the user is taken from there in the end.
	AuthSASL(ctx context.Context, mech string) (sasl.Server, error)
}

// Offerer is an Authenticator that has not all of Config.Auth for every client.
type Offerer interface {
	Authenticator
	// Offers tells whether mech, one of Config.Auth, is offered now.
	Offers(ctx context.Context, mech string) bool
}

// Hello is the greeting of the client.
type Hello struct {
	Verb string // EHLO, HELO or LHLO
	Name string // as sent: a domain or an address literal, not verified
}

// Path is a reverse-path or forward-path.
type Path struct {
	Raw string // exactly as sent between < and >
	address.Address
}
