package imap

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

const scramSHA256 = "SCRAM-SHA-256"

// verifiers knows whether the directory has SCRAM verifiers at all: a mechanism
// that nobody could use must not be offered, because clients choose it first.
type verifiers struct {
	directory directory.Directory

	mu    sync.Mutex
	has   bool
	asked time.Time
}

// verifiersFresh is how long an answer is believed.
const verifiersFresh = time.Minute

func (v *verifiers) known(ctx context.Context) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	if !v.asked.IsZero() && time.Since(v.asked) < verifiersFresh {
		return v.has
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	_, err := v.directory.Credentials(ctx, &v1.CredentialsRequest{Username: "nobody", Mechanism: scramSHA256})
	v.has, v.asked = err == nil || fail.Is(err, fail.NotFound) || fail.Is(err, fail.Denied), time.Now()
	return v.has
}

// binding ties an exchange to this TLS connection (RFC 9266); nil where there is
// none that both sides would have.
func (ss *session) binding() *scram.ChannelBinding {
	c, ok := ss.stream.(*tls.Conn)
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

// scram is RFC 7677: the directory has the verifier, the exchange runs here.
func (x *exchange) scram(plus bool) error {
	binding := x.ss.binding()
	var got *v1.CredentialsResponse
	var fault error
	server, err := scram.SHA256.NewServer(func(username string) (scram.StoredCredentials, error) {
		ctx, cancel := x.ss.call()
		defer cancel()
		got, fault = x.ss.s.host.Directory.Credentials(ctx, &v1.CredentialsRequest{Username: username, Mechanism: scramSHA256})
		return scram.StoredCredentials{
			KeyFactors: scram.KeyFactors{Salt: string(got.GetSalt()), Iters: int(got.GetIterations())},
			StoredKey:  got.GetStoredKey(), ServerKey: got.GetServerKey(),
		}, fault
	})
	if err != nil {
		return err
	}
	conversation := server.NewConversation()
	switch {
	case plus:
		conversation = server.NewConversationWithChannelBindingRequired(*binding)
	case binding != nil:
		// A client that could, and was told by somebody that we cannot, notices.
		conversation = server.NewConversationWithChannelBinding(*binding)
	}
	challenge := ""
	for {
		response, err := x.ask(challenge)
		if err != nil {
			return err
		}
		if conversation.Done() {
			// The client's answer to the server's proof is empty.
			return x.ss.authenticated(conversation.Username(), got.GetAccount(), nil)
		}
		if challenge, err = conversation.Step(response); err != nil {
			if fault == nil || fail.Is(fault, fail.Denied) || fail.Is(fault, fail.Unsupported) {
				fault = fail.Wrap(fail.Denied, err, "wrong credentials")
			}
			return x.ss.authenticated(conversation.Username(), "", fault)
		}
		if conversation.Done() && !conversation.Valid() {
			return x.ss.authenticated(conversation.Username(), "", fail.New(fail.Denied, "wrong credentials"))
		}
	}
}
