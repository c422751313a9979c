package dns

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"sort"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
)

// Config of a Client. The zero value asks the servers of /etc/resolv.conf.
type Config struct {
	// Servers are recursive resolvers as addr or addr:port. Empty: those of
	// /etc/resolv.conf with its timeout and attempts, read once by New.
	Servers []string
	// Timeout of one question to one server. Default 5 s.
	Timeout time.Duration
	// Attempts is how many rounds over all servers are made. Default 2.
	Attempts int
	// CacheSize is the most answers kept. Default 10,000; negative: no cache.
	CacheSize int
	// Now is the clock of the cache. Default time.Now.
	Now func() time.Time
}

const (
	resolvConf = "/etc/resolv.conf"
	// 1232 bytes pass every path unfragmented (DNS flag day 2020).
	udpSize = 1232
	// A chain of aliases longer than this is taken for a loop.
	maxAliases = 8
	// Longest time an answer is kept, whatever its TTL says.
	maxTTL = 24 * time.Hour
	// RFC 2308 section 5: one to three hours for "does not exist".
	maxNegativeTTL = time.Hour
)

// Client is a Resolver over recursive servers. Use New.
type Client struct {
	servers  []string
	timeout  time.Duration
	attempts int
	now      func() time.Time
	cache    *cache // nil: no cache

	// preferred is the index of the server that answered last: a dead first
	// server costs its time-out once and not in every look-up.
	preferred atomic.Int32

	mu     sync.Mutex
	flight map[question]*flight
}

var _ Resolver = (*Client)(nil)

// flight is a question being asked; others with the same question wait for it.
type flight struct {
	done      chan struct{}
	ans       answer
	abandoned bool // its caller gave up: the answer says nothing
}

// New returns a Client, or an error if a server's address cannot be used or no
// server is named and /etc/resolv.conf cannot be read.
func New(cfg Config) (*Client, error) {
	c := &Client{
		timeout:  cfg.Timeout,
		attempts: cfg.Attempts,
		now:      cfg.Now,
		flight:   map[question]*flight{},
	}
	servers := cfg.Servers
	if len(servers) == 0 {
		rc, err := dns.ClientConfigFromFile(resolvConf)
		if err != nil {
			return nil, fmt.Errorf("DNS: cannot read %s: %w; name the servers in the config", resolvConf, err)
		}
		for _, s := range rc.Servers {
			servers = append(servers, net.JoinHostPort(s, rc.Port))
		}
		if len(servers) == 0 {
			servers = []string{"127.0.0.1:53"} // resolv.conf(5)
		}
		if c.timeout == 0 {
			c.timeout = time.Duration(rc.Timeout) * time.Second
		}
		if c.attempts == 0 {
			c.attempts = rc.Attempts
		}
	}
	for _, s := range servers {
		addr, err := serverAddr(s)
		if err != nil {
			return nil, err
		}
		c.servers = append(c.servers, addr)
	}
	if c.timeout <= 0 {
		c.timeout = 5 * time.Second
	}
	if c.attempts <= 0 {
		c.attempts = 2
	}
	if c.now == nil {
		c.now = time.Now
	}
	if cfg.CacheSize >= 0 {
		if cfg.CacheSize == 0 {
			cfg.CacheSize = 10_000
		}
		c.cache = newCache(cfg.CacheSize)
	}
	return c, nil
}

func serverAddr(s string) (string, error) {
	if a, err := netip.ParseAddr(strings.Trim(s, "[]")); err == nil {
		return net.JoinHostPort(a.String(), "53"), nil
	}
	if ap, err := netip.ParseAddrPort(s); err == nil && ap.Port() != 0 {
		return ap.String(), nil
	}
	return "", fmt.Errorf("DNS: server %q is not an IP address; write 192.0.2.53 or 192.0.2.53:53", s)
}

// MX implements Resolver.
func (c *Client) MX(ctx context.Context, domain string) ([]MX, error) {
	rrs, err := c.lookup(ctx, domain, dns.TypeMX)
	if err != nil {
		return nil, err
	}
	out := make([]MX, 0, len(rrs))
	for _, rr := range rrs {
		mx := rr.(*dns.MX)
		out = append(out, MX{Host: trimDot(mx.Mx), Pref: mx.Preference})
	}
	rand.Shuffle(len(out), func(i, j int) { out[i], out[j] = out[j], out[i] })
	sort.SliceStable(out, func(i, j int) bool { return out[i].Pref < out[j].Pref })
	return out, nil
}

// Addrs implements Resolver.
func (c *Client) Addrs(ctx context.Context, host string) ([]netip.Addr, error) {
	if h := trimDot(host); h == "localhost" || strings.HasSuffix(h, ".localhost") {
		// RFC 6761 section 6.3: never asked of a server.
		return []netip.Addr{netip.IPv6Loopback(), netip.AddrFrom4([4]byte{127, 0, 0, 1})}, nil
	}
	type result struct {
		rrs []dns.RR
		err error
	}
	v6 := make(chan result, 1)
	go func() {
		rrs, err := c.lookup(ctx, host, dns.TypeAAAA)
		v6 <- result{rrs, err}
	}()
	rrs4, err4 := c.lookup(ctx, host, dns.TypeA)
	r6 := <-v6

	var out []netip.Addr
	for _, rr := range r6.rrs {
		if a, ok := netip.AddrFromSlice(rr.(*dns.AAAA).AAAA); ok {
			out = append(out, a)
		}
	}
	for _, rr := range rrs4 {
		if a, ok := netip.AddrFromSlice(rr.(*dns.A).A.To4()); ok {
			out = append(out, a)
		}
	}
	if len(out) > 0 {
		return out, nil
	}
	// One family unknown leaves the host's existence unknown.
	for _, err := range []error{err4, r6.err} {
		if err != nil && KindOf(err) == Temporary {
			return nil, err
		}
	}
	for _, err := range []error{err4, r6.err} {
		if err != nil && KindOf(err) == NotFound {
			return nil, err
		}
	}
	return nil, &Error{Kind: NoData, Name: trimDot(host), Type: "A/AAAA", Reason: "the host has no address"}
}

// TXT implements Resolver.
func (c *Client) TXT(ctx context.Context, name string) ([]string, error) {
	rrs, err := c.lookup(ctx, name, dns.TypeTXT)
	if err != nil {
		return nil, err
	}
	out := make([]string, 0, len(rrs))
	for _, rr := range rrs {
		out = append(out, unescape(strings.Join(rr.(*dns.TXT).Txt, "")))
	}
	return out, nil
}

// PTR implements Resolver.
func (c *Client) PTR(ctx context.Context, ip netip.Addr) ([]string, error) {
	name, err := dns.ReverseAddr(ip.Unmap().WithZone("").String())
	if err != nil {
		return nil, &Error{Kind: NotFound, Name: ip.String(), Type: "PTR", Reason: "not an address", Err: err}
	}
	rrs, lerr := c.lookup(ctx, name, dns.TypePTR)
	if lerr != nil {
		return nil, lerr
	}
	out := make([]string, 0, len(rrs))
	for _, rr := range rrs {
		out = append(out, trimDot(rr.(*dns.PTR).Ptr))
	}
	return out, nil
}

// lookup returns the records of the type, at least one, from the cache or the
// servers. Its error is always an *Error.
func (c *Client) lookup(ctx context.Context, name string, qtype uint16) ([]dns.RR, error) {
	fq, err := fqdn(name)
	if err != nil {
		return nil, &Error{Kind: NotFound, Name: name, Type: dns.TypeToString[qtype], Reason: "invalid name", Err: err}
	}
	q := question{fq, qtype}
	for {
		if c.cache != nil {
			if a, ok := c.cache.get(q, c.now()); ok {
				return a.result()
			}
		}
		c.mu.Lock()
		f, waiting := c.flight[q]
		if !waiting {
			f = &flight{done: make(chan struct{})}
			c.flight[q] = f
		}
		c.mu.Unlock()

		if waiting {
			select {
			case <-f.done:
				if f.abandoned {
					continue
				}
				return f.ans.result()
			case <-ctx.Done():
				return nil, &Error{Kind: Temporary, Name: trimDot(fq), Type: dns.TypeToString[qtype],
					Reason: "gave up waiting", Err: ctx.Err()}
			}
		}

		f.ans = c.resolve(ctx, q)
		f.abandoned = ctx.Err() != nil
		if c.cache != nil && !f.ans.expires.IsZero() {
			c.cache.put(q, f.ans)
		}
		c.mu.Lock()
		delete(c.flight, q)
		c.mu.Unlock()
		close(f.done)
		return f.ans.result()
	}
}

func (a answer) result() ([]dns.RR, error) {
	if a.err != nil {
		e := *a.err
		return nil, &e
	}
	return a.rrs, nil
}

// resolve asks the servers and follows aliases. A zero expires means the answer
// must not be kept.
func (c *Client) resolve(ctx context.Context, q question) answer {
	name := q.name
	ttl := maxTTL
	fail := func(k Kind, server, reason string, err error) answer {
		return answer{err: &Error{Kind: k, Name: trimDot(q.name), Type: dns.TypeToString[q.qtype],
			Server: server, Reason: reason, Err: err}}
	}
	// Recursive servers answer with the whole chain: a second question is only
	// needed where one left it unfinished.
	aliases := 0
	for {
		reply, server, err := c.ask(ctx, name, q.qtype)
		if err != nil {
			return fail(Temporary, server, "no usable answer", err)
		}
		asked := name
		for {
			target, aliasTTL := alias(reply, name)
			if target == "" || q.qtype == dns.TypeCNAME {
				break
			}
			if aliases++; aliases > maxAliases {
				return fail(Temporary, server, fmt.Sprintf("more than %d aliases (CNAME) in a row", maxAliases), nil)
			}
			name, ttl = target, min(ttl, aliasTTL)
		}
		var rrs []dns.RR
		for _, rr := range reply.Answer {
			h := rr.Header()
			if h.Rrtype == q.qtype && h.Class == dns.ClassINET && strings.EqualFold(h.Name, name) {
				rrs = append(rrs, rr)
				ttl = min(ttl, time.Duration(h.Ttl)*time.Second)
			}
		}
		switch {
		case len(rrs) > 0:
			return answer{rrs: rrs, expires: c.now().Add(ttl)}
		case reply.Rcode == dns.RcodeNameError:
			a := fail(NotFound, server, "the name does not exist (NXDOMAIN)", nil)
			a.expires = c.negativeUntil(reply, ttl)
			return a
		case name != asked:
			continue // the chain points somewhere: ask there
		}
		a := fail(NoData, server, "no such record", nil)
		a.expires = c.negativeUntil(reply, ttl)
		return a
	}
}

// alias returns the CNAME target of name within the reply.
func alias(m *dns.Msg, name string) (string, time.Duration) {
	for _, rr := range m.Answer {
		if cn, ok := rr.(*dns.CNAME); ok && strings.EqualFold(cn.Hdr.Name, name) {
			return strings.ToLower(cn.Target), time.Duration(cn.Hdr.Ttl) * time.Second
		}
	}
	return "", 0
}

// negativeUntil is how long "does not exist" holds: the lesser of the SOA's own
// TTL and its MINIMUM (RFC 2308 section 5). Without SOA it is not kept.
func (c *Client) negativeUntil(m *dns.Msg, ttl time.Duration) time.Time {
	for _, rr := range m.Ns {
		if soa, ok := rr.(*dns.SOA); ok {
			d := time.Duration(min(soa.Hdr.Ttl, soa.Minttl)) * time.Second
			return c.now().Add(min(d, ttl, maxNegativeTTL))
		}
	}
	return time.Time{}
}

// ask puts one question to the servers until one gives an answer that can be
// used: success or NXDOMAIN.
func (c *Client) ask(ctx context.Context, name string, qtype uint16) (*dns.Msg, string, error) {
	var lastErr error
	var lastServer string
	for range c.attempts {
		first := int(c.preferred.Load())
		for i := range c.servers {
			n := (first + i) % len(c.servers)
			if err := ctx.Err(); err != nil {
				return nil, lastServer, err
			}
			lastServer = c.servers[n]
			reply, err := c.exchange(ctx, lastServer, name, qtype, true)
			if err == nil && reply.Rcode == dns.RcodeFormatError {
				// RFC 6891 section 7: an old server that knows no EDNS0.
				reply, err = c.exchange(ctx, lastServer, name, qtype, false)
			}
			if err == nil && (reply.Rcode == dns.RcodeSuccess || reply.Rcode == dns.RcodeNameError) {
				c.preferred.Store(int32(n))
				return reply, lastServer, nil
			}
			if err == nil {
				err = fmt.Errorf("the server answered %s", dns.RcodeToString[reply.Rcode])
			}
			lastErr = err
		}
	}
	return nil, lastServer, lastErr
}

// exchange asks one server by UDP, and by TCP if the answer did not fit.
func (c *Client) exchange(ctx context.Context, server, name string, qtype uint16, edns bool) (*dns.Msg, error) {
	m := new(dns.Msg)
	m.SetQuestion(name, qtype)
	if edns {
		m.SetEdns0(udpSize, false)
	}
	reply, err := c.roundTrip(ctx, "udp", server, m)
	if err != nil || !reply.Truncated {
		return reply, err
	}
	return c.roundTrip(ctx, "tcp", server, m)
}

func (c *Client) roundTrip(ctx context.Context, network, server string, m *dns.Msg) (*dns.Msg, error) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	// A fresh socket per question: its random source port is, with the id,
	// what a forger has to guess (RFC 5452 section 4.5).
	var d net.Dialer
	nc, err := d.DialContext(ctx, network, server)
	if err != nil {
		return nil, err
	}
	defer nc.Close()
	stop := context.AfterFunc(ctx, func() { nc.SetDeadline(time.Unix(1, 0)) })
	defer stop()

	co := &dns.Conn{Conn: nc, UDPSize: udpSize}
	if err := co.WriteMsg(m); err != nil {
		return nil, cause(ctx, err)
	}
	for {
		reply, err := co.ReadMsg()
		if err != nil {
			var ne net.Error
			if network == "udp" && reply != nil && !errors.As(err, &ne) {
				continue // a packet that is not DNS: wait for the real one
			}
			return nil, cause(ctx, err)
		}
		// RFC 5452 section 9.1: id and question must be ours.
		if reply.Response && reply.Id == m.Id && sameQuestion(reply, m) {
			return reply, nil
		}
		if network == "tcp" {
			return nil, errors.New("the answer is to another question")
		}
	}
}

func sameQuestion(reply, m *dns.Msg) bool {
	if len(reply.Question) != 1 {
		// Servers that refuse or fail may leave the question out.
		return len(reply.Question) == 0 && reply.Rcode != dns.RcodeSuccess && reply.Rcode != dns.RcodeNameError
	}
	r, q := reply.Question[0], m.Question[0]
	return r.Qtype == q.Qtype && r.Qclass == q.Qclass && strings.EqualFold(r.Name, q.Name)
}

// cause tells a time-out as such instead of as the closed socket it became.
func cause(ctx context.Context, err error) error {
	if cerr := ctx.Err(); errors.Is(cerr, context.DeadlineExceeded) {
		return errors.New("no answer in time")
	} else if cerr != nil {
		return cerr
	}
	return err
}

// unescape undoes the library's presentation form of TXT (\" \\ \DDD).
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	out := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] != '\\' || i+1 == len(s) {
			out = append(out, s[i])
			continue
		}
		if i+3 < len(s) && isDigit(s[i+1]) && isDigit(s[i+2]) && isDigit(s[i+3]) {
			out = append(out, (s[i+1]-'0')*100+(s[i+2]-'0')*10+(s[i+3]-'0'))
			i += 3
			continue
		}
		i++
		out = append(out, s[i])
	}
	return string(out)
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }
