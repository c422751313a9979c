// Package login is what the access plugins share of SASL: SCRAM-SHA-256 (RFC 7677),
// where the directory has the verifier and the exchange runs here, and bearer tokens
// (RFC 7628), which the directory verifies. What carries the messages is the
// protocol's to say.
package login

import (
	"context"
	"crypto/tls"
	"sync"
	"time"

	"github.com/xdg-go/scram"

	"github.com/stagecoach-mta/stagecoach/sdk/directory"
	"github.com/stagecoach-mta/stagecoach/sdk/fail"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// Mechanism is its name; with a channel binding "-PLUS" follows.
const Mechanism = "SCRAM-SHA-256"

// SCRAM is shared by all sessions. Its methods may be called concurrently.
type SCRAM struct {
	Directory directory.Directory

	offer Offer
}

// Offered tells whether the directory has verifiers at all: a mechanism that nobody
// could use must not be offered, because clients choose it first.
func (s *SCRAM) Offered(ctx context.Context) bool {
	return s.offer.Made(ctx, func(ctx context.Context) error {
		_, err := s.Directory.Credentials(ctx, &v1.CredentialsRequest{Username: "nobody", Mechanism: Mechanism})
		return err
	})
}

// Offer remembers for a minute whether something that is called can do what is to be
// offered. Its method may be called concurrently.
type Offer struct {
	mu    sync.Mutex
	can   bool
	asked time.Time
}

// fresh is how long an answer is believed.
const fresh = time.Minute

// Made asks, if it does not know. NOT_FOUND and DENIED are answers of one that can.
func (o *Offer) Made(ctx context.Context, ask func(context.Context) error) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.asked.IsZero() && time.Since(o.asked) < fresh {
		return o.can
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	err := ask(ctx)
	o.can, o.asked = err == nil || fail.Is(err, fail.NotFound) || fail.Is(err, fail.Denied), time.Now()
	return o.can
}

// Binding ties an exchange to a TLS connection (RFC 9266).
type Binding = scram.ChannelBinding

// Bind makes the binding of what a session talks over; nil where there is none that
// both sides would have.
func Bind(stream any) *Binding {
	c, ok := stream.(*tls.Conn)
	if !ok {
		return nil
	}
	state := c.ConnectionState()
	if state.Version < tls.VersionTLS13 {
		return nil
	}
	b, err := scram.NewTLSExporterBinding(&state)
	if err != nil {
		return nil
	}
	return &b
}

// Exchange is one login.
type Exchange struct {
	conversation *scram.ServerConversation
	got          *v1.CredentialsResponse
	fault        error
}

// Begin starts a login. binding is required for "-PLUS" (plus), and may be nil
// otherwise; call gives each question to the directory its time.
func (s *SCRAM) Begin(call func() (context.Context, context.CancelFunc), binding *Binding, plus bool) (*Exchange, error) {
	x := &Exchange{}
	server, err := scram.SHA256.NewServer(func(username string) (scram.StoredCredentials, error) {
		ctx, cancel := call()
		defer cancel()
		x.got, x.fault = s.Directory.Credentials(ctx, &v1.CredentialsRequest{Username: username, Mechanism: Mechanism})
		return scram.StoredCredentials{
			KeyFactors: scram.KeyFactors{Salt: string(x.got.GetSalt()), Iters: int(x.got.GetIterations())},
			StoredKey:  x.got.GetStoredKey(), ServerKey: x.got.GetServerKey(),
		}, x.fault
	})
	switch {
	case err != nil:
		return nil, err
	case plus && binding == nil:
		return nil, fail.New(fail.Denied, "there is no channel to bind to")
	case plus:
		x.conversation = server.NewConversationWithChannelBindingRequired(*binding)
	case binding != nil:
		// A client that could, and was told by somebody that we cannot, notices.
		x.conversation = server.NewConversationWithChannelBinding(*binding)
	default:
		x.conversation = server.NewConversation()
	}
	return x, nil
}

// Step takes a response of the client and gives the next challenge; after the last
// one, which is the server's proof, Done is true and the client is who it says. The
// error is DENIED for wrong credentials, else the directory's.
func (x *Exchange) Step(response string) (challenge string, err error) {
	challenge, err = x.conversation.Step(response)
	switch {
	case err == nil && (!x.conversation.Done() || x.conversation.Valid()):
		return challenge, nil
	case x.fault != nil && !fail.Is(x.fault, fail.Denied) && !fail.Is(x.fault, fail.Unsupported):
		return "", x.fault
	case err != nil:
		return "", fail.Wrap(fail.Denied, err, "wrong credentials")
	}
	return "", fail.New(fail.Denied, "wrong credentials")
}

// Done tells whether the client has proven to know the password.
func (x *Exchange) Done() bool { return x.conversation.Done() && x.conversation.Valid() }

// Username is what the client calls itself, as far as it has said so.
func (x *Exchange) Username() string { return x.conversation.Username() }

// Account whom the session acts as, once Done.
func (x *Exchange) Account() string { return x.got.GetAccount() }
