package server

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"
	"github.com/xdg-go/scram"
)

// patience is how long a test waits for what must come.
const patience = 10 * time.Second

// recorder is a Backend that writes down what it is asked.
type recorder struct {
	mu     sync.Mutex
	events []string
	// refuse maps an event's beginning to the error it gets.
	refuse map[string]error
	// hold, if set, is read from in Done.
	hold chan struct{}
}

func (r *recorder) event(format string, args ...any) error {
	e := fmt.Sprintf(format, args...)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events = append(r.events, e)
	for prefix, err := range r.refuse {
		if strings.HasPrefix(e, prefix) {
			return err
		}
	}
	return nil
}

// take returns the events since the last take.
func (r *recorder) take() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	e := r.events
	r.events = nil
	return e
}

// all returns the events that begin with prefix.
func (r *recorder) all(prefix string) []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var found []string
	for _, e := range r.events {
		if strings.HasPrefix(e, prefix) {
			found = append(found, e)
		}
	}
	return found
}

func (r *recorder) NewSession(_ context.Context, c *Conn) (Session, error) {
	host, _, _ := net.SplitHostPort(c.RemoteAddr().String())
	if err := r.event("CONNECT %s", host); err != nil {
		return nil, err
	}
	return &recording{r: r, c: c}, nil
}

type recording struct {
	r     *recorder
	c     *Conn
	rcpts []Path
	body  *bytes.Buffer
}

var (
	_ Session       = (*recording)(nil)
	_ Authenticator = (*recording)(nil)
)

func (s *recording) Hello(_ context.Context, h Hello) error {
	return s.r.event("%s %s", h.Verb, h.Name)
}

func (s *recording) Mail(_ context.Context, from Path, o *MailOptions) error {
	s.rcpts, s.body = nil, nil
	e := "MAIL <" + from.Raw + ">"
	if o.Size != 0 {
		e += fmt.Sprintf(" size=%d", o.Size)
	}
	if o.Body != "" {
		e += " body=" + string(o.Body)
	}
	if o.UTF8 {
		e += " utf8"
	}
	if o.RequireTLS {
		e += " requiretls"
	}
	if o.Return != "" {
		e += " ret=" + string(o.Return)
	}
	if o.EnvelopeID != "" {
		e += " envid=" + o.EnvelopeID
	}
	if o.Auth != nil {
		e += " auth=<" + *o.Auth + ">"
	}
	if o.Priority != 0 {
		e += fmt.Sprintf(" priority=%d", o.Priority)
	}
	if by := o.DeliverBy; by.Mode != "" {
		e += fmt.Sprintf(" by=%s mode=%s trace=%v", by.Time, by.Mode, by.Trace)
	}
	if !o.HoldUntil.IsZero() {
		e += " hold=" + time.Until(o.HoldUntil).Round(time.Minute).String()
	}
	return s.r.event("%s", e)
}

func (s *recording) Rcpt(_ context.Context, to Path, o *smtp.RcptOptions) error {
	e := "RCPT <" + to.Raw + ">"
	if o.Notify != nil {
		e += fmt.Sprint(" notify=", o.Notify)
	}
	if o.OriginalRecipient != "" {
		e += fmt.Sprintf(" orcpt=%s;%s", o.OriginalRecipientType, o.OriginalRecipient)
	}
	if err := s.r.event("%s", e); err != nil {
		return err
	}
	if strings.HasPrefix(to.Local, "nobody") {
		return NewReply(550, smtp.EnhancedCode{5, 1, 1}, "No such user").Err()
	}
	s.rcpts = append(s.rcpts, to)
	return nil
}

func (s *recording) Body(context.Context) (io.Writer, error) {
	if err := s.r.event("BODY"); err != nil {
		return nil, err
	}
	s.body = new(bytes.Buffer)
	return s, nil
}

func (s *recording) Write(b []byte) (int, error) {
	if bytes.Contains(b, []byte("Subject: virus")) {
		return 0, NewReply(554, smtp.EnhancedCode{5, 7, 1}, "No viruses here").Err()
	}
	if bytes.Contains(b, []byte("Subject: full disk")) {
		return 0, errors.New("no space left on device")
	}
	return s.body.Write(b)
}

func (s *recording) Done(context.Context) []Reply {
	if s.r.hold != nil {
		<-s.r.hold
	}
	s.r.event("DONE %q", s.body.String())
	var replies []Reply
	for _, to := range s.rcpts {
		if strings.HasPrefix(to.Local, "quota") {
			replies = append(replies, NewReply(452, smtp.EnhancedCode{4, 2, 2}, to.String()+" is over quota"))
			continue
		}
		replies = append(replies, OK("Queued as 1A2B"))
	}
	return replies
}

func (s *recording) Reset() { s.r.event("RESET") }
func (s *recording) Close() { s.r.event("CLOSE") }

func (s *recording) AuthPlain(_ context.Context, mech, identity, username, password string) error {
	s.r.event("AUTH %s %q %q", mech, identity, username)
	if username == "broken" {
		return NewReply(454, smtp.EnhancedCode{4, 7, 0}, "Directory is away").Err()
	}
	if username != "tom" || password != "sleepless" {
		return errors.New("wrong")
	}
	return nil
}

func (s *recording) AuthSASL(_ context.Context, mech string) (sasl.Server, error) {
	client, err := scram.SHA256.NewClient("tom", "sleepless", "")
	if err != nil {
		return nil, err
	}
	stored, err := client.GetStoredCredentialsWithError(scram.KeyFactors{Salt: "0123456789abcdef", Iters: 4096})
	if err != nil {
		return nil, err
	}
	server, err := scram.SHA256.NewServer(func(string) (scram.StoredCredentials, error) { return stored, nil })
	if err != nil {
		return nil, err
	}
	s.r.event("AUTH %s", mech)
	return &scramServer{server.NewConversation()}, nil
}

type scramServer struct{ *scram.ServerConversation }

func (s *scramServer) AuthUser() string { return s.Username() }

func (s *scramServer) Next(response []byte) ([]byte, bool, error) {
	if response == nil {
		return nil, false, nil
	}
	out, err := s.Step(string(response))
	return []byte(out), s.Done(), err
}

// testConfig is small in all limits and loud in all extensions.
func testConfig() Config {
	c := DefaultConfig()
	c.Hostname = "mx.ryan.example"
	return c
}

// testServer serves a recorder on a loopback port until the test ends.
type testServer struct {
	*Server
	*recorder
	addr string
}

func serve(t testing.TB, cfg Config, prepare ...func(*testServer)) *testServer {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &recorder{refuse: map[string]error{}}
	s := &testServer{Server: New(cfg, r), recorder: r, addr: l.Addr().String()}
	for _, f := range prepare {
		f(s)
	}
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(l) }()
	t.Cleanup(func() {
		s.Server.Close()
		if err := <-ended; err != ErrClosed {
			t.Errorf("Serve: %v", err)
		}
		s.running.Wait()
	})
	return s
}

// waitFor polls until an event that begins with prefix is there.
func (s *testServer) waitFor(t testing.TB, prefix string) {
	t.Helper()
	for deadline := time.Now().Add(patience); len(s.all(prefix)) == 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("no %s among %q", prefix, s.take())
		}
	}
}

// wire is a client that says exactly what it is told.
type wire struct {
	t testing.TB
	net.Conn
	buf []byte
}

func (s *testServer) dial(t testing.TB) *wire {
	t.Helper()
	c, err := net.Dial("tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return newWire(t, c)
}

func newWire(t testing.TB, c net.Conn) *wire {
	c.SetDeadline(time.Now().Add(patience))
	return &wire{t: t, Conn: c}
}

func (w *wire) send(s string) {
	w.t.Helper()
	if _, err := io.WriteString(w, s); err != nil {
		w.t.Fatalf("sending %q: %v", s, err)
	}
}

// line returns the next line of the server without CRLF, or the error of the read.
func (w *wire) line() (string, error) {
	for {
		if i := bytes.Index(w.buf, []byte("\r\n")); i >= 0 {
			l := string(w.buf[:i])
			w.buf = w.buf[i+2:]
			return l, nil
		}
		b := make([]byte, 4096)
		n, err := w.Read(b)
		w.buf = append(w.buf, b[:n]...)
		if n == 0 && err != nil {
			return string(w.buf), err
		}
	}
}

// reply returns the next reply, its lines joined by LF.
func (w *wire) reply() string {
	w.t.Helper()
	var lines []string
	for {
		l, err := w.line()
		if err != nil {
			w.t.Fatalf("waiting for a reply: %v, after %q", err, append(lines, l))
		}
		lines = append(lines, l)
		if len(l) < 4 || l[3] != '-' {
			return strings.Join(lines, "\n")
		}
	}
}

// expect sends and checks the beginnings of the replies that come.
func (w *wire) expect(send string, replies ...string) {
	w.t.Helper()
	w.send(send)
	for _, want := range replies {
		if got := w.reply(); !strings.HasPrefix(got, want) {
			w.t.Fatalf("after %q: %q, want %q", send, got, want)
		}
	}
}

// expectEnd checks that the server has nothing more to say.
func (w *wire) expectEnd() {
	w.t.Helper()
	if l, err := w.line(); err != io.EOF {
		w.t.Fatalf("want the connection closed, got %q, %v", l, err)
	}
}

// greeted is a client past EHLO.
func (s *testServer) greeted(t testing.TB) *wire {
	t.Helper()
	w := s.dial(t)
	hello := "EHLO hanks.example\r\n"
	if s.LMTP {
		hello = "LHLO hanks.example\r\n"
	}
	w.expect("", "220 ")
	w.expect(hello, "250")
	return w
}

const envelope = "MAIL FROM:<tom@hanks.example>\r\nRCPT TO:<meg@ryan.example>\r\n"

// wantEvents compares and forgets what the backend was asked.
func (s *testServer) wantEvents(t testing.TB, want ...string) {
	t.Helper()
	if got := s.take(); !slices.Equal(got, want) {
		t.Fatalf("backend was asked\n%q\nwant\n%q", got, want)
	}
}

// talk sends s and waits for a number of reply lines that are not continued.
func talk(c net.Conn, r *bufio.Reader, s []byte, replies int) error {
	if len(s) > 0 {
		if _, err := c.Write(s); err != nil {
			return err
		}
	}
	for replies > 0 {
		l, err := r.ReadSlice('\n')
		if err != nil {
			return err
		}
		if l[0] != '2' && l[0] != '3' {
			return fmt.Errorf("server said %q", l)
		}
		if l[3] == ' ' {
			replies--
		}
	}
	return nil
}

// testTLS makes a certificate for mx.ryan.example and the client's trust in it.
func testTLS(t testing.TB) (server, client *tls.Config) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(time.Hour),
		DNSNames:     []string{"mx.ryan.example"},
		IsCA:         true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}},
		&tls.Config{RootCAs: pool, ServerName: "mx.ryan.example"}
}
