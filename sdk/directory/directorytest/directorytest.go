// Package directorytest is the conformance suite that every directory must pass.
// What it cannot know (an address, a password) it takes from conform.Facts; the
// checks that need a missing one are skipped.
//
// The checks:
//
//	domains: …            are names in lower case, each once
//	resolve: …            a foreign domain is NOT_MINE, a stranger in ours NO_SUCH_USER,
//	                      the address of the facts a MAILBOX, the alias an ALIAS
//	addresses: …          odd ones are answered, and match nobody
//	login: …              the right password is taken, a wrong one DENIED
//	login of a stranger…  is refused in the same words, and as late
//	tokens: …             one that cannot hold is DENIED, or all are UNSUPPORTED
//	SCRAM: …              verifiers fit the password; a stranger's salt is stable
package directorytest

import (
	"bytes"
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/stagecoach-mta/stagecoach/sdk/conform"
	"github.com/stagecoach-mta/stagecoach/sdk/directory"
	"github.com/stagecoach-mta/stagecoach/sdk/fail"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// scram is the one mechanism that the contract knows.
const scram = "SCRAM-SHA-256"

// foreign is an address that is no directory's (RFC 2606).
const foreign = "nobody@stagecoach-conformance.invalid"

// Options of a run.
type Options struct {
	Facts conform.Facts
}

// Run makes the checks. open returns a directory that lives; it may be the same
// one each time. Under `go test`, sdktest.Conform calls it.
func Run(t conform.T, open func(t conform.T) directory.Directory, opts Options) {
	s := &suite{open: open, facts: opts.Facts}
	if s.facts.Account == "" {
		s.facts.Account = s.facts.Address
	}
	if _, domain, ok := strings.Cut(s.facts.Address, "@"); ok && s.facts.Unknown == "" {
		s.facts.Unknown = "nobody-has-this-name@" + domain
	}
	for _, c := range []conform.Check{
		{
			Name: "domains: names in lower case, each once", Contract: "directory.proto, DomainsResponse",
			Remedy: "list every domain that Resolve answers for, in lower case (U-labels or A-labels as Resolve takes them)", Do: s.domains,
		},
		{
			Name: "resolve: a foreign domain is NOT_MINE", Contract: "directory.proto, ResolveResponse.NOT_MINE",
			Remedy: "answer NOT_MINE for a domain that is not yours: NO_SUCH_USER would refuse the mail", Do: s.foreign,
		},
		{
			Name: "resolve: a stranger in our domain is NO_SUCH_USER", Contract: "directory.proto, ResolveResponse.NO_SUCH_USER",
			Remedy: "answer NO_SUCH_USER, not an error and not NOT_MINE: the sender gets a 550 5.1.1", Do: s.stranger,
		},
		{
			Name: "resolve: an address is a mailbox, in any case", Contract: "directory.proto, ResolveResponse.MAILBOX; RFC 5321 section 2.4",
			Remedy: "answer MAILBOX with the account; domains are compared without case", Do: s.mailbox,
		},
		{
			Name: "resolve: an alias has targets", Contract: "directory.proto, ResolveResponse.ALIAS, targets",
			Remedy: "answer ALIAS with one step's targets, all of them addresses; the core follows them", Do: s.alias,
		},
		{
			Name: "addresses: odd ones are answered and match nobody", Contract: "directory.proto, ResolveRequest",
			Remedy: "take an address as data: escape it in queries, bound it, match it whole", Do: s.odd,
		},
		{
			Name: "login: the right password is taken", Contract: "directory.proto, AuthenticateResponse.account",
			Remedy: "answer with the account that Resolve names", Do: s.rightPassword,
		},
		{
			Name: "login: a wrong password is DENIED", Contract: "directory.proto, AuthenticateRequest; common.proto, Problem.DENIED",
			Remedy: "answer Problem DENIED, also for an empty password and for a longer one that begins with the right one", Do: s.wrongPassword,
		},
		{
			Name: "login of a stranger: is refused in the same words", Contract: "directory.proto, AuthenticateRequest",
			Remedy: "answer an unknown user with the very problem (kind, text and reply) of a wrong password", Do: s.sameWords,
		},
		{
			Name: "login of a stranger: is refused as late", Contract: "directory.Directory.Authenticate",
			Remedy: "compare the password with a made-up hash when there is no user", Do: s.sameTime,
		},
		{
			Name: "tokens: what is none is DENIED", Contract: "directory.proto, VerifyTokenRequest; common.proto, Problem.DENIED, UNSUPPORTED",
			Remedy: "answer DENIED for an empty or malformed token, whatever the user; UNSUPPORTED for all if you verify none", Do: s.tokens,
		},
		{
			Name: "SCRAM: the verifier fits the password", Contract: "directory.proto, CredentialsResponse; RFC 5802 section 3; RFC 7677 section 4",
			Remedy: "store salt, iterations (4096 or more), StoredKey and ServerKey of the same password that Authenticate takes", Do: s.verifier,
		},
		{
			Name: "SCRAM: a stranger's salt is made up and stable", Contract: "directory.proto, CredentialsResponse",
			Remedy: "derive the salt of an unknown user from a secret and the name: the same each time, another for another name", Do: s.madeUpSalt,
		},
		{
			Name: "SCRAM: an unknown mechanism is UNSUPPORTED", Contract: "directory.Directory.Credentials; common.proto, Problem.UNSUPPORTED",
			Remedy: "answer UNSUPPORTED for a mechanism that you have no verifiers for", Do: s.unknownMechanism,
		},
	} {
		t.Run(c)
	}
}

type suite struct {
	open  func(t conform.T) directory.Directory
	facts conform.Facts
}

// need skips the check if a fact is missing.
func need(t conform.T, facts ...string) {
	for i := 0; i < len(facts); i += 2 {
		if facts[i+1] == "" {
			t.Skipf("the facts have no %s", facts[i])
		}
	}
}

func (s *suite) resolve(t conform.T, address string) *v1.ResolveResponse {
	t.Helper()
	r, err := s.open(t).Resolve(t.Context(), &v1.ResolveRequest{Address: address})
	if err != nil {
		t.Fatalf("Resolve %.60q: %v (kind %v)", address, err, fail.KindOf(err))
	}
	return r
}

func (s *suite) domains(t conform.T) {
	r, err := s.open(t).Domains(t.Context(), &v1.DomainsRequest{})
	if fail.Is(err, fail.Unsupported) {
		t.Skipf("it cannot list its domains: %v", err)
	}
	if err != nil {
		t.Fatalf("Domains: %v (kind %v)", err, fail.KindOf(err))
	}
	seen := map[string]bool{}
	for _, d := range r.GetDomains() {
		if d == "" || d != strings.ToLower(d) || strings.ContainsAny(d, "@ \t\r\n\x00") || strings.HasSuffix(d, ".") {
			t.Errorf("%q is no domain in lower case", d)
		}
		if seen[d] {
			t.Errorf("%q stands there twice", d)
		}
		seen[d] = true
	}
	if _, domain, _ := strings.Cut(s.facts.Address, "@"); domain != "" && !slices.Contains(r.GetDomains(), strings.ToLower(domain)) {
		t.Errorf("%q, the domain of the address in the facts, is not among %q", domain, r.GetDomains())
	}
}

func (s *suite) foreign(t conform.T) {
	if r := s.resolve(t, foreign); r.GetResult() != v1.ResolveResponse_NOT_MINE {
		t.Errorf("%s is %s", foreign, r.GetResult())
	}
}

func (s *suite) stranger(t conform.T) {
	need(t, "unknown (or address)", s.facts.Unknown)
	switch r := s.resolve(t, s.facts.Unknown); {
	case r.GetCatchAll():
		t.Skipf("the domain has a catch-all: nobody is a stranger there")
	case r.GetResult() != v1.ResolveResponse_NO_SUCH_USER:
		t.Errorf("%s is %s", s.facts.Unknown, r.GetResult())
	}
}

func (s *suite) mailbox(t conform.T) {
	need(t, "address", s.facts.Address)
	local, domain, _ := strings.Cut(s.facts.Address, "@")
	for _, a := range []string{s.facts.Address, local + "@" + strings.ToUpper(domain)} {
		r := s.resolve(t, a)
		if r.GetResult() != v1.ResolveResponse_MAILBOX || r.GetAccount() != s.facts.Account {
			t.Errorf("%s is %s of account %q, want MAILBOX of %q", a, r.GetResult(), r.GetAccount(), s.facts.Account)
		}
	}
}

func (s *suite) alias(t conform.T) {
	need(t, "alias", s.facts.Alias)
	r := s.resolve(t, s.facts.Alias)
	if r.GetResult() != v1.ResolveResponse_ALIAS || len(r.GetTargets()) == 0 {
		t.Fatalf("%s is %s with targets %q", s.facts.Alias, r.GetResult(), r.GetTargets())
	}
	for _, a := range r.GetTargets() {
		if at := strings.LastIndexByte(a, '@'); at <= 0 || at == len(a)-1 {
			t.Errorf("target %q is no address", a)
		}
	}
}

func (s *suite) odd(t conform.T) {
	_, domain, _ := strings.Cut(s.facts.Address, "@")
	if domain == "" {
		domain = "ryan.example"
	}
	for _, a := range []string{
		"", "@", "meg", "@" + domain, "%@" + domain, "*@" + domain, "' OR '1'='1@" + domain, "*)(uid=*@" + domain, "a\x00b@" + domain,
		"../../etc/passwd@" + domain, "\r\n@" + domain, strings.Repeat("x", 100_000) + "@" + domain, "\u202e\ufffd@" + domain, `"meg\@x"@` + domain,
	} {
		r, err := s.open(t).Resolve(t.Context(), &v1.ResolveRequest{Address: a})
		switch {
		case err != nil && !fail.Is(err, fail.Invalid):
			t.Errorf("Resolve %.40q: %v (kind %v)", a, err, fail.KindOf(err))
		case r.GetResult() == v1.ResolveResponse_MAILBOX && !r.GetCatchAll():
			t.Errorf("%.40q is the mailbox of %q", a, r.GetAccount())
		}
	}
}

func (s *suite) login(t conform.T, user, password string) (*v1.AuthenticateResponse, error) {
	return s.open(t).Authenticate(t.Context(), &v1.AuthenticateRequest{Username: user, Password: password, ClientIp: "192.0.2.1", Service: "imap"})
}

func (s *suite) rightPassword(t conform.T) {
	need(t, "address", s.facts.Address, "password", s.facts.Password)
	r, err := s.login(t, s.facts.Account, s.facts.Password)
	if err != nil {
		t.Fatalf("%s with the password of the facts: %v (kind %v)", s.facts.Account, err, fail.KindOf(err))
	}
	if r.GetAccount() != s.facts.Account {
		t.Errorf("%s logged in as account %q", s.facts.Account, r.GetAccount())
	}
}

func (s *suite) wrongPassword(t conform.T) {
	need(t, "address", s.facts.Address, "password", s.facts.Password)
	for _, p := range []string{"", "wrong", s.facts.Password + "x", s.facts.Password + "\x00", " " + s.facts.Password, strings.Repeat("x", 100_000)} {
		if _, err := s.login(t, s.facts.Account, p); !fail.Is(err, fail.Denied) {
			t.Errorf("%s with password %.20q: %v (kind %v), want DENIED", s.facts.Account, p, err, fail.KindOf(err))
		}
	}
}

func (s *suite) tokens(t conform.T) {
	for _, user := range []string{"", s.facts.Account} {
		for _, token := range []string{"", "conformance", "a.b.c", "eyJhbGciOiJub25lIn0.e30.", strings.Repeat("x", 100_000)} {
			_, err := directory.VerifyToken(t.Context(), s.open(t), &v1.VerifyTokenRequest{Token: token, Username: user, ClientIp: "192.0.2.1", Service: "imap"})
			if fail.Is(err, fail.Unsupported) && token == "" && user == "" {
				t.Skipf("it verifies no tokens: %v", err)
			}
			if !fail.Is(err, fail.Denied) {
				t.Errorf("token %.20q of user %q: %v (kind %v), want DENIED", token, user, err, fail.KindOf(err))
			}
		}
	}
}

func (s *suite) sameWords(t conform.T) {
	need(t, "unknown (or address)", s.facts.Unknown)
	_, known := s.login(t, s.facts.Account, "wrong")
	for _, user := range []string{s.facts.Unknown, "nobody", "", foreign} {
		_, unknown := s.login(t, user, "wrong")
		a, b := fail.ToProblem(orNone(known)), fail.ToProblem(orNone(unknown))
		if unknown == nil || a.GetKind() != b.GetKind() || a.GetText() != b.GetText() || a.GetReply().String() != b.GetReply().String() {
			t.Errorf("a wrong password is answered with %s %q, the unknown user %q with %s %q", a.GetKind(), a.GetText(), user, b.GetKind(), b.GetText())
		}
	}
}

func orNone(err error) error {
	if err == nil {
		return fail.New(fail.Internal, "no problem at all")
	}
	return err
}

// sameTime compares medians. Only a hash that costs something can tell, and only
// a large difference is believed on a busy machine.
func (s *suite) sameTime(t conform.T) {
	need(t, "address", s.facts.Address, "unknown (or address)", s.facts.Unknown)
	var known, unknown []time.Duration
	for i := range 7 {
		for _, one := range []struct {
			user string
			took *[]time.Duration
		}{{s.facts.Account, &known}, {s.facts.Unknown, &unknown}} {
			begin := time.Now()
			_, _ = s.login(t, one.user, fmt.Sprintf("wrong %d", i))
			*one.took = append(*one.took, time.Since(begin))
		}
	}
	slices.Sort(known)
	slices.Sort(unknown)
	a, b := known[3], unknown[3]
	t.Logf("a wrong password took %s, an unknown user %s (medians of 7)", a.Round(time.Microsecond), b.Round(time.Microsecond))
	if a > 5*time.Millisecond && b < a/5 || b > 5*time.Millisecond && a < b/5 {
		t.Errorf("a wrong password takes %s, an unknown user %s: the difference tells who exists", a.Round(time.Microsecond), b.Round(time.Microsecond))
	}
}

// credentials skips the check if the directory has no verifiers.
func (s *suite) credentials(t conform.T, user string) *v1.CredentialsResponse {
	t.Helper()
	r, err := s.open(t).Credentials(t.Context(), &v1.CredentialsRequest{Username: user, Mechanism: scram})
	if fail.Is(err, fail.Unsupported) {
		t.Skipf("it has no verifiers for %s", scram)
	}
	if err != nil {
		t.Fatalf("Credentials of %s: %v (kind %v)", user, err, fail.KindOf(err))
	}
	return r
}

func (s *suite) verifier(t conform.T) {
	need(t, "address", s.facts.Address, "password", s.facts.Password)
	r := s.credentials(t, s.facts.Account)
	if r.GetAccount() != s.facts.Account {
		t.Errorf("account %q, want %q", r.GetAccount(), s.facts.Account)
	}
	if r.GetIterations() < 4096 || len(r.GetSalt()) < 8 {
		t.Errorf("%d iterations and a salt of %d octets: at least 4096 and 8", r.GetIterations(), len(r.GetSalt()))
	}
	if r.GetIterations() < 1 || r.GetIterations() > 10_000_000 {
		return
	}
	salted, err := pbkdf2.Key(sha256.New, s.facts.Password, r.GetSalt(), int(r.GetIterations()), sha256.Size)
	if err != nil {
		t.Fatalf("%v", err)
	}
	stored := sha256.Sum256(mac(salted, "Client Key"))
	if !bytes.Equal(stored[:], r.GetStoredKey()) {
		t.Errorf("stored_key is not that of the password in the facts")
	}
	if !bytes.Equal(mac(salted, "Server Key"), r.GetServerKey()) {
		t.Errorf("server_key is not that of the password in the facts")
	}
}

func mac(key []byte, text string) []byte {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(text))
	return h.Sum(nil)
}

func (s *suite) madeUpSalt(t conform.T) {
	need(t, "unknown (or address)", s.facts.Unknown)
	first, again := s.credentials(t, s.facts.Unknown), s.credentials(t, s.facts.Unknown)
	if !bytes.Equal(first.GetSalt(), again.GetSalt()) || first.GetIterations() != again.GetIterations() || len(first.GetSalt()) < 8 {
		t.Errorf("the salt of %s was %x (%d iterations), then %x (%d)", s.facts.Unknown, first.GetSalt(), first.GetIterations(), again.GetSalt(), again.GetIterations())
	}
	if other := s.credentials(t, "x"+s.facts.Unknown); bytes.Equal(other.GetSalt(), first.GetSalt()) {
		t.Errorf("two unknown users have the same salt, so that it tells that they are unknown")
	}
	if s.facts.Address != "" {
		known := s.credentials(t, s.facts.Account)
		if known.GetIterations() != first.GetIterations() || len(known.GetSalt()) != len(first.GetSalt()) {
			t.Logf("a user has %d iterations and %d octets of salt, an unknown one %d and %d", known.GetIterations(), len(known.GetSalt()), first.GetIterations(), len(first.GetSalt()))
		}
	}
}

func (s *suite) unknownMechanism(t conform.T) {
	_, err := s.open(t).Credentials(t.Context(), &v1.CredentialsRequest{Username: s.facts.Account, Mechanism: "CONFORMANCE-1"})
	if !fail.Is(err, fail.Unsupported) {
		t.Errorf("mechanism CONFORMANCE-1 was answered with %v", err)
	}
}
