package server

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-smtp"
)

func TestConnectionLimits(t *testing.T) {
	cfg := testConfig()
	cfg.MaxConnections, cfg.MaxConnectionsPerIP = 3, 2
	s := serve(t, cfg)
	a, b := s.greeted(t), s.greeted(t)
	w := s.dial(t)
	w.expect("", "421 4.7.0 mx.ryan.example Too many connections from your address")
	w.expectEnd()
	a.Close()
	b.Close()
	// Both are counted out again when they are gone.
	for deadline := time.Now().Add(patience); ; {
		s.Server.mu.Lock()
		n, per := len(s.conns), len(s.perIP)
		s.Server.mu.Unlock()
		if n == 0 && per == 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d connections, %d addresses still counted", n, per)
		}
		time.Sleep(time.Millisecond)
	}
	s.greeted(t)

	cfg.MaxConnections, cfg.MaxConnectionsPerIP = 1, 0
	s = serve(t, cfg)
	s.greeted(t)
	w = s.dial(t)
	w.expect("", "421 4.3.2 mx.ryan.example Too many connections")
	w.expectEnd()
}

func TestIPv6IsCountedByNetwork(t *testing.T) {
	a, b := netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8::ffff:1")
	c := netip.MustParseAddr("2001:db8:0:1::1")
	if clientKey(a) != clientKey(b) || clientKey(a) == clientKey(c) {
		t.Error(clientKey(a), clientKey(b), clientKey(c))
	}
	if v4 := netip.MustParseAddr("192.0.2.1"); clientKey(v4) != v4 {
		t.Error(clientKey(v4))
	}
}

func TestBackendRefuses(t *testing.T) {
	s := serve(t, testConfig(), func(s *testServer) {
		s.refuse["CONNECT"] = NewReply(554, smtp.EnhancedCode{5, 7, 1}, "You are listed\nsee https://bl.example/").Err()
	})
	w := s.dial(t)
	if got := w.reply(); got != "554-5.7.1 You are listed\n554 5.7.1 see https://bl.example/" {
		t.Errorf("%q", got)
	}
	w.expectEnd()

	for _, c := range []struct {
		event string
		err   error
		reply string
		ends  bool
	}{
		{"EHLO", NewReply(550, smtp.EnhancedCode{5, 7, 1}, "Not you").Err(), "550 5.7.1 Not you", false},
		{"MAIL", errors.New("secret detail"), "451 4.3.0 Temporary trouble of this server, try again later", false},
		{"MAIL", NewReply(421, smtp.EnhancedCode{4, 7, 0}, "Go away").Err(), "421 4.7.0 Go away", true},
		{"RCPT", NewReply(251, smtp.EnhancedCode{2, 1, 5}, "Will forward").Err(), "251 2.1.5 Will forward", false},
		{"BODY", NewReply(450, smtp.EnhancedCode{4, 3, 1}, "Disk is full").Err(), "450 4.3.1 Disk is full", false},
	} {
		s := serve(t, testConfig(), func(s *testServer) { s.refuse[c.event] = c.err })
		w := s.dial(t)
		w.expect("", "220")
		for _, cmd := range []string{"EHLO hanks.example", "MAIL FROM:<tom@hanks.example>", "RCPT TO:<meg@ryan.example>", "DATA"} {
			w.send(cmd + "\r\n")
			got := w.reply()
			if strings.HasPrefix(cmd, c.event) || c.event == "BODY" && cmd == "DATA" {
				if got != c.reply {
					t.Errorf("%s: %q, want %q", cmd, got, c.reply)
				}
				break
			}
		}
		if c.ends {
			w.expectEnd()
		} else {
			w.expect("NOOP\r\n", "250")
		}
	}
}

func TestRepliesCannotBeInjectedInto(t *testing.T) {
	r := Reply{Code: 550, Lines: []string{"a\r\n250 b\x00c\x7fd", "δ", strings.Repeat("é", 600)}}
	b := string(appendReply(nil, r, false))
	for _, l := range strings.SplitAfter(strings.TrimSuffix(b, "\r\n"), "\r\n") {
		if !strings.HasPrefix(l, "550-5.0.0 ") && !strings.HasPrefix(l, "550 5.0.0 ") || len(l) > 512 {
			t.Errorf("%q", l)
		}
	}
	if strings.Count(b, "550 ") != 1 || !strings.HasPrefix(b, "550-5.0.0 a  250 b c d\r\n550-5.0.0 ??\r\n") {
		t.Errorf("%q", b)
	}
	if got := string(appendReply(nil, Reply{Code: 250, Enhanced: smtp.NoEnhancedCode}, false)); got != "250 \r\n" {
		t.Errorf("%q", got)
	}
	if got := string(appendReply(nil, OK("δ"), true)); got != "250 2.0.0 δ\r\n" {
		t.Errorf("%q", got)
	}
	bad := strings.Repeat("\x80", 2000)
	if got := string(appendReply(nil, OK(bad), true)); strings.Count(got, "\x80") != 2000 {
		t.Errorf("%d octets", len(got))
	}
}

// panicking is a Backend with a bug.
type panicking struct{ *recorder }

type panickingSession struct{ Session }

func (p panicking) NewSession(ctx context.Context, c *Conn) (Session, error) {
	s, err := p.recorder.NewSession(ctx, c)
	return panickingSession{s}, err
}

func (panickingSession) Rcpt(context.Context, Path, *smtp.RcptOptions) error { panic("bug") }
func (panickingSession) Close()                                              { panic("another") }

func TestPanicEndsOneConnection(t *testing.T) {
	s := serve(t, testConfig(), func(s *testServer) { s.Backend = panicking{s.recorder} })
	w := s.greeted(t)
	w.expect(envelope, "421 4.3.0 mx.ryan.example")
	w.expectEnd()
	s.waitFor(t, "RESET")
	s.wantEvents(t, "CONNECT 127.0.0.1", "EHLO hanks.example", "MAIL <tom@hanks.example>", "RESET")
	s.greeted(t)
}

func TestCommandTimeout(t *testing.T) {
	cfg := testConfig()
	cfg.CommandTimeout = 20 * time.Millisecond
	s := serve(t, cfg)
	w := s.dial(t)
	w.expect("", "220", "421 4.4.2 mx.ryan.example Timeout")
	w.expectEnd()
}

func TestCommandThatDrips(t *testing.T) {
	cfg := testConfig()
	cfg.CommandTimeout = 100 * time.Millisecond
	s := serve(t, cfg)
	w := s.dial(t)
	w.expect("", "220")
	go func() {
		for {
			if _, err := io.WriteString(w, "x"); err != nil {
				return
			}
			time.Sleep(5 * time.Millisecond) // the client's pace
		}
	}()
	w.expect("", "421 4.4.2")
}

func TestLMTPOverUnixSocket(t *testing.T) {
	cfg := testConfig()
	cfg.LMTP = true
	r := &recorder{}
	s := New(cfg, r)
	path := filepath.Join(t.TempDir(), "lmtp.sock")
	l, err := net.Listen("unix", path)
	must(t, err)
	go s.Serve(l)
	defer s.Close()
	nc, err := net.Dial("unix", path)
	must(t, err)
	defer nc.Close()
	w := newWire(t, nc)
	w.expect("", "220")
	w.expect("LHLO hanks.example\r\n"+envelope+"DATA\r\n", "250", "250", "250", "354")
	w.expect("hi\r\n.\r\nQUIT\r\n", "250", "221")
	w.expectEnd()
}

// A client that sends commands and never reads gets no memory for its replies.
func TestClientThatNeverReads(t *testing.T) {
	cfg := testConfig()
	cfg.CommandTimeout = time.Second
	s := serve(t, cfg)
	w := s.greeted(t)
	chunk := []byte(strings.Repeat("NOOP\r\n", 10_000))
	for {
		w.SetWriteDeadline(time.Now().Add(patience))
		if _, err := w.Write(chunk); err != nil {
			var ne net.Error
			if errors.As(err, &ne) && ne.Timeout() {
				t.Fatal("the server still waits")
			}
			break
		}
	}
	s.waitFor(t, "CLOSE")
}

func TestServeLabelsAndMoreListeners(t *testing.T) {
	labels := make(chan string, 2)
	s := New(testConfig(), backendFunc(func(_ context.Context, c *Conn) (Session, error) {
		labels <- c.Listener()
		return nil, NewReply(554, smtp.EnhancedCode{5, 0, 0}, "no").Err()
	}))
	ended := make(chan error, 2)
	for i := range 2 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		must(t, err)
		addr, want := l.Addr().String(), l.Addr().String()
		if i == 1 {
			l, want = Labeled{l, "mx"}, "mx"
		}
		go func() { ended <- s.Serve(l) }()
		c, err := net.Dial("tcp", addr)
		must(t, err)
		io.ReadAll(c)
		c.Close()
		if got := <-labels; got != want {
			t.Errorf("label %q, want %q", got, want)
		}
	}
	must(t, s.Shutdown(context.Background()))
	for range 2 {
		if err := <-ended; err != ErrClosed {
			t.Error(err)
		}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	if err := s.Serve(l); err != ErrClosed {
		t.Error(err)
	}
}

type backendFunc func(context.Context, *Conn) (Session, error)

func (f backendFunc) NewSession(ctx context.Context, c *Conn) (Session, error) { return f(ctx, c) }

// Buffers go from connection to connection: none may carry another's octets.
func TestManyClientsKeepTheirMessagesApart(t *testing.T) {
	cfg := testConfig()
	cfg.MaxConnectionsPerIP = 0
	s := serve(t, cfg)
	const clients, messages = 30, 20
	body := func(client, n int) string {
		return strings.Repeat(fmt.Sprintf("client %d message %d\r\n", client, n), 1+client*n*5)
	}
	var wg sync.WaitGroup
	for client := range clients {
		wg.Go(func() {
			nc, err := net.Dial("tcp", s.addr)
			if err != nil {
				t.Error(err)
				return
			}
			defer nc.Close()
			r := bufio.NewReader(nc)
			err = talk(nc, r, []byte("EHLO x\r\n"+envelope+"DATA\r\n"), 5)
			for n := range messages {
				if err == nil {
					err = talk(nc, r, []byte(body(client, n)+".\r\n"+envelope+"DATA\r\n"), 4)
				}
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	got := map[string]int{}
	for _, e := range s.all("DONE") {
		got[e]++
	}
	for client := range clients {
		for n := range messages {
			if e := fmt.Sprintf("DONE %q", body(client, n)); got[e] == 0 {
				t.Fatalf("message %d of client %d did not arrive whole", n, client)
			}
		}
	}
}
