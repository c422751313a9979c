package server

import (
	"context"
	"io"
	"net"
	"net/textproto"
	"testing"
	"time"
)

// slow is a Backend that lets a client wait for the banner.
type slow struct {
	recorder
	here  chan struct{}
	leave chan bool // whether something was said already
	early chan bool
}

func (s *slow) NewSession(ctx context.Context, c *Conn) (Session, error) {
	s.here <- struct{}{}
	for spoken := <-s.leave; spoken && !c.spoke() && ctx.Err() == nil; {
		time.Sleep(time.Millisecond)
	}
	session, err := s.recorder.NewSession(ctx, c)
	return &watching{session.(*recording), s.early}, err
}

type watching struct {
	*recording
	early chan bool
}

func (w *watching) Hello(context.Context, Hello) error {
	w.early <- w.c.Early()
	return nil
}

// TestEarly: who speaks before the banner, or does not wait for the reply to EHLO, is
// told apart, and what was said counts all the same.
func TestEarly(t *testing.T) {
	b := &slow{here: make(chan struct{}), leave: make(chan bool), early: make(chan bool, 1)}
	cfg := DefaultConfig()
	cfg.Hostname = "mx.ryan.example"
	srv := New(cfg, b)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- srv.Serve(ln) }()
	defer func() {
		srv.Close()
		<-done
	}()
	for name, c := range map[string]struct {
		first, then string
		replies     int
		early       bool
	}{
		"waits":                    {"", "EHLO x\r\n", 2, false},
		"before the banner":        {"EHLO x\r\n", "", 2, true},
		"half of a line before it": {"EH", "LO x\r\n", 2, true},
		"behind EHLO":              {"", "EHLO x\r\nNOOP\r\n", 3, true},
	} {
		t.Run(name, func(t *testing.T) {
			nc, err := net.Dial("tcp", ln.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer nc.Close()
			nc.SetDeadline(time.Now().Add(patience))
			<-b.here
			if _, err := io.WriteString(nc, c.first); err != nil {
				t.Fatal(err)
			}
			b.leave <- c.first != ""
			r := textproto.NewConn(nc)
			if _, _, err := r.ReadResponse(220); err != nil {
				t.Fatal(err)
			}
			if _, err := io.WriteString(nc, c.then); err != nil {
				t.Fatal(err)
			}
			for range c.replies - 1 {
				if _, _, err := r.ReadResponse(250); err != nil {
					t.Fatal(err)
				}
			}
			if got := <-b.early; got != c.early {
				t.Errorf("early is %v", got)
			}
		})
	}
}
