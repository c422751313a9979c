package dns

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/net/idna"
)

// Config of a Client. The zero value asks the servers of /etc/resolv.conf.
type Config struct {
	// Servers are recursive ones, as address or address:port. Empty: those of
	// /etc/resolv.conf, read once by New.
	Servers []string
	// Timeout of one question to one server; 0 is 3 s.
	Timeout time.Duration
	// Attempts is how many rounds over all servers are made; 0 is 2.
	Attempts int
	// CacheSize is the most answers kept; 0 is 10,000.
	CacheSize int
	// MaxQuestions is how many are under way at once, further ones wait; 0 is 256.
	MaxQuestions int
	// Now is the clock of the cache; nil is time.Now.
	Now func() time.Time
	// Asked, if set, is called once for each question that went to the servers,
	// with what came of it: "answer", "none" or "temporary".
	Asked func(outcome string)
}

const (
	resolvConf = "/etc/resolv.conf"
	// 1232 octets pass every path unfragmented (DNS flag day 2020).
	udpSize = 1232
	// A chain of aliases longer than this is taken for a loop.
	maxAliases = 8
	// However long a TTL is, an answer is asked for again every day.
	maxTTL = 24 * time.Hour
	// RFC 2308 section 5: one to three hours for "does not exist".
	maxNegativeTTL = time.Hour
	// More of a type at one name than any use of them looks at.
	maxRecords = 256
)

// Client is a Resolver over recursive servers. Use New.
type Client struct {
	Config
	servers []string
	cache   *cache
	slots   chan struct{}
	// preferred is the server that answered last: a dead first one costs its
	// time-out once and not in every look-up.
	preferred atomic.Int32

	mu     sync.Mutex
	flight map[question]*flight
}

var _ Resolver = (*Client)(nil)

// flight is a question being asked; all who have the same one wait for it.
type flight struct {
	done chan struct{}
	ans  answer
}

// New returns a Client, or an error if a server's address cannot be used or none
// is named and /etc/resolv.conf names none.
func New(cfg Config) (*Client, error) {
	c := &Client{Config: cfg, flight: map[question]*flight{}}
	c.Timeout = cmp.Or(c.Timeout, 3*time.Second)
	c.Attempts = cmp.Or(c.Attempts, 2)
	c.slots = make(chan struct{}, cmp.Or(c.MaxQuestions, 256))
	c.cache = newCache(cmp.Or(c.CacheSize, 10_000))
	if c.Now == nil {
		c.Now = time.Now
	}
	servers := cfg.Servers
	if len(servers) == 0 {
		rc, err := dns.ClientConfigFromFile(resolvConf)
		if err != nil {
			return nil, fmt.Errorf("cannot read %s: %w; name the servers in the configuration", resolvConf, err)
		}
		for _, s := range rc.Servers {
			servers = append(servers, net.JoinHostPort(s, rc.Port))
		}
		if len(servers) == 0 {
			servers = []string{"127.0.0.1:53"} // resolv.conf(5)
		}
	}
	for _, s := range servers {
		addr, err := ServerAddress(s)
		if err != nil {
			return nil, err
		}
		c.servers = append(c.servers, addr)
	}
	return c, nil
}

// ServerAddress reads "192.0.2.53" and "192.0.2.53:53", IPv6 too.
func ServerAddress(s string) (string, error) {
	if ap, err := netip.ParseAddrPort(s); err == nil && ap.Port() != 0 {
		return ap.String(), nil
	}
	if a, err := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(s, "["), "]")); err == nil {
		return net.JoinHostPort(a.String(), "53"), nil
	}
	return "", fmt.Errorf("%q is no name server's address: write 192.0.2.53 or 192.0.2.53:53", s)
}

// TXT implements Resolver.
func (c *Client) TXT(ctx context.Context, name string) ([]string, error) {
	return lookup[string](ctx, c, name, dns.TypeTXT)
}

// A implements Resolver.
func (c *Client) A(ctx context.Context, name string) ([]netip.Addr, error) {
	return lookup[netip.Addr](ctx, c, name, dns.TypeA)
}

// AAAA implements Resolver.
func (c *Client) AAAA(ctx context.Context, name string) ([]netip.Addr, error) {
	return lookup[netip.Addr](ctx, c, name, dns.TypeAAAA)
}

// MX implements Resolver.
func (c *Client) MX(ctx context.Context, name string) ([]MX, error) {
	return lookup[MX](ctx, c, name, dns.TypeMX)
}

// PTR implements Resolver.
func (c *Client) PTR(ctx context.Context, ip netip.Addr) ([]string, error) {
	name, err := dns.ReverseAddr(ip.Unmap().WithZone("").String())
	if err != nil {
		return nil, ErrNotExist
	}
	return lookup[string](ctx, c, name, dns.TypePTR)
}

// lookup answers from the cache, or with the others that have the same question
// under way. The question itself lives as long as its time-outs allow and no
// shorter, whoever gave up waiting: its answer is of use to the next mail.
func lookup[T any](ctx context.Context, c *Client, name string, qtype uint16) ([]T, error) {
	fq, ok := fqdn(name)
	if !ok {
		return nil, ErrNotExist
	}
	q := question{fq, qtype}
	a, ok := c.cache.get(q, c.Now())
	if !ok {
		f := c.board(q)
		select {
		case <-f.done:
			a = f.ans
		case <-ctx.Done():
			return nil, fmt.Errorf("%s %s: %w", name, dns.TypeToString[qtype], ctx.Err())
		}
	}
	values, _ := a.values.([]T)
	return values, a.err
}

func (c *Client) board(q question) *flight {
	c.mu.Lock()
	defer c.mu.Unlock()
	if f := c.flight[q]; f != nil {
		return f
	}
	f := &flight{done: make(chan struct{})}
	c.flight[q] = f
	go func() {
		c.slots <- struct{}{}
		f.ans = c.resolve(q)
		<-c.slots
		if !f.ans.expires.IsZero() {
			c.cache.put(q, f.ans)
		}
		c.mu.Lock()
		delete(c.flight, q)
		c.mu.Unlock()
		close(f.done)
		if c.Asked != nil {
			outcome := "answer"
			switch {
			case Temporary(f.ans.err):
				outcome = "temporary"
			case f.ans.values == nil:
				outcome = "none"
			}
			c.Asked(outcome)
		}
	}()
	return f
}

// fqdn is the name as it is asked for: lower case, ASCII, with a final dot; false
// for what no server could know.
func fqdn(name string) (string, bool) {
	name = strings.TrimSuffix(name, ".")
	for i := range len(name) {
		if name[i] >= 0x80 {
			a, err := idna.Lookup.ToASCII(name)
			if err != nil {
				return "", false
			}
			name = a
			break
		}
	}
	if name == "" || len(name) > 253 {
		return "", false
	}
	label, odd := 0, false
	for i := range len(name) {
		switch c := name[i]; {
		case c == '.':
			if label == 0 {
				return "", false
			}
			label = 0
			continue
		case c <= ' ' || c >= 0x7f || strings.IndexByte(`"\;()@$`, c) >= 0:
			odd = true // the packet library reads names in a zone file's form
		}
		if label++; label > 63 {
			return "", false
		}
	}
	if label == 0 {
		return "", false
	}
	name = strings.ToLower(name)
	if odd {
		return presented(name)
	}
	return name + ".", true
}

// presented is a name of any octets in the form that the packet library gives
// those of an answer, so that the two can be compared.
func presented(name string) (string, bool) {
	wire := make([]byte, 0, len(name)+2)
	for label := range strings.SplitSeq(name, ".") {
		wire = append(append(wire, byte(len(label))), label...)
	}
	out, _, err := dns.UnpackDomainName(append(wire, 0), 0)
	return out, err == nil
}

// resolve asks the servers and follows aliases.
func (c *Client) resolve(q question) answer {
	name, ttl, aliases := q.name, maxTTL, 0
	// Recursive servers answer with the whole chain: a second question is only
	// needed where one left it unfinished.
	for {
		reply, err := c.ask(name, q.qtype)
		if err != nil {
			return answer{err: fmt.Errorf("%s %s: %w", strings.TrimSuffix(q.name, "."), dns.TypeToString[q.qtype], err)}
		}
		asked := name
		for {
			target, aliasTTL := alias(reply, name)
			if target == "" {
				break
			}
			if aliases++; aliases > maxAliases {
				return answer{err: fmt.Errorf("%s: more than %d aliases in a row", strings.TrimSuffix(q.name, "."), maxAliases)}
			}
			name, ttl = target, min(ttl, aliasTTL)
		}
		var rrs []dns.RR
		for _, rr := range reply.Answer {
			h := rr.Header()
			if h.Rrtype == q.qtype && h.Class == dns.ClassINET && strings.EqualFold(h.Name, name) && len(rrs) < maxRecords {
				rrs = append(rrs, rr)
				ttl = min(ttl, time.Duration(h.Ttl)*time.Second)
			}
		}
		switch {
		case len(rrs) > 0:
			return answer{values: values(rrs), expires: c.Now().Add(ttl)}
		case reply.Rcode == dns.RcodeNameError:
			return answer{err: ErrNotExist, expires: c.negativeUntil(reply, ttl)}
		case name == asked:
			return answer{expires: c.negativeUntil(reply, ttl)}
		}
	}
}

// values makes what the Resolver's methods return: []string, []netip.Addr or []MX.
func values(rrs []dns.RR) any {
	var (
		texts []string
		addrs []netip.Addr
		hosts []MX
	)
	for _, rr := range rrs {
		switch rr := rr.(type) {
		case *dns.TXT:
			texts = append(texts, unescape(strings.Join(rr.Txt, "")))
		case *dns.MX:
			hosts = append(hosts, MX{strings.ToLower(strings.TrimSuffix(rr.Mx, ".")), rr.Preference})
		case *dns.PTR:
			texts = append(texts, strings.ToLower(strings.TrimSuffix(rr.Ptr, ".")))
		case *dns.A:
			if a, ok := netip.AddrFromSlice(rr.A.To4()); ok {
				addrs = append(addrs, a)
			}
		case *dns.AAAA:
			if a, ok := netip.AddrFromSlice(rr.AAAA); ok {
				addrs = append(addrs, a)
			}
		}
	}
	slices.SortStableFunc(hosts, func(a, b MX) int { return cmp.Compare(a.Pref, b.Pref) })
	switch {
	case hosts != nil:
		return hosts
	case addrs != nil:
		return addrs
	}
	return texts
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

// negativeUntil is how long "there is none" holds: the lesser of the SOA's own
// TTL and its MINIMUM (RFC 2308 section 5). Without a SOA it is not kept.
func (c *Client) negativeUntil(m *dns.Msg, ttl time.Duration) time.Time {
	for _, rr := range m.Ns {
		if soa, ok := rr.(*dns.SOA); ok {
			d := time.Duration(min(soa.Hdr.Ttl, soa.Minttl)) * time.Second
			return c.Now().Add(min(d, ttl, maxNegativeTTL))
		}
	}
	return time.Time{}
}

// ask puts one question to the servers until one answers what can be used:
// success or NXDOMAIN.
func (c *Client) ask(name string, qtype uint16) (*dns.Msg, error) {
	var last error
	for range c.Attempts {
		first := int(c.preferred.Load())
		for i := range c.servers {
			n := (first + i) % len(c.servers)
			reply, err := c.exchange(c.servers[n], name, qtype, true)
			if err == nil && reply.Rcode == dns.RcodeFormatError {
				// RFC 6891 section 7: an old server that knows no EDNS0.
				reply, err = c.exchange(c.servers[n], name, qtype, false)
			}
			if err == nil && (reply.Rcode == dns.RcodeSuccess || reply.Rcode == dns.RcodeNameError) {
				c.preferred.Store(int32(n))
				return reply, nil
			}
			if err == nil {
				err = errors.New(dns.RcodeToString[reply.Rcode])
			}
			last = fmt.Errorf("server %s: %w", c.servers[n], err)
		}
	}
	return nil, last
}

// exchange asks one server by UDP, and by TCP if the answer did not fit.
func (c *Client) exchange(server, name string, qtype uint16, edns bool) (*dns.Msg, error) {
	m := new(dns.Msg)
	m.SetQuestion(name, qtype)
	if edns {
		m.SetEdns0(udpSize, false)
	}
	reply, err := c.roundTrip("udp", server, m)
	if err != nil || !reply.Truncated {
		return reply, err
	}
	return c.roundTrip("tcp", server, m)
}

func (c *Client) roundTrip(network, server string, m *dns.Msg) (*dns.Msg, error) {
	// A fresh socket per question: its random source port is, with the id, what a
	// forger has to guess (RFC 5452 section 4.5).
	deadline := time.Now().Add(c.Timeout)
	nc, err := (&net.Dialer{Deadline: deadline}).Dial(network, server)
	if err != nil {
		return nil, err
	}
	defer nc.Close()
	if err := nc.SetDeadline(deadline); err != nil {
		return nil, err
	}
	co := &dns.Conn{Conn: nc, UDPSize: udpSize}
	if err := co.WriteMsg(m); err != nil {
		return nil, cause(err)
	}
	for {
		reply, err := co.ReadMsg()
		if err != nil {
			var ne net.Error
			if network == "udp" && reply != nil && !errors.As(err, &ne) {
				continue // a packet that is not DNS: wait for the real one
			}
			return nil, cause(err)
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

// cause tells a time-out in plain words.
func cause(err error) error {
	if ne := net.Error(nil); errors.As(err, &ne) && ne.Timeout() {
		return errors.New("no answer in time")
	}
	return err
}

// unescape undoes the packet library's presentation form of TXT (\" \\ \DDD).
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
		if i+3 < len(s) && digit(s[i+1]) && digit(s[i+2]) && digit(s[i+3]) {
			out = append(out, (s[i+1]-'0')*100+(s[i+2]-'0')*10+(s[i+3]-'0'))
			i += 3
			continue
		}
		i++
		out = append(out, s[i])
	}
	return string(out)
}

func digit(c byte) bool { return '0' <= c && c <= '9' }
