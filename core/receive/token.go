package receive

import (
	"context"
	"sync"
	"time"

	"github.com/emersion/go-sasl"

	"github.com/stagecoach-mta/stagecoach/core/smtp/server"
	sdkdirectory "github.com/stagecoach-mta/stagecoach/sdk/directory"
	"github.com/stagecoach-mta/stagecoach/sdk/fail"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

func bearer(mech string) bool {
	return mech == sdkdirectory.OAuthBearer || mech == sdkdirectory.XOAuth2
}

// tokens remembers whether a policy's directory verifies any.
type tokens struct {
	mu     sync.Mutex
	policy *Policy
	taken  bool
	asked  time.Time
}

// tokensFresh is how long a directory's word on that is believed.
const tokensFresh = time.Minute

func (t *tokens) offered(ctx context.Context, p *Policy) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.policy == p && time.Since(t.asked) < tokensFresh {
		return t.taken
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	_, err := sdkdirectory.VerifyToken(ctx, p.Auth, &v1.VerifyTokenRequest{})
	t.policy, t.taken, t.asked = p, err == nil || fail.Is(err, fail.Denied), time.Now()
	return t.taken
}

var _ server.Offerer = (*Session)(nil)

// Offers implements server.Offerer.
func (s *Session) Offers(ctx context.Context, mech string) bool {
	return !bearer(mech) || s.backend.tokens.offered(ctx, s.Policy)
}

// tokenServer is OAUTHBEARER (RFC 7628) and XOAUTH2.
type tokenServer struct {
	session *Session
	ctx     context.Context // of this exchange only
	mech    string
	req     *v1.VerifyTokenRequest
	refused error
}

// Next is one step. A token that was refused costs one more: the client is told why,
// and then fails whatever it says (RFC 7628 section 3.2.3).
func (x *tokenServer) Next(response []byte) (challenge []byte, done bool, err error) {
	s := x.session
	switch {
	case response == nil:
		return []byte{}, false, nil
	case x.refused != nil:
		return nil, false, s.authenticated(x.ctx, x.mech, x.req.GetUsername(), nil, x.refused)
	}
	x.req, err = sdkdirectory.TokenRequest(x.mech, string(response))
	if err != nil {
		x.refused = fail.Wrap(fail.Denied, err, x.mech)
		return []byte(sdkdirectory.TokenRefusal(x.mech, err)), false, nil
	}
	x.req.ClientIp, x.req.Service = s.conn.RemoteIP().String(), "smtp"
	ctx, cancel := context.WithTimeout(x.ctx, authTimeout)
	defer cancel()
	got, err := sdkdirectory.VerifyToken(ctx, s.Auth, x.req)
	if fail.Is(err, fail.Denied) || fail.Is(err, fail.Unsupported) || fail.Is(err, fail.Invalid) {
		x.refused = fail.Wrap(fail.Denied, err, x.mech)
		return []byte(sdkdirectory.TokenRefusal(x.mech, err)), false, nil
	}
	name := x.req.GetUsername()
	if name == "" {
		name = got.GetAccount()
	}
	return nil, true, s.authenticated(x.ctx, x.mech, name, &v1.AuthenticateResponse{Account: got.GetAccount(), Addresses: got.GetAddresses()}, err)
}

var (
	_ sasl.Server                    = (*tokenServer)(nil)
	_ interface{ AuthUser() string } = (*tokenServer)(nil)
)

// AuthUser names the user for the engine.
func (x *tokenServer) AuthUser() string { return x.session.identity.GetAccount() }
