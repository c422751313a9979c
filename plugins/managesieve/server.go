// Package managesieve lets users edit their Sieve scripts (RFC 5804). It checks
// scripts with the filter's own engine and keeps them in the folder that the filter
// reads. It runs none, and knows no mailbox.
package managesieve

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/stagecoach-mta/stagecoach/plugins/imap/admission"
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

// Server is one instance: one access block.
type Server struct {
	config    Config
	engine    engine.Config
	host      access.Host
	folder    *scripts.Folder
	gate      *admission.Gate
	meters    meters
	verifiers verifiers
	ctx       context.Context
	cancel    context.CancelFunc

	mu       sync.Mutex
	sessions map[*session]struct{}
	// serving: Serve was called, or never will be; ended is closed when its last
	// connection has gone. leaving: clients are told to go; aborted: all are cut.
	serving, leaving, aborted bool
	ended                     chan struct{}
	connections               sync.WaitGroup
}

var _ access.Server = (*Server)(nil)

func newServer(config Config, host *access.Host, metrics *sdk.Metrics) (*Server, error) {
	if err := config.Validate(); err != nil {
		return nil, err
	}
	if host.Directory == nil {
		return nil, errors.New("an access \"managesieve\" block needs auth")
	}
	for _, l := range host.Listeners {
		if l.ImplicitTLS && host.TLS == nil {
			return nil, errors.New("an implicit TLS listener needs a certificate: name a tls block")
		}
	}
	folder, err := scripts.Open(config.Scripts, scripts.Limits{Scripts: config.MaxScripts, Size: config.MaxScriptSize})
	if err != nil {
		return nil, err
	}
	s := &Server{
		config: config, host: *host, folder: folder, meters: newMeters(metrics), engine: engine.DefaultConfig(),
		verifiers: verifiers{directory: host.Directory},
		gate: admission.New(admission.Limits{
			PerAddress: config.MaxAddressConnections, Total: config.MaxConnections, Delay: config.LoginDelay, MaxDelay: config.MaxLoginDelay,
		}),
		sessions: map[*session]struct{}{}, ended: make(chan struct{}),
	}
	s.engine.MaxScript, s.engine.Without = config.MaxScriptSize, slices.Clone(config.Without)
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s, nil
}

// Serve accepts connections until Drain was called or ctx ends, which closes them
// at once; it returns when all have ended.
func (s *Server) Serve(ctx context.Context) error {
	s.mu.Lock()
	if s.serving {
		s.mu.Unlock()
		return nil
	}
	s.serving = true
	s.mu.Unlock()
	defer close(s.ended)
	stop := context.AfterFunc(ctx, s.abort)
	defer stop()
	var accepting sync.WaitGroup
	errs := make(chan error, len(s.host.Listeners))
	for _, l := range s.host.Listeners {
		accepting.Go(func() { errs <- s.accept(l) })
	}
	accepting.Wait()
	s.connections.Wait()
	s.cancel()
	close(errs)
	var all []error
	for err := range errs {
		all = append(all, err)
	}
	return errors.Join(all...)
}

// Drain stops accepting and lets the sessions go on; when ctx's time is nearly
// over, who is left is told to go between two commands.
func (s *Server) Drain(ctx context.Context) error {
	s.stopAccepting()
	end, ok := ctx.Deadline()
	if !ok {
		end = time.Now()
	}
	stay, cancel := context.WithDeadline(ctx, end.Add(-min(2*time.Second, time.Until(end)/4)))
	defer cancel()
	select {
	case <-s.ended:
		return nil
	case <-stay.Done():
	}
	s.mu.Lock()
	s.leaving = true
	for ss := range s.sessions {
		ss.leave()
	}
	s.mu.Unlock()
	select {
	case <-s.ended:
		return nil
	case <-ctx.Done():
		s.abort()
		<-s.ended
		return ctx.Err()
	}
}

func (s *Server) stopAccepting() {
	for _, l := range s.host.Listeners {
		l.Close()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.serving {
		s.serving = true
		close(s.ended)
	}
}

func (s *Server) abort() {
	s.stopAccepting()
	s.cancel()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.aborted = true
	for ss := range s.sessions {
		ss.raw.Close()
	}
}

func (s *Server) accept(l access.Listener) error {
	var pause time.Duration
	for {
		nc, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			// Out of file descriptors, most likely: sessions that end free some.
			pause = min(max(2*pause, 5*time.Millisecond), time.Second)
			s.host.Log.Error().Err(err).Dur("pause", pause).Msg("cannot accept a connection")
			admission.Wait(s.ctx, pause)
			if s.ctx.Err() != nil {
				return nil
			}
			continue
		}
		pause = 0
		source := admission.Source(nc.RemoteAddr())
		if !s.gate.Enter(source) {
			s.meters.refused.Add(1)
			s.host.Log.Warn().Stringer("client", nc.RemoteAddr()).Msg("too many connections")
			if !l.ImplicitTLS {
				nc.SetWriteDeadline(time.Now().Add(time.Second))
				_, _ = nc.Write([]byte("BYE (TRYLATER) \"Too many connections\"\r\n"))
			}
			nc.Close()
			continue
		}
		ss := &session{s: s, raw: nc, source: source, begun: time.Now()}
		if !s.register(ss) {
			s.gate.Leave(source)
			nc.Close()
			continue
		}
		go func() {
			defer s.gone(ss)
			ss.serve(l.ImplicitTLS)
		}()
	}
}

func (s *Server) register(ss *session) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.aborted {
		return false
	}
	s.connections.Add(1)
	s.sessions[ss] = struct{}{}
	if s.leaving {
		ss.leave()
	}
	s.meters.connections.Add(1)
	return true
}

func (s *Server) gone(ss *session) {
	if p := recover(); p != nil {
		s.host.Log.Error().Interface("panic", p).Msg("session failed")
	}
	if ss.conn != nil {
		ss.conn.Close()
	}
	ss.raw.Close()
	s.gate.Leave(ss.source)
	s.meters.connections.Add(-1)
	s.mu.Lock()
	delete(s.sessions, ss)
	s.mu.Unlock()
	s.connections.Done()
}

func (s *Server) handshake(nc net.Conn, deadline time.Time) (*tls.Conn, error) {
	ctx, cancel := context.WithDeadline(s.ctx, deadline)
	defer cancel()
	c := tls.Server(nc, s.host.TLS)
	return c, c.HandshakeContext(ctx)
}
