// Package pop3 serves an account's INBOX over POP3 (RFC 1939) with STLS, CAPA,
// SASL PLAIN, PIPELINING, RESP-CODES and UTF8. It knows no other mailbox, and
// removes mail only at QUIT.
package pop3

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"sync"
	"time"

	"github.com/stagecoach-mta/stagecoach/plugins/imap/admission"
	"github.com/stagecoach-mta/stagecoach/sdk"
	"github.com/stagecoach-mta/stagecoach/sdk/access"
)

// Server is one instance: one access block.
type Server struct {
	config Config
	host   access.Host
	gate   *admission.Gate
	logins *interval
	meters meters
	ctx    context.Context
	cancel context.CancelFunc

	mu       sync.Mutex
	sessions map[*session]struct{}
	// serving: Serve was called, or never will be; ended is closed when its last
	// connection has gone. leaving: clients are told to go; aborted: all are cut.
	serving, leaving, aborted bool
	ended                     chan struct{}
	connections               sync.WaitGroup
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
	for _, l := range host.Listeners {
		if l.ImplicitTLS && host.TLS == nil {
			return nil, errors.New("an implicit TLS listener needs a certificate: name a tls block")
		}
	}
	s := &Server{
		config: config,
		host:   *host,
		logins: newInterval(config.MinLoginInterval),
		meters: newMeters(metrics),
		gate: admission.New(admission.Limits{
			PerAddress: config.MaxAddressConnections, Total: config.MaxConnections,
			// RFC 1939 section 3: one session has the maildrop.
			PerAccount: 1,
			Delay:      config.LoginDelay, MaxDelay: config.MaxLoginDelay,
		}),
		sessions: map[*session]struct{}{},
		ended:    make(chan struct{}),
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s, nil
}

// Serve accepts connections until Drain was called or ctx ends, which closes
// them at once; it returns when all have ended.
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

// Drain stops accepting and lets the sessions go on: another process may have the
// listeners already, and a client that is cut off has nothing removed of what it
// asked to remove. When ctx's time is nearly over, who is left is told to go, between
// two commands, and with it everything is closed.
func (s *Server) Drain(ctx context.Context) error {
	s.stopAccepting()
	stay, cancel := staying(ctx)
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

// staying is how long clients may stay while the server drains: without a deadline
// not at all, else to the end but for the time that a command under way needs.
func staying(ctx context.Context) (context.Context, context.CancelFunc) {
	end, ok := ctx.Deadline()
	if !ok {
		end = time.Now()
	}
	return context.WithDeadline(ctx, end.Add(-min(2*time.Second, time.Until(end)/4)))
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
				_, _ = nc.Write([]byte("-ERR [SYS/TEMP] Too many connections\r\n"))
			}
			nc.Close()
			continue
		}
		ss := newSession(s, nc, source)
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

// register notes a session; false if all are being closed. One whose connection was
// accepted is served, even if the server began to drain meanwhile.
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
	ss.release()
	if ss.conn != nil {
		// TLS says that nothing follows; clients tell that from a cut.
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

// handshake begins TLS on a connection.
func (s *Server) handshake(nc net.Conn, deadline time.Time) (*tls.Conn, error) {
	ctx, cancel := context.WithDeadline(s.ctx, deadline)
	defer cancel()
	c := tls.Server(nc, s.host.TLS)
	return c, c.HandshakeContext(ctx)
}
