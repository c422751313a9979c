// Package dnsbl is a filter that asks DNS lists for a client's address and for the
// names that it uses (RFC 5782): lists that speak against it and lists that speak
// for it, each with a weight.
package dnsbl

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"github.com/stagecoach-mta/stagecoach/sdk"
	"github.com/stagecoach-mta/stagecoach/sdk/dns"
	"github.com/stagecoach-mta/stagecoach/sdk/filter"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
	"github.com/stagecoach-mta/stagecoach/sdk/schema"
)

// List is one of the DNS lists.
type List struct {
	Zone   string   `hcl:"zone,label"`
	Weight float64  `hcl:"weight,optional" doc:"What a listing counts; below zero it speaks for the client."`
	Of     string   `hcl:"of,optional" doc:"What the list knows: addresses (the client's), or domains: of the reverse-path, of the greeting, of the client's verified name." oneof:"address,sender,hello,name"`
	Codes  []string `hcl:"codes,optional" semantic:"cidr" doc:"Answers that count, as addresses or networks; none: any in 127.0.0.0/8 but 127.255.0.0/16, by which lists say that they do not answer you." example:"[\"127.0.0.2\", \"127.0.0.4/30\"]"`
}

// Config of a filter "dnsbl" block.
type Config struct {
	Lists     []List        `hcl:"list,block" doc:"A DNS list, by its zone."`
	RejectAt  float64       `hcl:"reject_at,optional" doc:"Sum of weights at which the mail is rejected with 550 5.7.1; 0: never, the sum and the names are for your routes."`
	Resolvers []string      `hcl:"resolvers,optional" doc:"Recursive name servers, address or address:port; none is those of /etc/resolv.conf. Most lists do not answer large public ones." example:"[\"127.0.0.1:53\"]"`
	Timeout   time.Duration `hcl:"lookup_timeout,optional" doc:"How long all look-ups of a mail may take; a list that has not answered by then counts nothing."`
	DNSCache  int           `hcl:"dns_cache,optional" doc:"The most DNS answers that are kept."`
}

// Validate points at the attribute that is wrong.
func (c *Config) Validate() error {
	var errs []error
	if len(c.Lists) == 0 {
		errs = append(errs, schema.Errorf(nil, `there is no list: add one, as list "zen.dnsbl.example" { weight = 5 }`))
	}
	seen := map[string]bool{}
	for i, l := range c.Lists {
		if err := checkZone(l.Zone); err != nil {
			errs = append(errs, schema.Errorf(schema.Path("list", i), "%v", err))
		}
		if seen[strings.ToLower(l.Zone)+" "+l.Of] {
			errs = append(errs, schema.Errorf(schema.Path("list", i), "%s is asked for the same twice", l.Zone))
		}
		seen[strings.ToLower(l.Zone)+" "+l.Of] = true
	}
	for i, s := range c.Resolvers {
		if _, err := dns.ServerAddress(s); err != nil {
			errs = append(errs, schema.Errorf(schema.Path("resolvers", i), "%v", err))
		}
	}
	if c.RejectAt < 0 {
		errs = append(errs, schema.Errorf(schema.Path("reject_at"), "it must be above zero, or 0 for never"))
	}
	if c.Timeout <= 0 {
		errs = append(errs, schema.Errorf(schema.Path("lookup_timeout"), "it must be above zero"))
	}
	if c.DNSCache <= 0 {
		errs = append(errs, schema.Errorf(schema.Path("dns_cache"), "it must be above zero"))
	}
	return errors.Join(errs...)
}

func checkZone(s string) error {
	if !strings.Contains(strings.Trim(s, "."), ".") || strings.ContainsAny(s, " \t\r\n/:@*") {
		return fmt.Errorf("%q is no zone of a DNS list: write it as its operator names it, without a dot at its end", s)
	}
	return nil
}

// zone is a list made ready.
type zone struct {
	List
	codes  []netip.Prefix
	silent atomic.Int64 // when it was last told that the list does not answer us, Unix seconds
}

// Filter is one instance.
type Filter struct {
	lists    []*zone
	rejectAt float64
	timeout  time.Duration
	dns      dns.Resolver
	metrics  *sdk.Metrics
	log      zerolog.Logger
}

var _ filter.Filter = (*Filter)(nil)

// hit is a list that knows a name.
type hit struct {
	list  *zone
	query string
}

// Filter asks all lists at once. Users who logged in are not asked for.
func (f *Filter) Filter(ctx context.Context, ev *filter.Event) (*filter.Verdict, error) {
	c := ev.Envelope.GetClient()
	if c.GetUser() != "" {
		return filter.Accept(), nil
	}
	all, cancel := context.WithTimeout(ctx, f.timeout)
	defer cancel()
	answers := make([]string, len(f.lists)) // the name under which a list knows it
	var wg sync.WaitGroup
	for i, l := range f.lists {
		if q := l.query(c, ev.Envelope.GetSender()); q != "" {
			wg.Go(func() {
				if f.listed(all, l, q) {
					answers[i] = q
				}
			})
		}
	}
	wg.Wait()
	sum, hits := 0.0, []hit(nil)
	for i, q := range answers {
		if q != "" {
			sum += f.lists[i].Weight
			hits = append(hits, hit{f.lists[i], q})
		}
	}
	v := filter.Accept()
	if f.rejectAt > 0 && sum >= f.rejectAt {
		f.metrics.Counter("rejected_total", "Mails that were rejected.").Add(1)
		v = filter.Reject(550, "5.7.1", f.reason(all, hits))
	}
	var names []string
	for _, h := range hits {
		names = append(names, h.list.Zone)
	}
	return v.Score(sum).TagList("dnsbl", names...).TagNumber("dnsbl_weight", sum), nil
}

// query is the name that a list is asked for; "": there is nothing to ask.
func (l *zone) query(c *v1.Client, sender string) string {
	name := ""
	switch l.Of {
	case "sender":
		name = sender[strings.LastIndexByte(sender, '@')+1:]
	case "hello":
		name = c.GetHello()
	case "name":
		name = c.GetRdns()
	default:
		ip, err := netip.ParseAddr(c.GetIp())
		if err != nil {
			return ""
		}
		return reversed(ip.Unmap()) + "." + l.Zone
	}
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	if !strings.Contains(name, ".") || name[0] == '[' {
		return ""
	}
	return name + "." + l.Zone
}

// reversed is an address as lists have it (RFC 5782 section 2.1 and 2.4).
func reversed(ip netip.Addr) string {
	b := ip.AsSlice()
	slices.Reverse(b)
	var parts []string
	for _, o := range b {
		if ip.Is4() {
			parts = append(parts, fmt.Sprint(o))
		} else {
			parts = append(parts, fmt.Sprintf("%x.%x", o&15, o>>4))
		}
	}
	return strings.Join(parts, ".")
}

var (
	loopback = netip.MustParsePrefix("127.0.0.0/8")
	refusals = netip.MustParsePrefix("127.255.0.0/16")
)

// listed asks one list. That it does not answer is no reason to refuse a mail.
func (f *Filter) listed(ctx context.Context, l *zone, query string) bool {
	addrs, err := f.dns.A(ctx, query)
	result := "not_listed"
	defer func() {
		f.metrics.Counter("lookups_total", "Look-ups by list and result.", "list", l.Zone, "result", result).Add(1)
	}()
	if dns.Temporary(err) {
		result = "no_answer"
		return false
	}
	for _, a := range addrs {
		switch {
		case refusals.Contains(a):
			result = "refused"
			f.told(l, a)
			return false
		case len(l.codes) == 0 && loopback.Contains(a), slices.ContainsFunc(l.codes, func(p netip.Prefix) bool { return p.Contains(a) }):
			result = "listed"
		}
	}
	return result == "listed"
}

// told says, once in an hour, that a list refuses to answer.
func (f *Filter) told(l *zone, code netip.Addr) {
	now, last := time.Now().Unix(), l.silent.Load()
	if now-last >= 3600 && l.silent.CompareAndSwap(last, now) {
		f.log.Warn().Str("list", l.Zone).Stringer("code", code).Msg("dnsbl: the list answers that it does not serve this name server; it counts nothing (ask it from a resolver of your own)")
	}
}

// reason is the reply's text: the heaviest list's own words, if it has any.
func (f *Filter) reason(ctx context.Context, hits []hit) string {
	worst := slices.MaxFunc(hits, func(a, b hit) int { return int(100 * (a.list.Weight - b.list.Weight)) })
	text := "Listed by " + worst.list.Zone
	if words, err := f.dns.TXT(ctx, worst.query); err == nil && len(words) > 0 {
		said := strings.Map(func(r rune) rune {
			if r < ' ' || r >= 0x7f {
				return -1
			}
			return r
		}, words[0])
		text += ": " + said[:min(len(said), 200)]
	}
	return text
}

// Plugin describes the dnsbl filter.
func Plugin() sdk.Plugin {
	return sdk.Plugin{
		Name: "dnsbl", Version: "1.0.0", Summary: "ask DNS block lists and allow lists, with weights",
		Config: Config{Lists: []List{{Weight: 1, Of: "address"}}, Timeout: 5 * time.Second, DNSCache: 10_000},
		Interest: &v1.FilterInterest{
			Events: []v1.FilterEvent{v1.FilterEvent_MAIL}, Body: v1.FilterInterest_NONE, Effect: v1.FilterInterest_JUDGE,
		},
		Needs:  &v1.Needs{Network: true, ReadPaths: []string{"/etc/resolv.conf", "/run/systemd/resolve"}},
		Filter: open,
	}
}

func open(_ context.Context, in *sdk.Instance) (filter.Filter, error) {
	c := in.Config.(*Config)
	client, err := dns.New(dns.Config{
		Servers: c.Resolvers, CacheSize: c.DNSCache,
		Asked: func(outcome string) {
			in.Metrics.Counter("dns_questions_total", "Questions to name servers by outcome; answers from the cache are none.", "outcome", outcome).Add(1)
		},
	})
	if err != nil {
		return nil, err
	}
	f := &Filter{rejectAt: c.RejectAt, timeout: c.Timeout, dns: client, metrics: in.Metrics, log: in.Log}
	for _, l := range c.Lists {
		z := &zone{List: l}
		z.Zone = strings.Trim(strings.ToLower(l.Zone), ".")
		if z.codes, err = schema.Networks(l.Codes); err != nil {
			return nil, fmt.Errorf("list %q: codes: %w", l.Zone, err)
		}
		f.lists = append(f.lists, z)
	}
	return f, nil
}
