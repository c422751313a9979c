package program

import (
	"context"
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"strings"
	"time"

	"github.com/stagecoach-mta/stagecoach/sdk"
	"github.com/stagecoach-mta/stagecoach/sdk/directory"
	"github.com/stagecoach-mta/stagecoach/sdk/fail"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// The one user of the directory under test, and an alias.
const (
	testUser     = "meg@ryan.example"
	testPassword = "sleepless"
	testAlias    = "both@ryan.example"
)

func (b *plugin) directory(_ context.Context, in *sdk.Instance) (directory.Directory, error) {
	return &knowing{plugin: b, conf: in.Config.(*settings)}, b.opens(in.DataDir)
}

// knowing is a directory with one user and one alias.
type knowing struct {
	*plugin
	conf *settings
}

// Resolve implements directory.Directory.
func (d *knowing) Resolve(ctx context.Context, req *v1.ResolveRequest) (*v1.ResolveResponse, error) {
	if err := d.call(ctx, d.conf); err != nil {
		return nil, err
	}
	local, domain, _ := strings.Cut(req.GetAddress(), "@")
	if d.broken != "compares domains with case" {
		domain = strings.ToLower(domain)
	}
	address := local + "@" + domain
	switch {
	case d.broken == "panics at an odd address" && len(address) > 1000:
		panic("too long")
	case d.broken == "takes an address as a pattern" && strings.Contains(local, "*"):
		return &v1.ResolveResponse{Result: v1.ResolveResponse_MAILBOX, Account: testUser}, nil
	case d.broken == "claims foreign domains" && domain != "ryan.example":
		return &v1.ResolveResponse{Result: v1.ResolveResponse_NO_SUCH_USER}, nil
	case domain != "ryan.example", d.broken == "sends its strangers away" && address != testUser && address != testAlias:
		return &v1.ResolveResponse{Result: v1.ResolveResponse_NOT_MINE}, nil
	case address == testUser:
		return &v1.ResolveResponse{Result: v1.ResolveResponse_MAILBOX, Account: testUser}, nil
	case address == testAlias && d.broken == "has empty aliases":
		return &v1.ResolveResponse{Result: v1.ResolveResponse_ALIAS}, nil
	case address == testAlias:
		return &v1.ResolveResponse{Result: v1.ResolveResponse_ALIAS, Targets: []string{"tom@hanks.example", testUser}}, nil
	}
	return &v1.ResolveResponse{Result: v1.ResolveResponse_NO_SUCH_USER}, nil
}

// Authenticate implements directory.Directory.
func (d *knowing) Authenticate(_ context.Context, req *v1.AuthenticateRequest) (*v1.AuthenticateResponse, error) {
	known := req.GetUsername() == testUser
	right := known && req.GetPassword() == testPassword
	switch {
	case d.broken == "lets nobody in":
		right = false
	case d.broken == "takes longer passwords too":
		right = known && strings.HasPrefix(req.GetPassword(), testPassword)
	case d.broken == "names its strangers" && !known:
		return nil, fail.New(fail.Denied, "no such user")
	case d.broken == "is quick with strangers" && known:
		time.Sleep(40 * time.Millisecond)
	}
	if !right {
		return nil, fail.New(fail.Denied, "wrong user name or password")
	}
	return &v1.AuthenticateResponse{Account: testUser}, nil
}

// Credentials implements directory.Directory.
func (d *knowing) Credentials(_ context.Context, req *v1.CredentialsRequest) (*v1.CredentialsResponse, error) {
	if req.GetMechanism() != "SCRAM-SHA-256" && d.broken != "has verifiers for everything" {
		return nil, fail.New(fail.Unsupported, "no verifiers for %s", req.GetMechanism())
	}
	salt := mac([]byte("a secret"), req.GetUsername())[:16]
	password := testPassword
	switch {
	case req.GetUsername() != testUser && d.broken == "makes up a new salt each time":
		if _, err := rand.Read(salt); err != nil {
			return nil, err
		}
	case req.GetUsername() != testUser && d.broken == "has one salt for strangers":
		salt = []byte("sixteen octets!!")
	case d.broken == "keeps an old verifier":
		password = "harry"
	}
	salted, err := pbkdf2.Key(sha256.New, password, salt, 4096, sha256.Size)
	if err != nil {
		return nil, err
	}
	stored := sha256.Sum256(mac(salted, "Client Key"))
	return &v1.CredentialsResponse{
		Account: req.GetUsername(), Salt: salt, Iterations: 4096, StoredKey: stored[:], ServerKey: mac(salted, "Server Key"),
	}, nil
}

func mac(key []byte, text string) []byte {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(text))
	return h.Sum(nil)
}

// VerifyToken implements directory.TokenVerifier.
func (d *knowing) VerifyToken(_ context.Context, req *v1.VerifyTokenRequest) (*v1.VerifyTokenResponse, error) {
	unread := d.broken == "takes an unsigned token" && strings.HasSuffix(req.GetToken(), ".")
	if req.GetToken() != "a pearl" && !unread || req.GetUsername() != "" && req.GetUsername() != testUser {
		return nil, fail.New(fail.Denied, "the token does not hold")
	}
	return &v1.VerifyTokenResponse{Account: testUser}, nil
}

// Domains implements directory.Directory.
func (d *knowing) Domains(context.Context, *v1.DomainsRequest) (*v1.DomainsResponse, error) {
	if d.broken == "lists a domain twice" {
		return &v1.DomainsResponse{Domains: []string{"ryan.example", "ryan.example"}}, nil
	}
	return &v1.DomainsResponse{Domains: []string{"ryan.example"}}, nil
}
