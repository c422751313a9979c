package directory

import (
	"strconv"
	"strings"

	"github.com/stagecoach-mta/stagecoach/sdk/fail"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// SASL mechanisms that carry a bearer token.
const (
	// OAuthBearer is RFC 7628.
	OAuthBearer = "OAUTHBEARER"
	// XOAuth2 is what was there before it, and what most clients speak.
	XOAuth2 = "XOAUTH2"
)

// TokenRequest reads the client's one response of such a mechanism. INVALID if it is
// malformed; it needs the client's address and the service to be complete. An empty
// token is a question for TokenRefusal, and DENIED.
func TokenRequest(mechanism, response string) (*v1.VerifyTokenRequest, error) {
	req := &v1.VerifyTokenRequest{}
	rest := response
	if mechanism == OAuthBearer {
		// gs2-header (RFC 5801 section 4): no channel is bound to.
		flag, after, _ := strings.Cut(response, ",")
		id, after, ok := strings.Cut(after, ",")
		if !ok || flag != "n" && flag != "y" || !strings.HasPrefix(after, "\x01") {
			return nil, fail.New(fail.Invalid, "the response does not begin with n,, and 0x01")
		}
		if id != "" {
			name, ok := strings.CutPrefix(id, "a=")
			if !ok || strings.Contains(strings.NewReplacer("=2C", "", "=3D", "").Replace(name), "=") {
				return nil, fail.New(fail.Invalid, "the authorization identity is malformed")
			}
			req.Username = strings.NewReplacer("=2C", ",", "=3D", "=").Replace(name)
		}
		rest = after[1:]
	}
	body, ok := strings.CutSuffix(rest, "\x01\x01")
	if !ok {
		if rest == "\x01" && mechanism == OAuthBearer {
			return req, nil
		}
		return nil, fail.New(fail.Invalid, "the response does not end with 0x01 twice")
	}
	for pair := range strings.SplitSeq(body, "\x01") {
		key, value, ok := strings.Cut(pair, "=")
		if !ok {
			return nil, fail.New(fail.Invalid, "a pair of the response has no =")
		}
		switch strings.ToLower(key) {
		case "user":
			if mechanism == XOAuth2 {
				req.Username = value
			}
		case "host":
			req.Host = value
		case "port":
			n, err := strconv.ParseUint(value, 10, 16)
			if err != nil {
				return nil, fail.New(fail.Invalid, "the port is no number")
			}
			req.Port = int32(n)
		case "auth":
			scheme, token, _ := strings.Cut(value, " ")
			if !strings.EqualFold(scheme, "Bearer") {
				return nil, fail.New(fail.Invalid, "the scheme is not Bearer")
			}
			req.Token = strings.TrimLeft(token, " ")
		}
	}
	return req, nil
}

// TokenRefusal is the challenge that tells a client why its token was not taken
// (RFC 7628 section 3.2.2). Its answer to it means nothing, and then the exchange
// fails.
func TokenRefusal(mechanism string, err error) string {
	switch {
	case mechanism == XOAuth2 && fail.Is(err, fail.Invalid):
		return `{"status":"400","schemes":"Bearer"}`
	case mechanism == XOAuth2:
		return `{"status":"401","schemes":"Bearer"}`
	case fail.Is(err, fail.Invalid):
		return `{"status":"invalid_request"}`
	}
	return `{"status":"invalid_token"}`
}
