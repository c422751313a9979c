// Package imap serves a storage's mailboxes over IMAP4rev1 and IMAP4rev2
// (RFC 3501, RFC 9051). It keeps no mail and parses none: envelopes, structures
// and places in the message come from the storage, as it rendered them.
//
// The command parser is go-imap's imapserver, behind a guard (conn) that frames
// commands and literals. What does not know imapserver (view, section, search,
// flags, feed, match) is kept apart from what does (session and its files).
package imap

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"sync"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapserver"

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

	// Two parsers: what a client may do in the clear differs from what it may
	// under TLS, and imapserver looks for a *tls.Conn, which it never sees here.
	clear, secured     *imapserver.Server
	toClear, toSecured *handover
	ctx                context.Context
	cancel             context.CancelFunc
	mu                 sync.Mutex
	conns              map[*conn]struct{}
	// serving: Serve was called, or never will be; ended is closed when its last
	// connection has gone. leaving: clients are told to go; aborted: all are cut.
	serving, leaving, aborted bool
	ended                     chan struct{}
	connections, parsers      sync.WaitGroup
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
		feeds:     newFeeds(host.Log),
		toClear:   newHandover(),
		toSecured: newHandover(),
		conns:     map[*conn]struct{}{},
		ended:     make(chan struct{}),
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	options := imapserver.Options{
		NewSession: s.newSession,
		Caps: imap.CapSet{
			imap.CapIMAP4rev1: {}, imap.CapIMAP4rev2: {}, imap.CapNamespace: {}, imap.CapUIDPlus: {},
			imap.CapESearch: {}, imap.CapListExtended: {}, imap.CapListStatus: {}, imap.CapMove: {},
			imap.CapStatusSize: {}, imap.CapBinary: {}, imap.CapChildren: {}, imap.CapSpecialUse: {},
			imap.CapCreateSpecialUse: {},
		},
		Logger:       logger{s},
		TLSConfig:    host.TLS,
		InsecureAuth: host.InsecureAuth,
	}
	s.clear = imapserver.New(&options)
	options.TLSConfig, options.InsecureAuth = nil, true
	s.secured = imapserver.New(&options)
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
	s.parsers.Go(func() { _ = s.clear.Serve(s.toClear) })
	s.parsers.Go(func() { _ = s.secured.Serve(s.toSecured) })
	var accepting sync.WaitGroup
	errs := make(chan error, len(s.host.Listeners))
	for _, l := range s.host.Listeners {
		accepting.Go(func() { errs <- s.accept(l) })
	}
	accepting.Wait()
	s.connections.Wait()
	s.toClear.Close()
	s.toSecured.Close()
	s.parsers.Wait()
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
		c.Conn.Close()
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
		s.connections.Add(1)
		c := newConn(s, nc, l.ImplicitTLS, source)
		if !s.register(c) {
			c.Conn.Close()
			s.gone(c)
			continue
		}
		if l.ImplicitTLS {
			go s.handshake(c)
			continue
		}
		s.toClear.give(c)
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
	s.conns[c] = struct{}{}
	if s.leaving {
		c.hangUp(goingAway)
	}
	return true
}

func (s *Server) unregister(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
}

// gone is the end of a connection.
func (s *Server) gone(c *conn) {
	s.gate.Leave(c.source)
	s.connections.Done()
}

// finished is called when the parser has closed a connection: it is over, or it
// goes on under TLS.
func (s *Server) finished(c *conn) {
	if c.upgrade != "" {
		go s.handshake(c)
		return
	}
	c.Conn.Close()
	s.unregister(c)
	s.gone(c)
}

// handshake begins TLS on a connection and gives it to the parser for those.
func (s *Server) handshake(c *conn) {
	ctx, cancel := context.WithDeadline(s.ctx, c.begun.Add(s.config.LoginTimeout))
	defer cancel()
	if c.upgrade != "" {
		c.output.untagged(c.upgrade + " OK Begin TLS negotiation now\r\n")
		c.output.flush()
	}
	raw := c.Conn
	raw.SetDeadline(time.Time{})
	under := tls.Server(raw, s.host.TLS)
	err := under.HandshakeContext(ctx)
	next := newConn(s, under, true, c.source)
	next.begun = c.begun
	next.output.silent = c.upgrade != ""
	s.unregister(c)
	if err != nil || !s.register(next) {
		s.host.Log.Debug().Err(err).Stringer("client", raw.RemoteAddr()).Msg("no TLS")
		raw.Close()
		s.gone(c)
		return
	}
	s.toSecured.give(next)
}

// handover is the listener from which a parser takes its connections.
type handover struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func newHandover() *handover {
	return &handover{conns: make(chan net.Conn), done: make(chan struct{})}
}

func (h *handover) give(c *conn) {
	select {
	case h.conns <- c:
	case <-h.done:
		c.Close()
	}
}

// Accept implements net.Listener.
func (h *handover) Accept() (net.Conn, error) {
	select {
	case c := <-h.conns:
		return c, nil
	case <-h.done:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (h *handover) Close() error {
	h.once.Do(func() { close(h.done) })
	return nil
}

// Addr implements net.Listener.
func (h *handover) Addr() net.Addr { return &net.TCPAddr{} }

// logger is imapserver's way into the log: what it cannot put into a reply.
type logger struct{ s *Server }

func (l logger) Printf(format string, args ...any) {
	l.s.host.Log.Debug().Msgf("parser: "+format, args...)
}
