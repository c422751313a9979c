// Package helo is a filter that looks at how a client calls itself, in EHLO and in
// the DNS.
package helo

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/stagecoach-mta/stagecoach/sdk"
	"github.com/stagecoach-mta/stagecoach/sdk/dns"
	"github.com/stagecoach-mta/stagecoach/sdk/filter"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
	"github.com/stagecoach-mta/stagecoach/sdk/schema"
)

// Config of a filter "helo" block.
type Config struct {
	Own       []string      `hcl:"own,optional" doc:"Names that are ours: nobody else may greet with them." example:"[\"mx.ryan.example\", \"ryan.example\"]"`
	Reject    []string      `hcl:"reject,optional" doc:"Faults for which the greeting gets 550 5.7.1. RFC 5321 section 4.1.4 wants nobody refused because the DNS knows the name otherwise: other, unknown, no_name and dynamic are better left to your rules." oneof:"syntax,own,literal,unknown,other,no_name,dynamic"`
	Defer     []string      `hcl:"defer,optional" doc:"Faults for which it gets 450 4.7.1." oneof:"syntax,own,literal,unknown,other,no_name,dynamic"`
	LookUp    bool          `hcl:"look_up,optional" doc:"Ask the DNS for the name of the greeting. Without it unknown and other are never found."`
	Except    []string      `hcl:"except,optional" semantic:"cidr" doc:"Clients that may greet as they like." example:"[\"192.0.2.0/24\"]"`
	Resolvers []string      `hcl:"resolvers,optional" doc:"Recursive name servers, address or address:port; none is those of /etc/resolv.conf." example:"[\"127.0.0.1:53\"]"`
	Timeout   time.Duration `hcl:"lookup_timeout,optional" doc:"How long the look-ups of a greeting may take; without an answer there is no fault."`
}

func defaults() Config {
	return Config{Reject: []string{"syntax", "own"}, LookUp: true, Timeout: 3 * time.Second}
}

// Validate points at the attribute that is wrong.
func (c *Config) Validate() error {
	var errs []error
	for i, n := range c.Own {
		if !domain(n) {
			errs = append(errs, schema.Errorf(schema.Path("own", i), "%q is no full host name: write mx.ryan.example", n))
		}
	}
	for i, s := range c.Resolvers {
		if _, err := dns.ServerAddress(s); err != nil {
			errs = append(errs, schema.Errorf(schema.Path("resolvers", i), "%v", err))
		}
	}
	if c.Timeout <= 0 {
		errs = append(errs, schema.Errorf(schema.Path("lookup_timeout"), "it must be above zero"))
	}
	return errors.Join(errs...)
}

var texts = map[string]string{
	"syntax":  "Greet with your full host name",
	"own":     "That is our name, not yours",
	"literal": "Greet with your host name, not with an address",
	"unknown": "The DNS does not know your name",
	"other":   "Your name belongs to another address",
	"no_name": "Your address has no name that leads back to it",
	"dynamic": "Send your mail through your provider's server",
}

// Filter is one instance.
type Filter struct {
	*Config
	except  []netip.Prefix
	dns     dns.Resolver
	metrics *sdk.Metrics
}

var _ filter.Filter = (*Filter)(nil)

// Filter looks at one greeting. What the DNS does not answer is no fault.
func (f *Filter) Filter(ctx context.Context, ev *filter.Event) (*filter.Verdict, error) {
	c := ev.Envelope.GetClient()
	ip, _ := netip.ParseAddr(c.GetIp())
	ip = ip.Unmap()
	if ip.IsLoopback() || slices.ContainsFunc(f.except, func(p netip.Prefix) bool { return p.Contains(ip) }) {
		return filter.Accept(), nil
	}
	faults := f.faults(ctx, c, ip)
	v := filter.Accept()
	for _, fault := range faults {
		f.metrics.Counter("faults_total", "Greetings by what is wrong with them.", "fault", fault).Add(1)
		switch {
		case v.Reply().GetVerdict().GetAction() == v1.Verdict_REJECT:
		case slices.Contains(f.Reject, fault):
			v = filter.Reject(550, "5.7.1", texts[fault])
		case slices.Contains(f.Defer, fault) && v.Reply().GetVerdict().GetAction() == v1.Verdict_ACCEPT:
			v = filter.Defer(450, "4.7.1", texts[fault])
		}
	}
	if len(faults) > 0 {
		v.TagList("helo", faults...)
	}
	return v, nil
}

func (f *Filter) faults(ctx context.Context, c *v1.Client, ip netip.Addr) []string {
	var out []string
	name := strings.ToLower(strings.TrimSuffix(c.GetHello(), "."))
	literal, isLiteral := addressLiteral(name)
	switch {
	case isLiteral && literal == ip:
		out = append(out, "literal")
	case isLiteral:
		out = append(out, "literal", "other")
	case !domain(name):
		out = append(out, "syntax")
	case slices.ContainsFunc(f.Own, func(own string) bool { return strings.EqualFold(own, name) }):
		out = append(out, "own")
	case f.LookUp && ip.IsValid():
		if fault := f.lookUp(ctx, name, ip); fault != "" {
			out = append(out, fault)
		}
	}
	switch rdns := strings.ToLower(c.GetRdns()); {
	case !ip.IsValid():
	case rdns == "":
		out = append(out, "no_name")
	case dynamic(rdns, ip):
		out = append(out, "dynamic")
	}
	return out
}

// lookUp is unknown for a name that has neither address nor MX, and other for one
// whose addresses are not the client's.
func (f *Filter) lookUp(ctx context.Context, name string, ip netip.Addr) string {
	ctx, cancel := context.WithTimeout(ctx, f.Timeout)
	defer cancel()
	look := f.dns.A
	if ip.Is6() {
		look = f.dns.AAAA
	}
	addrs, err := look(ctx, name)
	switch {
	case dns.Temporary(err):
		return ""
	case slices.Contains(addrs, ip):
		return ""
	case len(addrs) > 0:
		return "other"
	}
	other := f.dns.AAAA
	if ip.Is6() {
		other = f.dns.A
	}
	if addrs, err := other(ctx, name); len(addrs) > 0 {
		return "other"
	} else if dns.Temporary(err) {
		return ""
	}
	if mx, err := f.dns.MX(ctx, name); len(mx) > 0 {
		return "other"
	} else if dns.Temporary(err) {
		return ""
	}
	return "unknown"
}

// domain tells whether s is a host name of at least two labels whose last one is no
// number: "192.0.2.1" is an address without its brackets.
func domain(s string) bool {
	labels := strings.Split(s, ".")
	if len(s) > 253 || len(labels) < 2 {
		return false
	}
	for _, l := range labels {
		if l == "" || len(l) > 63 || l[0] == '-' || l[len(l)-1] == '-' || strings.ContainsFunc(l, func(r rune) bool {
			return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' && r != '_'
		}) {
			return false
		}
	}
	_, err := strconv.Atoi(labels[len(labels)-1])
	return err != nil
}

// addressLiteral reads "[192.0.2.1]" and "[IPv6:2001:db8::1]" (RFC 5321 section 4.1.3).
func addressLiteral(s string) (netip.Addr, bool) {
	if !strings.HasPrefix(s, "[") || !strings.HasSuffix(s, "]") {
		return netip.Addr{}, false
	}
	ip, err := netip.ParseAddr(strings.TrimPrefix(s[1:len(s)-1], "ipv6:"))
	return ip.Unmap(), err == nil
}

// dynamic tells whether a name is made of its address, as those of dial-up lines are:
// at least three of the four numbers of an IPv4 address stand before its domain.
func dynamic(name string, ip netip.Addr) bool {
	if !ip.Is4() {
		return false
	}
	numbers := strings.FieldsFunc(hostOf(name), func(r rune) bool { return r < '0' || r > '9' })
	found := 0
	for _, b := range ip.As4() {
		for i, n := range numbers {
			if v, err := strconv.Atoi(n); err == nil && v == int(b) {
				numbers[i] = ""
				found++
				break
			}
		}
	}
	return found >= 3
}

// hostOf is a name without its last two labels.
func hostOf(name string) string {
	i := strings.LastIndexByte(name, '.')
	if i > 0 {
		i = strings.LastIndexByte(name[:i], '.')
	}
	return name[:max(i, 0)]
}

// Plugin describes the helo filter.
func Plugin() sdk.Plugin {
	return sdk.Plugin{
		Name: "helo", Version: "1.0.0", Summary: "look at how clients call themselves",
		Config: defaults(),
		Interest: &v1.FilterInterest{
			Events: []v1.FilterEvent{v1.FilterEvent_HELLO}, Body: v1.FilterInterest_NONE, Effect: v1.FilterInterest_JUDGE,
		},
		Needs:  &v1.Needs{Network: true, ReadPaths: []string{"/etc/resolv.conf", "/run/systemd/resolve"}},
		Filter: open,
	}
}

func open(_ context.Context, in *sdk.Instance) (filter.Filter, error) {
	f := &Filter{Config: in.Config.(*Config), metrics: in.Metrics, dns: dns.None{}}
	var err error
	if f.except, err = schema.Networks(f.Except); err != nil {
		return nil, err
	}
	if f.LookUp {
		f.dns, err = dns.New(dns.Config{Servers: f.Resolvers})
	}
	return f, err
}
