// Package connections is the life of an access plugin's server: it accepts
// connections, keeps what is open, and lets it end when the server drains. It
// speaks no protocol: a Session does.
package connections

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"runtime/debug"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"github.com/stagecoach-mta/stagecoach/plugins/imap/admission"
	"github.com/stagecoach-mta/stagecoach/sdk/access"
)

// Session is what talks over one connection.
type Session interface {
	// Serve runs it to its end, in a goroutine of its own. The connection is closed
	// behind it.
	Serve(implicitTLS bool)
	// Leave asks the client to go as soon as it waits. It may come before Serve, and
	// more than once, from any goroutine.
	Leave()
}

// Options of a Server.
type Options struct {
	Host access.Host
	Gate *admission.Gate
	// Full is what a client is told that is one too many, with its line end; under
	// implicit TLS it is told nothing.
	Full string
	// Begin makes the session of a connection that is let in.
	Begin func(nc net.Conn, source netip.Prefix) Session
	// Refused and Open count, if they are set: a client that is one too many; 1 for
	// a connection that is let in, -1 for one that has gone.
	Refused func()
	Open    func(n int64)
	// Ended is called, if it is set, when the last connection has gone.
	Ended func()
}

// Server accepts on the host's listeners. Its methods may be called concurrently.
type Server struct {
	o      Options
	ctx    context.Context
	cancel context.CancelFunc

	mu   sync.Mutex
	open map[net.Conn]Session
	// serving: Serve was called, or never will be; ended is closed when its last
	// connection has gone. leaving: clients are told to go; aborted: all are cut.
	serving, leaving, aborted bool
	ended                     chan struct{}
	connections               sync.WaitGroup
}

// New makes a server; Serve starts it.
func New(o Options) (*Server, error) {
	for _, l := range o.Host.Listeners {
		if l.ImplicitTLS && o.Host.TLS == nil {
			return nil, errors.New("an implicit TLS listener needs a certificate: name a tls block")
		}
	}
	s := &Server{o: o, open: map[net.Conn]Session{}, ended: make(chan struct{})}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s, nil
}

// Context ends when everything is cut, or has gone.
func (s *Server) Context() context.Context { return s.ctx }

// Cancel ends Context, for a test that serves a session by itself.
func (s *Server) Cancel() { s.cancel() }

func (s *Server) log() *zerolog.Logger { return &s.o.Host.Log }

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
	errs := make(chan error, len(s.o.Host.Listeners))
	for _, l := range s.o.Host.Listeners {
		accepting.Go(func() { errs <- s.accept(l) })
	}
	accepting.Wait()
	s.connections.Wait()
	s.cancel()
	if s.o.Ended != nil {
		s.o.Ended()
	}
	close(errs)
	var all []error
	for err := range errs {
		all = append(all, err)
	}
	return errors.Join(all...)
}

// Drain stops accepting and lets the sessions go on: another process may have the
// listeners already, and a client that is cut off at once has lost what it was about
// to do. When ctx's time is nearly over, who is left is told to go, in a moment
// between two commands, and with it everything is closed.
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
	for _, ss := range s.open {
		ss.Leave()
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
// not at all, else to the end but for the time that the last words and a command
// under way need.
func staying(ctx context.Context) (context.Context, context.CancelFunc) {
	end, ok := ctx.Deadline()
	if !ok {
		end = time.Now()
	}
	return context.WithDeadline(ctx, end.Add(-min(2*time.Second, time.Until(end)/4)))
}

func (s *Server) stopAccepting() {
	for _, l := range s.o.Host.Listeners {
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
	for nc := range s.open {
		nc.Close()
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
			s.log().Error().Err(err).Dur("pause", pause).Msg("cannot accept a connection")
			admission.Wait(s.ctx, pause)
			if s.ctx.Err() != nil {
				return nil
			}
			continue
		}
		pause = 0
		source := admission.Source(nc.RemoteAddr())
		if !s.o.Gate.Enter(source) {
			s.refuse(nc, l.ImplicitTLS)
			continue
		}
		ss := s.o.Begin(nc, source)
		if !s.register(nc, ss) {
			s.o.Gate.Leave(source)
			nc.Close()
			continue
		}
		go func() {
			defer s.gone(nc, source)
			ss.Serve(l.ImplicitTLS)
		}()
	}
}

func (s *Server) refuse(nc net.Conn, implicitTLS bool) {
	if s.o.Refused != nil {
		s.o.Refused()
	}
	s.log().Warn().Stringer("client", nc.RemoteAddr()).Msg("too many connections")
	if !implicitTLS {
		nc.SetWriteDeadline(time.Now().Add(time.Second))
		_, _ = nc.Write([]byte(s.o.Full))
	}
	nc.Close()
}

// register notes a connection; false if all are being closed. One that was accepted
// is served, even if the server began to drain meanwhile.
func (s *Server) register(nc net.Conn, ss Session) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.aborted {
		return false
	}
	s.connections.Add(1)
	s.open[nc] = ss
	if s.leaving {
		ss.Leave()
	}
	if s.o.Open != nil {
		s.o.Open(1)
	}
	return true
}

// gone is the end of a connection, also of one whose session panicked: the others
// go on.
func (s *Server) gone(nc net.Conn, source netip.Prefix) {
	if p := recover(); p != nil {
		s.log().Error().Interface("panic", p).Bytes("stack", debug.Stack()).Msg("session failed")
	}
	nc.Close()
	s.o.Gate.Leave(source)
	if s.o.Open != nil {
		s.o.Open(-1)
	}
	s.mu.Lock()
	delete(s.open, nc)
	s.mu.Unlock()
	s.connections.Done()
}
