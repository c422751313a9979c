// Package server is the wire engine of the SMTP and LMTP server (RFC 5321, RFC
// 2033): connections, lines, commands, the bytes of a message, replies, limits.
//
// It is not a policy: who may send what to whom is the [Session]'s to say, and
// where a message goes is nothing it knows of. go-smtp's types are its vocabulary;
// none of go-smtp's code runs in it.
package server

import (
	"context"
	"errors"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/emersion/go-smtp"
)

// ErrClosed is what Serve returns after Shutdown or Close.
var ErrClosed = errors.New("smtp server closed")

// Server serves connections of any number of listeners with one Config.
type Server struct {
	Config
	Backend Backend

	ctx      context.Context
	cancel   context.CancelFunc
	draining atomic.Bool
	serial   atomic.Uint64 // of connections

	mu        sync.Mutex
	closed    bool
	listeners map[net.Listener]struct{}
	conns     map[*Conn]struct{}
	perIP     ipCount
	running   sync.WaitGroup // connections
}

// New returns a Server that serves nothing yet.
func New(cfg Config, backend Backend) *Server {
	s := &Server{
		Config:    cfg.withDefaults(),
		Backend:   backend,
		listeners: map[net.Listener]struct{}{},
		conns:     map[*Conn]struct{}{},
		perIP:     ipCount{},
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	// A process that starts anew should not give its predecessor's names again.
	s.serial.Store(uint64(time.Now().UnixMicro()))
	return s
}

// Labeled gives a listener the name by which [Conn.Listener] knows it. Without
// it the name is the listener's address.
type Labeled struct {
	net.Listener
	Label string
}

// Serve accepts connections of l until Shutdown or Close, which close l, and then
// returns ErrClosed. Any other error is l's.
func (s *Server) Serve(l net.Listener) error {
	label := ""
	if named, ok := l.(Labeled); ok {
		label = named.Label
	} else {
		label = l.Addr().String()
	}
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		l.Close()
		return ErrClosed
	}
	s.listeners[l] = struct{}{}
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.listeners, l)
		s.mu.Unlock()
	}()
	var pause time.Duration
	for {
		nc, err := l.Accept()
		if err != nil {
			if s.stopping() {
				return ErrClosed
			}
			// Out of file descriptors, or the client has gone again: not the listener's end.
			if te, ok := err.(interface{ Temporary() bool }); ok && te.Temporary() {
				pause = min(max(2*pause, 5*time.Millisecond), time.Second)
				s.Log.Warn().Err(err).Dur("pause", pause).Msg("accept failed")
				select {
				case <-time.After(pause):
				case <-s.ctx.Done():
				}
				continue
			}
			return err
		}
		pause = 0
		s.start(nc, label)
	}
}

func (s *Server) stopping() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closed
}

// start runs a connection, or turns it away.
func (s *Server) start(nc net.Conn, label string) {
	c := newConn(s, nc, label)
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		nc.Close()
		return
	}
	full := s.MaxConnections > 0 && len(s.conns) >= s.MaxConnections
	if !full {
		s.conns[c] = struct{}{}
		s.running.Add(1)
	}
	s.mu.Unlock()
	if full {
		s.Log.Warn().Stringer("client", nc.RemoteAddr()).Int("limit", s.MaxConnections).Msg("too many connections")
		if !s.ImplicitTLS {
			// A fresh socket takes these octets without waiting, and the deadline makes sure.
			nc.SetWriteDeadline(time.Now().Add(100 * time.Millisecond))
			_, _ = nc.Write(appendReply(nil, c.hostReply(421, smtp.EnhancedCode{4, 3, 2}, "Too many connections, try again later"), false))
		}
		nc.Close()
		return
	}
	go c.serve()
}

// done is the end of a connection.
func (s *Server) done(c *Conn) {
	s.mu.Lock()
	delete(s.conns, c)
	s.mu.Unlock()
	s.running.Done()
}

// Shutdown stops accepting, sends 421 4.3.2 to every client without a
// transaction, lets the others end theirs and then sends them 421 too. When ctx
// ends first it closes what is left and returns ctx's error.
func (s *Server) Shutdown(ctx context.Context) error {
	s.draining.Store(true)
	s.closeListeners()
	s.mu.Lock()
	for c := range s.conns {
		// Ends a wait for input; fill knows why.
		c.raw.SetReadDeadline(time.Unix(1, 0))
	}
	s.mu.Unlock()
	empty := make(chan struct{})
	go func() {
		s.running.Wait()
		close(empty)
	}()
	select {
	case <-empty:
		s.cancel()
		return nil
	case <-ctx.Done():
		s.Close()
		<-empty
		return ctx.Err()
	}
}

// Close ends everything at once. It waits for nothing.
func (s *Server) Close() error {
	s.closeListeners()
	s.cancel()
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		c.raw.Close()
	}
	return nil
}

func (s *Server) closeListeners() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	for l := range s.listeners {
		l.Close()
	}
}

// nextID names a connection in the log.
func (s *Server) nextID() string { return strconv.FormatUint(s.serial.Add(1), 36) }
