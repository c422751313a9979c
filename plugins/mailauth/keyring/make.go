package keyring

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/stagecoach-mta/stagecoach/plugins/mailauth/dkim"
	"github.com/stagecoach-mta/stagecoach/sdk/dns"
)

// Next is the suffix of a key that does not sign yet: its record has to be in the
// DNS first. Taking the suffix off puts it to use.
const Next = ".next"

// Make writes a new key, of type "rsa" (with so many bits) or "ed25519". The
// first key of its domain and type is in use at once; one that will follow another
// gets the suffix Next. An empty selector is made of the day.
func Make(dir, domain, selector, kind string, bits int) (Key, error) {
	domain, err := Domain(domain)
	if err != nil {
		return Key{}, err
	}
	if selector == "" {
		selector = time.Now().UTC().Format("20060102") + kind[:1]
	}
	if err := checkSelector(selector); err != nil {
		return Key{}, err
	}
	k := Key{Domain: domain, Selector: selector, Path: filepath.Join(dir, domain, selector+suffix)}
	switch {
	case kind == "ed25519":
		_, k.Private, err = ed25519.GenerateKey(rand.Reader)
	case kind == "rsa" && bits >= dkim.MinRSABits && bits <= 8192:
		k.Private, err = rsa.GenerateKey(rand.Reader, bits)
	case kind == "rsa":
		err = fmt.Errorf("an RSA key of %d bits: take from %d to 8192, best 2048", bits, dkim.MinRSABits)
	default:
		err = fmt.Errorf("a key of type %q: there are rsa and ed25519", kind)
	}
	if err != nil {
		return Key{}, err
	}
	all, err := All(dir, domain)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return Key{}, err
	}
	waiting, err := Waiting(dir, domain)
	if err != nil {
		return Key{}, err
	}
	for _, other := range append(all, waiting...) {
		if other.Type() == kind {
			k.Path = strings.TrimSuffix(k.Path, Next) + Next
		}
		if other.Selector == selector {
			return Key{}, fmt.Errorf("%s exists: choose another selector, a record in the DNS is not to change", other.Path)
		}
	}
	der, err := x509.MarshalPKCS8PrivateKey(k.Private)
	if err != nil {
		return Key{}, err
	}
	if err := os.MkdirAll(filepath.Dir(k.Path), 0o750); err != nil {
		return Key{}, err
	}
	f, err := os.OpenFile(k.Path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o640)
	if err != nil {
		return Key{}, err
	}
	err = pem.Encode(f, &pem.Block{Type: "PRIVATE KEY", Bytes: der})
	return k, errors.Join(err, f.Sync(), f.Close())
}

// Waiting reads the keys that do not sign yet, see Next.
func Waiting(dir, domain string) ([]Key, error) {
	names, err := filepath.Glob(filepath.Join(dir, "*", "*"+suffix+Next))
	if err != nil {
		return nil, err
	}
	var out []Key
	for _, path := range names {
		d, err := Domain(filepath.Base(filepath.Dir(path)))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		if domain != "" && d != domain {
			continue
		}
		private, err := read(path)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		out = append(out, Key{Domain: d, Selector: strings.TrimSuffix(filepath.Base(path), suffix+Next), Private: private, Path: path})
	}
	return out, nil
}

// Read reads one key from its file.
func Read(path, domain, selector string) (Key, error) {
	private, err := read(path)
	if err != nil {
		return Key{}, fmt.Errorf("%s: %w", path, err)
	}
	return Key{Domain: domain, Selector: selector, Private: private, Path: path}, nil
}

// Name is where the public key's TXT record stands.
func (k Key) Name() string { return k.Selector + "._domainkey." + k.Domain }

// Record is the TXT record's text (RFC 6376 section 3.6.1, RFC 8463 section 4).
func (k Key) Record() (string, error) {
	var raw []byte
	switch pub := k.Private.Public().(type) {
	case ed25519.PublicKey:
		raw = pub
	default:
		var err error
		if raw, err = x509.MarshalPKIXPublicKey(pub); err != nil {
			return "", err
		}
	}
	return "v=DKIM1; k=" + k.Type() + "; p=" + base64.StdEncoding.EncodeToString(raw), nil
}

// Zone is the record as a zone file has it, in strings of at most 255 octets.
func (k Key) Zone() (string, error) {
	text, err := k.Record()
	if err != nil {
		return "", err
	}
	var parts []string
	for ; len(text) > 255; text = text[255:] {
		parts = append(parts, fmt.Sprintf("%q", text[:255]))
	}
	parts = append(parts, fmt.Sprintf("%q", text))
	return fmt.Sprintf("%s.\tIN\tTXT\t( %s )", k.Name(), strings.Join(parts, "\n\t\t\t")), nil
}

// Published asks the DNS whether the key is there; the error says what is wrong
// with it there.
func (k Key) Published(ctx context.Context, r dns.Resolver) error {
	found, err := dkim.LookupKey(ctx, r, k.Domain, k.Selector)
	if err != nil {
		return err
	}
	if found.Public == nil {
		return errors.New("the record says that the key was revoked (p= is empty)")
	}
	if own, ok := k.Private.Public().(interface{ Equal(crypto.PublicKey) bool }); !ok || !own.Equal(found.Public) {
		return errors.New("the record has another key than the file")
	}
	if why := found.Unusable(dkim.Algorithm{Key: k.Type(), Hash: crypto.SHA256}); why != "" {
		return errors.New("the record's key " + why)
	}
	if found.Testing {
		return errors.New("the record says t=y: verifiers treat the mail as if it were not signed")
	}
	return nil
}
