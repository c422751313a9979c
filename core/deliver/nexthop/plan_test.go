package nexthop_test

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	miekg "github.com/miekg/dns"

	"github.com/stagecoach-mta/stagecoach/core/deliver/nexthop"
	"github.com/stagecoach-mta/stagecoach/core/dns/dnstest"
)

// planned is a plan on one line: host addr,addr; skipped hosts in brackets.
func planned(p nexthop.Plan) string {
	var hosts []string
	for _, h := range p.Hosts {
		s := h.Name
		for _, a := range h.Addrs {
			s += " " + a.String()
		}
		if h.Skip != "" {
			s = "(" + h.Name + ")"
		}
		hosts = append(hosts, s)
	}
	return string(p.Source) + ": " + strings.Join(hosts, ", ")
}

func TestPlan(t *testing.T) {
	w := newWorld(t, map[string][]string{
		"ryan.example":      {"MX 20 mx2.ryan.example.", "MX 10 mx1.ryan.example."},
		"mx1.ryan.example":  {"A 192.0.2.1", "A 192.0.2.2", "AAAA 2001:db8::1"},
		"mx2.ryan.example":  {"CNAME mx3.ryan.example."},
		"mx3.ryan.example":  {"A 192.0.2.3"},
		"bare.example":      {"A 192.0.2.4"},
		"empty.example":     {"TXT x"},
		"null.example":      {"MX 0 ."},
		"halfnull.example":  {"MX 0 .", "MX 5 mx3.ryan.example."},
		"alias.example":     {"CNAME ryan.example."},
		"dangling.example":  {"MX 10 gone.example.", "MX 20 empty.example."},
		"partly.example":    {"MX 10 gone.example.", "MX 20 mx3.ryan.example."},
		"sickmx.example":    {"MX 10 sick.example."},
		"loops.example":     {"MX 10 mx3.ryan.example.", "MX 20 MX.hanks.example.", "MX 20 mx1.ryan.example.", "MX 30 mx2.ryan.example."},
		"best.example":      {"MX 10 mx.hanks.example.", "MX 20 mx3.ryan.example."},
		"byaddress.example": {"MX 10 ours.example."},
		"ours.example":      {"A 192.0.2.99"},
		"loopback.example":  {"MX 10 lo.example."},
		"lo.example":        {"A 127.0.0.1"},
		"zero.example":      {"A 0.0.0.0"},
		"mx.hanks.example":  {"A 192.0.2.98"},
	})
	w.dns.Misbehave("sick.example", dnstest.Behaviour{Rcode: miekg.RcodeServerFailure})
	tr := w.transport(nexthop.Options{OwnAddrs: []netip.Addr{netip.MustParseAddr("192.0.2.99")}})
	const both = "mx1.ryan.example 2001:db8::1 192.0.2.1 192.0.2.2, mx2.ryan.example 192.0.2.3"
	for _, tc := range []struct{ domain, plan, err string }{
		{"ryan.example", "mx: " + both, ""},
		{"alias.example", "mx: " + both, ""},
		{"bare.example", "address record: bare.example 192.0.2.4", ""},
		{"[192.0.2.7]", "address literal: [192.0.2.7] 192.0.2.7", ""},
		{"[IPv6:2001:db8::7]", "address literal: [IPv6:2001:db8::7] 2001:db8::7", ""},
		{"[300.0.0.1]", ": ", "553 5.1.3"},
		{"[fe80::1%eth0]", ": ", "553 5.1.3"},
		{"empty.example", "address record: (empty.example)", "550 5.1.2"},
		{"nobody.example", ": ", "550 5.1.2"},
		{"null.example", "mx: ", "556 5.1.10"},
		{"halfnull.example", "mx: mx3.ryan.example 192.0.2.3", ""},
		{"sick.example", ": ", "451 4.4.3"},
		{"sickmx.example", "mx: (sick.example)", "451 4.4.3"},
		{"dangling.example", "mx: (gone.example), (empty.example)", "550 5.4.4"},
		{"partly.example", "mx: (gone.example), mx3.ryan.example 192.0.2.3", ""},
		{"best.example", "mx: (mx.hanks.example), (mx3.ryan.example)", "554 5.4.6"},
		{"byaddress.example", "mx: (ours.example)", "554 5.4.6"},
		{"loopback.example", "mx: (lo.example)", "554 5.4.6"},
		{"zero.example", "address record: (zero.example)", "554 5.4.6"},
		{"[127.0.0.1]", "address literal: ([127.0.0.1])", "554 5.4.6"},
	} {
		p, err := tr.Plan(t.Context(), tc.domain)
		if got := planned(p); got != tc.plan {
			t.Errorf("%s: %s, want %s", tc.domain, got, tc.plan)
		}
		var re *nexthop.RouteError
		if (err == nil) != (tc.err == "") || err != nil && (!errors.As(err, &re) || !strings.HasPrefix(err.Error(), tc.err+" ")) {
			t.Errorf("%s: error %v, want %q", tc.domain, err, tc.err)
		}
	}
	// Of loops.example only the host preferred to us is left, whatever the
	// order among equals.
	for range 20 {
		p, err := tr.Plan(t.Context(), "loops.example")
		if err != nil || len(p.Hosts) != 4 {
			t.Fatal(p, err)
		}
		for _, h := range p.Hosts {
			if (h.Skip == "") != (h.Pref == 10) {
				t.Errorf("%+v", h)
			}
		}
	}
	if p, err := w.transport(nexthop.Options{AllowLoopback: true}).Plan(t.Context(), "loopback.example"); err != nil {
		t.Error(p, err)
	}
}

func TestPlanSmarthost(t *testing.T) {
	w := newWorld(t, map[string][]string{"relay.example": {"MX 10 other.example.", "A 192.0.2.1"}})
	tr := w.transport(nexthop.Options{TLS: nexthop.TLSImplicit,
		Smarthost: []string{"relay.example", "relay.example:2525", "127.0.0.1:26", "[::1]:27", "2001:db8::1", "unix:/run/lmtp", "gone.example"}})
	p, err := tr.Plan(t.Context(), "nobody.example")
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, h := range p.Hosts {
		got = append(got, fmt.Sprint(h.Name, " ", h.Port, " ", h.Addrs, " ", h.Skip != ""))
	}
	want := []string{"relay.example 465 [192.0.2.1] false", "relay.example 2525 [192.0.2.1] false", "127.0.0.1 26 [127.0.0.1] false",
		"::1 27 [::1] false", "2001:db8::1 465 [2001:db8::1] false", "/run/lmtp 0 [] false", "gone.example 465 [] true"}
	if strings.Join(got, "\n") != strings.Join(want, "\n") || p.Source != nexthop.FromSmarthost || w.dns.Queries("relay.example", "MX") != 0 {
		t.Errorf("got\n%s", strings.Join(got, "\n"))
	}
	// Our own mistake is no reason to bounce.
	_, err = w.transport(nexthop.Options{Smarthost: []string{"gone.example"}}).Plan(t.Context(), "ryan.example")
	if err == nil || !strings.HasPrefix(err.Error(), "451 4.3.5") {
		t.Error(err)
	}
}

func TestValidate(t *testing.T) {
	ok := nexthop.Options{LocalName: "mx.hanks.example"}
	if err := ok.Validate(); err != nil {
		t.Error(err)
	}
	for name, change := range map[string]func(*nexthop.Options){
		"tls":       func(o *nexthop.Options) { o.TLS = "maybe" },
		"name":      func(o *nexthop.Options) { o.LocalName = "a b" },
		"mechanism": func(o *nexthop.Options) { o.Auth = &nexthop.Auth{Mechanisms: []string{"CRAM-MD5"}} },
		"port":      func(o *nexthop.Options) { o.Smarthost = []string{"relay.example:99999"} },
		"host":      func(o *nexthop.Options) { o.Smarthost = []string{"a b:25"} },
		"socket":    func(o *nexthop.Options) { o.Smarthost = []string{"unix:"} },
	} {
		o := ok
		change(&o)
		if o.Validate() == nil {
			t.Errorf("%s was accepted", name)
		}
		want(t, nexthop.New(o).Deliver(t.Context(), mail("meg@ryan.example")), "deferred 451 4.3.5")
	}
}
