package dns_test

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	miekg "github.com/miekg/dns"
	"go.uber.org/goleak"

	"github.com/stagecoach-mta/stagecoach/core/dns"
	"github.com/stagecoach-mta/stagecoach/core/dns/dnstest"
	sdkdns "github.com/stagecoach-mta/stagecoach/sdk/dns/dnstest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m, sdkdns.Outlives()) }

func start(t *testing.T, zone map[string][]string) *dnstest.Server {
	t.Helper()
	s, err := dnstest.Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	if err := s.SetAll(zone); err != nil {
		t.Fatal(err)
	}
	return s
}

func newClient(t *testing.T, cfg dns.Config) *dns.Client {
	t.Helper()
	c, err := dns.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func wantKind(t *testing.T, err error, k dns.Kind) *dns.Error {
	t.Helper()
	var e *dns.Error
	if !errors.As(err, &e) || e.Kind != k {
		t.Fatalf("error %v, want kind %q", err, k)
	}
	return e
}

func TestMX(t *testing.T) {
	s := start(t, map[string][]string{
		"ryan.example": {"MX 20 b.ryan.example.", "MX 10 A.ryan.example.", "MX 20 c.ryan.example.", "MX 20 d.ryan.example."},
		"null.example": {"MX 0 ."},
		"host.example": {"A 192.0.2.1"},
	})
	c := newClient(t, dns.Config{Servers: []string{s.Addr()}})

	seen := map[string]bool{}
	for range 200 {
		mx, err := c.MX(t.Context(), "Ryan.Example.")
		if err != nil {
			t.Fatal(err)
		}
		if len(mx) != 4 || mx[0] != (dns.MX{Host: "a.ryan.example", Pref: 10}) {
			t.Fatalf("got %v", mx)
		}
		seen[mx[1].Host] = true
	}
	if len(seen) != 3 {
		t.Errorf("equal preferences are not shuffled: first was always among %v", seen)
	}
	if n := s.Queries("ryan.example", "MX"); n != 1 {
		t.Errorf("asked %d times, want once: the rest from the cache", n)
	}
	mx, err := c.MX(t.Context(), "null.example")
	if err != nil || len(mx) != 1 || mx[0].Host != "" {
		t.Errorf("null MX: got %v, %v", mx, err)
	}
	_, err = c.MX(t.Context(), "host.example")
	wantKind(t, err, dns.NoData)
	_, err = c.MX(t.Context(), "nobody.example")
	if e := wantKind(t, err, dns.NotFound); e.Name != "nobody.example" {
		t.Errorf("the error does not tell the name: %v", e)
	}
}

func TestNames(t *testing.T) {
	s := start(t, map[string][]string{"xn--bcher-kva.example": {"A 192.0.2.1"}, "_dmarc.ryan.example": {`TXT "v=DMARC1; " "p=none"`, `TXT "a\"b\\c\200"`}})
	c := newClient(t, dns.Config{Servers: []string{s.Addr()}})
	if a, err := c.Addrs(t.Context(), "BÜCHER.example"); err != nil || a[0] != netip.MustParseAddr("192.0.2.1") {
		t.Errorf("U-label: %v, %v", a, err)
	}
	txt, err := c.TXT(t.Context(), "_dmarc.ryan.example")
	if err != nil || !slices.Equal(txt, []string{"v=DMARC1; p=none", "a\"b\\c\xc8"}) {
		t.Errorf("TXT: %q, %v", txt, err)
	}
	for _, bad := range []string{"", ".", "a..b", "a b.example", "a\r\nb", "x\x00y.example", `a\046b.example`,
		"0123456789012345678901234567890123456789012345678901234567890123.example"} {
		_, err := c.MX(t.Context(), bad)
		wantKind(t, err, dns.NotFound)
	}
	if a, err := c.Addrs(t.Context(), "localhost"); err != nil || len(a) != 2 || !a[0].IsLoopback() {
		t.Errorf("localhost: %v, %v", a, err)
	}
}

func TestAddrsAndPTR(t *testing.T) {
	s := start(t, map[string][]string{
		"mx.ryan.example":     {"A 192.0.2.1", "AAAA 2001:db8::1"},
		"alias.ryan.example":  {"CNAME alias2.ryan.example."},
		"alias2.ryan.example": {"CNAME mx.ryan.example."},
		"loop1.example":       {"CNAME loop2.example."},
		"loop2.example":       {"CNAME loop1.example."},
		"text.example":        {"TXT x"},
		"1.2.0.192.in-addr.arpa": {
			"PTR Mx.ryan.example."},
	})
	c := newClient(t, dns.Config{Servers: []string{s.Addr()}})
	want := []netip.Addr{netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("192.0.2.1")}
	for _, h := range []string{"mx.ryan.example", "alias.ryan.example"} {
		if a, err := c.Addrs(t.Context(), h); err != nil || !slices.Equal(a, want) {
			t.Errorf("%s: %v, %v", h, a, err)
		}
	}
	_, err := c.Addrs(t.Context(), "loop1.example")
	wantKind(t, err, dns.Temporary)
	_, err = c.Addrs(t.Context(), "text.example")
	wantKind(t, err, dns.NoData)
	_, err = c.Addrs(t.Context(), "nobody.example")
	wantKind(t, err, dns.NotFound)
	if names, err := c.PTR(t.Context(), netip.MustParseAddr("::ffff:192.0.2.1")); err != nil || !slices.Equal(names, []string{"mx.ryan.example"}) {
		t.Errorf("PTR: %v, %v", names, err)
	}
}

func TestFailOver(t *testing.T) {
	bad := start(t, map[string][]string{"ryan.example": {"MX 10 wrong.example."}})
	good := start(t, map[string][]string{"ryan.example": {"MX 10 right.example."}, "two.example": {"A 192.0.2.2"}})
	for _, tc := range []struct {
		name string
		odd  dnstest.Behaviour
	}{
		{"servfail", dnstest.Behaviour{Rcode: miekg.RcodeServerFailure}},
		{"refused", dnstest.Behaviour{Rcode: miekg.RcodeRefused}},
		{"silent", dnstest.Behaviour{Drop: true}},
		{"late", dnstest.Behaviour{Delay: time.Minute}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			bad.Misbehave("ryan.example", tc.odd)
			c := newClient(t, dns.Config{Servers: []string{bad.Addr(), good.Addr()}, Timeout: time.Second})
			mx, err := c.MX(t.Context(), "ryan.example")
			if err != nil || mx[0].Host != "right.example" {
				t.Fatalf("got %v, %v", mx, err)
			}
			before := bad.Queries("two.example", "A")
			if _, err := c.Addrs(t.Context(), "two.example"); err != nil {
				t.Fatal(err)
			}
			if bad.Queries("two.example", "A") != before {
				t.Error("the failed server was asked first again")
			}
			alone := newClient(t, dns.Config{Servers: []string{bad.Addr()}, Timeout: 50 * time.Millisecond})
			_, err = alone.MX(t.Context(), "ryan.example")
			wantKind(t, err, dns.Temporary)
		})
	}
}

func TestForgedAndTruncated(t *testing.T) {
	s := start(t, map[string][]string{"ryan.example": {"MX 10 a.ryan.example."}, "big.example": {"MX 10 b.ryan.example."}})
	s.Misbehave("ryan.example", dnstest.Behaviour{WrongID: true})
	s.Misbehave("big.example", dnstest.Behaviour{Truncate: true})
	c := newClient(t, dns.Config{Servers: []string{s.Addr()}})
	if mx, err := c.MX(t.Context(), "ryan.example"); err != nil || len(mx) != 1 {
		t.Errorf("a forged NXDOMAIN with another id was believed: %v, %v", mx, err)
	}
	if mx, err := c.MX(t.Context(), "big.example"); err != nil || len(mx) != 1 || s.TCPQueries() != 1 {
		t.Errorf("truncated: %v, %v, %d TCP questions", mx, err, s.TCPQueries())
	}
}

// noEDNS answers FORMERR to every question with an OPT record.
type noEDNS struct{ next *dnstest.Server }

func (h noEDNS) ServeDNS(w miekg.ResponseWriter, q *miekg.Msg) {
	if q.IsEdns0() != nil {
		m := new(miekg.Msg)
		m.SetRcode(q, miekg.RcodeFormatError)
		w.WriteMsg(m)
		return
	}
	h.next.ServeDNS(w, q)
}

func TestServerWithoutEDNS(t *testing.T) {
	s := start(t, map[string][]string{"ryan.example": {"MX 10 a.ryan.example."}})
	started := make(chan struct{})
	old := &miekg.Server{Addr: "127.0.0.1:0", Net: "udp", Handler: noEDNS{s}, NotifyStartedFunc: func() { close(started) }}
	done := make(chan error, 1)
	go func() { done <- old.ListenAndServe() }()
	<-started
	defer func() { old.Shutdown(); <-done }()
	c := newClient(t, dns.Config{Servers: []string{old.PacketConn.LocalAddr().String()}})
	if mx, err := c.MX(t.Context(), "ryan.example"); err != nil || len(mx) != 1 {
		t.Errorf("got %v, %v", mx, err)
	}
}

func TestCacheTTL(t *testing.T) {
	s := start(t, map[string][]string{"ryan.example": {"100 MX 10 a.ryan.example."}, "zero.example": {"0 MX 10 a.ryan.example."}})
	var mu sync.Mutex
	now := time.Unix(1_000_000, 0)
	clock := func() time.Time { mu.Lock(); defer mu.Unlock(); return now }
	forward := func(d time.Duration) { mu.Lock(); now = now.Add(d); mu.Unlock() }
	c := newClient(t, dns.Config{Servers: []string{s.Addr()}, Now: clock, CacheSize: 2})
	ask := func(name string, want int) {
		t.Helper()
		c.MX(t.Context(), name)
		if n := s.Queries(name, "MX"); n != want {
			t.Fatalf("%s asked %d times, want %d", name, n, want)
		}
	}
	ask("ryan.example", 1)
	forward(99 * time.Second)
	ask("ryan.example", 1)
	forward(time.Second)
	ask("ryan.example", 2)

	ask("nobody.example", 1) // negative, for the SOA's minimum
	forward((dnstest.NegativeTTL - 1) * time.Second)
	ask("nobody.example", 1)
	forward(time.Second)
	ask("nobody.example", 2)

	ask("zero.example", 1)
	ask("zero.example", 2)

	// Two entries at most: ryan.example was used longest ago and is gone.
	ask("ryan.example", 3)
	ask("other1.example", 1)
	ask("other2.example", 1)
	ask("ryan.example", 4)

	// A failure is never kept.
	s.Misbehave("sick.example", dnstest.Behaviour{Rcode: miekg.RcodeServerFailure})
	_, err := c.MX(t.Context(), "sick.example")
	wantKind(t, err, dns.Temporary)
	s.Misbehave("sick.example", dnstest.Behaviour{})
	_, err = c.MX(t.Context(), "sick.example")
	wantKind(t, err, dns.NotFound)
}

func TestSameQuestionIsAskedOnce(t *testing.T) {
	s := start(t, map[string][]string{"ryan.example": {"MX 10 a.ryan.example."}})
	s.Misbehave("ryan.example", dnstest.Behaviour{Delay: 200 * time.Millisecond})
	c := newClient(t, dns.Config{Servers: []string{s.Addr()}})
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			ctx := t.Context()
			if i%4 == 0 { // some give up: the others must not suffer
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeout(ctx, time.Duration(i)*time.Millisecond)
				defer cancel()
				_, err := c.MX(ctx, "ryan.example")
				wantKindAsync(t, err)
				return
			}
			if mx, err := c.MX(ctx, "ryan.example"); err != nil || len(mx) != 1 {
				t.Errorf("got %v, %v", mx, err)
			}
		})
	}
	wg.Wait()
	// Once, and once more for each caller that had asked and gave up.
	if n := s.Queries("ryan.example", "MX"); n > 6 {
		t.Errorf("asked %d times", n)
	}
}

func wantKindAsync(t *testing.T, err error) {
	if dns.KindOf(err) != dns.Temporary {
		t.Errorf("error %v, want a temporary one", err)
	}
}

func TestBadServers(t *testing.T) {
	for _, bad := range []string{"", "ns.example", "ns.example:53", "192.0.2.1:", "192.0.2.1:0"} {
		if _, err := dns.New(dns.Config{Servers: []string{bad}}); err == nil {
			t.Errorf("server %q was accepted", bad)
		}
	}
	for _, ok := range []string{"192.0.2.1", "192.0.2.1:5353", "2001:db8::1", "[2001:db8::1]", "[2001:db8::1]:53", "[fe80::1%lo]:53"} {
		if _, err := dns.New(dns.Config{Servers: []string{ok}}); err != nil {
			t.Errorf("server %q: %v", ok, err)
		}
	}
}
