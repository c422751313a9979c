package dns_test

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/stagecoach-mta/stagecoach/sdk/dns"
	"github.com/stagecoach-mta/stagecoach/sdk/dns/dnstest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m, dnstest.Outlives()) }

func TestAnswers(t *testing.T) {
	s := dnstest.Start(t)
	s.Add(t, "ryan.example", "MX 20 b.ryan.example.")
	s.Add(t, "ryan.example", "MX 10 A.ryan.example.")
	s.Add(t, "mx.ryan.example", "A 192.0.2.1")
	s.Add(t, "mx.ryan.example", "AAAA 2001:db8::1")
	s.Add(t, "alias.ryan.example", "CNAME mx.ryan.example.")
	s.Add(t, "1.2.0.192.in-addr.arpa", "PTR Mx.ryan.example.")
	s.AddTXT("text.example", `v=1; "quoted" `, "\\ \x80")
	c, ctx := s.Client(t), t.Context()

	if mx, err := c.MX(ctx, "Ryan.Example."); err != nil || !slices.Equal(mx, []dns.MX{{Host: "a.ryan.example", Pref: 10}, {Host: "b.ryan.example", Pref: 20}}) {
		t.Errorf("MX: %v %v", mx, err)
	}
	for _, name := range []string{"mx.ryan.example", "alias.ryan.example"} {
		a, err := c.A(ctx, name)
		if err != nil || !slices.Equal(a, []netip.Addr{netip.MustParseAddr("192.0.2.1")}) {
			t.Errorf("A of %s: %v %v", name, a, err)
		}
		a, err = c.AAAA(ctx, name)
		if err != nil || !slices.Equal(a, []netip.Addr{netip.MustParseAddr("2001:db8::1")}) {
			t.Errorf("AAAA of %s: %v %v", name, a, err)
		}
	}
	if n, err := c.PTR(ctx, netip.MustParseAddr("::ffff:192.0.2.1")); err != nil || !slices.Equal(n, []string{"mx.ryan.example"}) {
		t.Errorf("PTR: %q %v", n, err)
	}
	if x, err := c.TXT(ctx, "text.example"); err != nil || !slices.Equal(x, []string{"v=1; \"quoted\" \\ \x80"}) {
		t.Errorf("TXT: %q %v", x, err)
	}
}

// TestNoneIsNotTrouble: what does not exist, what has no such record, and what
// nobody could say are three answers.
func TestNoneIsNotTrouble(t *testing.T) {
	s := dnstest.Start(t)
	s.Add(t, "ryan.example", "A 192.0.2.1")
	s.Make("broken.example", dnstest.Servfail)
	c, ctx := s.Client(t), t.Context()
	if x, err := c.TXT(ctx, "ryan.example"); x != nil || err != nil {
		t.Errorf("no record: %q %v", x, err)
	}
	if _, err := c.TXT(ctx, "nobody.example"); !errors.Is(err, dns.ErrNotExist) || dns.Temporary(err) {
		t.Errorf("no name: %v", err)
	}
	_, err := c.TXT(ctx, "broken.example")
	if !dns.Temporary(err) || !strings.Contains(err.Error(), "SERVFAIL") || !strings.Contains(err.Error(), "broken.example TXT") {
		t.Errorf("SERVFAIL: %v", err)
	}
	if n := s.Queries("broken.example", "TXT"); n != 2 {
		t.Errorf("a failing server was asked %d times, want 2 attempts", n)
	}
	for _, bad := range []string{"", ".", "a..example", ".example", strings.Repeat("a", 64) + ".example", strings.Repeat("a.", 127) + "example"} {
		if _, err := c.TXT(ctx, bad); !errors.Is(err, dns.ErrNotExist) {
			t.Errorf("%q: %v", bad, err)
		}
	}
	s.AddTXT(`odd\ name\;.example`, "here")
	if x, err := c.TXT(ctx, "odd name;.example"); err != nil || !slices.Equal(x, []string{"here"}) {
		t.Errorf("a name of odd octets: %q %v", x, err)
	}
}

func TestSilence(t *testing.T) {
	s := dnstest.Start(t)
	s.Make("silent.example", dnstest.Silent)
	s.Add(t, "ryan.example", "A 192.0.2.1")
	c, err := dns.New(dns.Config{Servers: []string{s.Addr()}, Timeout: 50 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.A(t.Context(), "silent.example"); !dns.Temporary(err) || !strings.Contains(err.Error(), "no answer in time") {
		t.Errorf("a silent server: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.A(ctx, "silent.example"); !dns.Temporary(err) || !errors.Is(err, context.Canceled) {
		t.Errorf("a caller that gave up: %v", err)
	}
	// A dead server costs its time-out once.
	dead := dnstest.Start(t)
	dead.Make("ryan.example", dnstest.Servfail)
	if c, err = dns.New(dns.Config{Servers: []string{dead.Addr(), s.Addr()}}); err != nil {
		t.Fatal(err)
	}
	for _, look := range []func(context.Context, string) ([]netip.Addr, error){c.A, c.AAAA} {
		if _, err := look(t.Context(), "ryan.example"); err != nil {
			t.Error(err)
		}
	}
	if n := len(dead.Asked()); n != 1 {
		t.Errorf("the failing server was asked %d times, want once", n)
	}
}

func TestCache(t *testing.T) {
	s := dnstest.Start(t)
	s.Add(t, "ryan.example", "A 192.0.2.1")
	var (
		mu       sync.Mutex
		now      = time.Unix(1_000_000, 0)
		outcomes = map[string]int{}
	)
	c, err := dns.New(dns.Config{
		Servers: []string{s.Addr()}, CacheSize: 2,
		Now: func() time.Time { mu.Lock(); defer mu.Unlock(); return now },
		Asked: func(outcome string) {
			mu.Lock()
			defer mu.Unlock()
			outcomes[outcome]++
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			_, errA := c.A(t.Context(), "ryan.example")
			_, errN := c.A(t.Context(), "nobody.example")
			if errA != nil || !errors.Is(errN, dns.ErrNotExist) {
				t.Error(errA, errN)
			}
		})
	}
	wg.Wait()
	if a, n := s.Queries("ryan.example", "A"), s.Queries("nobody.example", "A"); a != 1 || n != 1 {
		t.Errorf("asked %d and %d times, want once each", a, n)
	}
	mu.Lock()
	now = now.Add(dnstest.NegativeTTL * time.Second)
	mu.Unlock()
	for range 2 {
		_, _ = c.A(t.Context(), "ryan.example")
		_, _ = c.A(t.Context(), "nobody.example")
	}
	if a, n := s.Queries("ryan.example", "A"), s.Queries("nobody.example", "A"); a != 1 || n != 2 {
		t.Errorf("after %d s asked %d and %d times, want 1 and 2", dnstest.NegativeTTL, a, n)
	}
	// Bounded: a third and a fourth answer push the first ones out.
	_, _ = c.A(t.Context(), "other.example")
	_, _ = c.A(t.Context(), "another.example")
	_, _ = c.A(t.Context(), "ryan.example")
	if a := s.Queries("ryan.example", "A"); a != 2 {
		t.Errorf("asked %d times, want 2", a)
	}
	mu.Lock()
	defer mu.Unlock()
	if outcomes["answer"] == 0 || outcomes["none"] == 0 {
		t.Errorf("outcomes %v", outcomes)
	}
}

func TestTransport(t *testing.T) {
	s := dnstest.Start(t)
	big := strings.Repeat("x", 3000)
	s.AddTXT("big.example", big)
	s.AddTXT("cut.example", "whole")
	s.Make("cut.example", dnstest.Truncate)
	s.AddTXT("forged.example", "true")
	s.Make("forged.example", dnstest.Forged)
	c := s.Client(t)
	for name, want := range map[string]string{"big.example": big, "cut.example": "whole", "forged.example": "true"} {
		if x, err := c.TXT(t.Context(), name); err != nil || len(x) != 1 || x[0] != want {
			t.Errorf("%s: %q %v", name, x, err)
		}
	}
	s.Add(t, "loop1.example", "CNAME loop2.example.")
	s.Add(t, "loop2.example", "CNAME loop1.example.")
	if _, err := c.TXT(t.Context(), "loop1.example"); !dns.Temporary(err) {
		t.Errorf("a loop of aliases: %v", err)
	}
}

func TestServerAddress(t *testing.T) {
	for in, want := range map[string]string{
		"192.0.2.53": "192.0.2.53:53", "192.0.2.53:5353": "192.0.2.53:5353", "2001:db8::1": "[2001:db8::1]:53",
		"[2001:db8::1]:54": "[2001:db8::1]:54", "[fe80::1%eth0]:53": "[fe80::1%eth0]:53", "ns.example": "", "": "", "192.0.2.1:0": "",
	} {
		got, err := dns.ServerAddress(in)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%q: %q %v, want %q", in, got, err, want)
		}
	}
	if _, err := dns.New(dns.Config{Servers: []string{"ns.example"}}); err == nil {
		t.Error("a name as a server was taken")
	}
}
