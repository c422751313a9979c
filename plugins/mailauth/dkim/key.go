package dkim

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/stagecoach-mta/stagecoach/sdk/dns"
)

// Key is a public key as a domain publishes it (RFC 6376 section 3.6.1).
type Key struct {
	// Public is an *rsa.PublicKey or an ed25519.PublicKey; nil: the key was revoked.
	Public crypto.PublicKey
	// Hashes that it may be used with, "sha256"; none: any.
	Hashes []string
	// Services that it is for; none: any.
	Services []string
	// Testing is t=y: the domain only tries DKIM out.
	Testing bool
	// Strict is t=s: i= must have exactly the domain of d=.
	Strict bool
	// granularity is g= of RFC 4871, which RFC 6376 did away with.
	granularity string
}

// maxRSABits keeps a stranger's key from costing what it likes.
const maxRSABits = 8192

// ParseKey reads a key record. A revoked key is no error.
func ParseKey(txt string) (*Key, error) {
	tags, err := ParseTags(txt)
	if err != nil {
		return nil, err
	}
	if v, ok := tags.Get("v"); ok && (v != "DKIM1" || tags[0].Name != "v") {
		return nil, errors.New("it does not begin with v=DKIM1")
	}
	k := &Key{granularity: "*"}
	if h, ok := tags.Get("h"); ok {
		k.Hashes = colonList(h)
	}
	if s, ok := tags.Get("s"); ok {
		k.Services = colonList(s)
	}
	if g, ok := tags.Get("g"); ok {
		k.granularity = g
	}
	if t, ok := tags.Get("t"); ok {
		flags := colonList(t)
		k.Testing, k.Strict = slices.Contains(flags, "y"), slices.Contains(flags, "s")
	}
	p, ok := tags.Get("p")
	if !ok {
		return nil, errors.New("it has no p=")
	}
	if p = unblanked(p); p == "" {
		return k, nil
	}
	der, err := decodeBase64(p)
	if err != nil {
		return nil, errors.New("p= is no base64")
	}
	kind, ok := tags.Get("k")
	if !ok {
		kind = "rsa"
	}
	switch kind {
	case "rsa":
		k.Public, err = rsaKey(der)
	case "ed25519":
		if len(der) != ed25519.PublicKeySize { // RFC 8463 section 4.2
			return nil, fmt.Errorf("an Ed25519 key has %d octets, this one %d", ed25519.PublicKeySize, len(der))
		}
		k.Public = ed25519.PublicKey(der)
	default:
		return nil, fmt.Errorf("k=%s is not known", shortened(kind))
	}
	return k, err
}

// rsaKey takes a SubjectPublicKeyInfo, as everybody publishes, and the bare
// RSAPublicKey of which section 3.6.1 speaks.
func rsaKey(der []byte) (*rsa.PublicKey, error) {
	var pub *rsa.PublicKey
	if any, err := x509.ParsePKIXPublicKey(der); err == nil {
		pub, _ = any.(*rsa.PublicKey)
	} else if pub, err = x509.ParsePKCS1PublicKey(der); err != nil {
		return nil, errors.New("p= is no RSA key")
	}
	if pub == nil {
		return nil, errors.New("p= is no RSA key")
	}
	if n := pub.N.BitLen(); n > maxRSABits {
		return nil, fmt.Errorf("its %d bits are more than %d", n, maxRSABits)
	}
	return pub, nil
}

func decodeBase64(s string) ([]byte, error) {
	return base64.RawStdEncoding.DecodeString(strings.TrimRight(s, "="))
}

// errNoKey: the domain has none there.
var errNoKey = errors.New("there is no key")

// LookupKey asks for selector._domainkey.domain. A temporary error is one of the
// resolver's (dns.Temporary); *KeyError is any other.
func LookupKey(ctx context.Context, r dns.Resolver, domain, selector string) (*Key, error) {
	name := selector + "._domainkey." + domain
	txt, err := r.TXT(ctx, name)
	if dns.Temporary(err) {
		return nil, err
	}
	// Several records are undefined (section 3.6.2.2): the first that is a key
	// counts, and of none the first one's fault is told.
	err = errNoKey
	for i, t := range txt[:min(len(txt), 4)] {
		k, kerr := ParseKey(t)
		if kerr == nil {
			return k, nil
		}
		if i == 0 {
			err = kerr
		}
	}
	return nil, &KeyError{Name: name, Err: err}
}

// KeyError says that there is no key to use at a name.
type KeyError struct {
	Name string
	Err  error
}

func (e *KeyError) Error() string { return fmt.Sprintf("the public key %s: %v", e.Name, e.Err) }

func (e *KeyError) Unwrap() error { return e.Err }

// Bits is the size of an RSA key; 0 for others.
func (k *Key) Bits() int {
	if pub, ok := k.Public.(*rsa.PublicKey); ok {
		return pub.N.BitLen()
	}
	return 0
}

// Unusable says why the key is not for a signature with that algorithm (section
// 6.1.2); "" if it is.
func (k *Key) Unusable(a Algorithm) string {
	switch {
	case k.Public == nil:
		return "was revoked"
	case len(k.Services) > 0 && !slices.Contains(k.Services, "*") && !slices.Contains(k.Services, "email"):
		return "is not for mail"
	case len(k.Hashes) > 0 && !slices.Contains(k.Hashes, a.hashName()):
		return "is not for " + a.hashName()
	case (k.Bits() > 0) != (a.Key == "rsa"):
		return "is of another kind than " + a.Key
	}
	return ""
}

// Check verifies a signature of a hash of header fields with a key that is usable
// for its algorithm.
func (k *Key) Check(a Algorithm, sum, signature []byte) error {
	switch pub := k.Public.(type) {
	case *rsa.PublicKey:
		return rsa.VerifyPKCS1v15(pub, a.Hash, sum, signature)
	case ed25519.PublicKey:
		// What is signed is the hash, by PureEdDSA (RFC 8463 section 3).
		if ed25519.Verify(pub, sum, signature) {
			return nil
		}
	}
	return errors.New("it is not by this key")
}

// Algorithm of a signature, a=.
type Algorithm struct {
	Key  string // "rsa", "ed25519"
	Hash crypto.Hash
}

func (a Algorithm) String() string { return a.Key + "-" + a.hashName() }

func (a Algorithm) hashName() string {
	if a.Hash == crypto.SHA1 {
		return "sha1"
	}
	return "sha256"
}

// ParseAlgorithm reads a=.
func ParseAlgorithm(s string) (Algorithm, bool) {
	switch strings.ToLower(s) {
	case "rsa-sha256":
		return Algorithm{"rsa", crypto.SHA256}, true
	case "rsa-sha1":
		return Algorithm{"rsa", crypto.SHA1}, true
	case "ed25519-sha256":
		return Algorithm{"ed25519", crypto.SHA256}, true
	}
	return Algorithm{}, false
}
