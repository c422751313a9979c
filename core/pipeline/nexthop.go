package pipeline

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"time"

	"github.com/rs/zerolog"

	"github.com/stagecoach-mta/stagecoach/core/config"
	"github.com/stagecoach-mta/stagecoach/core/deliver"
	"github.com/stagecoach-mta/stagecoach/core/deliver/nexthop"
	"github.com/stagecoach-mta/stagecoach/core/dns"
	"github.com/stagecoach-mta/stagecoach/core/smtp/client"
)

// nextHop builds a deliver "smtp" or "lmtp" block.
func nextHop(cfg *config.Config, d *config.Deliver, resolver dns.Resolver, log zerolog.Logger) (*deliver.NextHop, error) {
	h := d.SMTP
	o := nexthop.Options{
		Smarthost: h.Hosts, Port: h.Port, LMTP: d.Type == "lmtp",
		LocalName: h.Helo, LocalAddrs: h.Source, MaxConnsPerHost: h.MaxConnections, MaxMailsPerConn: h.MailsPerConnection,
		AllowLoopback: h.AllowLoopback, NoRecoding: !h.Encode8Bit, Resolver: resolver, Log: log.With().Str("deliver", d.Ref).Logger(),
		Timeouts: client.Timeouts{Connect: h.ConnectTimeout, Mail: h.CommandTimeout, Rcpt: h.CommandTimeout, DataDone: h.DataTimeout},
	}
	if o.LocalName == "" {
		o.LocalName = cfg.Hostname
	}
	interfaces, err := net.InterfaceAddrs()
	if err != nil {
		return nil, fmt.Errorf("the addresses of this machine: %w", err)
	}
	o.OwnAddrs = ownAddrs(cfg.Receives, interfaces)
	conf := &tls.Config{MinVersion: tlsMinimum}
	if h.CAFile != "" {
		b, err := os.ReadFile(h.CAFile)
		if err != nil {
			return nil, err
		}
		conf.RootCAs = x509.NewCertPool()
		if !conf.RootCAs.AppendCertsFromPEM(b) {
			return nil, fmt.Errorf("%s holds no PEM certificate", h.CAFile)
		}
	}
	switch h.TLS {
	case "verify":
		o.TLS = nexthop.TLSRequired
	case "required":
		// Encrypted, whoever it is: against listeners, not against impostors.
		o.TLS, conf.InsecureSkipVerify = nexthop.TLSRequired, true
	default:
		o.TLS = nexthop.TLSMode(h.TLS)
	}
	o.TLSConfig = conf
	if h.Username != "" {
		o.Auth = &nexthop.Auth{User: h.Username, Password: h.Password}
	}
	if err := o.Validate(); err != nil {
		return nil, fmt.Errorf("%s: %w", d.Ref, err)
	}
	return &deliver.NextHop{Transport: nexthop.New(o), ByDomain: len(h.Hosts) == 0, Clock: time.Now}, nil
}

// ownAddrs are the addresses at which mail for us arrives: an MX that has one of
// them is ourselves, whatever its name. Loopback ones are allow_loopback's.
func ownAddrs(receives []*config.Receive, interfaces []net.Addr) []netip.Addr {
	var own []netip.Addr
	add := func(a netip.Addr) {
		if a = a.Unmap().WithZone(""); a.IsValid() && !a.IsLoopback() && !slices.Contains(own, a) {
			own = append(own, a)
		}
	}
	for _, r := range receives {
		for _, l := range r.Listen {
			if r.Protocol != "smtp" || l.Network != "tcp" {
				continue
			}
			host, _, _ := net.SplitHostPort(l.Address)
			if a, err := netip.ParseAddr(host); err == nil && !a.IsUnspecified() {
				add(a)
				continue
			}
			for _, i := range interfaces {
				if p, err := netip.ParsePrefix(i.String()); err == nil {
					add(p.Addr())
				}
			}
		}
	}
	return own
}

// resolver of a configuration, or of one deliver block that has its own.
func resolver(d config.DNS) (dns.Resolver, error) {
	c := dns.Config{Timeout: d.Timeout}
	for _, s := range d.Servers {
		c.Servers = append(c.Servers, s.String())
	}
	r, err := dns.New(c)
	if err != nil {
		return nil, err
	}
	return r, nil
}
