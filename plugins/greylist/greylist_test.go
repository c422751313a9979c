package greylist

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/stagecoach-mta/stagecoach/sdk"
	"github.com/stagecoach-mta/stagecoach/sdk/dns/dnstest"
	"github.com/stagecoach-mta/stagecoach/sdk/filter"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
	"github.com/stagecoach-mta/stagecoach/sdk/sdktest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m, dnstest.Outlives()) }

// site is a filter whose clock stands until it is moved.
type site struct {
	t   *testing.T
	f   *Filter
	c   Config
	dir string
	now time.Time
}

func newSite(t *testing.T, change func(*Config)) *site {
	t.Helper()
	s := &site{t: t, c: defaults(), dir: t.TempDir(), now: time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)}
	s.c.SPF = false
	if change != nil {
		change(&s.c)
	}
	s.open()
	return s
}

func (s *site) open() {
	s.t.Helper()
	f, err := open(s.t.Context(), &sdk.Instance{Config: &s.c, DataDir: s.dir, Metrics: &sdk.Metrics{}})
	if err != nil {
		s.t.Fatal(err)
	}
	s.f = f.(*Filter)
	s.f.memory.now = func() time.Time { return s.now }
	s.t.Cleanup(func() { _ = s.f.Close() })
}

// see says what came of a recipient, and whether the mail was put off.
func (s *site) see(ip, sender, recipient, want string) {
	s.t.Helper()
	call := sdktest.Rcpt(recipient)
	call.Envelope.Sender, call.Envelope.Client.Ip = sender, ip
	v, err := s.f.Filter(s.t.Context(), filter.NewEvent(call))
	if err != nil {
		s.t.Fatal(err)
	}
	r := v.Reply()
	got := r.GetTags()["greylist"].GetText()
	action, reply := v1.Verdict_ACCEPT, ""
	if want == "new" || want == "early" {
		action, reply = v1.Verdict_DEFER, s.c.Reply
	}
	if got != want || r.GetVerdict().GetAction() != action || r.GetVerdict().GetReply().GetText() != reply {
		s.t.Errorf("%s <%s> to %s: %s, %v, want %s", ip, sender, recipient, got, r.GetVerdict(), want)
	}
}

const (
	tom = "tom@hanks.example"
	meg = "meg@ryan.example"
)

func TestWaits(t *testing.T) {
	s := newSite(t, nil)
	s.see("192.0.2.1", tom, meg, "new")
	s.now = s.now.Add(time.Minute)
	s.see("192.0.2.1", tom, meg, "early")
	s.see("192.0.2.1", tom, "joe@ryan.example", "new")
	s.see("198.51.100.1", tom, meg, "new")
	s.now = s.now.Add(time.Minute)
	s.see("192.0.2.200", "Tom@Hanks.Example", meg, "retried") // its network, in other letters
	s.see("192.0.2.1", tom, meg, "known")
	// Restarted, it knows all of that.
	if err := s.f.Close(); err != nil {
		t.Fatal(err)
	}
	s.open()
	s.see("192.0.2.1", tom, meg, "known")
	s.now = s.now.Add(time.Minute)
	s.see("192.0.2.1", tom, "joe@ryan.example", "retried")
	// Who comes again too late is new, who was taken is known for long.
	s.see("192.0.2.1", "", meg, "new")
	s.now = s.now.Add(49 * time.Hour)
	s.see("192.0.2.1", "", meg, "new")
	s.now = s.now.Add(30 * 24 * time.Hour)
	s.see("192.0.2.1", tom, meg, "known")
	s.now = s.now.Add(37 * 24 * time.Hour)
	s.see("192.0.2.1", tom, meg, "new")
}

func TestTrust(t *testing.T) {
	s := newSite(t, func(c *Config) { c.TrustAfter = 3; c.Except = []string{"203.0.113.0/24", "2001:db8:1::1"} })
	for i := range 3 {
		s.see("192.0.2.1", tom, fmt.Sprintf("m%d@ryan.example", i), "new")
	}
	s.now = s.now.Add(3 * time.Minute)
	for i := range 3 {
		s.see("192.0.2.1", tom, fmt.Sprintf("m%d@ryan.example", i), "retried")
	}
	s.see("192.0.2.77", "annie@reed.example", meg, "trusted")
	s.see("192.0.3.77", "annie@reed.example", meg, "new")
	s.see("203.0.113.7", tom, meg, "exempt")
	s.see("2001:db8:1::1", tom, meg, "exempt")
	s.see("2001:db8:1::2", tom, meg, "new")
	s.now = s.now.Add(3 * time.Minute)
	s.see("2001:db8:1::3", tom, meg, "retried") // of its /64
	call := sdktest.Rcpt(meg)
	call.Envelope.Client.User = tom
	if v, err := s.f.Filter(t.Context(), filter.NewEvent(call)); err != nil || v.Reply().GetVerdict().GetAction() != v1.Verdict_ACCEPT {
		t.Errorf("a user waits: %v %v", v.Reply(), err)
	}
}

// TestSPF: a provider that sends each attempt from another network is known by its
// domain, if that vouches for the networks.
func TestSPF(t *testing.T) {
	dns := dnstest.Start(t)
	dns.AddTXT("hanks.example", "v=spf1 ip4:192.0.2.0/24 ip4:198.51.100.0/24 -all")
	dns.Make("broken.example", dnstest.Servfail)
	s := newSite(t, func(c *Config) { c.SPF = true; c.Resolvers = []string{dns.Addr()} })
	s.see("192.0.2.1", tom, meg, "new")
	s.see("203.0.113.1", tom, meg, "new") // not theirs
	s.see("192.0.2.1", "x@broken.example", meg, "new")
	s.now = s.now.Add(3 * time.Minute)
	s.see("198.51.100.1", tom, meg, "retried")
	s.see("198.51.100.1", "x@broken.example", meg, "new")
	s.see("203.0.113.1", tom, meg, "retried")
}

// TestDamaged: a file with damage costs what was damaged.
func TestDamaged(t *testing.T) {
	s := newSite(t, nil)
	for i := range 10 {
		s.see("192.0.2.1", tom, fmt.Sprintf("m%d@ryan.example", i), "new")
	}
	if err := s.f.Close(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(s.dir, "senders")
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b[len(header)+recordSize+3] ^= 1
	if err := os.WriteFile(path, b[:len(b)-5], 0o600); err != nil {
		t.Fatal(err)
	}
	s.open()
	s.now = s.now.Add(3 * time.Minute)
	if n := len(s.f.memory.entries); n != 8 {
		t.Errorf("%d of ten entries, want 8", n)
	}
	s.see("192.0.2.1", tom, "m0@ryan.example", "retried")
	s.see("192.0.2.1", tom, "m9@ryan.example", "new")
	if err := os.WriteFile(path, []byte("Subject: something else\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := remember(s.dir, &s.c, time.Now); err == nil || !strings.Contains(err.Error(), "move it away") {
		t.Errorf("another file: %v", err)
	}
}

// TestBounded: strangers cannot have it remember more than max_entries, in memory
// or in the file, and what was taken outlives what waits.
func TestBounded(t *testing.T) {
	s := newSite(t, func(c *Config) { c.MaxEntries = 1000 })
	s.see("192.0.2.1", tom, meg, "new")
	s.now = s.now.Add(3 * time.Minute)
	s.see("192.0.2.1", tom, meg, "retried")
	for i := range 30_000 {
		s.see("198.51.100.1", fmt.Sprintf("s%d@reed.example", i), meg, "new")
	}
	if n := len(s.f.memory.entries); n > 1000 {
		t.Errorf("%d entries", n)
	}
	if info, err := os.Stat(filepath.Join(s.dir, "senders")); err != nil || info.Size() > int64(recordSize*(2*1000+slack+1)+len(header)) {
		t.Errorf("the file: %v %v", info, err)
	}
	s.see("192.0.2.1", tom, meg, "known")
}

// TestDiskFails: nobody is put off for longer because the disk takes nothing, and
// the operator hears of it.
func TestDiskFails(t *testing.T) {
	s := newSite(t, nil)
	s.see("192.0.2.1", tom, meg, "new")
	s.f.memory.file.Close() // writes fail from now on
	s.see("192.0.2.1", tom, "joe@ryan.example", "new")
	if err := s.f.Health(); err == nil || !strings.Contains(err.Error(), "gone with a restart") {
		t.Errorf("health: %v", err)
	}
	s.now = s.now.Add(3 * time.Minute)
	s.see("192.0.2.1", tom, meg, "retried")
	if err := s.f.Health(); err != nil {
		t.Errorf("written anew: %v", err)
	}
}

func TestMistakes(t *testing.T) {
	for config, want := range map[string]string{
		`delay = "0s"`: "delay", `window = "1m"`: "window", `keep = "1h"`: "keep", `trust_after = -1`: "trust_after", `ipv4_prefix = 33`: "ipv4_prefix",
		`ipv6_prefix = 8`: "ipv6_prefix", `max_entries = 1`: "max_entries", `lookup_timeout = "0s"`: "lookup_timeout", `reply = ""`: "reply", `resolvers = ["x"]`: "resolvers[0]",
	} {
		diags := sdktest.Diagnostics(t, Plugin(), config)
		if len(diags) != 1 || !strings.HasPrefix(diags[0], want+":") {
			t.Errorf("%s: %q, want %s", config, diags, want)
		}
	}
}
