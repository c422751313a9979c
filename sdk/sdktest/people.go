package sdktest

import (
	"context"
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/sha256"
	"crypto/subtle"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/stagecoach-mta/stagecoach/sdk/directory"
	"github.com/stagecoach-mta/stagecoach/sdk/fail"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// Directory is a double for the tests of access plugins: a whole directory, in
// memory, that passes the conformance suite. Set its fields before it is asked;
// FailWith may come at any time.
type Directory struct {
	// Users by account, with their passwords: "meg@ryan.example": "secret".
	Users map[string]string
	// Aliases by address, with what they stand for.
	Aliases map[string][]string
	// Tokens: bearer tokens with the accounts that they log in. Nil: the directory
	// verifies none.
	Tokens map[string]string

	logins atomic.Int64
	broken atomic.Pointer[error]
}

var _ directory.TokenVerifier = (*Directory)(nil)

// Logins counts the passwords that were to be checked so far.
func (d *Directory) Logins() int { return int(d.logins.Load()) }

// FailWith makes err the answer to everything, fail.New(fail.Unavailable, "away");
// nil ends that.
func (d *Directory) FailWith(err error) { d.broken.Store(&err) }

func (d *Directory) failing() error {
	if err := d.broken.Load(); err != nil {
		return *err
	}
	return nil
}

// Resolve implements directory.Directory.
func (d *Directory) Resolve(_ context.Context, req *v1.ResolveRequest) (*v1.ResolveResponse, error) {
	if err := d.failing(); err != nil {
		return nil, err
	}
	local, domain, _ := strings.Cut(strings.ToLower(req.GetAddress()), "@")
	local, detail, _ := strings.Cut(local, "+")
	address := local + "@" + domain
	if _, ok := d.Users[address]; ok {
		return &v1.ResolveResponse{Result: v1.ResolveResponse_MAILBOX, Account: address, Detail: detail}, nil
	}
	if to := d.Aliases[address]; len(to) > 0 {
		return &v1.ResolveResponse{Result: v1.ResolveResponse_ALIAS, Targets: to}, nil
	}
	if slices.Contains(d.domains(), domain) {
		return &v1.ResolveResponse{Result: v1.ResolveResponse_NO_SUCH_USER}, nil
	}
	return &v1.ResolveResponse{Result: v1.ResolveResponse_NOT_MINE}, nil
}

// Authenticate implements directory.Directory.
func (d *Directory) Authenticate(_ context.Context, req *v1.AuthenticateRequest) (*v1.AuthenticateResponse, error) {
	d.logins.Add(1)
	if err := d.failing(); err != nil {
		return nil, err
	}
	user := strings.ToLower(req.GetUsername())
	password, known := d.Users[user]
	right := subtle.ConstantTimeCompare([]byte(password), []byte(req.GetPassword())) == 1
	if !known || !right || req.GetAuthorizationIdentity() != "" && strings.ToLower(req.GetAuthorizationIdentity()) != user {
		return nil, fail.New(fail.Denied, "wrong user name or password")
	}
	return &v1.AuthenticateResponse{Account: user, Addresses: []string{user}}, nil
}

// VerifyToken implements directory.TokenVerifier.
func (d *Directory) VerifyToken(_ context.Context, req *v1.VerifyTokenRequest) (*v1.VerifyTokenResponse, error) {
	if err := d.failing(); err != nil {
		return nil, err
	}
	if d.Tokens == nil {
		return nil, fail.New(fail.Unsupported, "no tokens are verified here")
	}
	account, known := d.Tokens[req.GetToken()]
	if !known || req.GetUsername() != "" && strings.ToLower(req.GetUsername()) != account {
		return nil, fail.New(fail.Denied, "the token does not hold")
	}
	return &v1.VerifyTokenResponse{Account: account, Addresses: []string{account}}, nil
}

const iterations = 4096 // the least that RFC 7677 section 4 allows

// Credentials implements directory.Directory, for SCRAM-SHA-256.
func (d *Directory) Credentials(_ context.Context, req *v1.CredentialsRequest) (*v1.CredentialsResponse, error) {
	if err := d.failing(); err != nil {
		return nil, err
	}
	if req.GetMechanism() != "SCRAM-SHA-256" {
		return nil, fail.New(fail.Unsupported, "no verifiers for %s", req.GetMechanism())
	}
	user := strings.ToLower(req.GetUsername())
	password, known := d.Users[user]
	salt := mac([]byte("sdktest"), user)
	salted, err := pbkdf2.Key(sha256.New, password, salt, iterations, sha256.Size)
	if err != nil {
		return nil, err
	}
	stored := sha256.Sum256(mac(salted, "Client Key"))
	resp := &v1.CredentialsResponse{Account: user, Salt: salt, Iterations: iterations, StoredKey: stored[:], ServerKey: mac(salted, "Server Key")}
	if !known {
		// Keys that no password has.
		resp.StoredKey, resp.ServerKey = mac(salt, "nobody"), mac(salt, "nobody's")
	}
	return resp, nil
}

func mac(key []byte, text string) []byte {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(text))
	return h.Sum(nil)
}

// Domains implements directory.Directory.
func (d *Directory) Domains(context.Context, *v1.DomainsRequest) (*v1.DomainsResponse, error) {
	if err := d.failing(); err != nil {
		return nil, err
	}
	return &v1.DomainsResponse{Domains: d.domains()}, nil
}

func (d *Directory) domains() []string {
	var out []string
	add := func(address string) {
		if _, domain, ok := strings.Cut(address, "@"); ok && !slices.Contains(out, domain) {
			out = append(out, domain)
		}
	}
	for u := range d.Users {
		add(u)
	}
	for a := range d.Aliases {
		add(a)
	}
	slices.Sort(out)
	return out
}
