package nexthop_test

import (
	"crypto/tls"
	"fmt"
	"strings"
	"testing"

	"github.com/emersion/go-smtp"

	"github.com/stagecoach-mta/stagecoach/core/deliver/nexthop"
)

func TestNextHopHint(t *testing.T) {
	named := serve(t, "127.0.0.2:0", nil)
	byMX := serve(t, "127.0.0.1:0", nil)
	w := newWorld(t, map[string][]string{
		"ryan.example": {"MX 10 mx.ryan.example."}, "mx.ryan.example": {"A 127.0.0.1"}, "gate.ryan.example": {"A 127.0.0.2"},
		"null.example": {"MX 0 ."},
	})
	auth := &nexthop.Auth{User: "tom", Password: "sleepless"}
	tr := w.transport(nexthop.Options{Port: byMX.port, AllowLoopback: true, Auth: auth})
	for _, tc := range []struct{ domain, hop, want string }{
		{"ryan.example", fmt.Sprintf("gate.ryan.example:%d", named.port), "delivered 250 2.0.0"},
		{"nobody.example", fmt.Sprintf("127.0.0.2:%d", named.port), "delivered 250 2.0.0"},
		{"null.example", fmt.Sprintf("127.0.0.2:%d", named.port), "delivered 250 2.0.0"},
		{"ryan.example", "gone.example:25", "deferred 451 4.3.5"},
		{"ryan.example", "a b:25", "deferred 451 4.3.5"},
		{"ryan.example", "unix:/run/lmtp", "deferred 451 4.3.5"},
	} {
		m := mail("meg@" + tc.domain)
		m.NextHop = tc.hop
		want(t, tr.Deliver(t.Context(), m), tc.want)
	}
	if _, mails := byMX.count(); mails != 0 || w.dns.Queries("ryan.example", "MX") != 0 {
		t.Errorf("the MX was asked for, and got %d mails", mails)
	}
	if _, mails := named.count(); mails != 3 || named.user != "" {
		t.Errorf("the named hop got %d mails, want 3, and the password of the block: user %q", mails, named.user)
	}
	want(t, deliver(t, tr, "meg@ryan.example"), "delivered 250 2.0.0")
	if byMX.user != "tom" {
		t.Errorf("without a hint the block's login is used: user %q", byMX.user)
	}

	// A block with hosts looks no MX up: there is nothing to replace.
	smart := w.transport(nexthop.Options{Smarthost: []string{hostPort(byMX.port)}})
	m := mail("meg@ryan.example")
	m.NextHop = fmt.Sprintf("127.0.0.2:%d", named.port)
	want(t, smart.Deliver(t.Context(), m), "delivered 250 2.0.0")
	if _, mails := named.count(); mails != 3 {
		t.Error("a hint led away from the smarthost")
	}
}

// TestTLSLevelHint: the hint raises the policy of the block and never lowers it.
func TestTLSLevelHint(t *testing.T) {
	cfg, roots := certificate(t, "mx.ryan.example")
	enc := serve(t, "127.0.0.1:0", func(_ *server, s *smtp.Server) { s.TLSConfig, s.EnableREQUIRETLS = cfg, true })
	serve(t, fmt.Sprintf("127.0.0.2:%d", enc.port), nil) // offers no TLS
	w := newWorld(t, map[string][]string{
		"enc.example": {"MX 10 mx.ryan.example."}, "mx.ryan.example": {"A 127.0.0.1"},
		"wrong.example": {"A 127.0.0.1"}, "plain.example": {"A 127.0.0.2"}})
	const (
		sent   = "delivered 250 2.0.0"
		noTLS  = "deferred 451 4.7.4"
		badTLS = "deferred 451 4.7.5"
	)
	for _, tc := range []struct {
		block                   string // as the deliver block has it
		hint                    string
		enc, wrong, plain, seen string // seen: how the TLS of enc begins and ends
	}{
		{"none", "", sent, sent, sent, ""},
		{"none", "none", sent, sent, sent, ""},
		{"none", "opportunistic", sent, sent, sent, "TLSv1.3 "},
		{"none", "required", sent, sent, noTLS, "TLSv1.3 "},
		{"none", "verify", sent, badTLS, noTLS, "TLSv1.3 verified"},
		{"opportunistic", "none", sent, sent, sent, "TLSv1.3 "},
		{"opportunistic", "required", sent, sent, noTLS, "TLSv1.3 "},
		{"opportunistic", "verify", sent, badTLS, noTLS, "TLSv1.3 verified"},
		{"required", "none", sent, sent, noTLS, "TLSv1.3 "},
		{"required", "verify", sent, badTLS, noTLS, "TLSv1.3 verified"},
		{"verify", "none", sent, badTLS, noTLS, "TLSv1.3 verified"},
		{"verify", "required", sent, badTLS, noTLS, "TLSv1.3 verified"},
		{"opportunistic", "always", "deferred 451 4.3.5", "deferred 451 4.3.5", "deferred 451 4.3.5", ""},
	} {
		t.Run(tc.block+" and "+tc.hint, func(t *testing.T) {
			o := nexthop.Options{Port: enc.port, AllowLoopback: true, TLS: nexthop.TLSMode(tc.block),
				TLSConfig: &tls.Config{RootCAs: roots, InsecureSkipVerify: tc.block == "required"}}
			if tc.block == "verify" {
				o.TLS = nexthop.TLSRequired
			}
			tr := w.transport(o)
			for domain, wanted := range map[string]string{"enc.example": tc.enc, "wrong.example": tc.wrong, "plain.example": tc.plain} {
				m := mail("meg@" + domain)
				m.TLSLevel = tc.hint
				out := tr.Deliver(t.Context(), m)
				want(t, out, wanted)
				first, last, _ := strings.Cut(tc.seen, " ")
				if got := out[0].TLS; domain == "enc.example" &&
					(!strings.HasPrefix(got, first) || !strings.HasSuffix(got, last) || (tc.seen == "") != (got == "") ||
						strings.HasSuffix(got, "verified") != (last == "verified")) {
					t.Errorf("TLS %q, want %q", got, tc.seen)
				}
			}
			// REQUIRETLS is the sender's: no hint takes it back.
			if tc.hint != "always" {
				m := mail("meg@wrong.example")
				m.TLSLevel, m.Options.RequireTLS = tc.hint, true
				want(t, tr.Deliver(t.Context(), m), badTLS)
			}
		})
	}
}
