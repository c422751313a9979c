package pipeline

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"reflect"
	"strings"
	"sync"
	"syscall"

	"github.com/stagecoach-mta/stagecoach/core/config"
	"github.com/stagecoach-mta/stagecoach/core/receive"
	"github.com/stagecoach-mta/stagecoach/core/smtp/server"
)

// sockets are the bound addresses of the receive blocks. A socket is bound once
// and stays open over reloads; each server works on a duplicate of its own, so
// that an old one can stop accepting while the new one has begun.
type sockets struct {
	mu    sync.Mutex
	bound map[string]net.Listener
}

// ListenError is an address that cannot be had.
type ListenError struct {
	Listen config.Listen
	Err    error
}

func (e *ListenError) Error() string {
	return fmt.Sprintf("cannot listen on %s: %s", e.Listen.Address, e.reason())
}

func (e *ListenError) Unwrap() error { return e.Err }

// reason is the system's word alone: the rest names the address again.
func (e *ListenError) reason() string {
	var number syscall.Errno
	if errors.As(e.Err, &number) {
		return number.Error()
	}
	return e.Err.Error()
}

// Diagnostic says it at the address in the configuration.
func (e *ListenError) Diagnostic(cfg *config.Config) config.Diagnostics {
	remedy := ""
	switch {
	case errors.Is(e.Err, syscall.EADDRINUSE), errors.Is(e.Err, errServed):
		remedy = "Stop what listens there (`ss -ltnp` shows it), or write another address."
	case errors.Is(e.Err, syscall.EACCES):
		remedy = "Ports below 1024 want root or the capability CAP_NET_BIND_SERVICE; a socket file wants a folder that the server may write to."
	case errors.Is(e.Err, syscall.EADDRNOTAVAIL):
		remedy = "Write an address of this machine (`ip address` shows them), or the port alone for all of them."
	}
	return cfg.Diagnose(e.Listen.Range, capital(e.Error()), remedy)
}

func capital(s string) string { return strings.ToUpper(s[:1]) + s[1:] }

var errServed = errors.New("another process serves this socket")

func key(l config.Listen) string { return l.Network + " " + l.Address }

// bind opens an address unless it is open, and tells whether it did.
func (s *sockets) bind(l config.Listen) (fresh bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.bound[key(l)] != nil {
		return false, nil
	}
	if l.Network == "unix" {
		// A socket file of a process that is gone: nobody listens there, or the
		// bind below would be somebody else's address.
		if c, err := net.Dial("unix", l.Address); err == nil {
			c.Close()
			return false, &ListenError{l, errServed}
		}
		_ = os.Remove(l.Address)
	}
	ln, err := net.Listen(l.Network, l.Address)
	if err != nil {
		return false, &ListenError{l, err}
	}
	if s.bound == nil {
		s.bound = make(map[string]net.Listener)
	}
	s.bound[key(l)] = ln
	return true, nil
}

// duplicate gives a listener on the same socket that can be closed by itself.
func (s *sockets) duplicate(l config.Listen) (net.Listener, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	filer, ok := s.bound[key(l)].(interface{ File() (*os.File, error) })
	if !ok {
		return nil, fmt.Errorf("%s is not bound", l.Address)
	}
	f, err := filer.File()
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return net.FileListener(f)
}

// close ends what keep does not name; nil: everything.
func (s *sockets) close(keep map[string]bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for k, l := range s.bound {
		if !keep[k] {
			l.Close()
			delete(s.bound, k)
		}
	}
}

// addr is where a listen address really is (a port 0 was chosen by the system).
func (s *sockets) addr(l config.Listen) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if ln := s.bound[key(l)]; ln != nil {
		return ln.Addr().String()
	}
	return l.Address
}

// front is one receive block at work: its backend, and a server for its plain
// and one for its implicit-TLS addresses.
type front struct {
	block   *config.Receive
	backend *receive.Backend
	tls     *certificate
	servers []*served
}

type served struct {
	cfg    server.Config
	listen []config.Listen
	server *server.Server
}

// wire is what the engine is told; two that are equal need no new server.
func wire(b *config.Receive, cert *certificate, implicit bool) server.Config {
	c := server.DefaultConfig()
	c.Hostname, c.LMTP = b.Hostname, b.Protocol == "lmtp"
	c.ImplicitTLS, c.RequireTLS = implicit, b.RequireTLS
	if b.Auth != nil {
		c.Auth = receive.Mechanisms
	}
	c.RequireAuth, c.AllowInsecureAuth = b.RequireAuth, b.InsecureAuth
	c.MaxSize, c.MaxRecipients, c.MaxErrors = b.MaxSize, b.MaxRecipients, b.MaxErrors
	c.MaxRefused, c.MaxTransactionsPerConn = b.MaxRefused, b.MaxMessages
	c.MaxLine, c.MaxBodyLine = b.MaxLine, b.MaxBodyLine
	c.MaxConnections, c.MaxConnectionsPerIP = b.MaxConnections, b.MaxConnectionsPerIP
	c.CommandTimeout, c.DataTimeout, c.MessageTimeout = b.CommandTimeout, b.DataTimeout, b.MessageTimeout
	c.TolerateBareLF, c.ProxyProtocolFrom, c.XClientFrom = b.TolerateBareLF, b.ProxyProtocol, b.XClient
	c.EnablePriority, c.MinDeliverBy = b.Priority != config.PriorityOff, b.MinDeliverBy
	c.MaxHold = b.FutureRelease
	if cert != nil {
		c.TLS = cert.config()
	}
	return c
}

// same tells whether a server with a would do for b: the certificate is looked
// up at each handshake, so only its presence counts.
func same(a, b server.Config) bool {
	if (a.TLS == nil) != (b.TLS == nil) {
		return false
	}
	a.TLS, b.TLS = nil, nil
	b.Log = a.Log
	return reflect.DeepEqual(a, b)
}

// serve starts the servers of a block, taking over those of old that still fit.
// It returns the ones of old that are to be drained.
func (p *Pipeline) serve(f, old *front) (drain []*served, err error) {
	groups := map[bool][]config.Listen{}
	for _, l := range f.block.Listen {
		groups[l.ImplicitTLS] = append(groups[l.ImplicitTLS], l)
	}
	var olds []*served
	if old != nil {
		olds = old.servers
	}
	for _, implicit := range []bool{false, true} {
		ls := groups[implicit]
		if len(ls) == 0 {
			continue
		}
		cfg := wire(f.block, f.tls, implicit)
		if s := fitting(olds, cfg, ls); s != nil {
			f.servers = append(f.servers, s)
			continue
		}
		cfg.Log = p.Log.With().Str("listener", f.block.Ref).Logger()
		s := &served{cfg: cfg, listen: ls, server: server.New(cfg, p.meters.Backend(f.block.Ref, f.backend))}
		for _, l := range ls {
			ln, err := p.sockets.duplicate(l)
			if err != nil {
				return nil, err
			}
			p.running.Go(func() {
				if err := s.server.Serve(server.Labeled{Listener: ln, Label: f.block.Ref}); err != nil && err != server.ErrClosed {
					p.Log.Error().Err(err).Str("listener", f.block.Ref).Msg("a listener ended")
				}
			})
		}
		f.servers = append(f.servers, s)
	}
	for _, s := range olds {
		if !contains(f.servers, s) {
			drain = append(drain, s)
		}
	}
	return drain, nil
}

func fitting(olds []*served, cfg server.Config, ls []config.Listen) *served {
	for _, s := range olds {
		if !same(s.cfg, cfg) || len(s.listen) != len(ls) {
			continue
		}
		fits := true
		for i := range ls {
			fits = fits && key(s.listen[i]) == key(ls[i])
		}
		if fits {
			return s
		}
	}
	return nil
}

func contains(list []*served, s *served) bool {
	for _, x := range list {
		if x == s {
			return true
		}
	}
	return false
}

// drainServers lets sessions end their transaction, in the background.
func (p *Pipeline) drainServers(list []*served) {
	for _, s := range list {
		p.running.Go(func() {
			ctx, cancel := context.WithTimeout(context.Background(), drainTimeout)
			defer cancel()
			if err := s.server.Shutdown(ctx); err != nil {
				p.Log.Warn().Err(err).Msg("sessions were cut off")
			}
		})
	}
}

// tlsMinimum is RFC 8996's: nothing below TLS 1.2.
const tlsMinimum = tls.VersionTLS12
