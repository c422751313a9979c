package server

import (
	"bytes"
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"
)

// tlsServer speaks TLS from the first octet.
func tlsServer(t *testing.T, change func(*Config)) (*testServer, *tls.Config) {
	cfg := testConfig()
	serverTLS, clientTLS := testTLS(t)
	cfg.TLS, cfg.ImplicitTLS = serverTLS, true
	if change != nil {
		change(&cfg)
	}
	return serve(t, cfg), clientTLS
}

// gather holds back what is written until the first read.
type gather struct {
	net.Conn
	held bytes.Buffer
}

func (g *gather) Write(b []byte) (int, error) { return g.held.Write(b) }

func (g *gather) Read(b []byte) (int, error) {
	if g.held.Len() > 0 {
		if _, err := g.held.WriteTo(g.Conn); err != nil {
			return 0, err
		}
	}
	return g.Conn.Read(b)
}

// The PROXY header stands before the handshake, and both may come in one packet.
func TestProxyHeaderBeforeTLS(t *testing.T) {
	s, clientTLS := tlsServer(t, func(c *Config) {
		c.ProxyProtocolFrom = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	})
	nc, err := net.Dial("tcp", s.addr)
	must(t, err)
	defer nc.Close()
	g := &gather{Conn: nc}
	io.WriteString(g, "PROXY TCP6 2001:db8::7 2001:db8::1 4711 465\r\n")
	w := newWire(t, tls.Client(g, clientTLS))
	w.expect("", "220 mx.ryan.example")
	w.expect("EHLO hanks.example\r\n"+envelope+"DATA\r\n", "250", "250", "250", "354")
	w.expect("hi\r\n.\r\nQUIT\r\n", "250", "221")
	w.expectEnd()
	if got := s.all("CONNECT"); len(got) != 1 || got[0] != "CONNECT 2001:db8::7" {
		t.Error(got)
	}
}

func TestHandshakeTimeout(t *testing.T) {
	s, _ := tlsServer(t, func(c *Config) { c.HandshakeTimeout = 20 * time.Millisecond })
	w := s.dial(t)
	w.expectEnd()

	cfg := testConfig()
	cfg.HandshakeTimeout = 20 * time.Millisecond
	cfg.ProxyProtocolFrom = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	s = serve(t, cfg)
	w = s.dial(t)
	w.expectEnd()
	if got := s.take(); len(got) > 0 {
		t.Error(got)
	}
}

func TestShutdownUnderTLS(t *testing.T) {
	s, clientTLS := tlsServer(t, nil)
	dial := func() *wire {
		nc, err := tls.Dial("tcp", s.addr, clientTLS)
		must(t, err)
		t.Cleanup(func() { nc.Close() })
		w := newWire(t, nc)
		w.expect("", "220")
		w.expect("EHLO hanks.example\r\n", "250")
		return w
	}
	idle, busy := dial(), dial()
	busy.expect(envelope+"DATA\r\n", "250", "250", "354")
	busy.send("half\r\n")
	ended := make(chan error, 1)
	go func() { ended <- s.Shutdown(context.Background()) }()
	idle.expect("", "421 4.3.2")
	idle.expectEnd()
	busy.expect("other half\r\n.\r\n", "250 2.0.0", "421 4.3.2")
	busy.expectEnd()
	must(t, <-ended)
}

// A refusal on the grounds of the address costs no handshake.
func TestTooManyConnectionsUnderTLS(t *testing.T) {
	s, clientTLS := tlsServer(t, func(c *Config) { c.MaxConnectionsPerIP = 1 })
	nc, err := tls.Dial("tcp", s.addr, clientTLS)
	must(t, err)
	defer nc.Close()
	w := newWire(t, nc)
	w.expect("", "220")
	s.dial(t).expectEnd()
}
