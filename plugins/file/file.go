// Package file is a directory in one HCL file: domains, users with their
// password hashes, aliases. It is read again when it changes; it is not a
// directory for a hundred thousand users (every look-up is in memory).
package file

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"github.com/stagecoach-mta/stagecoach/sdk/address"
	"github.com/stagecoach-mta/stagecoach/sdk/directory"
	"github.com/stagecoach-mta/stagecoach/sdk/fail"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// fresh is how long the file's time stamp is believed, and then an answer: a
// change counts within a second.
const fresh = 500 * time.Millisecond

// Directory answers from the file.
type Directory struct {
	path      string
	separator string
	log       zerolog.Logger
	secret    [32]byte // for made-up salts and for knownGood
	issuers   map[string]*issuer

	mu      sync.Mutex
	people  *people
	checked time.Time
	stamp   stamp
	// knownGood are passwords that were right: a hash costs tens of
	// milliseconds, and mail clients log in every few minutes.
	knownGood map[string][sha256.Size]byte
	hashing   chan struct{}
}

type stamp struct {
	modified time.Time
	size     int64
}

var _ directory.Directory = (*Directory)(nil)

// Open reads the file; its mistakes are the error, with their line.
func Open(path, separator string, log zerolog.Logger) (*Directory, error) {
	d := &Directory{
		path: path, separator: separator, log: log,
		knownGood: map[string][sha256.Size]byte{},
		hashing:   make(chan struct{}, 2), // each takes 19 MiB and a core
	}
	if _, err := rand.Read(d.secret[:]); err != nil {
		return nil, err
	}
	p, err := load(path)
	if err != nil {
		return nil, err
	}
	d.people = p
	if fi, err := os.Stat(path); err == nil {
		d.stamp = stamp{fi.ModTime(), fi.Size()}
	}
	d.checked = time.Now()
	return d, nil
}

// current returns the people, read anew if the file has changed. A file with a
// mistake leaves the people as they were, and the log says why.
func (d *Directory) current() *people {
	d.mu.Lock()
	defer d.mu.Unlock()
	if time.Since(d.checked) < fresh {
		return d.people
	}
	d.checked = time.Now()
	fi, err := os.Stat(d.path)
	if err != nil {
		d.log.Error().Err(err).Msg("the people file is gone; the last one holds")
		return d.people
	}
	now := stamp{fi.ModTime(), fi.Size()}
	if now == d.stamp {
		return d.people
	}
	d.stamp = now
	p, err := load(d.path)
	if err != nil {
		d.log.Error().Err(err).Msg("the people file has a mistake; the last one holds")
		return d.people
	}
	d.log.Info().Str("path", d.path).Int("users", len(p.users)).Int("aliases", len(p.aliases)).Msg("people read")
	d.people = p
	clear(d.knownGood)
	return p
}

// Resolve implements directory.Directory.
func (d *Directory) Resolve(_ context.Context, req *v1.ResolveRequest) (*v1.ResolveResponse, error) {
	r := d.resolve(req.GetAddress())
	r.FreshMs = fresh.Milliseconds()
	return r, nil
}

// resolve looks for the address itself, then without its detail, then for the
// domain's catch-all.
func (d *Directory) resolve(addr string) *v1.ResolveResponse {
	a, err := address.Parse(addr, true)
	if err != nil {
		return &v1.ResolveResponse{} // nothing of ours
	}
	p := d.current()
	dom := p.domains[strings.ToLower(a.Domain)]
	if dom == nil {
		return &v1.ResolveResponse{}
	}
	if r := p.find(strings.ToLower(a.String()), ""); r != nil {
		return r
	}
	if d.separator != "" {
		if detail := a.Detail(d.separator); detail != "" {
			if r := p.find(strings.ToLower(a.Base(d.separator).String()), detail); r != nil {
				return r
			}
		}
	}
	// postmaster must work in every domain (RFC 5321 section 4.5.1): without one
	// of its own it is the catch-all's, if there is one.
	if dom.catchAll != "" {
		return &v1.ResolveResponse{Result: v1.ResolveResponse_ALIAS, Targets: []string{dom.catchAll}, CatchAll: true}
	}
	return &v1.ResolveResponse{Result: v1.ResolveResponse_NO_SUCH_USER}
}

func (p *people) find(k, detail string) *v1.ResolveResponse {
	if u := p.users[k]; u != nil {
		if u.disabled {
			return &v1.ResolveResponse{Result: v1.ResolveResponse_DISABLED, Account: u.account}
		}
		return &v1.ResolveResponse{Result: v1.ResolveResponse_MAILBOX, Account: u.account, Detail: detail, QuotaBytes: u.quota}
	}
	if to := p.aliases[k]; to != nil {
		return &v1.ResolveResponse{Result: v1.ResolveResponse_ALIAS, Targets: to}
	}
	return nil
}

// dummyHash is compared when there is no user, so that the answer takes as long.
const dummyHash = "$argon2id$v=19$m=19456,t=2,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"

var errDenied = fail.New(fail.Denied, "wrong user name or password")

// Authenticate checks a password; a user may be named by any of their addresses.
func (d *Directory) Authenticate(ctx context.Context, req *v1.AuthenticateRequest) (*v1.AuthenticateResponse, error) {
	u := d.user(req.GetUsername())
	hash := dummyHash
	if u != nil && u.password != "" && !u.disabled {
		hash = u.password
	}
	right, err := d.check(ctx, hash, req.GetUsername(), req.GetPassword())
	if err != nil {
		return nil, err
	}
	if !right || hash == dummyHash {
		return nil, errDenied
	}
	if id := req.GetAuthorizationIdentity(); id != "" {
		if other := d.user(id); other == nil || other.account != u.account {
			return nil, fail.New(fail.Denied, "may not act for somebody else")
		}
	}
	return &v1.AuthenticateResponse{Account: u.account, Addresses: append([]string{u.account}, u.addresses...)}, nil
}

// check compares, at most two at a time, and remembers what was right.
func (d *Directory) check(ctx context.Context, hash, username, password string) (bool, error) {
	mac := hmac.New(sha256.New, d.secret[:])
	mac.Write([]byte(hash + "\x00" + password))
	var sum [sha256.Size]byte
	mac.Sum(sum[:0])
	d.mu.Lock()
	known, ok := d.knownGood[username]
	d.mu.Unlock()
	if ok && hmac.Equal(known[:], sum[:]) {
		return true, nil
	}
	select {
	case d.hashing <- struct{}{}:
		defer func() { <-d.hashing }()
	case <-ctx.Done():
		return false, ctx.Err()
	}
	if !matches(hash, password) {
		return false, nil
	}
	d.mu.Lock()
	if len(d.knownGood) > 10000 {
		clear(d.knownGood)
	}
	d.knownGood[username] = sum
	d.mu.Unlock()
	return true, nil
}

func (d *Directory) user(name string) *user {
	k, err := key(name)
	if err != nil {
		return nil
	}
	p := d.current()
	if u := p.users[k]; u != nil {
		return u
	}
	for _, u := range p.users {
		for _, a := range u.addresses {
			if a == k {
				return u
			}
		}
	}
	return nil
}

// Credentials gives the SCRAM verifier, or for a user without one a made-up salt
// that stays the same.
func (d *Directory) Credentials(_ context.Context, req *v1.CredentialsRequest) (*v1.CredentialsResponse, error) {
	if req.GetMechanism() != "SCRAM-SHA-256" {
		return nil, fail.New(fail.Unsupported, "no verifier for %s here", req.GetMechanism())
	}
	if u := d.user(req.GetUsername()); u != nil && u.scram != "" && !u.disabled {
		v, err := parseVerifier(u.scram)
		if err != nil {
			return nil, fail.Wrap(fail.Internal, err, "verifier of "+u.account)
		}
		return &v1.CredentialsResponse{
			Account: u.account, Salt: v.salt, Iterations: int32(v.iterations), StoredKey: v.stored, ServerKey: v.serverKey,
		}, nil
	}
	derive := func(what string) []byte {
		mac := hmac.New(sha256.New, d.secret[:])
		mac.Write([]byte(what + strings.ToLower(req.GetUsername())))
		return mac.Sum(nil)
	}
	return &v1.CredentialsResponse{
		Salt: derive("salt")[:argonSalt], Iterations: scramIters, StoredKey: derive("stored"), ServerKey: derive("server"),
	}, nil
}

// Domains lists the domains of the file: declared, or of a user or an alias.
func (d *Directory) Domains(context.Context, *v1.DomainsRequest) (*v1.DomainsResponse, error) {
	out := &v1.DomainsResponse{}
	for name := range d.current().domains {
		out.Domains = append(out.Domains, name)
	}
	return out, nil
}
