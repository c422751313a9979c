package arc_test

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/stagecoach-mta/stagecoach/plugins/mailauth/arc"
	"github.com/stagecoach-mta/stagecoach/plugins/mailauth/dkim"
	"github.com/stagecoach-mta/stagecoach/plugins/mailauth/message"
	"github.com/stagecoach-mta/stagecoach/sdk/dns/dnstest"
)

// seal adds a set to a message as it is in a file, its lines ended by CRLF.
func seal(t *testing.T, s *arc.Sealer, text string) (string, arc.Set, error) {
	t.Helper()
	m, err := message.Read(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	bodies := &dkim.Bodies{}
	sum := s.Body(bodies)
	if err := bodies.Read(t.Context(), m.Body); err != nil {
		t.Fatal(err)
	}
	set, err := s.Seal(m.Header, sum)
	if err != nil {
		return text, set, err
	}
	return string(set[0].Raw) + string(set[1].Raw) + string(set[2].Raw) + text, set, nil
}

// TestSealSuite runs the signing half of SUITES/arc: 17 cases, whose signatures
// have to come out octet for octet.
func TestSealSuite(t *testing.T) {
	dir := os.Getenv("SUITES")
	if dir == "" {
		t.Log("SUITES names no folder: only the seals of the other tests were tried")
		return
	}
	b, err := os.ReadFile(filepath.Join(dir, "arc", "arc-draft-sign-tests.yml"))
	if err != nil {
		t.Fatal(err)
	}
	passed, cases := 0, 0
	for d := yaml.NewDecoder(bytes.NewReader(b)); ; {
		var scenario struct {
			Tests map[string]struct {
				Message string
				AS      string `yaml:"AS"`
				AMS     string `yaml:"AMS"`
				AAR     string `yaml:"AAR"`
				T       int64
				Headers string `yaml:"sig-headers"`
				ID      string `yaml:"srv-id"`
			}
			Domain, Sel, PrivateKey string
		}
		if err := d.Decode(&scenario); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		block, _ := pem.Decode([]byte(scenario.PrivateKey))
		key, err := x509.ParsePKCS1PrivateKey(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		for name, c := range scenario.Tests {
			cases++
			if t.Run(name, func(t *testing.T) {
				s := &arc.Sealer{
					Domain: scenario.Domain, Selector: scenario.Sel, Key: key, AuthservID: c.ID,
					Fields: strings.Split(c.Headers, ":"), Now: func() time.Time { return time.Unix(c.T, 0) },
				}
				_, set, err := seal(t, s, strings.ReplaceAll(c.Message, "\n", "\r\n"))
				if strings.TrimSpace(c.AS) == "" {
					if err == nil {
						t.Errorf("sealed: %s", set[0].Raw)
					}
					return
				}
				if err != nil {
					t.Fatal(err)
				}
				for i, want := range []string{c.AS, c.AMS, c.AAR} {
					if got := unblanked(set[i].Unfolded()); got != unblanked(want) {
						t.Errorf("%s\ngot  %s\nwant %s", set[i].Name, got, unblanked(want))
					}
				}
			}) {
				passed++
			}
		}
	}
	t.Logf("arc-draft-sign-tests.yml: %d/%d", passed, cases)
	if cases != 17 || passed != 17 {
		t.Errorf("%d of %d cases hold, want 17 of 17", passed, cases)
	}
}

func unblanked(s string) string { return strings.Join(strings.Fields(s), "") }

// TestSeal: what we seal the verifier passes, along a chain; and what cannot be
// sealed is left.
func TestSeal(t *testing.T) {
	key, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	server := dnstest.Start(t)
	server.AddTXT("s._domainkey.lists.reed.example", "p="+base64.StdEncoding.EncodeToString(der))
	v := &arc.Verifier{Resolver: server.Client(t)}
	s := &arc.Sealer{
		Domain: "lists.reed.example", Selector: "s", Key: key, AuthservID: "mx.reed.example",
		Fields: []string{"From", "Subject", "To", "DKIM-Signature", "List-Id", "MIME-Version", "Content-Type", "Message-ID", "Date", "In-Reply-To"},
	}
	const letter = "From: tom@hanks.example\r\nSubject: Dinner\r\nTo: food@lists.reed.example\r\n\r\nShall we?\r\n"
	results := func(say, text string) string { return "Authentication-Results: " + say + "\r\n" + text }
	status := func(text string) arc.Outcome {
		t.Helper()
		m, err := message.Read(strings.NewReader(text))
		if err != nil {
			t.Fatal(err)
		}
		o, err := v.Verify(t.Context(), m)
		if err != nil {
			t.Fatal(err)
		}
		return o
	}
	mail, set, err := seal(t, s, results("mx.reed.example; spf=pass (a; b)\r\n\tsmtp.mailfrom=\"x;y\"@hanks.example; dmarc=pass", letter))
	if err != nil {
		t.Fatal(err)
	}
	if got := set[2].Unfolded(); got != "i=1; mx.reed.example;\tspf=pass (a; b) smtp.mailfrom=\"x;y\"@hanks.example;\tdmarc=pass" {
		t.Errorf("results %q", got)
	}
	for i := 1; i < 50; i++ {
		if o := status(mail); o.Result != arc.Pass || o.Sets != i {
			t.Fatalf("%d sets: %+v", i, o)
		}
		if mail, _, err = seal(t, s, results("mx.reed.example; arc=pass (so it is); dmarc=fail", mail)); err != nil {
			t.Fatal(err)
		}
	}
	if _, _, err := seal(t, s, results("mx.reed.example; arc=pass", mail)); !errors.Is(err, arc.ErrTooLong) {
		t.Errorf("a 51st set: %v", err)
	}
	one, _, err := seal(t, s, results("mx.reed.example; dmarc=pass", letter))
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		say  string
		want error
	}{
		"nobody's results":   {"mx.ryan.example; arc=pass", arc.ErrNoResults},
		"no status":          {"mx.reed.example; dmarc=pass", arc.ErrNoResults},
		"a status not known": {"mx.reed.example; arc=temperror", arc.ErrNoResults},
		"none":               {"mx.reed.example; none", arc.ErrNoResults},
	} {
		if _, _, err := seal(t, s, results(c.say, strings.Replace(one, "Authentication-Results: mx.reed.example; dmarc=pass\r\n", "", 1))); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, _, err := seal(t, s, letter); !errors.Is(err, arc.ErrNoResults) {
		t.Errorf("no field at all: %v", err)
	}
	// A broken chain is sealed as failed, once.
	failed, set, err := seal(t, s, results("mx.reed.example; arc=fail", strings.Replace(one, "cv=none", "cv=pass", 1)))
	if err != nil || !strings.Contains(string(set[0].Raw), "cv=fail") {
		t.Fatalf("%v %s", err, set[0].Raw)
	}
	if o := status(failed); o.Result != arc.Fail || !strings.Contains(o.Reason, "cv=") {
		t.Errorf("%+v", o)
	}
	if _, _, err := seal(t, s, results("mx.reed.example; arc=fail", failed)); !errors.Is(err, arc.ErrFailed) {
		t.Errorf("sealed again: %v", err)
	}
	_, young, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	var unfit crypto.Signer = young
	if _, err := (&arc.Sealer{Key: unfit, AuthservID: "mx.reed.example"}).Seal(nil, &dkim.BodySum{}); err == nil {
		t.Error("sealed nothing")
	}
}
