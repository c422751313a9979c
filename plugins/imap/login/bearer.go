package login

import (
	"context"

	"github.com/stagecoach-mta/stagecoach/sdk/directory"
	"github.com/stagecoach-mta/stagecoach/sdk/fail"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// Bearer is OAUTHBEARER and XOAUTH2, shared by all sessions. Its methods may be
// called concurrently.
type Bearer struct {
	Directory directory.Directory

	offer Offer
}

// Offered tells whether the directory verifies tokens.
func (b *Bearer) Offered(ctx context.Context) bool {
	return b.offer.Made(ctx, func(ctx context.Context) error {
		_, err := directory.VerifyToken(ctx, b.Directory, &v1.VerifyTokenRequest{})
		return err
	})
}

// Is tells whether a mechanism is one of the two.
func (b *Bearer) Is(mechanism string) bool {
	return mechanism == directory.OAuthBearer || mechanism == directory.XOAuth2
}

// Mechanisms that are offered when Offered says so.
var Mechanisms = []string{directory.OAuthBearer, directory.XOAuth2}

// Verify takes the client's one response. For a token that was refused challenge is
// what the client is told before the exchange fails; what it answers means nothing.
// The error is DENIED for a token that does not hold or a malformed response, else
// the directory's.
func (b *Bearer) Verify(ctx context.Context, mechanism, response, clientIP, service string) (username, account, challenge string, err error) {
	req, err := directory.TokenRequest(mechanism, response)
	if err != nil {
		return "", "", directory.TokenRefusal(mechanism, err), fail.Wrap(fail.Denied, err, mechanism)
	}
	req.ClientIp, req.Service = clientIP, service
	got, err := directory.VerifyToken(ctx, b.Directory, req)
	switch {
	case fail.Is(err, fail.Denied), fail.Is(err, fail.NotFound), fail.Is(err, fail.Invalid), fail.Is(err, fail.Unsupported):
		return req.GetUsername(), "", directory.TokenRefusal(mechanism, err), fail.Wrap(fail.Denied, err, mechanism)
	case err != nil:
		return req.GetUsername(), "", "", err
	case req.GetUsername() == "":
		return got.GetAccount(), got.GetAccount(), "", nil
	}
	return req.GetUsername(), got.GetAccount(), "", nil
}
