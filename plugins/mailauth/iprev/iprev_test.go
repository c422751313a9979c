package iprev_test

import (
	"net/netip"
	"testing"

	"github.com/stagecoach-mta/stagecoach/plugins/mailauth/iprev"
	"github.com/stagecoach-mta/stagecoach/sdk/dns/dnstest"
)

func TestCheck(t *testing.T) {
	s := dnstest.Start(t)
	for name, records := range map[string][]string{
		"1.2.0.192.in-addr.arpa": {"PTR other.hanks.example.", "PTR mail.hanks.example."},
		"2.2.0.192.in-addr.arpa": {"PTR mail.hanks.example."},
		"4.2.0.192.in-addr.arpa": {"PTR broken.example.", "PTR nobody.example."},
		"1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa": {"PTR mail.hanks.example."},
		"mail.hanks.example": {"A 192.0.2.1", "AAAA 2001:db8::1"},
	} {
		for _, r := range records {
			s.Add(t, name, r)
		}
	}
	s.Make("5.2.0.192.in-addr.arpa", dnstest.Servfail)
	s.Make("broken.example", dnstest.Servfail)
	for ip, want := range map[string]struct {
		result iprev.Result
		name   string
	}{
		"192.0.2.1":        {iprev.Pass, "mail.hanks.example"},
		"::ffff:192.0.2.1": {iprev.Pass, "mail.hanks.example"},
		"2001:db8::1":      {iprev.Pass, "mail.hanks.example"},
		"192.0.2.2":        {iprev.Fail, ""},
		"192.0.2.3":        {iprev.PermError, ""},
		"192.0.2.4":        {iprev.TempError, ""},
		"192.0.2.5":        {iprev.TempError, ""},
	} {
		result, name := iprev.Check(t.Context(), s.Client(t), netip.MustParseAddr(ip))
		if result != want.result || name != want.name {
			t.Errorf("%s: %s %q, want %v", ip, result, name, want)
		}
	}
}
