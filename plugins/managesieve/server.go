// Package managesieve lets users edit their Sieve scripts (RFC 5804). It checks
// scripts with the filter's own engine and keeps them where the filter reads them: in
// the storage, or in a folder. It runs none, and knows no mailbox.
package managesieve

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/stagecoach-mta/stagecoach/plugins/imap/admission"
	"github.com/stagecoach-mta/stagecoach/plugins/imap/connections"
	"github.com/stagecoach-mta/stagecoach/plugins/imap/login"
	"github.com/stagecoach-mta/stagecoach/plugins/sieve/engine"
	"github.com/stagecoach-mta/stagecoach/plugins/sieve/scripts"
	"github.com/stagecoach-mta/stagecoach/sdk"
	"github.com/stagecoach-mta/stagecoach/sdk/access"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// Plugin describes the ManageSieve access plugin.
func Plugin() sdk.Plugin {
	return sdk.Plugin{
		Name: "managesieve", Version: "1.0.0", Summary: "users' Sieve scripts over ManageSieve",
		Config: DefaultConfig(), Needs: &v1.Needs{WritePaths: []string{"{scripts}"}},
		Access: func(_ context.Context, in *sdk.Instance) (access.Server, error) {
			return newServer(*in.Config.(*Config), in.Access, in.Metrics)
		},
	}
}

// Server is the plugin's access.Server.
type Server struct {
	*connections.Server
	config  Config
	engine  engine.Config
	host    access.Host
	scripts scripts.Store
	gate    *admission.Gate
	meters  meters
	scram   login.SCRAM
	ctx     context.Context
}

var _ access.Server = (*Server)(nil)

func newServer(config Config, host *access.Host, metrics *sdk.Metrics) (*Server, error) {
	if err := config.Validate(); err != nil {
		return nil, err
	}
	if host.Directory == nil {
		return nil, errors.New("an access \"managesieve\" block needs auth")
	}
	store, err := openScripts(&config, host)
	if err != nil {
		return nil, err
	}
	s := &Server{
		config: config, host: *host, scripts: store, meters: newMeters(metrics), engine: engine.DefaultConfig(),
		scram: login.SCRAM{Directory: host.Directory},
		gate: admission.New(admission.Limits{
			PerAddress: config.MaxAddressConnections, Total: config.MaxConnections, Delay: config.LoginDelay, MaxDelay: config.MaxLoginDelay,
		}),
	}
	s.engine.MaxScript, s.engine.Without = config.MaxScriptSize, slices.Clone(config.Without)
	s.Server, err = connections.New(connections.Options{
		Host: s.host, Gate: s.gate, Full: "BYE (TRYLATER) \"Too many connections\"\r\n",
		Begin: func(nc net.Conn, source netip.Prefix) connections.Session {
			return &session{s: s, raw: nc, source: source, begun: time.Now()}
		},
		Refused: func() { s.meters.refused.Add(1) },
		Open:    s.meters.connections.Add,
	})
	if err != nil {
		return nil, err
	}
	s.ctx = s.Context()
	return s, nil
}

func openScripts(config *Config, host *access.Host) (scripts.Store, error) {
	limits := scripts.Limits{Scripts: config.MaxScripts, Size: config.MaxScriptSize}
	if config.Scripts != "" {
		return scripts.Open(config.Scripts, limits)
	}
	if host.Storage == nil {
		return nil, errors.New("an access \"managesieve\" block needs a storage, or a folder of scripts")
	}
	return scripts.In(host.Storage, limits, config.Global), nil
}

func (s *Server) handshake(nc net.Conn, deadline time.Time) (*tls.Conn, error) {
	ctx, cancel := context.WithDeadline(s.ctx, deadline)
	defer cancel()
	c := tls.Server(nc, s.host.TLS)
	return c, c.HandshakeContext(ctx)
}
