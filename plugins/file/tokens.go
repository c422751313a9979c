package file

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"github.com/rs/zerolog"

	"github.com/stagecoach-mta/stagecoach/sdk/directory"
	"github.com/stagecoach-mta/stagecoach/sdk/fail"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// Issuer is an authorization server whose tokens log in.
type Issuer struct {
	URL      string `hcl:"url,label"`
	Keys     string `hcl:"keys" semantic:"path" doc:"The issuer's public keys, a JWKS file (RFC 7517): what its jwks_uri serves. It is read again when it changes." example:"jwks.json"`
	Audience string `hcl:"audience" doc:"What the token's aud must name: this mail service, as the issuer calls it." example:"mail"`
	Username string `hcl:"username,optional" doc:"The claim that has the user's address. An email that the issuer marks as not verified logs nobody in." example:"preferred_username"`
}

const (
	// maxToken in octets: SASL lines end at 12 KiB.
	maxToken = 16 << 10
	maxKeys  = 100
	// leeway of the clocks.
	leeway = time.Minute
)

// algorithms of public keys; a secret that both sides share would let whoever
// reads the keys file write tokens.
var algorithms = []jose.SignatureAlgorithm{
	jose.RS256, jose.RS384, jose.RS512, jose.PS256, jose.PS384, jose.PS512, jose.ES256, jose.ES384, jose.ES512, jose.EdDSA,
}

// issuer is an Issuer with its keys, as they were read last.
type issuer struct {
	Issuer
	log zerolog.Logger

	mu      sync.Mutex
	keys    []jose.JSONWebKey
	checked time.Time
	stamp   stamp
}

// Trust takes the tokens of these issuers from now on. A keys file that cannot be
// read is the error.
func (d *Directory) Trust(issuers []Issuer) error {
	list := map[string]*issuer{}
	for _, i := range issuers {
		keys, err := readKeys(i.Keys)
		if err != nil {
			return fmt.Errorf("issuer %q: %w", i.URL, err)
		}
		x := &issuer{Issuer: i, log: d.log, keys: keys, checked: time.Now()}
		if fi, err := os.Stat(i.Keys); err == nil {
			x.stamp = stamp{fi.ModTime(), fi.Size()}
		}
		if list[i.URL] != nil {
			return fmt.Errorf("issuer %q stands there twice", i.URL)
		}
		list[i.URL] = x
	}
	d.issuers = list
	return nil
}

func readKeys(path string) ([]jose.JSONWebKey, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var set jose.JSONWebKeySet
	if err := json.Unmarshal(b, &set); err != nil {
		return nil, fmt.Errorf("%s is no JWKS file, as the issuer's jwks_uri serves it: %w", path, err)
	}
	keys := slices.DeleteFunc(set.Keys, func(k jose.JSONWebKey) bool {
		return !k.IsPublic() || !k.Valid() || k.Use != "" && k.Use != "sig"
	})
	if len(keys) == 0 || len(keys) > maxKeys {
		return nil, fmt.Errorf("%s has %d public keys for signatures, and 1 to %d are needed", path, len(keys), maxKeys)
	}
	return keys, nil
}

// current keys, read anew if the file has changed.
func (i *issuer) current() []jose.JSONWebKey {
	i.mu.Lock()
	defer i.mu.Unlock()
	if time.Since(i.checked) < fresh {
		return i.keys
	}
	i.checked = time.Now()
	fi, err := os.Stat(i.Keys)
	if err != nil {
		i.log.Error().Err(err).Str("issuer", i.URL).Msg("the issuer's keys are gone; the last ones hold")
		return i.keys
	}
	now := stamp{fi.ModTime(), fi.Size()}
	if now == i.stamp {
		return i.keys
	}
	i.stamp = now
	keys, err := readKeys(i.Issuer.Keys)
	if err != nil {
		i.log.Error().Err(err).Str("issuer", i.URL).Msg("the issuer's keys cannot be read; the last ones hold")
		return i.keys
	}
	i.log.Info().Str("issuer", i.URL).Int("keys", len(keys)).Msg("the issuer's keys were read")
	i.keys = keys
	return keys
}

var _ directory.TokenVerifier = (*Directory)(nil)

// VerifyToken implements directory.TokenVerifier, for JWTs (RFC 7519, RFC 9068).
func (d *Directory) VerifyToken(_ context.Context, req *v1.VerifyTokenRequest) (*v1.VerifyTokenResponse, error) {
	if len(d.issuers) == 0 {
		return nil, fail.New(fail.Unsupported, "no issuer of tokens is configured")
	}
	name, err := d.owner(req.GetToken(), time.Now())
	if err != nil {
		if req.GetToken() != "" {
			d.log.Info().Err(err).Str("user", req.GetUsername()).Msg("token refused")
		}
		return nil, errToken
	}
	u := d.user(name)
	if u == nil || u.disabled {
		d.log.Info().Str("token_user", name).Msg("token refused: there is no such user here")
		return nil, errToken
	}
	if said := req.GetUsername(); said != "" {
		if other := d.user(said); other == nil || other.account != u.account {
			d.log.Info().Str("token_user", name).Str("user", said).Msg("token refused: it is another user's")
			return nil, errToken
		}
	}
	return &v1.VerifyTokenResponse{Account: u.account, Addresses: append([]string{u.account}, u.addresses...)}, nil
}

var errToken = fail.New(fail.Denied, "the token does not hold")

// owner verifies a token and returns the user it names.
func (d *Directory) owner(token string, now time.Time) (string, error) {
	if token == "" || len(token) > maxToken {
		return "", fmt.Errorf("a token has 1 to %d octets", maxToken)
	}
	t, err := jwt.ParseSigned(token, algorithms)
	if err != nil {
		return "", err
	}
	var claims jwt.Claims
	all := map[string]any{}
	if err := t.UnsafeClaimsWithoutVerification(&claims); err != nil {
		return "", err
	}
	i := d.issuers[claims.Issuer]
	if i == nil {
		return "", fmt.Errorf("issuer %.100q is not configured", claims.Issuer)
	}
	if err := i.verify(t, &claims, &all); err != nil {
		return "", err
	}
	if claims.Expiry == nil {
		return "", fmt.Errorf("it never expires")
	}
	if err := claims.ValidateWithLeeway(jwt.Expected{Issuer: i.URL, AnyAudience: jwt.Audience{i.Audience}, Time: now}, leeway); err != nil {
		return "", err
	}
	name, _ := all[i.Username].(string)
	if name == "" {
		return "", fmt.Errorf("it has no claim %q: name another one as username of the issuer", i.Username)
	}
	if verified, has := all["email_verified"].(bool); i.Username == "email" && has && !verified {
		return "", fmt.Errorf("the issuer has not verified %.100q", name)
	}
	return name, nil
}

// verify the signature, with the key that the token names or, if it names none, any.
func (i *issuer) verify(t *jwt.JSONWebToken, claims *jwt.Claims, all *map[string]any) error {
	id, alg := t.Headers[0].KeyID, t.Headers[0].Algorithm
	err := fmt.Errorf("the issuer's keys have none with the id %.100q for %s", id, alg)
	for _, k := range i.current() {
		if id != "" && k.KeyID != id || k.Algorithm != "" && k.Algorithm != alg {
			continue
		}
		if err = t.Claims(k.Key, claims, all); err == nil {
			return nil
		}
	}
	return err
}
