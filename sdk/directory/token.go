package directory

import (
	"context"

	"github.com/stagecoach-mta/stagecoach/sdk/fail"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// TokenVerifier is a Directory that checks bearer tokens too (SASL OAUTHBEARER,
// RFC 7628, and XOAUTH2).
type TokenVerifier interface {
	Directory
	// VerifyToken answers whose a token is. DENIED for one that does not hold, an
	// empty one too; UNSUPPORTED, whatever the token, where no tokens are verified, so
	// that the mechanisms are not offered.
	VerifyToken(ctx context.Context, req *v1.VerifyTokenRequest) (*v1.VerifyTokenResponse, error)
}

// VerifyToken asks d, if it is a TokenVerifier; else the error is UNSUPPORTED.
func VerifyToken(ctx context.Context, d Directory, req *v1.VerifyTokenRequest) (*v1.VerifyTokenResponse, error) {
	v, ok := d.(TokenVerifier)
	if !ok {
		return nil, fail.New(fail.Unsupported, "this directory verifies no tokens")
	}
	return v.VerifyToken(ctx, req)
}
