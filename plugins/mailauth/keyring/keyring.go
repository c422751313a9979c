// Package keyring keeps the private keys that sign mail: a folder with a folder
// for each domain and a PEM file for each selector in it, DOMAIN/SELECTOR.pem.
// Who puts a new file there rotates the key.
package keyring

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/idna"

	"github.com/stagecoach-mta/stagecoach/plugins/mailauth/dkim"
)

const (
	// suffix of the files that are keys in use.
	suffix = ".pem"
	// fresh is how long the folder is believed to be as it was.
	fresh = 5 * time.Second
	// maxFile is more than a PEM file with an RSA key of 8192 bits has.
	maxFile = 64 << 10
)

// Key signs for a domain; its public half is at Selector._domainkey.Domain.
type Key struct {
	Domain, Selector string
	// Private is an *rsa.PrivateKey or an ed25519.PrivateKey.
	Private crypto.Signer
	// Path of its file.
	Path string
}

// Type is "rsa" or "ed25519".
func (k Key) Type() string {
	if _, ok := k.Private.(*rsa.PrivateKey); ok {
		return "rsa"
	}
	return "ed25519"
}

// Ring is a folder of keys, read again when a file of it changes. Safe for
// concurrent use.
type Ring struct {
	dir     string
	changed func(error)

	mu      sync.Mutex
	checked time.Time
	stamp   string
	trouble error
	keys    map[string][]Key // by domain; of each type the last selector
}

// Open reads the keys; the first that is wrong is the error. Later mistakes leave
// the keys as they were and are told to changed, as nil is when they are read anew.
func Open(dir string, changed func(error)) (*Ring, error) {
	r := &Ring{dir: dir, changed: changed, checked: time.Now()}
	var err error
	if r.stamp, err = stamp(dir); err != nil {
		return nil, err
	}
	r.keys, err = inUse(dir)
	return r, err
}

// Of returns the keys that sign for a domain, given in ASCII and lower case: of
// each type the one whose selector comes last in the alphabet. None: it has none.
func (r *Ring) Of(domain string) []Key {
	r.mu.Lock()
	defer r.mu.Unlock()
	if time.Since(r.checked) > fresh {
		r.refresh()
	}
	return r.keys[domain]
}

// Health is what is wrong with the folder now; nil if the keys are those in it.
func (r *Ring) Health() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.refresh()
	return r.trouble
}

func (r *Ring) refresh() {
	r.checked = time.Now()
	now, err := stamp(r.dir)
	if err == nil && now == r.stamp {
		return
	}
	var keys map[string][]Key
	if err == nil {
		keys, err = inUse(r.dir)
	}
	if err == nil {
		r.keys = keys
	}
	if said := r.trouble; now != r.stamp || said == nil || err == nil || said.Error() != err.Error() {
		r.changed(err)
	}
	r.stamp, r.trouble = now, err
}

// stamp changes when a file does.
func stamp(dir string) (string, error) {
	var b strings.Builder
	err := each(dir, func(_, _, path string) error {
		i, err := os.Stat(path)
		if err == nil {
			fmt.Fprintf(&b, "%s %d %d\n", path, i.ModTime().UnixNano(), i.Size())
		}
		return err
	})
	return b.String(), err
}

// each calls f with the files that are keys, in the order of their names.
func each(dir string, f func(domain, selector, path string) error) error {
	domains, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("the folder of keys: %w", err)
	}
	for _, d := range domains {
		if info, err := os.Stat(filepath.Join(dir, d.Name())); err != nil || !info.IsDir() {
			continue
		}
		files, err := os.ReadDir(filepath.Join(dir, d.Name()))
		if err != nil {
			return err
		}
		for _, file := range files {
			if selector, ok := strings.CutSuffix(file.Name(), suffix); ok {
				if err := f(d.Name(), selector, filepath.Join(dir, d.Name(), file.Name())); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// All reads every key that is in the folder, of one domain or ("") of all.
func All(dir, domain string) ([]Key, error) {
	var out []Key
	err := each(dir, func(d, selector, path string) error {
		name, err := Domain(d)
		if err != nil {
			return fmt.Errorf("%s: %w", filepath.Dir(path), err)
		}
		if domain != "" && name != domain {
			return nil
		}
		if err := checkSelector(selector); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		private, err := read(path)
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		out = append(out, Key{Domain: name, Selector: selector, Private: private, Path: path})
		return nil
	})
	return out, err
}

func inUse(dir string) (map[string][]Key, error) {
	all, err := All(dir, "")
	if err != nil {
		return nil, err
	}
	last := map[string]map[string]Key{}
	for _, k := range all { // by selector: what comes later stays
		if last[k.Domain] == nil {
			last[k.Domain] = map[string]Key{}
		}
		last[k.Domain][k.Type()] = k
	}
	out := map[string][]Key{}
	for domain, types := range last {
		for _, t := range slices.Sorted(maps.Keys(types)) {
			out[domain] = append(out[domain], types[t])
		}
	}
	return out, nil
}

// Domain is a domain as keys are kept for it: ASCII, lower case, no final dot.
func Domain(s string) (string, error) {
	d, err := idna.Lookup.ToASCII(strings.ToLower(strings.TrimSuffix(s, ".")))
	if err != nil || !strings.Contains(d, ".") {
		return "", fmt.Errorf("%q is no domain: write it as hanks.example", s)
	}
	return d, nil
}

// checkSelector: a selector is one or more labels (RFC 6376 section 3.1).
func checkSelector(s string) error {
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > 63 || strings.Trim(strings.ToLower(label), "abcdefghijklmnopqrstuvwxyz0123456789-_") != "" {
			return fmt.Errorf("%q is no selector: use letters, digits and -, as in 2026a", s)
		}
	}
	return nil
}

func read(path string) (crypto.Signer, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, errors.Unwrap(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if info.Mode().Perm()&0o007 != 0 {
		return nil, fmt.Errorf("everybody on this machine may read it (mode %04o): chmod 640", info.Mode().Perm())
	}
	if info.Size() > maxFile {
		return nil, fmt.Errorf("its %d octets are more than a key has", info.Size())
	}
	b := make([]byte, info.Size())
	n, err := f.ReadAt(b, 0)
	if int64(n) < info.Size() {
		return nil, err
	}
	return parse(b)
}

// parse takes PKCS #8 and the older form of RSA keys (PKCS #1).
func parse(b []byte) (crypto.Signer, error) {
	for {
		block, rest := pem.Decode(b)
		if block == nil {
			return nil, errors.New("it has no private key in PEM: make one with `stagecoach dkim new`, or take what openssl genpkey writes")
		}
		b = rest
		var (
			any any
			err error
		)
		switch block.Type {
		case "PRIVATE KEY":
			any, err = x509.ParsePKCS8PrivateKey(block.Bytes)
		case "RSA PRIVATE KEY":
			any, err = x509.ParsePKCS1PrivateKey(block.Bytes)
		case "ENCRYPTED PRIVATE KEY":
			return nil, errors.New("the key is encrypted with a pass phrase: take that off with `openssl pkey`")
		default:
			continue
		}
		if err != nil {
			return nil, err
		}
		switch k := any.(type) {
		case *rsa.PrivateKey:
			if k.N.BitLen() < dkim.MinRSABits {
				return nil, fmt.Errorf("its %d bits are fewer than the %d that verifiers take (RFC 8301)", k.N.BitLen(), dkim.MinRSABits)
			}
			return k, nil
		case ed25519.PrivateKey:
			return k, nil
		}
		return nil, fmt.Errorf("a %T signs no mail: use an RSA or an Ed25519 key", any)
	}
}
