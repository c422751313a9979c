package pipeline

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
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
		AllowLoopback: h.AllowLoopback, Resolver: resolver, Log: log.With().Str("deliver", d.Ref).Logger(),
		Timeouts: client.Timeouts{Connect: h.ConnectTimeout, Mail: h.CommandTimeout, Rcpt: h.CommandTimeout, DataDone: h.DataTimeout},
	}
	if o.LocalName == "" {
		o.LocalName = cfg.Hostname
	}
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
