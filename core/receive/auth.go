package receive

import (
	"context"
	"crypto/tls"
	"time"

	"github.com/emersion/go-sasl"
	"github.com/xdg-go/scram"

	"github.com/stagecoach-mta/stagecoach/core/filter"
	sdkdirectory "github.com/stagecoach-mta/stagecoach/sdk/directory"
	"github.com/stagecoach-mta/stagecoach/sdk/fail"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// Mechanisms that a listener with a directory offers, those with tokens if it
// verifies them.
var Mechanisms = []string{"SCRAM-SHA-256", "PLAIN", "LOGIN", sdkdirectory.OAuthBearer, sdkdirectory.XOAuth2}

// authTimeout of one question to the directory.
const authTimeout = 30 * time.Second

// AuthPlain checks a password with the listener's directory.
func (s *Session) AuthPlain(ctx context.Context, mech, identity, username, password string) error {
	ctx, cancel := context.WithTimeout(ctx, authTimeout)
	defer cancel()
	got, err := s.Auth.Authenticate(ctx, &v1.AuthenticateRequest{
		Username: username, Password: password, AuthorizationIdentity: identity,
		ClientIp: s.conn.RemoteIP().String(), Service: "smtp",
	})
	return s.authenticated(ctx, mech, username, got, err)
}

// authenticated ends an exchange: the filters hear of it either way.
func (s *Session) authenticated(ctx context.Context, mech, username string, got *v1.AuthenticateResponse, err error) error {
	switch {
	case fail.Is(err, fail.Denied):
		s.log.Warn().Str("user", username).Str("mechanism", mech).Stringer("client", s.conn.RemoteAddr()).Msg("login refused")
		if said := s.tellAuth(ctx, username, false); said != nil {
			return said
		}
		return err
	case err != nil:
		s.log.Error().Err(err).Str("user", username).Msg("login not checked")
		return refuse(454, "4.7.0", "Temporary authentication failure, try again later")
	}
	if err := s.tellAuth(ctx, got.GetAccount(), true); err != nil {
		return err
	}
	s.identity, s.mechanism = got, mech
	s.conn.SetAuthUser(got.GetAccount())
	s.log.Info().Str("user", got.GetAccount()).Str("mechanism", mech).Stringer("client", s.conn.RemoteAddr()).Msg("logged in")
	return nil
}

// tellAuth asks the filters that want to hear of logins.
func (s *Session) tellAuth(ctx context.Context, user string, authenticated bool) error {
	_, err := s.ask(ctx, question{User: user, Question: filter.Question{
		Event: v1.FilterEvent_AUTH, Recipient: -1, Authenticated: authenticated,
	}})
	return err
}

// AuthSASL serves what carries a token, which the directory verifies, and
// SCRAM-SHA-256 (RFC 7677): the directory has the verifier, the exchange runs here.
func (s *Session) AuthSASL(ctx context.Context, mech string) (sasl.Server, error) {
	if bearer(mech) {
		return &tokenServer{session: s, ctx: ctx, mech: mech}, nil
	}
	x := &scramServer{session: s, ctx: ctx, mech: mech}
	srv, err := scram.SHA256.NewServer(x.credentials)
	if err != nil {
		return nil, err
	}
	x.conv = srv.NewConversation()
	return x, nil
}

type scramServer struct {
	session *Session
	ctx     context.Context // of this exchange only
	mech    string
	conv    *scram.ServerConversation
	got     *v1.CredentialsResponse
	fault   error
}

func (x *scramServer) credentials(username string) (scram.StoredCredentials, error) {
	ctx, cancel := context.WithTimeout(x.ctx, authTimeout)
	defer cancel()
	x.got, x.fault = x.session.Auth.Credentials(ctx, &v1.CredentialsRequest{Username: username, Mechanism: x.mech})
	if x.fault != nil {
		return scram.StoredCredentials{}, x.fault
	}
	return scram.StoredCredentials{
		KeyFactors: scram.KeyFactors{Salt: string(x.got.GetSalt()), Iters: int(x.got.GetIterations())},
		StoredKey:  x.got.GetStoredKey(), ServerKey: x.got.GetServerKey(),
	}, nil
}

// Next is one step; the server's final message travels as a challenge that the
// client answers with an empty line (RFC 4954 section 4).
func (x *scramServer) Next(response []byte) (challenge []byte, done bool, err error) {
	if x.conv.Done() {
		got := &v1.AuthenticateResponse{Account: x.got.GetAccount()}
		return nil, true, x.session.authenticated(x.ctx, x.mech, x.conv.Username(), got, nil)
	}
	if response == nil {
		return []byte{}, false, nil // the client's first message is still to come
	}
	out, err := x.conv.Step(string(response))
	if err != nil {
		if x.fault != nil && !fail.Is(x.fault, fail.Denied) && !fail.Is(x.fault, fail.Unsupported) {
			return nil, false, x.session.authenticated(x.ctx, x.mech, x.conv.Username(), nil, x.fault)
		}
		return nil, false, x.session.authenticated(x.ctx, x.mech, x.conv.Username(), nil, fail.Wrap(fail.Denied, err, "wrong credentials"))
	}
	return []byte(out), false, nil
}

// AuthUser names the user for the engine.
func (x *scramServer) AuthUser() string { return x.got.GetAccount() }

func tlsVersion(t *tls.ConnectionState) string { return tls.VersionName(t.Version) }

func tlsCipher(t *tls.ConnectionState) string { return tls.CipherSuiteName(t.CipherSuite) }
