package connections_test

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"go.uber.org/goleak"

	"github.com/stagecoach-mta/stagecoach/plugins/imap/admission"
	"github.com/stagecoach-mta/stagecoach/plugins/imap/connections"
	"github.com/stagecoach-mta/stagecoach/sdk/access"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// echo is a session that says each line again; "panic" makes it fail.
type echo struct {
	nc   net.Conn
	left atomic.Bool
}

func (e *echo) Serve(bool) {
	b := make([]byte, 64)
	for {
		n, err := e.nc.Read(b)
		if err != nil {
			if e.left.Load() {
				e.nc.SetWriteDeadline(time.Now().Add(time.Second))
				_, _ = io.WriteString(e.nc, "bye\n")
			}
			return
		}
		if string(b[:n]) == "panic\n" {
			panic("as asked")
		}
		_, _ = e.nc.Write(b[:n])
	}
}

func (e *echo) Leave() {
	e.left.Store(true)
	e.nc.SetReadDeadline(time.Unix(1, 0))
}

type site struct {
	*connections.Server
	t                        *testing.T
	addr                     string
	served                   chan error
	open, refused, everEnded atomic.Int64
	log                      strings.Builder
}

func start(t *testing.T, limits admission.Limits) *site {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &site{t: t, addr: l.Addr().String(), served: make(chan error, 1)}
	s.Server, err = connections.New(connections.Options{
		Host: access.Host{Listeners: []access.Listener{{Listener: l}}, Log: zerolog.New(&s.log)},
		Gate: admission.New(limits), Full: "full\n",
		Begin:   func(nc net.Conn, _ netip.Prefix) connections.Session { return &echo{nc: nc} },
		Refused: func() { s.refused.Add(1) },
		Open:    func(n int64) { s.open.Add(n) },
		Ended:   func() { s.everEnded.Add(1) },
	})
	if err != nil {
		t.Fatal(err)
	}
	go func() { s.served <- s.Serve(context.Background()) }()
	return s
}

func (s *site) dial() net.Conn {
	s.t.Helper()
	nc, err := net.Dial("tcp", s.addr)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { nc.Close() })
	nc.SetDeadline(time.Now().Add(30 * time.Second))
	return nc
}

func (s *site) says(nc net.Conn, say, want string) {
	s.t.Helper()
	_, _ = io.WriteString(nc, say)
	got := make([]byte, max(len(want), 1))
	n, err := io.ReadFull(nc, got)
	if string(got[:n]) != want || want != "" && err != nil {
		s.t.Fatalf("%q is answered by %q %v, want %q", say, got[:n], err, want)
	}
}

func (s *site) drain(timeout time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	return s.Drain(ctx)
}

// TestPanicHarmsNobodyElse: a session that fails is closed and told of, its place
// is free again, and the others go on.
func TestPanicHarmsNobodyElse(t *testing.T) {
	s := start(t, admission.Limits{Total: 2})
	one, two := s.dial(), s.dial()
	s.says(one, "one\n", "one\n")
	s.says(two, "two\n", "two\n")
	s.says(s.dial(), "", "full\n")
	s.says(two, "panic\n", "")
	s.says(one, "still here\n", "still here\n")
	for limit := time.Now().Add(20 * time.Second); s.open.Load() != 1; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatalf("%d connections are open", s.open.Load())
		}
	}
	three := s.dial()
	s.says(three, "three\n", "three\n")
	one.Close()
	three.Close()
	if err := s.drain(20 * time.Second); err != nil {
		t.Fatal(err)
	}
	if err := <-s.served; err != nil || s.open.Load() != 0 || s.refused.Load() != 1 || s.everEnded.Load() != 1 || s.Context().Err() == nil {
		t.Errorf("%v, open %d, refused %d, ended %d", err, s.open.Load(), s.refused.Load(), s.everEnded.Load())
	}
	if !strings.Contains(s.log.String(), "as asked") || !strings.Contains(s.log.String(), "too many connections") {
		t.Errorf("the log: %s", s.log.String())
	}
}

// TestDrain: clients stay for most of the time that there is, and are told to go; a
// server that nobody started has nothing to drain.
func TestDrain(t *testing.T) {
	s := start(t, admission.Limits{})
	nc := s.dial()
	s.says(nc, "one\n", "one\n")
	done := make(chan error, 1)
	go func() { done <- s.drain(2 * time.Second) }()
	s.says(nc, "two\n", "two\n") // or it was told to go, had the machine stood still
	s.says(nc, "", "bye\n")
	if err := <-done; err != nil {
		t.Error(err)
	}
	if err := <-s.served; err != nil {
		t.Error(err)
	}
	if err := s.Serve(context.Background()); err != nil {
		t.Error(err)
	}
	idle, err := connections.New(connections.Options{Gate: admission.New(admission.Limits{})})
	if err != nil {
		t.Fatal(err)
	}
	if err := idle.Drain(context.Background()); err != nil {
		t.Error(err)
	}
	if err := idle.Serve(context.Background()); err != nil {
		t.Error(err)
	}
	idle.Cancel()
}

// deaf does not go when it is asked to.
type deaf struct{ nc net.Conn }

func (d deaf) Serve(bool) { _, _ = io.Copy(io.Discard, d.nc) }
func (d deaf) Leave()     {}

// TestCut: who does not go in time is cut.
func TestCut(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	begun := make(chan struct{}, 1)
	s, err := connections.New(connections.Options{
		Host: access.Host{Listeners: []access.Listener{{Listener: l}}, Log: zerolog.Nop()}, Gate: admission.New(admission.Limits{}),
		Begin: func(nc net.Conn, _ netip.Prefix) connections.Session { begun <- struct{}{}; return deaf{nc} },
	})
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve(context.Background()) }()
	nc, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	<-begun
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if err := s.Drain(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("drained: %v", err)
	}
	if err := <-served; err != nil {
		t.Error(err)
	}
}

func TestImplicitTLSNeedsACertificate(t *testing.T) {
	host := access.Host{Listeners: []access.Listener{{ImplicitTLS: true}}}
	if _, err := connections.New(connections.Options{Host: host}); err == nil || !strings.Contains(err.Error(), "tls block") {
		t.Errorf("%v", err)
	}
	host.TLS = &tls.Config{}
	if _, err := connections.New(connections.Options{Host: host}); err != nil {
		t.Error(err)
	}
}
