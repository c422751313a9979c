package spf_test

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/stagecoach-mta/stagecoach/plugins/mailauth/spf"
	"github.com/stagecoach-mta/stagecoach/sdk/dns"
	"github.com/stagecoach-mta/stagecoach/sdk/dns/dnstest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m, dnstest.Outlives()) }

// TestOutcomeSaysWhy: who reads a log sees the term that decided, or what is
// wrong with the record.
func TestOutcomeSaysWhy(t *testing.T) {
	s := dnstest.Start(t)
	s.AddTXT("hanks.example", "v=spf1 ip4:192.0.2.0/24 ~all")
	s.AddTXT("typo.example", "v=spf1 ipv4:192.0.2.1 -all")
	s.AddTXT("two.example", "v=spf1 -all")
	s.AddTXT("two.example", "v=spf1 +all")
	s.AddTXT("forward.example", "v=spf1 redirect=nobody.example")
	s.Make("broken.example", dnstest.Servfail)
	c := &spf.Checker{Resolver: s.Client(t)}
	for _, tc := range []struct {
		sender, hello string
		want          spf.Outcome
		problem       string
	}{
		{"tom@Hanks.Example", "x", spf.Outcome{Result: spf.Pass, Domain: "hanks.example", Term: "ip4:192.0.2.0/24"}, ""},
		{"", "hanks.example", spf.Outcome{Result: spf.Pass, Domain: "hanks.example", Term: "ip4:192.0.2.0/24", Hello: true}, ""},
		{"", "[192.0.2.1]", spf.Outcome{Result: spf.None, Domain: "[192.0.2.1]", Hello: true}, ""},
		{"tom@typo.example", "x", spf.Outcome{Result: spf.PermError, Domain: "typo.example"}, `"ipv4:192.0.2.1": there is no such mechanism`},
		{"tom@two.example", "x", spf.Outcome{Result: spf.PermError, Domain: "two.example"}, "more than one SPF record"},
		{"tom@forward.example", "x", spf.Outcome{Result: spf.PermError, Domain: "forward.example"}, "redirects to nobody.example, which has no SPF record"},
		{"tom@broken.example", "x", spf.Outcome{Result: spf.TempError, Domain: "broken.example"}, "SERVFAIL"},
	} {
		got := c.Check(t.Context(), spf.Query{IP: netip.MustParseAddr("192.0.2.1"), Hello: tc.hello, Sender: tc.sender})
		if !strings.Contains(got.Problem, tc.problem) || (tc.problem == "") != (got.Problem == "") {
			t.Errorf("%s: problem %q, want %q", tc.sender, got.Problem, tc.problem)
		}
		if got.Problem = ""; got != tc.want {
			t.Errorf("%s: %+v, want %+v", tc.sender, got, tc.want)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if got := c.Check(ctx, spf.Query{IP: netip.MustParseAddr("192.0.2.1"), Sender: "tom@new.example"}); got.Result != spf.TempError {
		t.Errorf("after its time: %+v", got)
	}
}

// TestBounded: a record that wants the world to be asked gets ten terms of it.
func TestBounded(t *testing.T) {
	s := dnstest.Start(t)
	for i := range 30 {
		s.AddTXT(fmt.Sprintf("n%d.example.com", i), fmt.Sprintf("v=spf1 include:n%d.example.com include:n%d.example.com -all", i+1, i+2))
	}
	c := &spf.Checker{Resolver: s.Client(t)}
	got := c.Check(t.Context(), spf.Query{IP: netip.MustParseAddr("192.0.2.1"), Sender: "tom@n0.example.com"})
	if got.Result != spf.PermError || !strings.Contains(got.Problem, "more than 10 terms") {
		t.Errorf("%+v", got)
	}
	if n := len(s.Asked()); n > 11 {
		t.Errorf("%d questions: %q", n, s.Asked())
	}
	// Macros cannot make more text than a name or a reply needs.
	s.AddTXT("big.example", "v=spf1 -all exp=why.big.example")
	s.AddTXT("why.big.example", strings.Repeat("%{l}", 200))
	got = c.Check(t.Context(), spf.Query{IP: netip.MustParseAddr("192.0.2.1"), Sender: strings.Repeat("x", 64) + "@big.example"})
	if got.Result != spf.Fail || got.Explanation != "" {
		t.Errorf("%+v", got)
	}
	// Nor does a greeting's line end come into an explanation.
	s.AddTXT("evil.example", "v=spf1 -all exp=why.evil.example")
	s.AddTXT("why.evil.example", "%{h} is not ours")
	got = c.Check(t.Context(), spf.Query{IP: netip.MustParseAddr("192.0.2.1"), Sender: "tom@evil.example", Hello: "a\r\nb"})
	if got.Result != spf.Fail || got.Explanation != "" {
		t.Errorf("%+v", got)
	}
}

func TestParseRefuses(t *testing.T) {
	for _, record := range []string{
		"v=spf2 -all", "v=spf1 -", "v=spf1 all:x", "v=spf1 a/33", "v=spf1 a//129", "v=spf1 a/024", "v=spf1 a:", "v=spf1 ip4:1.2.3", "v=spf1 ip4:::1",
		"v=spf1 ip6:fe80::1%eth0", "v=spf1 ip4:192.0.2.1/", "v=spf1 include", "v=spf1 exists:%{d0}.example", "v=spf1 exists:%{d}x", "v=spf1 a:%{d",
		"v=spf1 a:%", "v=spf1 a:%{}", "v=spf1 a:%{dx}.example", "v=spf1 redirect=a.example redirect=a.example", "v=spf1\ta", "v=spf1 a:b\x00.example",
	} {
		if r, err := spf.Parse(record); err == nil {
			t.Errorf("%q was taken: %+v", record, r)
		}
	}
}

func FuzzCheck(f *testing.F) {
	for _, record := range []string{
		"v=spf1 a mx/24//64 ptr:example.com ip4:192.0.2.0/24 ip6:2001:db8::/32 include:%{d2}.example exists:%{ir}.%{v}._spf.%{D2r-.+} ?all exp=why.%{o}",
		"v=spf1 redirect=_spf.%{l1r+-}.%{h}.example unknown=%{s}%%%_%-", "v=spf1 +a:foo:bar/baz.example.com/8", "v=spf1 %{", "v=spf1 a:%{p}.example -all",
	} {
		f.Add(record, "tom@hanks.example", "mail.hanks.example")
	}
	f.Fuzz(func(t *testing.T, record, sender, hello string) {
		r := &always{txt: record}
		c := &spf.Checker{Resolver: r, Now: func() time.Time { return time.Unix(0, 0) }}
		for _, ip := range []string{"192.0.2.1", "2001:db8::1"} {
			r.asked = 0
			got := c.Check(t.Context(), spf.Query{IP: netip.MustParseAddr(ip), Hello: hello, Sender: sender})
			switch got.Result {
			case spf.None, spf.Neutral, spf.Pass, spf.Fail, spf.SoftFail, spf.TempError, spf.PermError:
			default:
				t.Fatalf("result %q", got.Result)
			}
			// 10 terms of a record, an mx of 10 hosts each, the names of the client
			// and an explanation.
			if r.asked > 1+10*11+11+1 {
				t.Fatalf("%d questions for %q", r.asked, record)
			}
			if strings.ContainsAny(got.Explanation, "\r\n\x00") {
				t.Fatalf("explanation %q", got.Explanation)
			}
			if _, err := spf.Parse(record); err == nil && got.Result == spf.PermError && got.Problem == "" {
				t.Fatalf("an error without a word: %+v", got)
			}
		}
	})
}

// always has the same records for every name.
type always struct {
	txt   string
	asked int
}

var _ dns.Resolver = (*always)(nil)

func (a *always) TXT(context.Context, string) ([]string, error) {
	a.asked++
	return []string{a.txt}, nil
}

func (a *always) A(context.Context, string) ([]netip.Addr, error) {
	a.asked++
	return []netip.Addr{netip.MustParseAddr("203.0.113.1")}, nil
}

func (a *always) AAAA(context.Context, string) ([]netip.Addr, error) {
	a.asked++
	return []netip.Addr{netip.MustParseAddr("2001:db8::2")}, nil
}

func (a *always) MX(context.Context, string) ([]dns.MX, error) {
	a.asked++
	var hosts []dns.MX
	for _, h := range "abcdefghij" {
		hosts = append(hosts, dns.MX{Host: string(h), Pref: 10})
	}
	return hosts, nil
}

func (a *always) PTR(context.Context, netip.Addr) ([]string, error) {
	a.asked++
	return []string{"a.hanks.example", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k"}, nil
}
