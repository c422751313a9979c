package arc_test

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/stagecoach-mta/stagecoach/plugins/mailauth/arc"
	"github.com/stagecoach-mta/stagecoach/plugins/mailauth/dkim"
	"github.com/stagecoach-mta/stagecoach/plugins/mailauth/message"
	"github.com/stagecoach-mta/stagecoach/sdk/dns/dnstest"
)

// sealed adds an ARC set to a message, by hand.
func sealed(t *testing.T, key ed25519.PrivateKey, domain, cv, text string) string {
	t.Helper()
	m, err := message.Read(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	bodies := &dkim.Bodies{}
	body := bodies.Want(dkim.Relaxed, crypto.SHA256, -1)
	if err := bodies.Read(t.Context(), m.Body); err != nil {
		t.Fatal(err)
	}
	n := len(m.Header.All("ARC-Seal")) + 1
	field := func(name, value string) message.Field {
		return message.Field{Name: name, Raw: []byte(name + ":" + value + "\r\n")}
	}
	signed := func(name, value string, before []message.Field, fields ...string) message.Field {
		h := crypto.SHA256.New()
		for _, f := range before {
			h.Write(dkim.Relaxed.AppendField(nil, f))
		}
		dkim.Relaxed.HashFields(h, m.Header, fields)
		if err := dkim.Relaxed.HashUnsigned(h, field(name, value)); err != nil {
			t.Fatal(err)
		}
		b, err := dkim.SignSum(key, dkim.Algorithm{Key: "ed25519", Hash: crypto.SHA256}, h.Sum(nil))
		if err != nil {
			t.Fatal(err)
		}
		return field(name, value+b)
	}
	results := field("ARC-Authentication-Results", fmt.Sprintf(" i=%d; %s; dmarc=pass header.from=hanks.example", n, domain))
	common := fmt.Sprintf(" i=%d; a=ed25519-sha256; d=%s; s=s;", n, domain)
	signature := signed("ARC-Message-Signature", common+" c=relaxed/relaxed; h=from:subject; bh="+base64.StdEncoding.EncodeToString(body.Sum)+"; b=", nil, "from", "subject")
	var sets []message.Field
	for i := 1; i < n; i++ {
		for _, name := range []string{"ARC-Authentication-Results", "ARC-Message-Signature", "ARC-Seal"} {
			all := m.Header.All(name)
			sets = append(sets, all[len(all)-i])
		}
	}
	seal := signed("ARC-Seal", common+" cv="+cv+"; b=", append(sets, results, signature))
	return string(seal.Raw) + string(signature.Raw) + string(results.Raw) + text
}

// TestChain: a list and a forwarder behind it change a mail and seal it.
func TestChain(t *testing.T) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	record := "k=ed25519; p=" + base64.StdEncoding.EncodeToString(key.Public().(ed25519.PublicKey))
	s := dnstest.Start(t)
	s.AddTXT("s._domainkey.lists.reed.example", record)
	s.AddTXT("s._domainkey.forward.example", record)
	s.Make("s._domainkey.broken.example", dnstest.Servfail)
	v := &arc.Verifier{Resolver: s.Client(t)}
	text := "From: tom@hanks.example\r\nSubject: Dinner\r\n\r\nShall we?\r\n"
	check := func(what, mail string, want arc.Result, reason string) arc.Outcome {
		t.Helper()
		m, err := message.Read(strings.NewReader(mail))
		if err != nil {
			t.Fatal(err)
		}
		got, err := v.Verify(t.Context(), m)
		if err != nil || got.Result != want || !strings.Contains(got.Reason, reason) || (reason == "") != (got.Reason == "") {
			t.Errorf("%s: %v %+v, want %s %q", what, err, got, want, reason)
		}
		return got
	}
	check("unsealed", text, arc.None, "")
	list := sealed(t, key, "lists.reed.example", "none", strings.Replace(text, "Dinner", "[food] Dinner", 1))
	check("a list's", list, arc.Pass, "")
	forwarded := sealed(t, key, "forward.example", "pass", list+"--\r\nforwarded\r\n")
	got := check("forwarded", forwarded, arc.Pass, "")
	if got.Sets != 2 || !slices.Equal(got.Sealers, []string{"forward.example", "lists.reed.example"}) ||
		!slices.Equal(got.Results, []string{"forward.example; dmarc=pass header.from=hanks.example", "lists.reed.example; dmarc=pass header.from=hanks.example"}) {
		t.Errorf("%+v", got)
	}
	check("changed later", forwarded+"P.S.\r\n", arc.Fail, "ARC-Message-Signature i=2: the body was changed")
	check("a set's results changed", strings.Replace(forwarded, "i=1; lists.reed.example; dmarc=pass", "i=1; lists.reed.example; dmarc=none", 1), arc.Fail, "ARC-Seal i=1: the signature does not fit")
	check("another subject", strings.Replace(forwarded, "[food]", "[fish]", 1), arc.Fail, "ARC-Message-Signature i=2: the signature does not fit")
	check("cv=none twice", sealed(t, key, "forward.example", "none", list), arc.Fail, "ARC-Seal i=2: cv=none")
	check("cv=fail", sealed(t, key, "forward.example", "fail", list), arc.Fail, "ARC-Seal i=2: cv=fail")
	check("nobody says", sealed(t, key, "broken.example", "none", text), arc.TempError, "SERVFAIL")
	check("nobody says, and wrong", sealed(t, key, "broken.example", "pass", list+"more\r\n")+"P.S.\r\n", arc.TempError, "SERVFAIL")
	check("no key", sealed(t, key, "nobody.example", "none", text), arc.Fail, "there is no key")
	long := text
	for i := range arc.MaxSets + 1 {
		long = sealed(t, key, "forward.example", map[bool]string{true: "none", false: "pass"}[i == 0], long)
		if i == arc.MaxSets-1 {
			check("the longest", long, arc.Pass, "")
		}
	}
	check("too long", long, arc.Fail, "ARC-Authentication-Results: i=51 is no number from 1 to 50")
}
