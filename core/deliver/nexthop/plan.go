package nexthop

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync"

	"github.com/emersion/go-smtp"

	"github.com/stagecoach-mta/stagecoach/core/dns"
)

// Source is where a plan's hosts come from.
type Source string

const (
	FromMX        Source = "mx"
	FromAddress   Source = "address record" // the implicit MX of RFC 5321 section 5.1
	FromLiteral   Source = "address literal"
	FromSmarthost Source = "smarthost"
	FromHint      Source = "a filter's hint"
)

// Plan is how mail for a domain would leave.
type Plan struct {
	Domain string
	Source Source
	Hosts  []Host // in the order they would be tried
	TLS    TLSMode
	LMTP   bool
	Auth   bool
}

// Host is one next hop.
type Host struct {
	Name  string // host name, address, or socket path
	Pref  uint16
	Port  int
	Addrs []netip.Addr // IPv6 and IPv4 in turn
	// Skip says why it would not be tried; empty if it would.
	Skip string

	network string // tcp or unix
	err     error  // of the address look-up
}

// An MX list longer than this is cut: nobody needs it, and each costs look-ups.
const maxHosts = 20

func parseHost(s string, port int) (Host, error) {
	if path, ok := strings.CutPrefix(s, "unix:"); ok {
		if path == "" {
			return Host{}, errors.New(`smarthost "unix:" has no path; write unix:/run/lmtp`)
		}
		return Host{Name: path, network: "unix"}, nil
	}
	h := Host{Name: s, Port: port, network: "tcp"}
	if addr, err := netip.ParseAddr(strings.Trim(s, "[]")); err == nil {
		h.Name, h.Addrs = addr.String(), []netip.Addr{addr.Unmap()}
		return h, nil
	}
	if strings.Contains(s, ":") {
		host, p, err := net.SplitHostPort(s)
		n, perr := strconv.Atoi(p)
		if err != nil || perr != nil || n < 1 || n > 65535 {
			return Host{}, fmt.Errorf("smarthost %q is not host, host:port or unix:/path", s)
		}
		h.Name, h.Port = host, n
	}
	h.Name = strings.TrimSuffix(h.Name, ".")
	if addr, err := netip.ParseAddr(h.Name); err == nil {
		h.Addrs = []netip.Addr{addr.Unmap()}
	}
	if h.Name == "" || strings.ContainsAny(h.Name, " /@<>\t\r\n") {
		return Host{}, fmt.Errorf("smarthost %q is not host, host:port or unix:/path", s)
	}
	return h, nil
}

// Plan finds the next hops of a domain as RFC 5321 section 5.1 says. It asks the
// DNS and connects to nobody. Its error is a *RouteError; the Plan then still
// holds what was found.
func (t *Transport) Plan(ctx context.Context, domain string) (Plan, error) {
	return t.plan(ctx, domain, "")
}

func (t *Transport) plan(ctx context.Context, domain, nextHop string) (Plan, error) {
	p := Plan{Domain: domain, TLS: t.opts.TLS, LMTP: t.opts.LMTP, Auth: t.opts.Auth != nil}
	if err := t.opts.Validate(); err != nil {
		return p, &RouteError{451, smtp.EnhancedCode{4, 3, 5}, "Configuration: " + err.Error(), err}
	}
	if len(t.opts.Smarthost) > 0 {
		p.Source = FromSmarthost
		for _, s := range t.opts.Smarthost {
			h, err := parseHost(s, t.opts.Port)
			if err != nil { // Validate has seen it
				return p, &RouteError{451, smtp.EnhancedCode{4, 3, 5}, err.Error(), err}
			}
			p.Hosts = append(p.Hosts, h)
		}
	} else if nextHop != "" {
		if err := t.fromHint(&p, nextHop); err != nil {
			return p, err
		}
	} else if err := t.fromDomain(ctx, &p); err != nil {
		return p, err
	}
	t.addresses(ctx, p.Hosts)
	if p.Source == FromMX || p.Source == FromAddress || p.Source == FromLiteral {
		if err := t.cutAtOurselves(&p); err != nil {
			return p, err
		}
	}
	return p, unreachable(&p)
}

// fromDomain fills in the hosts of a domain or address literal.
func (t *Transport) fromDomain(ctx context.Context, p *Plan) error {
	if strings.HasPrefix(p.Domain, "[") {
		// RFC 5321 section 4.1.3.
		lit := strings.TrimSuffix(strings.TrimPrefix(p.Domain, "["), "]")
		if len(lit) > 5 && strings.EqualFold(lit[:5], "IPv6:") {
			lit = lit[5:]
		}
		addr, err := netip.ParseAddr(lit)
		if err != nil || addr.Zone() != "" {
			return &RouteError{553, smtp.EnhancedCode{5, 1, 3}, fmt.Sprintf("%q is not an address literal", p.Domain), err}
		}
		p.Source = FromLiteral
		p.Hosts = []Host{{Name: p.Domain, Port: t.opts.Port, Addrs: []netip.Addr{addr.Unmap()}, network: "tcp"}}
		return nil
	}
	if t.opts.Resolver == nil {
		return &RouteError{451, smtp.EnhancedCode{4, 3, 5}, "No DNS resolver is configured", nil}
	}
	mx, err := t.opts.Resolver.MX(ctx, p.Domain)
	if err != nil {
		switch dns.KindOf(err) {
		case dns.NoData:
			// The domain itself is the host, of preference 0.
			p.Source = FromAddress
			p.Hosts = []Host{{Name: p.Domain, Port: t.opts.Port, network: "tcp"}}
			return nil
		case dns.NotFound:
			return &RouteError{550, smtp.EnhancedCode{5, 1, 2}, "The domain " + p.Domain + " does not exist", err}
		}
		return &RouteError{451, smtp.EnhancedCode{4, 4, 3}, err.Error(), err}
	}
	p.Source = FromMX
	// RFC 7505: the one MX "." says that there is no mail here. Among others
	// it is a mistake, and skipped.
	if len(mx) == 1 && mx[0].Host == "" {
		return &RouteError{556, smtp.EnhancedCode{5, 1, 10}, "The domain " + p.Domain + " accepts no mail (null MX)", nil}
	}
	for _, m := range mx {
		if m.Host != "" && len(p.Hosts) < maxHosts {
			p.Hosts = append(p.Hosts, Host{Name: m.Host, Pref: m.Pref, Port: t.opts.Port, network: "tcp"})
		}
	}
	return nil
}

// addresses looks all hosts up at once: whether one of them is us has to be
// known before the first is tried.
func (t *Transport) addresses(ctx context.Context, hosts []Host) {
	var wg sync.WaitGroup
	for i := range hosts {
		h := &hosts[i]
		if h.network == "unix" || len(h.Addrs) > 0 {
			continue
		}
		if t.opts.Resolver == nil {
			h.Skip = "no DNS resolver is configured"
			h.err = errors.New(h.Skip)
			continue
		}
		wg.Go(func() {
			addrs, err := t.opts.Resolver.Addrs(ctx, h.Name)
			if err == nil && len(addrs) == 0 {
				err = &dns.Error{Kind: dns.NoData, Name: h.Name, Type: "A/AAAA", Reason: "the host has no address"}
			}
			if err != nil {
				h.err, h.Skip = err, err.Error()
				return
			}
			h.Addrs = alternate(addrs)
		})
	}
	wg.Wait()
}

// alternate puts the families in turn, so that a limit on addresses, or a
// family without a route, never hides the other.
func alternate(addrs []netip.Addr) []netip.Addr {
	var v6, v4, out []netip.Addr
	for _, a := range addrs {
		if a.Unmap().Is4() {
			v4 = append(v4, a.Unmap())
		} else {
			v6 = append(v6, a)
		}
	}
	for i := range max(len(v6), len(v4)) {
		if i < len(v6) {
			out = append(out, v6[i])
		}
		if i < len(v4) {
			out = append(out, v4[i])
		}
	}
	return out
}

// cutAtOurselves drops every host that is not preferred to us (RFC 5321 section
// 5.1): to give mail to those, or to us, would be a loop.
func (t *Transport) cutAtOurselves(p *Plan) error {
	ours := -1
	for i := range p.Hosts {
		if t.isUs(p.Hosts[i]) && (ours < 0 || p.Hosts[i].Pref < p.Hosts[ours].Pref) {
			ours = i
		}
	}
	if ours < 0 {
		return nil
	}
	pref, name := p.Hosts[ours].Pref, p.Hosts[ours].Name
	left := false
	for i := range p.Hosts {
		switch h := &p.Hosts[i]; {
		case h.Pref < pref:
			left = true
		case t.isUs(*h):
			h.Skip = "this is ourselves"
		default:
			h.Skip = "not preferred to ourselves (" + name + ")"
		}
	}
	if !left {
		return &RouteError{554, smtp.EnhancedCode{5, 4, 6},
			fmt.Sprintf("Mail for %s loops back to us: %s is this host, but the domain is not ours", p.Domain, name), nil}
	}
	return nil
}

func (t *Transport) isUs(h Host) bool {
	if strings.EqualFold(h.Name, strings.TrimSuffix(t.opts.LocalName, ".")) {
		return true
	}
	for _, a := range h.Addrs {
		// The unspecified address connects to ourselves.
		if (a.IsLoopback() || a.IsUnspecified()) && !t.opts.AllowLoopback {
			return true
		}
		for _, own := range t.opts.OwnAddrs {
			if own.Unmap() == a {
				return true
			}
		}
	}
	return false
}

// unreachable is the error of a plan with nobody to try.
func unreachable(p *Plan) error {
	var temporary, notFound error
	for _, h := range p.Hosts {
		switch {
		case h.Skip == "":
			return nil
		case h.err == nil:
		case dns.KindOf(h.err) == dns.Temporary:
			temporary = h.err
		default:
			notFound = h.err
		}
	}
	if temporary != nil {
		return &RouteError{451, smtp.EnhancedCode{4, 4, 3}, temporary.Error(), temporary}
	}
	if p.Source == FromHint {
		return &RouteError{451, smtp.EnhancedCode{4, 3, 5}, fmt.Sprintf("The next hop that a filter named has no address: %v", notFound), notFound}
	}
	if p.Source == FromSmarthost {
		// A smarthost that is not in the DNS is our own mistake: no reason to
		// bounce the mail.
		return &RouteError{451, smtp.EnhancedCode{4, 3, 5}, fmt.Sprintf("The smarthost has no address: %v", notFound), notFound}
	}
	if p.Source == FromAddress {
		return &RouteError{550, smtp.EnhancedCode{5, 1, 2}, "The domain " + p.Domain + " has neither MX nor address", notFound}
	}
	return &RouteError{550, smtp.EnhancedCode{5, 4, 4}, "No mail exchanger of " + p.Domain + " has an address", notFound}
}
