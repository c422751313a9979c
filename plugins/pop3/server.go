// Package pop3 serves an account's INBOX over POP3 (RFC 1939) with STLS, CAPA,
// SASL PLAIN, PIPELINING, RESP-CODES and UTF8. It knows no other mailbox, and
// removes mail only at QUIT.
package pop3

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/netip"
	"time"

	"github.com/stagecoach-mta/stagecoach/plugins/imap/admission"
	"github.com/stagecoach-mta/stagecoach/plugins/imap/connections"
	"github.com/stagecoach-mta/stagecoach/plugins/imap/login"
	"github.com/stagecoach-mta/stagecoach/sdk"
	"github.com/stagecoach-mta/stagecoach/sdk/access"
)

// Server is the plugin's access.Server.
type Server struct {
	*connections.Server
	config Config
	host   access.Host
	gate   *admission.Gate
	logins *interval
	meters meters
	bearer login.Bearer
	ctx    context.Context
}

var _ access.Server = (*Server)(nil)

// New makes a server of a valid configuration; Serve starts it.
func New(config Config, host *access.Host) (*Server, error) {
	return newServer(config, host, new(sdk.Metrics))
}

func newServer(config Config, host *access.Host, metrics *sdk.Metrics) (*Server, error) {
	if err := config.Validate(); err != nil {
		return nil, err
	}
	if host.Storage == nil || host.Directory == nil {
		return nil, errors.New("an access \"pop3\" block needs storage and auth")
	}
	s := &Server{
		config: config,
		host:   *host,
		logins: newInterval(config.MinLoginInterval),
		meters: newMeters(metrics),
		bearer: login.Bearer{Directory: host.Directory},
		gate: admission.New(admission.Limits{
			PerAddress: config.MaxAddressConnections, Total: config.MaxConnections,
			// RFC 1939 section 3: one session has the maildrop.
			PerAccount: 1,
			Delay:      config.LoginDelay, MaxDelay: config.MaxLoginDelay,
		}),
	}
	var err error
	s.Server, err = connections.New(connections.Options{
		Host: s.host, Gate: s.gate, Full: "-ERR [SYS/TEMP] Too many connections\r\n",
		Begin:   func(nc net.Conn, source netip.Prefix) connections.Session { return newSession(s, nc, source) },
		Refused: func() { s.meters.refused.Add(1) },
		Open:    s.meters.connections.Add,
	})
	if err != nil {
		return nil, err
	}
	s.ctx = s.Context()
	return s, nil
}

// handshake begins TLS on a connection.
func (s *Server) handshake(nc net.Conn, deadline time.Time) (*tls.Conn, error) {
	ctx, cancel := context.WithDeadline(s.ctx, deadline)
	defer cancel()
	c := tls.Server(nc, s.host.TLS)
	return c, c.HandshakeContext(ctx)
}
