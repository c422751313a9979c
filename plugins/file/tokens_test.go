package file

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/stagecoach-mta/stagecoach/sdk/fail"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

const idp = "https://id.ryan.example"

func jwks(t *testing.T, path string, keys ...jose.JSONWebKey) {
	t.Helper()
	b, err := json.Marshal(jose.JSONWebKeySet{Keys: keys})
	if err == nil {
		err = os.WriteFile(path, b, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func sign(t *testing.T, alg jose.SignatureAlgorithm, key any, id string, claims any) string {
	t.Helper()
	options := &jose.SignerOptions{}
	if id != "" {
		options = options.WithHeader("kid", id)
	}
	s, err := jose.NewSigner(jose.SigningKey{Algorithm: alg, Key: key}, options)
	if err != nil {
		t.Fatal(err)
	}
	token, err := jwt.Signed(s).Claims(claims).Serialize()
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// TestTokens: a token logs its user in, and nothing else does.
func TestTokens(t *testing.T) {
	ec, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	stranger, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	rs, _ := rsa.GenerateKey(rand.Reader, 2048)
	_, ed, _ := ed25519.GenerateKey(rand.Reader)
	path := filepath.Join(t.TempDir(), "jwks.json")
	jwks(t, path,
		jose.JSONWebKey{Key: ec.Public(), KeyID: "ec", Algorithm: "ES256", Use: "sig"},
		jose.JSONWebKey{Key: rs.Public(), KeyID: "rs"},
		jose.JSONWebKey{Key: ed.Public(), KeyID: "ed"},
		jose.JSONWebKey{Key: []byte("a secret that both sides share!!"), KeyID: "hs"},
		jose.JSONWebKey{Key: stranger.Public(), KeyID: "enc", Use: "enc"},
	)
	d := open(t, write(t, people1))
	ask := func(token, user string) (string, error) {
		r, err := d.VerifyToken(context.Background(), &v1.VerifyTokenRequest{Token: token, Username: user, ClientIp: "192.0.2.1", Service: "imap"})
		return r.GetAccount(), err
	}
	if _, err := ask("", ""); !fail.Is(err, fail.Unsupported) {
		t.Errorf("without an issuer: %v, want UNSUPPORTED", err)
	}
	if err := d.Trust([]Issuer{{URL: idp, Keys: path, Audience: "mail", Username: "email"}}); err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	claims := func(with ...any) map[string]any {
		c := map[string]any{
			"iss": idp, "aud": []string{"calendar", "mail"}, "email": "Meg@Ryan.example", "sub": "4711",
			"iat": now.Unix(), "exp": now.Add(time.Hour).Unix(),
		}
		for i := 0; i < len(with); i += 2 {
			if with[i+1] == nil {
				delete(c, with[i].(string))
			} else {
				c[with[i].(string)] = with[i+1]
			}
		}
		return c
	}
	good := sign(t, jose.ES256, ec, "ec", claims())
	for name, c := range map[string]struct {
		token, user string
		ok          bool
	}{
		"ECDSA":                   {good, "", true},
		"for its user":            {good, "meg@ryan.example", true},
		"by another address":      {good, "margaret@ryan.example", true},
		"RSA":                     {sign(t, jose.RS256, rs, "rs", claims()), "", true},
		"RSA-PSS":                 {sign(t, jose.PS384, rs, "rs", claims()), "", true},
		"Ed25519":                 {sign(t, jose.EdDSA, ed, "ed", claims()), "", true},
		"without a key id":        {sign(t, jose.ES256, ec, "", claims()), "", true},
		"one audience":            {sign(t, jose.ES256, ec, "ec", claims("aud", "mail")), "", true},
		"verified":                {sign(t, jose.ES256, ec, "ec", claims("email_verified", true)), "", true},
		"clocks apart":            {sign(t, jose.ES256, ec, "ec", claims("exp", now.Add(-30*time.Second).Unix())), "", true},
		"not verified":            {sign(t, jose.ES256, ec, "ec", claims("email_verified", false)), "", false},
		"another's":               {good, "tom@hanks.example", false},
		"expired":                 {sign(t, jose.ES256, ec, "ec", claims("exp", now.Add(-2*time.Minute).Unix())), "", false},
		"for ever":                {sign(t, jose.ES256, ec, "ec", claims("exp", nil)), "", false},
		"not yet":                 {sign(t, jose.ES256, ec, "ec", claims("nbf", now.Add(time.Hour).Unix())), "", false},
		"another audience":        {sign(t, jose.ES256, ec, "ec", claims("aud", "calendar")), "", false},
		"no audience":             {sign(t, jose.ES256, ec, "ec", claims("aud", nil)), "", false},
		"another issuer":          {sign(t, jose.ES256, ec, "ec", claims("iss", "https://id.hanks.example")), "", false},
		"no issuer":               {sign(t, jose.ES256, ec, "ec", claims("iss", nil)), "", false},
		"no user":                 {sign(t, jose.ES256, ec, "ec", claims("email", nil)), "", false},
		"a user that is a number": {sign(t, jose.ES256, ec, "ec", claims("email", 1)), "", false},
		"nobody":                  {sign(t, jose.ES256, ec, "ec", claims("email", "joe@ryan.example")), "", false},
		"disabled":                {sign(t, jose.ES256, ec, "ec", claims("email", "gone@ryan.example")), "", false},
		"a stranger's key":        {sign(t, jose.ES256, stranger, "ec", claims()), "", false},
		"a key for encryption":    {sign(t, jose.ES256, stranger, "enc", claims()), "", false},
		"an unknown key":          {sign(t, jose.ES256, ec, "new", claims()), "", false},
		"a shared secret":         {sign(t, jose.HS256, []byte("a secret that both sides share!!"), "hs", claims()), "", false},
		"the public key for one":  {sign(t, jose.HS256, append([]byte(nil), rs.N.Bytes()...), "rs", claims()), "", false},
		"cut short":               {good[:len(good)-4], "", false},
		"changed":                 {swap(good), "", false},
		"unsigned":                {unsigned(good), "", false},
		"no token":                {"secret", "", false},
		"empty":                   {"", "", false},
		"endless":                 {strings.Repeat("x", 1<<20), "", false},
	} {
		account, err := ask(c.token, c.user)
		if c.ok && (err != nil || account != "meg@ryan.example") || !c.ok && !fail.Is(err, fail.Denied) {
			t.Errorf("%s: %q, %v", name, account, err)
		}
	}

	// A new key is taken when the file changes, and a file that is no key set is not.
	newer := sign(t, jose.ES256, stranger, "new", claims())
	jwks(t, path, jose.JSONWebKey{Key: stranger.Public(), KeyID: "new"})
	until := time.Now().Add(20 * time.Second)
	for {
		if _, err := ask(newer, ""); err == nil {
			break
		} else if time.Now().After(until) {
			t.Fatalf("the new key: %v", err)
		}
		time.Sleep(20 * time.Millisecond)
	}
	if _, err := ask(good, ""); !fail.Is(err, fail.Denied) {
		t.Errorf("a key that is no longer in the file: %v", err)
	}
}

// swap takes other claims with the same signature.
func swap(token string) string {
	parts := strings.Split(token, ".")
	parts[1] = "eyJpc3MiOiJodHRwczovL2lkLnJ5YW4uZXhhbXBsZSJ9"
	return strings.Join(parts, ".")
}

func unsigned(token string) string {
	return "eyJhbGciOiJub25lIn0." + strings.Split(token, ".")[1] + "."
}

func TestTokenKeysFile(t *testing.T) {
	d := open(t, write(t, people1))
	for name, content := range map[string]string{
		"not JSON": "keys", "no key": `{"keys":[]}`, "a secret alone": `{"keys":[{"kty":"oct","k":"c2VjcmV0"}]}`,
	} {
		path := filepath.Join(t.TempDir(), "jwks.json")
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := d.Trust([]Issuer{{URL: idp, Keys: path, Audience: "mail", Username: "email"}}); err == nil || !strings.Contains(err.Error(), idp) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := d.Trust([]Issuer{{URL: idp, Keys: "/does/not/exist", Audience: "mail"}}); err == nil {
		t.Error("a file that is not there was taken")
	}
}
