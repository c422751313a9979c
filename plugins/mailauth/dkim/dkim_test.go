package dkim_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"io"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/stagecoach-mta/stagecoach/plugins/mailauth/dkim"
	"github.com/stagecoach-mta/stagecoach/plugins/mailauth/message"
	"github.com/stagecoach-mta/stagecoach/sdk/dns"
	"github.com/stagecoach-mta/stagecoach/sdk/dns/dnstest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m, dnstest.Outlives()) }

const letter = "From: Tom <tom@hanks.example>\r\nTo: meg@ryan.example\r\nSubject:  Dinner\r\n\ttonight \r\n\r\nShall we  meet?\t \r\n\r\nTom\r\n\r\n\r\n"

// keys are made once: RSA keys take their time.
type keys struct {
	rsa, short *rsa.PrivateKey
	ed         ed25519.PrivateKey
}

func newKeys(t testing.TB) *keys {
	t.Helper()
	k := &keys{}
	var err error
	if k.rsa, err = rsa.GenerateKey(rand.Reader, 2048); err != nil {
		t.Fatal(err)
	}
	if k.short, err = rsa.GenerateKey(rand.Reader, 1024); err != nil {
		t.Fatal(err)
	}
	if _, k.ed, err = ed25519.GenerateKey(rand.Reader); err != nil {
		t.Fatal(err)
	}
	return k
}

func published(t testing.TB, pub crypto.PublicKey) string {
	t.Helper()
	if e, ok := pub.(ed25519.PublicKey); ok {
		return "k=ed25519; p=" + base64.StdEncoding.EncodeToString(e)
	}
	der, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		t.Fatal(err)
	}
	return "k=rsa; p=" + base64.StdEncoding.EncodeToString(der)
}

// sign puts a signature on top of a message.
func sign(t testing.TB, s *dkim.Signer, text string) string {
	t.Helper()
	if s.Fields == nil {
		s.Fields = []string{"From", "To", "Subject", "From"}
	}
	m, err := message.Read(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	bodies := &dkim.Bodies{}
	sum := bodies.Want(s.Body, crypto.SHA256, -1)
	if err := bodies.Read(t.Context(), m.Body); err != nil {
		t.Fatal(err)
	}
	value, err := s.Sign(m.Header, sum)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.SplitSeq(value, "\r\n") {
		if len(line) > 78 {
			t.Errorf("a line of %d: %q", len(line), line)
		}
	}
	return "DKIM-Signature:" + value + "\r\n" + text
}

func TestSignedAndVerified(t *testing.T) {
	k := newKeys(t)
	s := dnstest.Start(t)
	s.AddTXT("rsa._domainkey.hanks.example", "v=DKIM1; t=y; "+published(t, k.rsa.Public()))
	s.AddTXT("ed._domainkey.hanks.example", "v=DKIM1; "+published(t, k.ed.Public()))
	v := &dkim.Verifier{Resolver: s.Client(t)}
	for _, header := range []dkim.Canonicalization{dkim.Simple, dkim.Relaxed} {
		for _, body := range []dkim.Canonicalization{dkim.Simple, dkim.Relaxed} {
			for selector, key := range map[string]crypto.Signer{"rsa": k.rsa, "ed": k.ed} {
				name := fmt.Sprintf("%s %s/%s", selector, header, body)
				signed := sign(t, &dkim.Signer{Domain: "hanks.example", Selector: selector, Key: key, Header: header, Body: body, Lifetime: time.Hour}, letter)
				got := verify(t, v, []byte(signed))
				if len(got) != 1 || got[0].Result != dkim.Pass || got[0].Testing != (selector == "rsa") || got[0].Signature.Identity != "@hanks.example" {
					t.Errorf("%s: %+v", name, got)
				}
				for what, changed := range map[string]string{
					"a word of the body": strings.Replace(signed, "Shall", "Will", 1),
					"the subject":        strings.Replace(signed, "Dinner", "Lunch", 1),
					"another From":       strings.Replace(signed, "To: ", "From: eve@evil.example\r\nTo: ", 1),
					"a line at the end":  signed + "P.S. send money\r\n",
				} {
					if got := verify(t, v, []byte(changed)); len(got) != 1 || got[0].Result != dkim.Fail {
						t.Errorf("%s, %s: %+v", name, what, got)
					}
				}
				// What the way may do to a mail in the relaxed forms.
				spaced := strings.NewReplacer("Subject:  Dinner", "SUBJECT : Dinner", "we  meet?\t ", "we meet? ").Replace(signed)
				want := dkim.Fail
				if header == dkim.Relaxed && body == dkim.Relaxed {
					want = dkim.Pass
				}
				if got := verify(t, v, []byte(spaced)); got[0].Result != want {
					t.Errorf("%s, other blanks: %+v", name, got)
				}
			}
		}
	}
}

// TestResults: each result for its reason, and the reason in words.
func TestResults(t *testing.T) {
	k := newKeys(t)
	s := dnstest.Start(t)
	rsaKey, edKey := published(t, k.rsa.Public()), published(t, k.ed.Public())
	for selector, record := range map[string]string{
		"good": rsaKey, "short": published(t, k.short.Public()), "revoked": "v=DKIM1; p=", "web": "s=web; " + rsaKey, "sha1": "h=sha1; " + rsaKey,
		"other": edKey, "strict": "t=s; " + rsaKey, "nokey": "v=DKIM1; k=rsa", "foreign": "v=spf1 -all", "later": "v=DKIM2; " + rsaKey, "odd": "k=x; p=AAAA",
	} {
		s.AddTXT(selector+"._domainkey.hanks.example", record)
	}
	s.Make("broken._domainkey.hanks.example", dnstest.Servfail)
	signed := func(change func(*dkim.Signer)) string {
		g := &dkim.Signer{Domain: "hanks.example", Selector: "good", Key: k.rsa}
		change(g)
		return sign(t, g, letter)
	}
	selector := func(name string) string { return signed(func(g *dkim.Signer) { g.Selector = name }) }
	tagged := func(old, new string) string { return strings.Replace(selector("good"), old, new, 1) }
	whole := &dkim.Verifier{Resolver: s.Client(t)}
	strict := &dkim.Verifier{Resolver: s.Client(t), MinRSABits: 2048}
	for name, tc := range map[string]struct {
		v      *dkim.Verifier
		mail   string
		want   dkim.Result
		reason string
	}{
		"good":           {whole, selector("good"), dkim.Pass, ""},
		"long enough":    {strict, selector("good"), dkim.Pass, ""},
		"short":          {strict, signed(func(g *dkim.Signer) { g.Selector, g.Key = "short", k.short }), dkim.Policy, "1024 bits, fewer than 2048"},
		"no key":         {whole, selector("nobody"), dkim.PermError, "nobody._domainkey.hanks.example: there is no key"},
		"nobody says":    {whole, selector("broken"), dkim.TempError, "SERVFAIL"},
		"revoked":        {whole, selector("revoked"), dkim.PermError, "was revoked"},
		"not for mail":   {whole, selector("web"), dkim.PermError, "is not for mail"},
		"not for sha256": {whole, selector("sha1"), dkim.PermError, "is not for sha256"},
		"another kind":   {whole, selector("other"), dkim.PermError, "is of another kind"},
		"without p=":     {whole, selector("nokey"), dkim.PermError, "it has no p="},
		"no key record":  {whole, selector("foreign"), dkim.PermError, "v=DKIM1"},
		"a later one":    {whole, selector("later"), dkim.PermError, "v=DKIM1"},
		"unknown k=":     {whole, selector("odd"), dkim.PermError, "k=x is not known"},
		"of a subdomain": {whole, signed(func(g *dkim.Signer) { g.Identity = "tom@mail.Hanks.example" }), dkim.Pass, ""},
		"strict":         {whole, signed(func(g *dkim.Signer) { g.Selector, g.Identity = "strict", "tom@mail.hanks.example" }), dkim.PermError, "only for the domain itself"},
		"another domain": {whole, signed(func(g *dkim.Signer) { g.Identity = "tom@nothanks.example" }), dkim.Neutral, "is not of d=hanks.example"},
		"expired": {whole, signed(func(g *dkim.Signer) {
			g.Lifetime, g.Now = time.Hour, func() time.Time { return time.Now().Add(-2 * time.Hour) }
		}), dkim.Policy, "expired"},
		"without From": {whole, signed(func(g *dkim.Signer) { g.Fields = []string{"To"} }), dkim.Neutral, "does not name From"},
		"v=2":          {whole, tagged("v=1", "v=2"), dkim.Neutral, "v=2 is not known"},
		"no a=":        {whole, tagged("a=rsa-sha256;", ""), dkim.Neutral, "it has no a="},
		"twice":        {whole, tagged("v=1;", "v=1; v=1;"), dkim.Neutral, "twice"},
		"a= unknown":   {whole, tagged("rsa-sha256", "rsa-md5"), dkim.Neutral, "a=rsa-md5 is not known"},
		"c= unknown":   {whole, tagged("simple/simple", "nofws"), dkim.Neutral, "c=nofws is not known"},
		"q= unknown":   {whole, tagged("v=1;", "v=1; q=http;"), dkim.Neutral, "q=http is not known"},
		"b= broken":    {whole, tagged("\tb=", "\tb=*"), dkim.Neutral, "b= is no base64"},
		"d= no name":   {whole, tagged("d=hanks.example", "d=hanks..example"), dkim.Neutral, "do not make a name"},
		"l= too long":  {whole, tagged("v=1;", "v=1; l=1000;"), dkim.Fail, "l= says 1000 octets, and the body has 26"},
		"t= no time":   {whole, tagged(" t=", " t=x"), dkim.Neutral, "is no time"},
		"no tag list":  {whole, tagged("v=1;", "v;"), dkim.Neutral, "has no ="},
	} {
		got := verify(t, tc.v, []byte(tc.mail))
		if len(got) != 1 || got[0].Result != tc.want || !strings.Contains(got[0].Reason, tc.reason) || (tc.reason == "") != (got[0].Reason == "") {
			t.Errorf("%s: %+v, want %s %q", name, got, tc.want, tc.reason)
		}
	}
	if got := verify(t, whole, []byte(letter)); len(got) != 0 {
		t.Errorf("unsigned: %+v", got)
	}
}

// TestManySignatures: the keys of a mail's signatures are asked for together, and
// of a mail with a hundred ten are looked at.
func TestManySignatures(t *testing.T) {
	s := dnstest.Start(t)
	var b strings.Builder
	for i := range 100 {
		fmt.Fprintf(&b, "DKIM-Signature: v=1; a=rsa-sha256; d=d%d.example; s=s; h=from; bh=AAAA; b=AAAA\r\n", i)
	}
	got := verify(t, &dkim.Verifier{Resolver: s.Client(t)}, []byte(b.String()+letter))
	if len(got) != 10 || len(s.Asked()) != 10 {
		t.Errorf("%d verdicts, %d questions", len(got), len(s.Asked()))
	}
	wait := &together{all: make(chan struct{})}
	wait.want.Store(10)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	m, err := message.Read(strings.NewReader(b.String() + letter))
	if err != nil {
		t.Fatal(err)
	}
	verdicts, err := (&dkim.Verifier{Resolver: wait}).Verify(ctx, m)
	if err != nil || len(verdicts) != 10 || verdicts[0].Result != dkim.PermError {
		t.Errorf("%v %+v", err, verdicts[0])
	}
}

// together answers when as many as it wants have asked.
type together struct {
	dns.None
	want atomic.Int32
	all  chan struct{}
}

func (g *together) TXT(ctx context.Context, _ string) ([]string, error) {
	if g.want.Add(-1) == 0 {
		close(g.all)
	}
	select {
	case <-g.all:
		return nil, dns.ErrNotExist
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// TestPartialBody: l= lets everybody write on below what was signed.
func TestPartialBody(t *testing.T) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	s := dnstest.Start(t)
	s.AddTXT("ed._domainkey.hanks.example", published(t, key.Public()))
	// l= has to be signed too: this is Signer with it.
	bodies := &dkim.Bodies{}
	sum := bodies.Want(dkim.Simple, crypto.SHA256, 5)
	m, err := message.Read(strings.NewReader(letter))
	if err != nil {
		t.Fatal(err)
	}
	if err := bodies.Read(t.Context(), m.Body); err != nil {
		t.Fatal(err)
	}
	value := " v=1; a=ed25519-sha256; d=hanks.example; s=ed; h=from; l=5; bh=" + base64.StdEncoding.EncodeToString(sum.Sum) + "; b="
	h := crypto.SHA256.New()
	dkim.Simple.HashFields(h, m.Header, []string{"from"})
	if err := dkim.Simple.HashUnsigned(h, message.Field{Name: "DKIM-Signature", Raw: []byte("DKIM-Signature:" + value + "\r\n")}); err != nil {
		t.Fatal(err)
	}
	b, err := dkim.SignSum(key, dkim.Algorithm{Key: "ed25519", Hash: crypto.SHA256}, h.Sum(nil))
	if err != nil {
		t.Fatal(err)
	}
	mail := []byte("DKIM-Signature:" + value + b + "\r\n" + letter)
	for partial, want := range map[bool]dkim.Result{false: dkim.Policy, true: dkim.Pass} {
		got := verify(t, &dkim.Verifier{Resolver: s.Client(t), PartialBody: partial}, mail)
		if got[0].Result != want || !partial && got[0].Reason != "only 5 of the body's 26 octets are signed" {
			t.Errorf("partial %v: %+v", partial, got)
		}
	}
}

// TestBodyInPieces: however a body is cut, its sum is the same, and it is that of
// RFC 6376's own words.
func TestBodyInPieces(t *testing.T) {
	for _, tc := range []struct{ body, simple, relaxed string }{
		{"", "\r\n", ""},
		{"\r\n\r\n", "\r\n", ""},
		{" \t\r\n", " \t\r\n", ""},
		{"a", "a\r\n", "a\r\n"},
		{"a\r\n\r\n\r\n", "a\r\n", "a\r\n"},
		{" C \r\nD \t E\r\n\r\n\r\n", " C \r\nD \t E\r\n", " C\r\nD E\r\n"}, // section 3.4.5
		{"\r\n\r\na \r\n \r\nb", "\r\n\r\na \r\n \r\nb\r\n", "\r\n\r\na\r\n\r\nb\r\n"},
		{"a\rb\nc \r\n", "a\rb\nc \r\n", "a\rb\nc\r\n"},
		{"a\r", "a\r\r\n", "a\r\r\n"},
	} {
		for c, want := range map[dkim.Canonicalization]string{dkim.Simple: tc.simple, dkim.Relaxed: tc.relaxed} {
			h := crypto.SHA256.New()
			io.WriteString(h, want)
			for size := 1; size <= len(tc.body)+1; size++ {
				bodies := &dkim.Bodies{}
				sum := bodies.Want(c, crypto.SHA256, -1)
				if err := bodies.Read(t.Context(), &pieces{[]byte(tc.body), size}); err != nil {
					t.Fatal(err)
				}
				if !bytes.Equal(sum.Sum, h.Sum(nil)) || sum.Length != int64(len(want)) {
					t.Errorf("%s of %q by %d: %d octets, want %q", c, tc.body, size, sum.Length, want)
				}
			}
		}
	}
}

type pieces struct {
	left []byte
	size int
}

func (p *pieces) Read(b []byte) (int, error) {
	if len(p.left) == 0 {
		return 0, io.EOF
	}
	n := copy(b, p.left[:min(p.size, len(p.left))])
	p.left = p.left[n:]
	return n, nil
}

func TestParseTags(t *testing.T) {
	got, err := dkim.ParseTags(" v = 1 ;\r\n\ta=b=c; empty=;\r\n ")
	if err != nil || len(got) != 3 || got[0].Value != "1" || got[1].Value != "b=c" || !got.Has("empty") || got.Has("x") {
		t.Errorf("%+v %v", got, err)
	}
	for _, bad := range []string{"", ";", "a", "=1", "a=1;;b=2", "1a=2", "a=1; a=2", "a=\x00", "a-b=1"} {
		if got, err := dkim.ParseTags(bad); err == nil {
			t.Errorf("%q was taken: %+v", bad, got)
		}
	}
}

func FuzzVerify(f *testing.F) {
	f.Add([]byte("DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/simple; d=hanks.example; i=tom=40hanks.example; s=s; h=from:to; l=3; t=1; x=2; bh=AAAA; b=AAAA\r\n"+letter), "v=DKIM1; h=sha256; s=email; t=y:s; p=AAAA")
	f.Add([]byte("From: a\r\nDKIM-Signature: v=1; a=ed25519-sha256; d=a.b; s=s; h=from; bh=;b=\r\n\r\n"), "k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=")
	f.Add([]byte(" : \r\n\t\r\n:\r\n"), "p=;;")
	f.Fuzz(func(t *testing.T, mail []byte, key string) {
		m, err := message.Read(bytes.NewReader(mail))
		if err != nil {
			return
		}
		for _, historic := range []bool{false, true} {
			v := &dkim.Verifier{Resolver: oneKey{txt: key}, Historic: historic}
			bodies := &dkim.Bodies{}
			check := v.Begin(t.Context(), m.Header, bodies)
			if err := bodies.Read(t.Context(), bytes.NewReader(mail)); err != nil {
				t.Fatal(err)
			}
			for _, got := range check.Finish() {
				if got.Result == dkim.Pass {
					t.Fatalf("a forged signature passes: %q", mail)
				}
				if got.Reason == "" || got.Signature == nil {
					t.Fatalf("no reason: %+v", got)
				}
			}
		}
	})
}

type oneKey struct {
	dns.None
	txt string
}

func (k oneKey) TXT(context.Context, string) ([]string, error) { return []string{k.txt}, nil }
