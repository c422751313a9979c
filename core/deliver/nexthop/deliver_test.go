package nexthop_test

import (
	"bufio"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-smtp"
	miekg "github.com/miekg/dns"
	"github.com/xdg-go/scram"

	"github.com/stagecoach-mta/stagecoach/core/deliver/nexthop"
	"github.com/stagecoach-mta/stagecoach/core/dns/dnstest"
	"github.com/stagecoach-mta/stagecoach/core/smtp/client"
)

func TestDeliverByMX(t *testing.T) {
	s := serve(t, "127.0.0.1:0", func(s *server, _ *smtp.Server) {
		s.refuse = func(_ int, to string) error {
			switch {
			case strings.HasPrefix(to, "nobody@"):
				return reply(550, smtp.EnhancedCode{5, 1, 1}, "no such user")
			case strings.HasPrefix(to, "grey@"):
				return reply(450, smtp.EnhancedCode{4, 2, 0}, "greylisted")
			case strings.HasPrefix(to, "full@"):
				return reply(552, smtp.EnhancedCode{5, 2, 2}, "mailbox full")
			}
			return nil
		}
	})
	w := newWorld(t, map[string][]string{"ryan.example": {"MX 10 mx.ryan.example."}, "mx.ryan.example": {"A 127.0.0.1"}})
	tr := w.transport(nexthop.Options{Port: s.port, AllowLoopback: true})
	for range 3 {
		out := deliver(t, tr, "meg@ryan.example", "nobody@ryan.example", "grey@ryan.example", "full@ryan.example", `"a@b"@ryan.example`, "bad>@ryan.example")
		want(t, out, "delivered 250 2.0.0", "failed 550 5.1.1", "deferred 450 4.2.0", "failed 552 5.2.2", "delivered 250 2.0.0", "failed 553 5.1.3")
		if o := out[1]; o.Recipient != "nobody@ryan.example" || o.RemoteMTA != "mx.ryan.example" || o.RemoteAddr != hostPort(s.port) ||
			o.Diagnostic != "550 5.1.1 no such user" || !o.DSN {
			t.Errorf("%+v", o)
		}
		if out[5].Diagnostic != "" {
			t.Errorf("decided here, but with a diagnostic: %+v", out[5])
		}
	}
	if sessions, mails := s.count(); sessions != 1 || mails != 3 {
		t.Errorf("%d sessions, %d mails; want one connection for three mails", sessions, mails)
	}
	want(t, deliver(t, tr, "x@nobody.example"), "failed 550 5.1.2")
}

func TestConnectionsAreKeptWithinLimits(t *testing.T) {
	s := serve(t, "127.0.0.1:0", nil)
	w := newWorld(t, nil)
	tr := w.transport(nexthop.Options{Smarthost: []string{hostPort(s.port)}, MaxMailsPerConn: 2, MaxConnsPerHost: 2})
	var wg sync.WaitGroup
	for range 10 {
		wg.Go(func() {
			for range 4 {
				if o := tr.Deliver(context.Background(), mail("meg@ryan.example"))[0]; o.Status != nexthop.Delivered {
					t.Errorf("%+v", o)
				}
			}
		})
	}
	wg.Wait()
	if sessions, mails := s.count(); mails != 40 || sessions < 20 {
		t.Errorf("%d sessions, %d mails; want two mails a connection", sessions, mails)
	}
}

func TestOpenConnectionsAreBounded(t *testing.T) {
	var mu sync.Mutex
	open, most := 0, 0
	port := scripted(t, "127.0.0.1:0", func(_ int, nc net.Conn, br *bufio.Reader) {
		mu.Lock()
		open++
		most = max(most, open)
		mu.Unlock()
		converse(nc, br, polite(nil))
		mu.Lock()
		open--
		mu.Unlock()
	})
	w := newWorld(t, nil)
	tr := w.transport(nexthop.Options{Smarthost: []string{hostPort(port)}, MaxConnsPerHost: 3})
	var wg sync.WaitGroup
	for range 30 {
		wg.Go(func() { want(t, tr.Deliver(context.Background(), mail("meg@ryan.example")), "delivered 250 2.0.0") })
	}
	wg.Wait()
	tr.Close()
	mu.Lock()
	defer mu.Unlock()
	if most > 3 {
		t.Errorf("%d connections at once, want at most 3", most)
	}
}

func TestIdleConnectionsEnd(t *testing.T) {
	quit := make(chan struct{}, 1)
	port := scripted(t, "127.0.0.1:0", func(_ int, nc net.Conn, br *bufio.Reader) {
		converse(nc, br, polite(nil))
		quit <- struct{}{}
	})
	w := newWorld(t, nil)
	tr := w.transport(nexthop.Options{Smarthost: []string{hostPort(port)}, IdleTimeout: 20 * time.Millisecond})
	want(t, deliver(t, tr, "meg@ryan.example"), "delivered 250 2.0.0")
	select {
	case <-quit:
	case <-time.After(5 * time.Second):
		t.Error("the idle connection was not ended")
	}
}

// TestNextHost: what speaks of a server moves on to the next; what speaks of a
// recipient does not.
func TestNextHost(t *testing.T) {
	for _, tc := range []struct {
		name    string
		answers map[string]string
		want    string // with the second host
		alone   string // without
	}{
		{"421 banner", map[string]string{"banner": "421 4.3.2 busy\r\n"}, "delivered 250 2.0.0", "deferred 421 4.3.2"},
		{"554 banner", map[string]string{"banner": "554 no mail here\r\n"}, "delivered 250 2.0.0", "failed 554 5.0.0"},
		{"450 EHLO", map[string]string{"EHLO": "450 later\r\n"}, "delivered 250 2.0.0", "deferred 450 4.0.0"},
		{"garbage banner", map[string]string{"banner": "hello\r\n"}, "delivered 250 2.0.0", "deferred 451 4.4.2"},
		{"drops at MAIL", map[string]string{"MAIL": ""}, "delivered 250 2.0.0", "deferred 451 4.4.2"},
		{"421 MAIL", map[string]string{"MAIL": "421 4.7.0 too many\r\n"}, "delivered 250 2.0.0", "deferred 421 4.7.0"},
		{"421 RCPT", map[string]string{"RCPT": "421 bye\r\n"}, "delivered 250 2.0.0", "deferred 421 4.0.0"},
		{"451 MAIL", map[string]string{"MAIL": "451 4.7.1 you again\r\n"}, "deferred 451 4.7.1", "deferred 451 4.7.1"},
		{"550 MAIL", map[string]string{"MAIL": "550 5.7.1 go away\r\n"}, "failed 550 5.7.1", "failed 550 5.7.1"},
		{"451 RCPT", map[string]string{"RCPT": "451 4.7.1 greylisted\r\n"}, "deferred 451 4.7.1", "deferred 451 4.7.1"},
		{"452 RCPT", map[string]string{"RCPT": "452 too many\r\n"}, "deferred 452 4.5.3", "deferred 452 4.5.3"},
		{"452 disk", map[string]string{"RCPT": "452 4.3.1 disk full\r\n"}, "deferred 452 4.3.1", "deferred 452 4.3.1"},
		{"554 DATA", map[string]string{"DATA": "554 5.6.0 no\r\n"}, "failed 554 5.6.0", "failed 554 5.6.0"},
		{"451 end", map[string]string{".": "451 4.3.0 oops\r\n"}, "deferred 451 4.3.0", "deferred 451 4.3.0"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			good := serve(t, "127.0.0.2:0", nil)
			script := func(_ int, nc net.Conn, br *bufio.Reader) {
				answers := polite(tc.answers)
				if tc.answers["MAIL"] == "" && strings.HasPrefix(tc.name, "drops") {
					delete(answers, "MAIL")
				}
				converse(nc, br, answers)
			}
			scripted(t, fmt.Sprintf("127.0.0.1:%d", good.port), script)
			w := newWorld(t, map[string][]string{
				"ryan.example": {"MX 10 a.ryan.example.", "MX 20 b.ryan.example."}, "alone.example": {"MX 10 a.ryan.example."},
				"a.ryan.example": {"A 127.0.0.1"}, "b.ryan.example": {"A 127.0.0.2"}})
			tr := w.transport(nexthop.Options{Port: good.port, AllowLoopback: true, TLS: nexthop.TLSNone})
			want(t, deliver(t, tr, "meg@ryan.example"), tc.want)
			want(t, deliver(t, tr, "meg@alone.example"), tc.alone)
		})
	}
}

func TestRefusedConnectionAndAddressLimit(t *testing.T) {
	good := serve(t, "127.0.0.4:0", nil)
	w := newWorld(t, map[string][]string{
		"ryan.example":      {"MX 10 many.ryan.example."},
		"many.ryan.example": {"A 127.0.0.2", "A 127.0.0.3", "A 127.0.0.4"}})
	o := nexthop.Options{Port: good.port, AllowLoopback: true}
	want(t, deliver(t, w.transport(o), "meg@ryan.example"), "delivered 250 2.0.0")
	o.MaxAddrs = 2
	out := deliver(t, w.transport(o), "meg@ryan.example")
	want(t, out, "deferred 451 4.4.1")
	if !strings.Contains(out[0].Text, "many.ryan.example[127.0.0.3]") || !strings.Contains(out[0].Text, "refused") {
		t.Errorf("%+v", out[0])
	}
}

func TestLostAfterFinalDotIsAmbiguous(t *testing.T) {
	good := serve(t, "127.0.0.2:0", nil)
	scripted(t, fmt.Sprintf("127.0.0.1:%d", good.port), func(_ int, nc net.Conn, br *bufio.Reader) {
		converse(nc, br, polite(map[string]string{".": ""}))
	})
	w := newWorld(t, map[string][]string{
		"ryan.example":   {"MX 10 a.ryan.example.", "MX 20 b.ryan.example."},
		"a.ryan.example": {"A 127.0.0.1"}, "b.ryan.example": {"A 127.0.0.2"}})
	out := deliver(t, w.transport(nexthop.Options{Port: good.port, AllowLoopback: true}), "meg@ryan.example")
	want(t, out, "deferred 451 4.4.2")
	if _, mails := good.count(); !out[0].Ambiguous || mails != 0 {
		t.Errorf("%+v; the next host got %d mails, want none: it would be a second copy", out[0], mails)
	}
}

func TestTooManyRecipientsGoOnInRounds(t *testing.T) {
	for _, err := range []error{reply(452, smtp.EnhancedCode{4, 5, 3}, "too many"), reply(552, smtp.EnhancedCode{5, 5, 3}, "too many")} {
		s := serve(t, "127.0.0.1:0", func(s *server, _ *smtp.Server) {
			s.refuse = func(n int, _ string) error {
				if n == 3 {
					return err
				}
				return nil
			}
		})
		w := newWorld(t, nil)
		tr := w.transport(nexthop.Options{Smarthost: []string{hostPort(s.port)}, MaxRecipients: 5})
		var to, wants []string
		for i := range 11 {
			to, wants = append(to, fmt.Sprintf("u%d@ryan.example", i)), append(wants, "delivered 250 2.0.0")
		}
		want(t, deliver(t, tr, to...), wants...)
		if sessions, mails := s.count(); sessions != 1 || mails != 4 {
			t.Errorf("%d sessions, %d mails, want 1 and 4 (3+3+3+2)", sessions, mails)
		}
	}
}

func TestDeadKeptConnectionIsReplaced(t *testing.T) {
	for _, goodbye := range []string{"", "421 4.4.2 idle too long\r\n"} {
		var mu sync.Mutex
		conns := 0
		closed := make(chan struct{}, 10)
		port := scripted(t, "127.0.0.1:0", func(_ int, nc net.Conn, br *bufio.Reader) {
			mu.Lock()
			conns++
			mu.Unlock()
			// One mail, then the server ends the connection.
			a := polite(nil)
			io.WriteString(nc, a["banner"])
			for _, cmd := range []string{"EHLO", "MAIL", "RCPT", "DATA"} {
				br.ReadString('\n')
				io.WriteString(nc, a[cmd])
			}
			for line := ""; line != ".\r\n"; {
				line, _ = br.ReadString('\n')
			}
			io.WriteString(nc, a["."]+goodbye)
			nc.Close()
			closed <- struct{}{}
		})
		w := newWorld(t, nil)
		tr := w.transport(nexthop.Options{Smarthost: []string{hostPort(port)}})
		for range 3 {
			want(t, deliver(t, tr, "meg@ryan.example"), "delivered 250 2.0.0")
			<-closed
		}
		mu.Lock()
		if conns != 3 {
			t.Errorf("%d connections", conns)
		}
		mu.Unlock()
	}
}

func TestTLSPolicies(t *testing.T) {
	cfg, roots := certificate(t, "mx.ryan.example")
	enc := serve(t, "127.0.0.1:0", func(_ *server, s *smtp.Server) { s.TLSConfig, s.EnableREQUIRETLS = cfg, true })
	serve(t, fmt.Sprintf("127.0.0.2:%d", enc.port), nil) // offers no TLS
	scripted(t, fmt.Sprintf("127.0.0.3:%d", enc.port), func(_ int, nc net.Conn, br *bufio.Reader) {
		// Offers TLS and fails at it.
		converse(nc, br, polite(map[string]string{"EHLO": "250-x\r\n250 STARTTLS\r\n", "STARTTLS": "220 go\r\nnot TLS"}))
	})
	scripted(t, fmt.Sprintf("127.0.0.4:%d", enc.port), func(_ int, nc net.Conn, br *bufio.Reader) {
		converse(nc, br, polite(map[string]string{"EHLO": "250-x\r\n250 STARTTLS\r\n", "STARTTLS": "454 4.7.0 no key\r\n"}))
	})
	w := newWorld(t, map[string][]string{
		"enc.example": {"MX 10 mx.ryan.example."}, "mx.ryan.example": {"A 127.0.0.1"},
		"wrong.example": {"A 127.0.0.1"}, "plain.example": {"A 127.0.0.2"},
		"broken.example": {"A 127.0.0.3"}, "refuses.example": {"A 127.0.0.4"}})
	base := nexthop.Options{Port: enc.port, AllowLoopback: true}
	base.TLSConfig = cfg.Clone()
	base.TLSConfig.Certificates, base.TLSConfig.RootCAs = nil, roots
	for _, tc := range []struct {
		mode   nexthop.TLSMode
		domain string
		want   string
		tls    string // how Outcome.TLS begins and ends
	}{
		{nexthop.TLSOpportunistic, "enc.example", "delivered 250 2.0.0", "TLSv1.3 "},
		{nexthop.TLSOpportunistic, "wrong.example", "delivered 250 2.0.0", "TLSv1.3 "},
		{nexthop.TLSOpportunistic, "plain.example", "delivered 250 2.0.0", ""},
		{nexthop.TLSOpportunistic, "broken.example", "delivered 250 2.0.0", ""},
		{nexthop.TLSOpportunistic, "refuses.example", "delivered 250 2.0.0", ""},
		{nexthop.TLSNone, "enc.example", "delivered 250 2.0.0", ""},
		{nexthop.TLSRequired, "enc.example", "delivered 250 2.0.0", "TLSv1.3 verified"},
		{nexthop.TLSRequired, "wrong.example", "deferred 451 4.7.5", ""},
		{nexthop.TLSRequired, "plain.example", "deferred 451 4.7.4", ""},
		{nexthop.TLSRequired, "broken.example", "deferred 451 4.7.5", ""},
		{nexthop.TLSRequired, "refuses.example", "deferred 451 4.7.4", ""},
	} {
		o := base
		o.TLS = tc.mode
		out := deliver(t, w.transport(o), "meg@"+tc.domain)
		want(t, out, tc.want)
		first, last, _ := strings.Cut(tc.tls, " ")
		if got := out[0].TLS; !strings.HasPrefix(got, first) || !strings.HasSuffix(got, last) || (tc.tls == "") != (got == "") {
			t.Errorf("%s %s: TLS %q", tc.mode, tc.domain, got)
		}
	}
	insecure := base
	insecure.TLS, insecure.TLSConfig = nexthop.TLSRequired, base.TLSConfig.Clone()
	insecure.TLSConfig.InsecureSkipVerify = true
	tr := w.transport(insecure)
	want(t, deliver(t, tr, "meg@plain.example"), "deferred 451 4.7.4")
	out := deliver(t, tr, "meg@wrong.example")
	want(t, out, "delivered 250 2.0.0")
	if !strings.HasPrefix(out[0].TLS, "TLSv1.3") || strings.HasSuffix(out[0].TLS, "verified") {
		t.Errorf("TLS %q", out[0].TLS)
	}
	// The unverified connection is kept, and must not serve this mail.
	m := mail("meg@wrong.example")
	m.Options.RequireTLS = true
	want(t, tr.Deliver(t.Context(), m), "deferred 451 4.7.5")

	// The sender's REQUIRETLS is stricter than the policy.
	tr = w.transport(base)
	for domain, wanted := range map[string]string{"enc.example": "delivered 250 2.0.0", "plain.example": "failed 550 5.7.30", "wrong.example": "deferred 451 4.7.5"} {
		m := mail("meg@" + domain)
		m.Options.RequireTLS = true
		want(t, tr.Deliver(t.Context(), m), wanted)
	}
}

func TestAuth(t *testing.T) {
	s := serve(t, "127.0.0.1:0", nil)
	w := newWorld(t, map[string][]string{"relay.example": {"A 127.0.0.1"}})
	for _, tc := range []struct {
		auth nexthop.Auth
		want string
	}{
		{nexthop.Auth{User: "tom", Password: "sleepless"}, "delivered 250 2.0.0"},
		{nexthop.Auth{User: "tom", Password: "wrong-secret"}, "deferred 451 4.7.8"},
		{nexthop.Auth{User: "tom", Password: "wrong-secret", Mechanisms: []string{"LOGIN"}}, "deferred 451 4.7.8"},
	} {
		tr := w.transport(nexthop.Options{Smarthost: []string{fmt.Sprintf("relay.example:%d", s.port)}, Auth: &tc.auth})
		out := deliver(t, tr, "meg@ryan.example")
		want(t, out, tc.want)
		if strings.Contains(out[0].Text, "wrong-secret") {
			t.Errorf("the password is in %q", out[0].Text)
		}
	}
	if s.user != "tom" {
		t.Errorf("user %q", s.user)
	}
	// Not loopback and no TLS: the password stays here.
	tr := w.transport(nexthop.Options{Smarthost: []string{"192.0.2.1:25"}, Auth: &nexthop.Auth{User: "tom", Password: "sleepless"},
		Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "tcp", hostPort(s.port))
		}})
	out := deliver(t, tr, "meg@ryan.example")
	want(t, out, "deferred 451 4.7.8")
	if !strings.Contains(out[0].Text, "without TLS") {
		t.Error(out[0].Text)
	}
}

func TestLMTPOverASocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lmtp")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	s := &server{}
	srv := smtp.NewServer(s)
	srv.LMTP = true
	done := make(chan struct{})
	go func() { srv.Serve(l); close(done) }()
	defer func() { srv.Close(); <-done }()
	w := newWorld(t, nil)
	tr := w.transport(nexthop.Options{Smarthost: []string{"unix:" + path}, LMTP: true})
	for range 2 {
		want(t, deliver(t, tr, "meg@ryan.example", "kit@ryan.example"), "delivered 250 2.0.0", "delivered 250 2.0.0")
	}
	if sessions, mails := s.count(); sessions != 1 || mails != 2 {
		t.Errorf("%d sessions, %d mails", sessions, mails)
	}
}

func TestUnreadableMessageIsDeferred(t *testing.T) {
	s := serve(t, "127.0.0.1:0", nil)
	w := newWorld(t, nil)
	m := mail("meg@ryan.example")
	m.Body = func() (io.ReadCloser, error) { return nil, errors.New("input/output error") }
	want(t, w.transport(nexthop.Options{Smarthost: []string{hostPort(s.port)}}).Deliver(t.Context(), m), "deferred 451 4.3.0")
}

func TestContextEndsDelivery(t *testing.T) {
	port := scripted(t, "127.0.0.1:0", func(_ int, _ net.Conn, br *bufio.Reader) { io.Copy(io.Discard, br) })
	w := newWorld(t, nil)
	tr := w.transport(nexthop.Options{Smarthost: []string{hostPort(port), hostPort(port)}, Timeouts: client.Timeouts{Banner: time.Minute}})
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	begin := time.Now()
	want(t, tr.Deliver(ctx, mail("meg@ryan.example")), "deferred 451 4.4.2")
	if time.Since(begin) > 5*time.Second {
		t.Error("the delivery went on")
	}
}

func TestSCRAM(t *testing.T) {
	for _, tc := range []struct {
		name, stored, want string
		impostor           bool
	}{
		{"right", "sleepless", "delivered 250 2.0.0", false},
		{"wrong password", "other", "deferred 451 4.7.8", false},
		// A server that says 235 without having shown that it knows the password.
		{"impostor", "", "deferred 451 4.7.8", true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			sc, err := scram.SHA256.NewClient("tom", tc.stored, "")
			if err != nil {
				t.Fatal(err)
			}
			stored, err := sc.GetStoredCredentialsWithError(scram.KeyFactors{Salt: "salt", Iters: 4096})
			if err != nil {
				t.Fatal(err)
			}
			srv, err := scram.SHA256.NewServer(func(string) (scram.StoredCredentials, error) { return stored, nil })
			if err != nil {
				t.Fatal(err)
			}
			port := scripted(t, "127.0.0.1:0", func(_ int, nc net.Conn, br *bufio.Reader) {
				a := polite(nil)
				io.WriteString(nc, a["banner"])
				br.ReadString('\n')
				io.WriteString(nc, "250-x\r\n250 AUTH PLAIN SCRAM-SHA-256\r\n")
				line, _ := br.ReadString('\n')
				msg, ok := strings.CutPrefix(strings.TrimSpace(line), "AUTH SCRAM-SHA-256 ")
				if !ok {
					t.Errorf("got %q", line)
				}
				if tc.impostor {
					io.WriteString(nc, "235 welcome\r\n")
					converse(nc, br, map[string]string{"QUIT": "221 bye\r\n"})
					return
				}
				conv := srv.NewConversation()
				for !conv.Done() {
					in, _ := base64.StdEncoding.DecodeString(msg)
					out, err := conv.Step(string(in))
					if err != nil {
						io.WriteString(nc, "535 5.7.8 no\r\n")
						return
					}
					io.WriteString(nc, "334 "+base64.StdEncoding.EncodeToString([]byte(out))+"\r\n")
					line, _ := br.ReadString('\n')
					msg = strings.TrimSpace(line)
				}
				a["banner"] = "235 ok\r\n"
				converse(nc, br, a)
			})
			w := newWorld(t, nil)
			tr := w.transport(nexthop.Options{Smarthost: []string{hostPort(port)}, Auth: &nexthop.Auth{User: "tom", Password: "sleepless"}})
			want(t, deliver(t, tr, "meg@ryan.example"), tc.want)
		})
	}
}

// TestSkippedHostAndVerdict: an MX without address never outweighs what a
// server has said; one whose address is not known for now does.
func TestSkippedHostAndVerdict(t *testing.T) {
	port := scripted(t, "127.0.0.1:0", func(_ int, nc net.Conn, br *bufio.Reader) {
		converse(nc, br, map[string]string{"banner": "554 no mail here\r\n", "QUIT": "221 bye\r\n"})
	})
	w := newWorld(t, map[string][]string{
		"gone.example": {"MX 10 nobody.example.", "MX 20 a.ryan.example."},
		"sick.example": {"MX 10 ns.sick.example.", "MX 20 a.ryan.example."}, "a.ryan.example": {"A 127.0.0.1"}})
	w.dns.Misbehave("ns.sick.example", dnstest.Behaviour{Rcode: miekg.RcodeServerFailure})
	tr := w.transport(nexthop.Options{Port: port, AllowLoopback: true})
	want(t, deliver(t, tr, "meg@gone.example"), "failed 554 5.0.0")
	want(t, deliver(t, tr, "meg@sick.example"), "deferred 451 4.4.3")
}

func TestWaitingForAConnectionEndsWithTheContext(t *testing.T) {
	taken, free := make(chan struct{}), make(chan struct{})
	port := scripted(t, "127.0.0.1:0", func(_ int, nc net.Conn, br *bufio.Reader) {
		close(taken)
		<-free
		converse(nc, br, polite(nil))
	})
	w := newWorld(t, nil)
	tr := w.transport(nexthop.Options{Smarthost: []string{hostPort(port)}, MaxConnsPerHost: 1})
	var wg sync.WaitGroup
	wg.Go(func() { want(t, tr.Deliver(context.Background(), mail("meg@ryan.example")), "delivered 250 2.0.0") })
	<-taken
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	want(t, tr.Deliver(ctx, mail("kit@ryan.example")), "deferred 451 4.4.2")
	wg.Go(func() { want(t, tr.Deliver(context.Background(), mail("joe@ryan.example")), "delivered 250 2.0.0") })
	close(free)
	wg.Wait()
}
