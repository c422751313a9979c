package client_test

import (
	"bufio"

	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/stagecoach-mta/stagecoach/core/smtp/client"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// peer is the server's end of one scripted dialogue.
type peer struct {
	t  *testing.T
	nc net.Conn
	br *bufio.Reader
	// clientDone is closed when the client's call has returned.
	clientDone chan struct{}
}

func (p *peer) say(s string) { io.WriteString(p.nc, s) }

// hear reads one command and checks how it begins.
func (p *peer) hear(prefix string) string {
	line, err := p.br.ReadString('\n')
	if err != nil || !strings.HasPrefix(line, prefix) || !strings.HasSuffix(line, "\r\n") {
		p.t.Errorf("the client sent %q, %v; want %q", line, err, prefix)
	}
	return strings.TrimSuffix(line, "\r\n")
}

// gone waits until the client has closed.
func (p *peer) gone() { io.Copy(io.Discard, p.br) }

func (p *peer) greet(extensions ...string) {
	p.say("220 mx.ryan.example ESMTP\r\n")
	p.hear("EHLO mx.hanks.example")
	p.say("250-mx.ryan.example\r\n")
	for _, e := range extensions {
		p.say("250-" + e + "\r\n")
	}
	p.say("250 OK\r\n")
}

func (p *peer) body() string {
	var b strings.Builder
	for {
		line, err := p.br.ReadString('\n')
		if err != nil {
			p.t.Errorf("within the body: %v", err)
			return b.String()
		}
		if line == ".\r\n" {
			return b.String()
		}
		b.WriteString(line)
	}
}

// listen runs the script for the first connection; the test ends only when the
// script has ended.
func listen(t *testing.T, script func(*peer)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		nc, err := l.Accept()
		if err != nil {
			return
		}
		defer nc.Close()
		nc.SetDeadline(time.Now().Add(20 * time.Second))
		script(&peer{t: t, nc: nc, br: bufio.NewReader(nc)})
	}()
	t.Cleanup(func() { l.Close(); <-done })
	return l.Addr().String()
}

var config = client.Config{LocalName: "mx.hanks.example"}

func dial(t *testing.T, addr string, cfg client.Config) *client.Conn {
	t.Helper()
	c, err := client.Dial(t.Context(), "tcp", addr, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func open(s string) func() (io.ReadCloser, error) {
	return func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(s)), nil }
}

const message = "From: tom@hanks.example\r\nSubject: .dots\r\n\r\n.one\r\n..two\r\nthree.\r\n.\r\n"

func mail(body string, to ...string) *client.Transaction {
	t := &client.Transaction{From: "tom@hanks.example", Body: open(body), Size: int64(len(body))}
	for _, a := range to {
		t.Recipients = append(t.Recipients, client.Rcpt{Addr: a})
	}
	return t
}

func short() client.Config {
	cfg := config
	d := 300 * time.Millisecond
	cfg.Timeouts = client.Timeouts{Connect: d, Banner: d, Hello: d, TLS: d, Mail: d, Rcpt: d, DataInit: d, Write: d, DataDone: d, Quit: d}
	return cfg
}

func summary(res *client.Result) string {
	var b strings.Builder
	for _, r := range res.Recipients {
		fmt.Fprintf(&b, "[%s %d] ", r.Phase, r.Reply.Code)
	}
	if res.EndOfData {
		b.WriteString("sent")
	}
	return strings.TrimSpace(b.String())
}
