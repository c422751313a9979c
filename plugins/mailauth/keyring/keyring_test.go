package keyring_test

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/stagecoach-mta/stagecoach/plugins/mailauth/keyring"
	"github.com/stagecoach-mta/stagecoach/sdk/dns/dnstest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m, dnstest.Outlives()) }

func makeKey(t *testing.T, dir, domain, selector, kind string) keyring.Key {
	t.Helper()
	k, err := keyring.Make(dir, domain, selector, kind, 1024)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func selectors(keys []keyring.Key) string {
	var out []string
	for _, k := range keys {
		out = append(out, k.Selector+"/"+k.Type())
	}
	return strings.Join(out, " ")
}

// TestRotation: a key that follows another one waits for its record; renamed, it
// signs in the other's place, and one of another type signs beside it.
func TestRotation(t *testing.T) {
	dir := t.TempDir()
	makeKey(t, dir, "Hanks.Example.", "2026a", "rsa")
	makeKey(t, dir, "hanks.example", "2026e", "ed25519")
	makeKey(t, dir, "ryan.example", "", "ed25519")
	changes := make(chan error, 10)
	r, err := keyring.Open(dir, func(err error) { changes <- err })
	if err != nil {
		t.Fatal(err)
	}
	expect := func(want string) {
		t.Helper()
		if err := r.Health(); err != nil { // looks at once
			t.Fatal(err)
		}
		if got := selectors(r.Of("hanks.example")); got != want {
			t.Errorf("signing: %s, want %s", got, want)
		}
	}
	expect("2026e/ed25519 2026a/rsa")
	next := makeKey(t, dir, "hanks.example", "2026b", "rsa")
	if !strings.HasSuffix(next.Path, "2026b.pem.next") {
		t.Fatalf("the second key of a type is %s", next.Path)
	}
	expect("2026e/ed25519 2026a/rsa")
	if len(changes) > 0 {
		t.Error("a key that does not sign was told of")
	}
	if w, err := keyring.Waiting(dir, "hanks.example"); err != nil || selectors(w) != "2026b/rsa" {
		t.Errorf("waiting: %s %v", selectors(w), err)
	}
	if err := os.Rename(next.Path, strings.TrimSuffix(next.Path, keyring.Next)); err != nil {
		t.Fatal(err)
	}
	expect("2026e/ed25519 2026b/rsa")
	if err := <-changes; err != nil {
		t.Error(err)
	}
	if got := r.Of("reed.example"); got != nil {
		t.Errorf("keys of another domain: %v", got)
	}
	if all, err := keyring.All(dir, "hanks.example"); err != nil || selectors(all) != "2026a/rsa 2026b/rsa 2026e/ed25519" {
		t.Errorf("all: %s %v", selectors(all), err)
	}

	// A file that is no key leaves those that sign as they were.
	bad := filepath.Join(dir, "hanks.example", "2026c.pem")
	if err := os.WriteFile(bad, []byte("no key"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := r.Health(); err == nil || !strings.Contains(err.Error(), "2026c.pem: it has no private key in PEM") {
		t.Errorf("health: %v", err)
	}
	if got := selectors(r.Of("hanks.example")); got != "2026e/ed25519 2026b/rsa" {
		t.Errorf("with a broken file: %s", got)
	}
	if err := <-changes; err == nil {
		t.Error("nobody was told of the broken file")
	}
	if err := os.Remove(bad); err != nil {
		t.Fatal(err)
	}
	expect("2026e/ed25519 2026b/rsa")
	if err := <-changes; err != nil {
		t.Error(err)
	}
}

func TestRefused(t *testing.T) {
	small, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	encoded := func(kind string, b []byte) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: b}))
	}
	old := encoded("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(small))
	for name, c := range map[string]struct {
		path, text string
		mode       os.FileMode
		want       string
	}{
		"for everybody":    {"hanks.example/a.pem", old, 0o644, "may read it (mode 0644): chmod 640"},
		"encrypted":        {"hanks.example/a.pem", encoded("ENCRYPTED PRIVATE KEY", []byte("x")), 0o600, "openssl pkey"},
		"a certificate":    {"hanks.example/a.pem", encoded("CERTIFICATE", []byte("x")), 0o600, "no private key"},
		"too long":         {"hanks.example/a.pem", strings.Repeat("x", 70_000), 0o600, "more than a key has"},
		"no domain":        {"keys/a.pem", old, 0o600, `"keys" is no domain`},
		"no selector":      {"hanks.example/a b.pem", old, 0o600, `"a b" is no selector`},
		"an older PKCS #1": {"hanks.example/a.b.pem", old, 0o600, ""},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, c.path)
			if err := os.Mkdir(filepath.Dir(path), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(c.text), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(path, c.mode); err != nil {
				t.Fatal(err)
			}
			_, err := keyring.Open(dir, func(error) {})
			if (c.want == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
	if _, err := keyring.Open(filepath.Join(t.TempDir(), "none"), func(error) {}); err == nil {
		t.Error("a folder that is not there opens")
	}
	for _, c := range [][3]string{{"hanks", "a", "rsa"}, {"hanks.example", "a/b", "rsa"}, {"hanks.example", "a", "dsa"}} {
		if _, err := keyring.Make(t.TempDir(), c[0], c[1], c[2], 1024); err == nil {
			t.Errorf("made %v", c)
		}
	}
	if _, err := keyring.Make(t.TempDir(), "hanks.example", "a", "rsa", 512); err == nil {
		t.Error("made a key of 512 bits")
	}
	dir := t.TempDir()
	makeKey(t, dir, "hanks.example", "a", "rsa")
	makeKey(t, dir, "hanks.example", "b", "rsa")
	for _, s := range []string{"a", "b"} {
		if _, err := keyring.Make(dir, "hanks.example", s, "rsa", 1024); err == nil || !strings.Contains(err.Error(), "exists") {
			t.Errorf("selector %s twice: %v", s, err)
		}
	}
}

// TestPublished: what the zone line says is what the DNS has to say.
func TestPublished(t *testing.T) {
	s := dnstest.Start(t)
	dir := t.TempDir()
	check := func(k keyring.Key, want string) {
		t.Helper()
		err := k.Published(t.Context(), s.Client(t))
		if (want == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", k.Name(), err, want)
		}
	}
	for i, kind := range []string{"rsa", "ed25519"} {
		k := makeKey(t, dir, "hanks.example", fmt.Sprint("good", i), kind)
		record, err := k.Record()
		if err != nil {
			t.Fatal(err)
		}
		check(k, "there is no key")
		s.AddTXT(k.Name(), record)
		other := makeKey(t, dir, "hanks.example", fmt.Sprint("other", i), kind)
		s.AddTXT(other.Name(), record)
		testing := makeKey(t, dir, "ryan.example", fmt.Sprint("testing", i), kind)
		mine, _ := testing.Record()
		s.AddTXT(testing.Name(), mine+"; t=y")
		revoked := makeKey(t, dir, "reed.example", fmt.Sprint("revoked", i), kind)
		s.AddTXT(revoked.Name(), "v=DKIM1; k="+kind+"; p=")
		check(k, "")
		check(other, "another key than the file")
		check(testing, "t=y")
		check(revoked, "revoked")
	}
	long, err := keyring.Make(dir, "reed.example", "long", "rsa", 2048)
	if err != nil {
		t.Fatal(err)
	}
	zone, err := long.Zone()
	if err != nil {
		t.Fatal(err)
	}
	text := ""
	for i, part := range strings.Split(zone, `"`) {
		if i%2 == 1 {
			if len(part) > 255 {
				t.Errorf("a string of %d octets", len(part))
			}
			text += part
		}
	}
	if record, _ := long.Record(); text != record || !strings.HasPrefix(zone, "long._domainkey.reed.example.\tIN\tTXT\t( ") {
		t.Errorf("zone %s", zone)
	}
}
