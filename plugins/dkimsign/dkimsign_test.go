package dkimsign_test

import (
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stagecoach-mta/stagecoach/plugins/dkimsign"
	"github.com/stagecoach-mta/stagecoach/plugins/mailauth/dkim"
	"github.com/stagecoach-mta/stagecoach/plugins/mailauth/keyring"
	"github.com/stagecoach-mta/stagecoach/plugins/mailauth/message"
	"github.com/stagecoach-mta/stagecoach/sdk"
	"github.com/stagecoach-mta/stagecoach/sdk/dns/dnstest"
	"github.com/stagecoach-mta/stagecoach/sdk/filter"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
	"github.com/stagecoach-mta/stagecoach/sdk/sdktest"
)

const text = `Received: from tom by mail.hanks.example
From: Tom <tom@hanks.example>
To: meg@ryan.example
Subject: Dinner
Date: Fri, 11 Jul 2003 21:00:37 -0700
Message-ID: <1@hanks.example>

Shall we?
`

// world is a folder of keys whose public halves the DNS has.
func world(t *testing.T) (dir string, v *dkim.Verifier) {
	t.Helper()
	dir = t.TempDir()
	s := dnstest.Start(t)
	for _, k := range [][3]string{{"hanks.example", "r", "rsa"}, {"hanks.example", "e", "ed25519"}, {"ryan.example", "e", "ed25519"}} {
		key, err := keyring.Make(dir, k[0], k[1], k[2], 1024)
		if err != nil {
			t.Fatal(err)
		}
		record, err := key.Record()
		if err != nil {
			t.Fatal(err)
		}
		s.AddTXT(key.Name(), record)
	}
	return dir, &dkim.Verifier{Resolver: s.Client(t)}
}

// sign returns the message as the filter leaves it, with its lines ended by CRLF.
func sign(t *testing.T, config, text string, client *v1.Client) (string, *v1.FilterReply) {
	t.Helper()
	call := sdktest.Message(t, text)
	call.Envelope.Client = client
	r, err := sdktest.Filter(t, dkimsign.Plugin(), config)(call)
	if err != nil {
		t.Fatal(err)
	}
	signed := strings.ReplaceAll(text, "\n", "\r\n")
	for _, e := range r.GetEdits() {
		in := e.GetInsertHeader()
		if in == nil || in.GetPosition() != 0 {
			t.Fatalf("edit %v", e)
		}
		signed = in.GetField().GetName() + ":" + string(in.GetField().GetValue()) + "\r\n" + signed
	}
	return signed, r
}

// verdicts is what a verifier says: "ed25519 pass, rsa pass".
func verdicts(t *testing.T, v *dkim.Verifier, mail string) string {
	t.Helper()
	m, err := message.Read(strings.NewReader(mail))
	if err != nil {
		t.Fatal(err)
	}
	all, err := v.Verify(t.Context(), m)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, one := range all {
		out = append(out, fmt.Sprint(one.Signature.Algorithm.Key, " ", one.Signature.Domain, " ", one.Result))
	}
	return strings.Join(out, ", ")
}

var user = &v1.Client{Ip: "192.0.2.7", User: "tom@hanks.example"}

func TestSigned(t *testing.T) {
	dir, v := world(t)
	for _, c := range []string{"relaxed/relaxed", "relaxed/simple", "simple/relaxed", "simple/simple"} {
		signed, r := sign(t, fmt.Sprintf("keys = %q\ncanonicalization = %q", dir, c), text, user)
		const both = "rsa hanks.example pass, ed25519 hanks.example pass"
		if got := verdicts(t, v, signed); got != both {
			t.Errorf("%s: %s\n%s", c, got, signed)
		}
		if strings.Count(signed, "c="+c+";") != 2 || r.GetTags()["dkim_signed"].GetText() != "hanks.example" {
			t.Errorf("%s: %v\n%s", c, r.GetTags(), signed)
		}
		for line := range strings.SplitSeq(signed, "\r\n") {
			if len(line) > 78 {
				t.Errorf("a line of %d octets: %s", len(line), line)
			}
		}
		// What is added on the way shows, also where there was none of its name.
		for _, field := range []string{"Subject: Lunch", "From: joe@reed.example", "Reply-To: joe@reed.example", "Content-Type: text/html", "Cc: joe@reed.example"} {
			if got := verdicts(t, v, field+"\r\n"+signed); strings.Contains(got, "pass") {
				t.Errorf("%s: with %s added: %s", c, field, got)
			}
		}
		if got := verdicts(t, v, "Received: from mx\r\nX-Spam: no\r\n"+signed); got != both {
			t.Errorf("%s: with a trace field added: %s", c, got)
		}
		if got := verdicts(t, v, signed+"more\r\n"); strings.Contains(got, "pass") {
			t.Errorf("%s: with a line added: %s", c, got)
		}
	}
}

// TestWhose: whose mail is signed, and with whose key.
func TestWhose(t *testing.T) {
	dir, v := world(t)
	stranger := &v1.Client{Ip: "203.0.113.9"}
	from := func(address string) string { return strings.Replace(text, "tom@hanks.example", address, 1) }
	for name, c := range map[string]struct {
		config, text string
		client       *v1.Client
		want, note   string
	}{
		"a user":                 {"", text, user, "rsa hanks.example pass, ed25519 hanks.example pass", "signed for hanks.example by e, r"},
		"a stranger":             {"", text, stranger, "", ""},
		"a network":              {`networks = ["203.0.113.0/24"]`, text, stranger, "rsa hanks.example pass, ed25519 hanks.example pass", "signed"},
		"an address":             {`networks = ["203.0.113.9"]`, text, stranger, "rsa hanks.example pass, ed25519 hanks.example pass", "signed"},
		"made here":              {"", text, nil, "rsa hanks.example pass, ed25519 hanks.example pass", "signed"},
		"in other letters":       {"", from("tom@HANKS.Example"), user, "rsa hanks.example pass, ed25519 hanks.example pass", "signed"},
		"another of our domains": {"", from("meg@ryan.example"), user, "ed25519 ryan.example pass", "signed"},
		"a subdomain":            {"", from("n@news.ryan.example"), user, "ed25519 ryan.example pass", "signed"},
		"no subdomains":          {"subdomains = false", from("n@news.ryan.example"), user, "", "no key for news.ryan.example"},
		"no key":                 {"", from("joe@reed.example"), user, "", "no key for reed.example"},
		"everybody's key":        {`domain = "ryan.example"`, from("joe@reed.example"), user, "ed25519 ryan.example pass", "signed for ryan.example"},
		"two authors":            {"", strings.Replace(text, "From:", "From: joe@reed.example\nFrom:", 1), user, "", "2 From fields"},
		"no author":              {"", strings.Replace(text, "From:", "X-From:", 1), user, "", "0 From fields"},
	} {
		t.Run(name, func(t *testing.T) {
			signed, r := sign(t, fmt.Sprintf("keys = %q\n%s", dir, c.config), c.text, c.client)
			if got := verdicts(t, v, signed); got != c.want {
				t.Errorf("%s, want %s", got, c.want)
			}
			if a := r.GetVerdict().GetAction(); a != v1.Verdict_ACCEPT || !strings.Contains(r.GetNote(), c.note) {
				t.Errorf("%v, note %q", a, r.GetNote())
			}
		})
	}
}

func TestMistakes(t *testing.T) {
	for config, want := range map[string]string{
		`domain = "hanks"`: `domain: "hanks" is no domain`,
		`fields = ["Subject"]
oversign = []`: "fields: From is missing",
		`oversign = ["From", "Received"]`: "oversign[1]: Received changes on the way",
		`fields = ["From", "To:"]`:        `fields[1]: "To:" is no header field name`,
		`lifetime = "10m"`:                "lifetime: mail may lie in queues",
	} {
		diags := sdktest.Diagnostics(t, dkimsign.Plugin(), config)
		if len(diags) != 1 || !strings.HasPrefix(diags[0], want) {
			t.Errorf("%s: %q, want %s", config, diags, want)
		}
	}
}

// TestNoKeys: an operator who has no keys yet is told how to make one.
func TestNoKeys(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "dkim")
	open := func() error {
		p := dkimsign.Plugin()
		c := p.Config.(dkimsign.Config)
		c.Keys = dir
		_, err := p.Filter(t.Context(), &sdk.Instance{Config: &c, Metrics: &sdk.Metrics{}})
		return err
	}
	if err := open(); err == nil || !strings.Contains(err.Error(), "stagecoach dkim new DOMAIN --keys "+dir) {
		t.Errorf("%v", err)
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := open(); err != nil {
		t.Errorf("an empty folder: %v", err)
	}
}

// BenchmarkSign is a small mail signed by an RSA key of 2048 bits; rsa is the bare
// operation beside it.
func BenchmarkSign(b *testing.B) {
	dir := b.TempDir()
	key, err := keyring.Make(dir, "hanks.example", "r", "rsa", 2048)
	if err != nil {
		b.Fatal(err)
	}
	p := dkimsign.Plugin()
	c := p.Config.(dkimsign.Config)
	c.Keys = dir
	f, err := p.Filter(b.Context(), &sdk.Instance{Config: &c, Metrics: &sdk.Metrics{}})
	if err != nil {
		b.Fatal(err)
	}
	call := sdktest.Message(b, text)
	call.Envelope.Client = user
	ev := filter.NewEvent(call)
	b.Run("mail", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			v, err := f.Filter(b.Context(), ev)
			if err != nil || len(v.Reply().GetEdits()) != 1 {
				b.Fatal(err, v.Reply())
			}
		}
	})
	b.Run("rsa", func(b *testing.B) {
		sum := sha256.Sum256([]byte(text))
		for b.Loop() {
			if _, err := key.Private.Sign(rand.Reader, sum[:], crypto.SHA256); err != nil {
				b.Fatal(err)
			}
		}
	})
}
