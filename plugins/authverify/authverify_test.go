package authverify_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/stagecoach-mta/stagecoach/plugins/authverify"
	"github.com/stagecoach-mta/stagecoach/sdk/dns/dnstest"
	"github.com/stagecoach-mta/stagecoach/sdk/mail"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
	"github.com/stagecoach-mta/stagecoach/sdk/schema"
	"github.com/stagecoach-mta/stagecoach/sdk/sdktest"
)

// signed is the message of RFC 8463 appendix A.3.
const signed = `DKIM-Signature: v=1; a=ed25519-sha256; c=relaxed/relaxed;
 d=football.example.com; i=@football.example.com;
 q=dns/txt; s=brisbane; t=1528637909; h=from : to :
 subject : date : message-id : from : subject : date;
 bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;
 b=/gCrinpcQOoIfuHNQIbq4pgh9kyIK3AQUdt9OdqQehSwhEIug4D11Bus
 Fa3bT3FY5OsU7ZbnKELq+eXdp1Q1Dw==
From: Joe SixPack <joe@football.example.com>
To: Suzie Q <suzie@shopping.example.net>
Subject: Is dinner ready?
Date: Fri, 11 Jul 2003 21:00:37 -0700 (PDT)
Message-ID: <20030712040037.46341.5F8J@football.example.com>

Hi.

We lost the game.  Are you hungry yet?

Joe.
`

// world is a DNS that knows the signer of that message.
func world(t testing.TB) *dnstest.Server {
	t.Helper()
	s := dnstest.Start(t)
	s.AddTXT("brisbane._domainkey.football.example.com", "v=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=")
	s.AddTXT("_dmarc.football.example.com", "v=DMARC1; p=reject")
	s.AddTXT("hanks.example", "v=spf1 ip4:192.0.2.7 -all")
	s.Add(t, "7.2.0.192.in-addr.arpa", "PTR mail.hanks.example.")
	s.Add(t, "mail.hanks.example", "A 192.0.2.7")
	return s
}

func message(t testing.TB, text string) *v1.FilterCall {
	t.Helper()
	call := sdktest.Message(t, text)
	call.Envelope.Sender = "tom@hanks.example"
	call.Envelope.Client = &v1.Client{Ip: "192.0.2.7", Hello: "mail.hanks.example"}
	return call
}

func ask(t testing.TB, s *dnstest.Server, call *v1.FilterCall) (tags map[string]*v1.Tag, edits []string) {
	t.Helper()
	filter := sdktest.Filter(t, authverify.Plugin(), fmt.Sprintf("authserv_id = \"mx.ryan.example\"\nresolvers = [%q]", s.Addr()))
	r, err := filter(call)
	if err != nil {
		t.Fatal(err)
	}
	if a := r.GetVerdict().GetAction(); a != v1.Verdict_ACCEPT {
		t.Errorf("verdict %s: policy is the configuration's", a)
	}
	for _, e := range r.GetEdits() {
		switch e := e.GetEdit().(type) {
		case *v1.Edit_DeleteHeader_:
			edits = append(edits, fmt.Sprintf("-%s %d", e.DeleteHeader.GetName(), e.DeleteHeader.GetIndex()))
		case *v1.Edit_InsertHeader_:
			edits = append(edits, fmt.Sprintf("+%d %s: %s", e.InsertHeader.GetPosition(), e.InsertHeader.GetField().GetName(), mail.Unfold(e.InsertHeader.GetField().GetValue())))
		}
	}
	return r.GetTags(), edits
}

func key(tags map[string]*v1.Tag, name, key string) string {
	return tags[name].GetMap().GetEntries()[key].GetText()
}

func TestGoodMail(t *testing.T) {
	tags, edits := ask(t, world(t), message(t, signed))
	want := []string{"+0 Authentication-Results: mx.ryan.example;\tiprev=pass (mail.hanks.example)\t policy.iprev=192.0.2.7;" +
		"\tspf=pass\t smtp.mailfrom=tom@hanks.example;" +
		"\tdkim=pass\t header.d=football.example.com\t header.i=@football.example.com\t header.s=brisbane\t header.a=ed25519-sha256\t header.b=\"/gCrinpc\";" +
		"\tdmarc=pass\t header.from=football.example.com\t polrec.p=reject\t polrec.domain=football.example.com"}
	if !slices.Equal(edits, want) {
		t.Errorf("got  %q\nwant %q", edits, want)
	}
	if tags["spf"].GetText() != "pass" || tags["iprev"].GetText() != "pass" || key(tags, "dkim", "football.example.com") != "pass" ||
		!slices.Equal(tags["dkim_pass"].GetList().GetValues(), []string{"football.example.com"}) || key(tags, "dmarc", "result") != "pass" ||
		key(tags, "dmarc", "policy") != "reject" || key(tags, "dmarc", "disposition") != "none" || key(tags, "arc", "result") != "none" ||
		!tags["dmarc"].GetMap().GetEntries()["dkim"].GetFlag() {
		t.Errorf("%v", tags)
	}
}

// TestForgedResults: what others say in our name goes, what they say in theirs stays.
func TestForgedResults(t *testing.T) {
	forged := "Authentication-Results: lists.reed.example; spf=pass\nAuthentication-Results: (x) MX.Ryan.Example 1; dmarc=pass\nAuthentication-Results: ;\n"
	_, edits := ask(t, world(t), message(t, forged+strings.Replace(signed, "lost", "won", 1)))
	if len(edits) != 3 || edits[0] != "-Authentication-Results 2" || edits[1] != "-Authentication-Results 3" ||
		!strings.Contains(edits[2], `dkim=fail	 reason="the body was changed"`) || !strings.Contains(edits[2], "dmarc=fail") {
		t.Errorf("%q", edits)
	}
	call := message(t, forged+signed)
	call.Envelope.Client.User = "tom@ryan.example"
	tags, edits := ask(t, world(t), call)
	if len(edits) != 3 || edits[2] != "+0 Authentication-Results: mx.ryan.example;\tauth=pass" || len(tags) != 0 {
		t.Errorf("of a user: %q %v", edits, tags)
	}
}

func TestFailedMail(t *testing.T) {
	call := message(t, strings.Replace(signed, "lost", "won", 1))
	call.Envelope.Client.Ip = "203.0.113.9"
	tags, _ := ask(t, world(t), call)
	if tags["spf"].GetText() != "fail" || tags["iprev"].GetText() != "permerror" || key(tags, "dkim", "football.example.com") != "fail" ||
		key(tags, "dmarc", "result") != "fail" || key(tags, "dmarc", "disposition") != "reject" {
		t.Errorf("%v", tags)
	}
}

// TestNobodySays: a name server that fails makes no pass and no fail.
func TestNobodySays(t *testing.T) {
	s := dnstest.Start(t)
	for _, name := range []string{"brisbane._domainkey.football.example.com", "_dmarc.football.example.com", "hanks.example", "7.2.0.192.in-addr.arpa"} {
		s.Make(name, dnstest.Servfail)
	}
	tags, edits := ask(t, s, message(t, signed))
	if tags["spf"].GetText() != "temperror" || tags["iprev"].GetText() != "temperror" || key(tags, "dkim", "football.example.com") != "temperror" ||
		key(tags, "dmarc", "result") != "temperror" || key(tags, "dmarc", "disposition") != "none" || strings.Contains(edits[0], "=pass") {
		t.Errorf("%v %q", tags, edits)
	}
	// The policy is known, who signed is not: that is no fail either.
	s = world(t)
	s.Clear()
	s.AddTXT("_dmarc.football.example.com", "v=DMARC1; p=reject")
	s.Make("brisbane._domainkey.football.example.com", dnstest.Servfail)
	if tags, _ = ask(t, s, message(t, signed)); key(tags, "dmarc", "result") != "temperror" || key(tags, "dmarc", "disposition") != "none" {
		t.Errorf("%v", tags)
	}
}

func TestLargeMail(t *testing.T) {
	tags, _ := ask(t, world(t), message(t, signed+strings.Repeat("\n", 2*mail.InlineLimit)))
	if key(tags, "dkim", "football.example.com") != "pass" {
		t.Errorf("%v", tags)
	}
}

func TestMistakes(t *testing.T) {
	for config, attribute := range map[string]string{
		`resolvers = ["192.0.2.53", "ns.example"]`: "resolvers", `min_rsa_bits = 512`: "min_rsa_bits", `lookup_timeout = "0s"`: "lookup_timeout",
		`authserv_id = "a;b"`: "authserv_id", `max_signatures = 0`: "max_signatures",
	} {
		diags := sdktest.Diagnostics(t, authverify.Plugin(), config)
		if len(diags) != 1 || !strings.HasPrefix(diags[0], attribute) {
			t.Errorf("%s: %v", config, diags)
		}
	}
	c := authverify.Config{}
	if diags := schema.Diagnostics(c.Validate()); len(diags) != 5 {
		t.Errorf("nothing set: %v", diags)
	}
}

// BenchmarkMail is one mail with an Ed25519 signature, its DNS answers cached,
// through the whole of the SDK.
func BenchmarkMail(b *testing.B) {
	s := world(b)
	filter := sdktest.Filter(b, authverify.Plugin(), fmt.Sprintf("resolvers = [%q]", s.Addr()))
	call := message(b, signed)
	if _, err := filter(call); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := filter(call); err != nil {
			b.Fatal(err)
		}
	}
}
