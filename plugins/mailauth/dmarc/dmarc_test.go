package dmarc_test

import (
	"context"
	"slices"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/stagecoach-mta/stagecoach/plugins/mailauth/dmarc"
	"github.com/stagecoach-mta/stagecoach/plugins/mailauth/message"
	"github.com/stagecoach-mta/stagecoach/sdk/dns"
	"github.com/stagecoach-mta/stagecoach/sdk/dns/dnstest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m, dnstest.Outlives()) }

func header(t testing.TB, text string) message.Header {
	t.Helper()
	m, err := message.Read(strings.NewReader(text + "\r\n\r\n"))
	if err != nil {
		t.Fatal(err)
	}
	return m.Header
}

func TestEvaluate(t *testing.T) {
	s := dnstest.Start(t)
	for name, record := range map[string]string{
		"hanks.example":      "v=DMARC1; p=reject; sp=quarantine; np=reject",
		"strict.example":     "v=DMARC1; p=reject; adkim=s; aspf=s",
		"half.example":       "v=DMARC1;p=reject;pct=50",
		"testing.example":    "v=DMARC1; p=reject; t=y",
		"reports.example":    "v=DMARC1; p=maybe; rua=mailto:dmarc@reports.example",
		"wrong.example":      "v=DMARC1; p=maybe",
		"nothing.example":    "v=DMARC1",
		"other.example":      "v=spf1 -all",
		"own.hanks.example":  "v=DMARC1; p=none",
		"xn--bcher-kva.test": "v=DMARC1; p=reject",
	} {
		s.AddTXT("_dmarc."+name, record)
	}
	s.AddTXT("_dmarc.two.example", "v=DMARC1; p=reject")
	s.AddTXT("_dmarc.two.example", "v=DMARC1; p=none")
	s.Make("_dmarc.broken.example", dnstest.Servfail)
	s.Add(t, "mail.hanks.example", "A 192.0.2.1")
	s.Make("odd.hanks.example", dnstest.Servfail)

	spf := func(d string) dmarc.Authenticated { return dmarc.Authenticated{SPF: d} }
	dkim := func(d ...string) dmarc.Authenticated { return dmarc.Authenticated{DKIM: d} }
	for name, tc := range map[string]struct {
		from                string
		a                   dmarc.Authenticated
		result              dmarc.Result
		policy, disposition dmarc.Policy
		reason              string
	}{
		"by SPF":              {"tom@hanks.example", spf("hanks.example"), "pass", "reject", "none", ""},
		"by SPF of a host":    {"tom@hanks.example", spf("Mail.Hanks.Example"), "pass", "reject", "none", ""},
		"by DKIM":             {"tom@hanks.example", dkim("reed.example", "hanks.example"), "pass", "reject", "none", ""},
		"another's":           {"tom@hanks.example", dmarc.Authenticated{SPF: "reed.example", DKIM: []string{"nothanks.example"}}, "fail", "reject", "reject", "neither SPF nor DKIM passes for hanks.example"},
		"nobody's":            {"Tom <TOM@HANKS.example>", spf(""), "fail", "reject", "reject", "neither"},
		"a subdomain":         {"tom@mail.hanks.example", spf(""), "fail", "quarantine", "quarantine", "neither"},
		"no such subdomain":   {"tom@no.hanks.example", spf(""), "fail", "reject", "reject", "neither"},
		"who knows if it is":  {"tom@odd.hanks.example", spf(""), "temperror", "none", "none", "SERVFAIL"},
		"its own record":      {"tom@own.hanks.example", spf(""), "fail", "none", "none", "neither"},
		"strict":              {"tom@strict.example", dmarc.Authenticated{SPF: "a.strict.example", DKIM: []string{"b.strict.example"}}, "fail", "reject", "reject", "neither"},
		"strict, exactly":     {"tom@strict.example", dkim("strict.example"), "pass", "reject", "none", ""},
		"testing":             {"tom@testing.example", spf(""), "fail", "reject", "quarantine", "neither"},
		"no policy":           {"tom@nobody.example", spf("nobody.example"), "none", "none", "none", "no policy for nobody.example"},
		"another kind":        {"tom@other.example", spf(""), "none", "none", "none", "no policy"},
		"wrong":               {"tom@wrong.example", spf(""), "none", "none", "none", "no policy"},
		"wrong, with reports": {"tom@reports.example", spf(""), "fail", "none", "none", "neither"},
		"nothing asked":       {"tom@nothing.example", spf(""), "fail", "none", "none", "neither"},
		"two records":         {"tom@two.example", spf(""), "none", "none", "none", "no policy"},
		"nobody says":         {"tom@broken.example", spf("broken.example"), "temperror", "none", "none", "SERVFAIL"},
		"SPF unknown":         {"tom@hanks.example", dmarc.Authenticated{SPFUnknown: "hanks.example"}, "temperror", "reject", "none", "nobody could say"},
		"DKIM unknown":        {"tom@hanks.example", dmarc.Authenticated{DKIMUnknown: []string{"hanks.example"}}, "temperror", "reject", "none", "nobody could say"},
		"another's unknown":   {"tom@hanks.example", dmarc.Authenticated{SPFUnknown: "reed.example"}, "fail", "reject", "reject", "neither"},
		"unknown, and passes": {"tom@hanks.example", dmarc.Authenticated{SPFUnknown: "hanks.example", DKIM: []string{"hanks.example"}}, "pass", "reject", "none", ""},
		"in letters":          {"tom@bücher.test", dkim("xn--bcher-kva.test"), "pass", "reject", "none", ""},
		"no From":             {"", spf(""), "permerror", "none", "none", "no address"},
		"two authors":         {"tom@hanks.example, meg@hanks.example", spf("hanks.example"), "pass", "reject", "none", ""},
		"two domains":         {"tom@hanks.example, meg@ryan.example", spf("hanks.example"), "permerror", "none", "none", "several domains: hanks.example and ryan.example"},
		"a name like one":     {`"ceo@hanks.example" <eve@nobody.example>`, spf(""), "none", "none", "none", "nobody.example"},
		"a literal":           {"tom@[192.0.2.1]", spf(""), "permerror", "none", "none", "without a domain"},
	} {
		for _, org := range []dmarc.Organizational{dmarc.PublicSuffix, dmarc.TreeWalk} {
			e := &dmarc.Evaluator{Resolver: s.Client(t), Organizational: org, Sample: func() int { return 0 }}
			got := e.Begin(t.Context(), header(t, "From: "+tc.from)).Finish(tc.a)
			if got.Result != tc.result || got.Policy != tc.policy || got.Disposition != tc.disposition ||
				!strings.Contains(got.Reason, tc.reason) || (tc.reason == "") != (got.Reason == "") {
				t.Errorf("%s (%d): %+v, want %s %s %s %q", name, org, got, tc.result, tc.policy, tc.disposition, tc.reason)
			}
		}
	}
	for sample, want := range map[int]dmarc.Policy{0: "reject", 49: "reject", 50: "quarantine", 99: "quarantine"} {
		e := &dmarc.Evaluator{Resolver: s.Client(t), Sample: func() int { return sample }}
		if got := e.Begin(t.Context(), header(t, "From: tom@half.example")).Finish(spf("")); got.Disposition != want || got.Policy != "reject" {
			t.Errorf("sample %d: %+v, want %s", sample, got, want)
		}
	}
	e := &dmarc.Evaluator{Resolver: s.Client(t)}
	for text, want := range map[string]string{
		"Subject: x": "there are 0 From fields", "From: a@hanks.example\r\nfrom: b@ryan.example": "there are 2 From fields",
	} {
		if got := e.Begin(t.Context(), header(t, text)).Finish(spf("")); got.Result != dmarc.PermError || got.Reason != want {
			t.Errorf("%q: %+v", text, got)
		}
	}
}

// TestOrganizations: whose domain is whose, by the list and by the tree.
func TestOrganizations(t *testing.T) {
	s := dnstest.Start(t)
	// By the public suffix list co.uk is a suffix; by the tree psd= says what is.
	s.AddTXT("_dmarc.hanks.co.uk", "v=DMARC1; p=reject")
	s.AddTXT("_dmarc.bank", "v=DMARC1; p=quarantine; np=reject; psd=y")
	s.AddTXT("_dmarc.dept.reed.example", "v=DMARC1; p=reject; psd=n")
	s.AddTXT("_dmarc.reed.example", "v=DMARC1; p=quarantine; sp=reject")
	s.Add(t, "mail.first.bank", "A 192.0.2.1")
	for name, tc := range map[string]struct {
		from, spf              string
		list, tree             dmarc.Result
		listDomain, treeDomain string
		policy                 dmarc.Policy
	}{
		"one organization":      {"a.hanks.co.uk", "b.hanks.co.uk", "pass", "pass", "hanks.co.uk", "hanks.co.uk", "reject"},
		"another under co.uk":   {"a.hanks.co.uk", "ryan.co.uk", "fail", "fail", "hanks.co.uk", "hanks.co.uk", "reject"},
		"under a public suffix": {"mail.first.bank", "first.bank", "pass", "pass", "bank", "bank", "quarantine"},
		"another bank":          {"no.second.bank", "first.bank", "fail", "fail", "bank", "bank", "reject"},
		// psd=n makes an organization of its own, which the list does not know.
		"a department": {"a.dept.reed.example", "b.dept.reed.example", "pass", "pass", "reed.example", "dept.reed.example", "reject"},
		"its parent":   {"a.dept.reed.example", "reed.example", "pass", "fail", "reed.example", "dept.reed.example", "reject"},
	} {
		for org, want := range map[dmarc.Organizational]struct {
			result dmarc.Result
			domain string
		}{dmarc.PublicSuffix: {tc.list, tc.listDomain}, dmarc.TreeWalk: {tc.tree, tc.treeDomain}} {
			e := &dmarc.Evaluator{Resolver: s.Client(t), Organizational: org}
			got := e.Begin(t.Context(), header(t, "From: tom@"+tc.from)).Finish(dmarc.Authenticated{SPF: tc.spf})
			if got.Result != want.result || got.Domain != want.domain || got.Policy != tc.policy {
				t.Errorf("%s (%d): %+v, want %s by %s, %s", name, org, got, want.result, want.domain, tc.policy)
			}
		}
	}
}

// TestWalkIsShort: a name of many labels is asked about eight times (RFC 9989
// section 4.10's example).
func TestWalkIsShort(t *testing.T) {
	s := dnstest.Start(t)
	e := &dmarc.Evaluator{Resolver: s.Client(t), Organizational: dmarc.TreeWalk}
	got := e.Begin(t.Context(), header(t, "From: tom@a.b.c.d.e.f.g.h.i.j.mail.example.com")).Finish(dmarc.Authenticated{})
	want := []string{
		"_dmarc.a.b.c.d.e.f.g.h.i.j.mail.example.com TXT", "_dmarc.com TXT", "_dmarc.example.com TXT", "_dmarc.g.h.i.j.mail.example.com TXT",
		"_dmarc.h.i.j.mail.example.com TXT", "_dmarc.i.j.mail.example.com TXT", "_dmarc.j.mail.example.com TXT", "_dmarc.mail.example.com TXT",
	}
	if asked := s.Asked(); got.Result != dmarc.None || !slices.Equal(asked, want) {
		t.Errorf("%+v\n%q", got, asked)
	}
}

func FuzzEvaluate(f *testing.F) {
	f.Add("v=DMARC1; p=reject; sp=none; np=quarantine; adkim=s; aspf=r; pct=20; t=y; psd=n; rua=mailto:a@b.example,https://x; ruf=x", "Tom <tom@mail.hanks.example>", "hanks.example")
	f.Add("v = DMARC1 ;;p", "group: a@b.example, <@c,@d:e@b.example>;", "b.example")
	f.Add("v=DMARC1;p=x;rua=mailto:a", "\"@\" (c) <tom@[::1]>", "")
	f.Fuzz(func(t *testing.T, record, from, domain string) {
		if strings.ContainsAny(from, "\r\n") {
			return
		}
		for _, org := range []dmarc.Organizational{dmarc.PublicSuffix, dmarc.TreeWalk} {
			e := &dmarc.Evaluator{Resolver: always{txt: record}, Organizational: org}
			got := e.Begin(t.Context(), header(t, "From: "+from)).Finish(dmarc.Authenticated{SPF: domain})
			switch {
			case got.Result == dmarc.Pass && domain == "":
				t.Fatalf("it passes for nobody: %+v", got)
			case got.Result != dmarc.Fail && got.Disposition != dmarc.PolicyNone, got.Policy == "", got.Result != dmarc.Pass && got.Reason == "":
				t.Fatalf("%+v", got)
			}
		}
	})
}

// always has the same record for every name.
type always struct {
	dns.None
	txt string
}

func (a always) TXT(context.Context, string) ([]string, error) { return []string{a.txt}, nil }
