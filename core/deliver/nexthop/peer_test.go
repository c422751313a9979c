package nexthop_test

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"

	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"
	"go.uber.org/goleak"

	"github.com/stagecoach-mta/stagecoach/core/deliver/nexthop"
	"github.com/stagecoach-mta/stagecoach/core/dns"
	"github.com/stagecoach-mta/stagecoach/core/dns/dnstest"
	"github.com/stagecoach-mta/stagecoach/core/smtp/client"
	sdkdns "github.com/stagecoach-mta/stagecoach/sdk/dns/dnstest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m, sdkdns.Outlives()) }

// server is a go-smtp server that keeps what it got.
type server struct {
	port int
	mu   sync.Mutex
	// refuse answers RCPT; nil accepts.
	refuse   func(n int, to string) error
	sessions int
	mails    []string // "from>to,to"
	user     string
}

type session struct {
	s    *server
	from string
	to   []string
}

func (s *server) NewSession(*smtp.Conn) (smtp.Session, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sessions++
	return &session{s: s}, nil
}
func (s *session) Reset()                                      { s.to = nil }
func (s *session) Logout() error                               { return nil }
func (s *session) Mail(from string, _ *smtp.MailOptions) error { s.from, s.to = from, nil; return nil }
func (s *session) Rcpt(to string, _ *smtp.RcptOptions) error {
	if s.s.refuse != nil {
		if err := s.s.refuse(len(s.to), to); err != nil {
			return err
		}
	}
	s.to = append(s.to, to)
	return nil
}
func (s *session) Data(r io.Reader) error {
	if _, err := io.ReadAll(r); err != nil {
		return err
	}
	s.s.mu.Lock()
	defer s.s.mu.Unlock()
	s.s.mails = append(s.s.mails, s.from+">"+strings.Join(s.to, ","))
	return nil
}
func (s *session) AuthMechanisms() []string { return []string{sasl.Plain} }
func (s *session) Auth(string) (sasl.Server, error) {
	return sasl.NewPlainServer(func(_, user, pass string) error {
		if pass != "sleepless" {
			return smtp.ErrAuthFailed
		}
		s.s.mu.Lock()
		defer s.s.mu.Unlock()
		s.s.user = user
		return nil
	}), nil
}

func (s *server) count() (sessions, mails int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sessions, len(s.mails)
}

func reply(code int, ec smtp.EnhancedCode, text string) error {
	return &smtp.SMTPError{Code: code, EnhancedCode: ec, Message: text}
}

// serve starts a server on addr, 127.0.0.1:0 or another loopback address.
func serve(t *testing.T, addr string, change func(*server, *smtp.Server)) *server {
	t.Helper()
	s := &server{}
	srv := smtp.NewServer(s)
	srv.Domain, srv.EnableDSN, srv.AllowInsecureAuth = "mx.ryan.example", true, true
	srv.ErrorLog = log.New(io.Discard, "", 0)
	if change != nil {
		change(s, srv)
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	s.port = l.Addr().(*net.TCPAddr).Port
	done := make(chan struct{})
	go func() { srv.Serve(l); close(done) }()
	t.Cleanup(func() { srv.Close(); <-done })
	return s
}

// scripted answers every connection by the script; it returns the port.
func scripted(t *testing.T, addr string, script func(n int, nc net.Conn, br *bufio.Reader)) int {
	t.Helper()
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for n := 0; ; n++ {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer nc.Close()
				nc.SetDeadline(time.Now().Add(20 * time.Second))
				script(n, nc, bufio.NewReader(nc))
			})
		}
	})
	t.Cleanup(func() { l.Close(); wg.Wait() })
	return l.Addr().(*net.TCPAddr).Port
}

// converse answers commands by their first word until none fits or it is gone.
func converse(nc net.Conn, br *bufio.Reader, answers map[string]string) {
	io.WriteString(nc, answers["banner"])
	for {
		line, err := br.ReadString('\n')
		if err != nil {
			return
		}
		word, _, _ := strings.Cut(strings.TrimSpace(line), " ")
		a, ok := answers[word]
		if !ok {
			return
		}
		io.WriteString(nc, a)
		if strings.HasPrefix(a, "354") {
			for line != ".\r\n" {
				if line, err = br.ReadString('\n'); err != nil {
					return
				}
			}
			if answers["."] == "" {
				return
			}
			io.WriteString(nc, answers["."])
		}
	}
}

func polite(change map[string]string) map[string]string {
	a := map[string]string{"banner": "220 x\r\n", "EHLO": "250 x\r\n", "MAIL": "250 ok\r\n", "RCPT": "250 ok\r\n",
		"RSET": "250 ok\r\n", "DATA": "354 go\r\n", ".": "250 ok\r\n", "QUIT": "221 bye\r\n"}
	for k, v := range change {
		a[k] = v
	}
	return a
}

type world struct {
	t   *testing.T
	dns *dnstest.Server
	res *dns.Client
}

func newWorld(t *testing.T, zone map[string][]string) *world {
	t.Helper()
	d, err := dnstest.Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Close)
	if err := d.SetAll(zone); err != nil {
		t.Fatal(err)
	}
	r, err := dns.New(dns.Config{Servers: []string{d.Addr()}, Timeout: 2 * time.Second, Attempts: 1})
	if err != nil {
		t.Fatal(err)
	}
	return &world{t, d, r}
}

func (w *world) transport(o nexthop.Options) *nexthop.Transport {
	w.t.Helper()
	o.Resolver = w.res
	if o.LocalName == "" {
		o.LocalName = "mx.hanks.example"
	}
	if o.Timeouts == (client.Timeouts{}) {
		d := 3 * time.Second
		o.Timeouts = client.Timeouts{Connect: d, Banner: d, Hello: d, Mail: d, Rcpt: d, DataInit: d, Write: d, DataDone: d, Quit: d}
	}
	tr := nexthop.New(o)
	w.t.Cleanup(tr.Close)
	return tr
}

const text = "Subject: hello\r\n\r\nhello\r\n"

func mail(to ...string) nexthop.Message {
	m := nexthop.Message{QueueID: "q1", From: "tom@hanks.example", Size: int64(len(text)),
		Body: func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(text)), nil }}
	for _, a := range to {
		m.Recipients = append(m.Recipients, client.Rcpt{Addr: a})
	}
	return m
}

func deliver(t *testing.T, tr *nexthop.Transport, to ...string) []nexthop.Outcome {
	t.Helper()
	return tr.Deliver(t.Context(), mail(to...))
}

// brief is an outcome for comparison: "delivered 250 2.0.0".
func brief(o nexthop.Outcome) string {
	return fmt.Sprintf("%s %d %d.%d.%d", o.Status, o.Code, o.Enhanced[0], o.Enhanced[1], o.Enhanced[2])
}

func want(t *testing.T, out []nexthop.Outcome, wants ...string) {
	t.Helper()
	for i, w := range wants {
		if got := brief(out[i]); got != w {
			t.Errorf("recipient %d: %s, want %s (%+v)", i, got, w, out[i])
		}
	}
}

func hostPort(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

func certificate(t *testing.T, name string) (*tls.Config, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}, pool
}
