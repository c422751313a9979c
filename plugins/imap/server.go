// Package imap serves a storage's mailboxes over IMAP4rev1 and IMAP4rev2
// (RFC 3501, RFC 9051) and their extensions. It keeps no mail and parses none:
// envelopes, structures and places in the message come from the storage, as it
// rendered them. go-imap's client is its test peer, and its types name replies.
package imap

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"

	"github.com/stagecoach-mta/stagecoach/plugins/imap/admission"
	"github.com/stagecoach-mta/stagecoach/sdk/access"
)

const inbox = "INBOX"

// Server is one instance: one access block.
type Server struct {
	config Config
	host   access.Host
	gate   *admission.Gate
	feeds  *feeds
	// recents and verifiers are shared by all sessions.
	recents recents
	// progressEvery is the constant of that name, but in tests.
	progressEvery time.Duration
	verifiers     verifiers

	ctx    context.Context
	cancel context.CancelFunc
	mu     sync.Mutex
	conns  map[*conn]struct{}
	// serving: Serve was called, or never will be; ended is closed when its last
	// connection has gone. leaving: clients are told to go; aborted: all are cut.
	serving, leaving, aborted bool
	ended                     chan struct{}
	connections               sync.WaitGroup
}

var _ access.Server = (*Server)(nil)

// New makes a server of a valid configuration; Serve starts it.
func New(config Config, host access.Host) (*Server, error) {
	if err := config.Validate(); err != nil {
		return nil, err
	}
	if host.Storage == nil || host.Directory == nil {
		return nil, errors.New("an access \"imap\" block needs storage and auth")
	}
	for _, l := range host.Listeners {
		if l.ImplicitTLS && host.TLS == nil {
			return nil, errors.New("an implicit TLS listener needs a certificate: name a tls block")
		}
	}
	s := &Server{
		config: config,
		host:   host,
		gate: admission.New(admission.Limits{
			PerAddress: config.MaxAddressConnections, PerAccount: config.MaxUserConnections, Total: config.MaxConnections,
			Delay: config.LoginDelay, MaxDelay: config.MaxLoginDelay,
		}),
		feeds:         newFeeds(host.Log),
		verifiers:     verifiers{directory: host.Directory},
		progressEvery: progressEvery,
		conns:         map[*conn]struct{}{},
		ended:         make(chan struct{}),
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
	s.feeds.wait()
	s.cancel()
	close(errs)
	var all []error
	for err := range errs {
		all = append(all, err)
	}
	return errors.Join(all...)
}

// Drain stops accepting and lets the sessions go on: another process may have
// the listeners already, and a client that is cut off at once has lost what it
// was about to do. When ctx's time is nearly over, who is left is told to go, in
// a moment between two commands, and with it everything is closed.
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
	for c := range s.conns {
		c.hangUp(goingAway)
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

const goingAway = "Server is going away, connect again"

// staying is how long clients may stay while the server drains: without a
// deadline not at all, else to the end but for the time that the last words and
// a command under way need.
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

// abort closes everything.
func (s *Server) abort() {
	s.stopAccepting()
	s.cancel()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.aborted = true
	for c := range s.conns {
		c.raw.Close()
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
			s.host.Log.Warn().Stringer("client", nc.RemoteAddr()).Msg("too many connections")
			if !l.ImplicitTLS {
				nc.SetWriteDeadline(time.Now().Add(time.Second))
				_, _ = nc.Write([]byte("* BYE Too many connections\r\n"))
			}
			nc.Close()
			continue
		}
		c := newConn(s, nc, source)
		if !s.register(c) {
			nc.Close()
			s.gate.Leave(source)
			continue
		}
		go func() {
			defer s.gone(c)
			s.newSession(c).serve(l.ImplicitTLS)
		}()
	}
}

// register notes a connection; false if all are being closed. One that was
// accepted is served, even if the server began to drain meanwhile.
func (s *Server) register(c *conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.aborted {
		return false
	}
	s.connections.Add(1)
	s.conns[c] = struct{}{}
	if s.leaving {
		c.hangUp(goingAway)
	}
	return true
}

// gone is the end of a connection.
func (s *Server) gone(c *conn) {
	s.gate.Leave(c.source)
	s.mu.Lock()
	delete(s.conns, c)
	s.mu.Unlock()
	s.connections.Done()
}
