package arcsign_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stagecoach-mta/stagecoach/plugins/arcsign"
	"github.com/stagecoach-mta/stagecoach/plugins/mailauth/arc"
	"github.com/stagecoach-mta/stagecoach/plugins/mailauth/keyring"
	"github.com/stagecoach-mta/stagecoach/plugins/mailauth/message"
	"github.com/stagecoach-mta/stagecoach/sdk"
	"github.com/stagecoach-mta/stagecoach/sdk/dns/dnstest"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
	"github.com/stagecoach-mta/stagecoach/sdk/sdktest"
)

const letter = `Received: from mail.hanks.example by mx.ryan.example
From: Tom <tom@hanks.example>
To: meg@ryan.example
Subject: Dinner

Shall we?
`

// TestSealed: a mail is forwarded by two servers, each of which seals what it saw;
// who gets it at the end sees a chain that holds.
func TestSealed(t *testing.T) {
	dir := t.TempDir()
	s := dnstest.Start(t)
	for _, domain := range []string{"ryan.example", "reed.example"} {
		key, err := keyring.Make(dir, domain, "a", "rsa", 1024)
		if err != nil {
			t.Fatal(err)
		}
		record, err := key.Record()
		if err != nil {
			t.Fatal(err)
		}
		s.AddTXT(key.Name(), record)
	}
	v := &arc.Verifier{Resolver: s.Client(t)}
	check := func(mail string) arc.Outcome {
		t.Helper()
		m, err := message.Read(strings.NewReader(strings.ReplaceAll(mail, "\n", "\r\n")))
		if err != nil {
			t.Fatal(err)
		}
		o, err := v.Verify(t.Context(), m)
		if err != nil {
			t.Fatal(err)
		}
		return o
	}
	forward := func(domain, mail string, client *v1.Client) (string, string) {
		t.Helper()
		call := sdktest.Route(t, mail)
		call.Envelope.Client = client
		r, err := sdktest.Filter(t, arcsign.Plugin(), fmt.Sprintf("domain = %q\nkeys = %q\nauthserv_id = %q", domain, dir, "mx."+domain))(call)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range r.GetEdits() {
			f := e.GetInsertHeader().GetField()
			mail = f.GetName() + ":" + strings.ReplaceAll(string(f.GetValue()), "\r\n", "\n") + "\n" + mail
		}
		return mail, r.GetNote()
	}
	client := &v1.Client{Ip: "192.0.2.7"}
	first, note := forward("ryan.example", "Authentication-Results: mx.ryan.example; spf=pass smtp.mailfrom=hanks.example;\n\tdmarc=pass\n"+letter, client)
	if note != "sealed for ryan.example by a" {
		t.Errorf("note %q", note)
	}
	if o := check(first); o.Result != arc.Pass || o.Sealers[0] != "ryan.example" || o.Results[0] != "mx.ryan.example;\tspf=pass smtp.mailfrom=hanks.example;\tdmarc=pass" {
		t.Errorf("%+v\n%s", o, first)
	}
	second, _ := forward("reed.example", "Authentication-Results: mx.reed.example; spf=fail; arc=pass (i=1 ryan.example)\n"+first, client)
	if o := check(second); o.Result != arc.Pass || fmt.Sprint(o.Sealers) != "[reed.example ryan.example]" {
		t.Errorf("%+v\n%s", o, second)
	}
	for name, c := range map[string]struct {
		mail   string
		client *v1.Client
		want   string
	}{
		"a user's":     {"Authentication-Results: mx.ryan.example; auth=pass\n" + letter, &v1.Client{Ip: "192.0.2.7", User: "tom@hanks.example"}, "begins here"},
		"made here":    {letter, nil, "begins here"},
		"not verified": {letter, client, "no Authentication-Results field of ours"},
		"sealed as failed": {"Authentication-Results: mx.ryan.example; arc=fail\nARC-Seal: i=1; a=rsa-sha256; cv=fail; d=reed.example; s=a; b=AAAA\n" +
			"ARC-Message-Signature: i=1; a=rsa-sha256; d=reed.example; s=a; h=from; bh=AAAA; b=AAAA\nARC-Authentication-Results: i=1; mx.reed.example; none\n" + letter, client, "sealed as failed before"},
	} {
		if mail, note := forward("ryan.example", c.mail, c.client); mail != c.mail || !strings.Contains(note, c.want) {
			t.Errorf("%s: note %q\n%s", name, note, mail)
		}
	}
}

func TestMistakes(t *testing.T) {
	for config, want := range map[string]string{
		`domain = "ryan"`: `domain: "ryan" is no domain`,
		`domain = "ryan.example"
authserv_id = "a b"`: "authserv_id",
		`domain = "ryan.example"
fields = ["Subject"]`: "fields: From is missing",
		`domain = "ryan.example"
fields = ["From", "ARC-Seal"]`: "fields[1]: ARC-Seal is not for the message signature",
		`domain = "ryan.example"
fields = ["From", "a:"]`: "fields[1]",
	} {
		diags := sdktest.Diagnostics(t, arcsign.Plugin(), config)
		if len(diags) != 1 || !strings.HasPrefix(diags[0], want) {
			t.Errorf("%s: %q, want %s", config, diags, want)
		}
	}
	dir := t.TempDir()
	if _, err := keyring.Make(dir, "ryan.example", "e", "ed25519", 0); err != nil {
		t.Fatal(err)
	}
	c := arcsign.Plugin().Config.(arcsign.Config)
	c.Keys, c.Domain = dir, "ryan.example"
	_, err := arcsign.Plugin().Filter(t.Context(), &sdk.Instance{Config: &c, Metrics: &sdk.Metrics{}})
	if err == nil || !strings.Contains(err.Error(), "has no RSA key for ryan.example; `stagecoach dkim new ryan.example --type rsa") {
		t.Errorf("%v", err)
	}
}
