package imap_test

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"math/big"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2/imapclient"
	"github.com/rs/zerolog"
	"go.uber.org/goleak"

	"github.com/stagecoach-mta/stagecoach/plugins/imap"
	"github.com/stagecoach-mta/stagecoach/plugins/local"
	"github.com/stagecoach-mta/stagecoach/sdk/access"
	"github.com/stagecoach-mta/stagecoach/sdk/directory"
	"github.com/stagecoach-mta/stagecoach/sdk/fail"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
	"github.com/stagecoach-mta/stagecoach/sdk/storage"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// people is a directory in which everybody's password is "sleepless".
type people struct{}

func (people) Authenticate(_ context.Context, r *v1.AuthenticateRequest) (*v1.AuthenticateResponse, error) {
	if r.GetPassword() != "sleepless" || !strings.Contains(r.GetUsername(), "@") {
		return nil, fail.New(fail.Denied, "wrong")
	}
	return &v1.AuthenticateResponse{Account: r.GetUsername()}, nil
}
func (people) Resolve(context.Context, *v1.ResolveRequest) (*v1.ResolveResponse, error) {
	return &v1.ResolveResponse{}, nil
}
func (people) Credentials(context.Context, *v1.CredentialsRequest) (*v1.CredentialsResponse, error) {
	return nil, fail.New(fail.Unsupported, "none")
}
func (people) Domains(context.Context, *v1.DomainsRequest) (*v1.DomainsResponse, error) {
	return &v1.DomainsResponse{}, nil
}

// site is a server under test.
type site struct {
	t            testing.TB
	server       *imap.Server
	store        storage.Storage
	address, tls string
	served       chan error
	clear        net.Listener
}

func start(t testing.TB, insecure bool, edit func(*imap.Config)) *site {
	t.Helper()
	store, err := local.New(local.Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	config := imap.DefaultConfig()
	config.LoginDelay, config.MaxLoginDelay = time.Millisecond, time.Millisecond
	if edit != nil {
		edit(&config)
	}
	return serve(t, store, listen(t), listen(t), insecure, config)
}

// serve starts a server until the test's end.
func serve(t testing.TB, store storage.Storage, clear, implicit net.Listener, insecure bool, config imap.Config) *site {
	t.Helper()
	return serveFor(t, store, clear, implicit, insecure, config, people{})
}

func serveFor(t testing.TB, store storage.Storage, clear, implicit net.Listener, insecure bool, config imap.Config, who directory.Directory) *site {
	t.Helper()
	s := &site{t: t, store: store, clear: clear, served: make(chan error, 1)}
	s.address, s.tls = clear.Addr().String(), implicit.Addr().String()
	var err error
	s.server, err = imap.New(config, access.Host{
		Hostname: "mx.ryan.example", Listeners: []access.Listener{{Listener: clear}, {Listener: implicit, ImplicitTLS: true}},
		TLS: &tls.Config{Certificates: []tls.Certificate{certificate(t)}}, InsecureAuth: insecure,
		Storage: store, Directory: who, UploadDir: t.TempDir(), Log: zerolog.New(zerolog.NewTestWriter(t)).Level(zerolog.ErrorLevel),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	go func() { s.served <- s.server.Serve(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-s.served; err != nil {
			t.Error(err)
		}
	})
	return s
}

func listen(t testing.TB) net.Listener {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func certificate(t testing.TB) tls.Certificate {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"mx.ryan.example"}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func (s *site) account() storage.Account {
	a, err := s.store.Open(context.Background(), meg)
	if err != nil {
		s.t.Fatal(err)
	}
	return a
}

const meg = "meg@ryan.example"

// deposit puts mails into Meg's inbox.
func (s *site) deposit(mails ...string) {
	s.t.Helper()
	list, err := s.account().List(context.Background(), &v1.ListMailboxesRequest{Name: "INBOX"})
	if err != nil {
		s.t.Fatal(err)
	}
	req := &v1.AppendRequest{MailboxId: list.GetMailboxes()[0].GetId()}
	for _, m := range mails {
		req.Messages = append(req.Messages, &v1.AppendRequest_Message{Message: &v1.MessageRef{Size: int64(len(m)), Where: &v1.MessageRef_Inline{Inline: []byte(m)}}})
	}
	if _, err := s.account().Append(context.Background(), req); err != nil {
		s.t.Fatal(err)
	}
}

func (s *site) mailboxExists(name string) bool {
	list, err := s.account().List(context.Background(), &v1.ListMailboxesRequest{})
	if err != nil {
		s.t.Fatal(err)
	}
	for _, m := range list.GetMailboxes() {
		if m.GetName() == name {
			return true
		}
	}
	return false
}

// client logs in as Meg.
func (s *site) client(o *imapclient.Options) *imapclient.Client {
	s.t.Helper()
	nc, err := net.Dial("tcp", s.address)
	if err != nil {
		s.t.Fatal(err)
	}
	c := imapclient.New(nc, o)
	s.t.Cleanup(func() { c.Close() })
	if err := c.Login(meg, "sleepless").Wait(); err != nil {
		s.t.Fatal(err)
	}
	return c
}

// raw is a client that says what it is told.
type raw struct {
	net.Conn
	t testing.TB
	r *bufio.Reader
}

func (s *site) raw(login bool) *raw {
	s.t.Helper()
	nc, err := net.Dial("tcp", s.address)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { nc.Close() })
	nc.SetDeadline(time.Now().Add(30 * time.Second))
	c := &raw{Conn: nc, t: s.t, r: bufio.NewReader(nc)}
	c.line()
	if login {
		c.say("login LOGIN " + meg + " sleepless\r\n")
		c.until("login OK")
	}
	return c
}

func (c *raw) say(text string) {
	c.t.Helper()
	if _, err := io.WriteString(c, text); err != nil {
		c.t.Fatal(err)
	}
}

func (c *raw) line() string {
	c.t.Helper()
	l, err := c.r.ReadString('\n')
	if err != nil {
		c.t.Fatalf("read: %v after %q", err, l)
	}
	return strings.TrimSuffix(l, "\r\n")
}

// until reads lines up to the first that begins so, and returns all.
func (c *raw) until(prefix string) string {
	c.t.Helper()
	var all strings.Builder
	for {
		l, err := c.r.ReadString('\n')
		all.WriteString(l)
		if err != nil {
			c.t.Fatalf("read: %v while waiting for %q; got %q", err, prefix, all.String())
		}
		if strings.HasPrefix(l, prefix) {
			return all.String()
		}
	}
}

// rest reads until the server closes.
func (c *raw) rest() string {
	b, _ := io.ReadAll(c.r)
	return string(b)
}

// TestRefusedIsNeverRun: whatever the server does not take, its content must not
// be run as commands, and the connection is in step or over.
func TestRefusedIsNeverRun(t *testing.T) {
	pwned := "x CREATE pwned\r\n"
	fill := func(n int) string { return pwned + strings.Repeat("y NOOP\r\n", n/8) }
	body := func(n int) string { return fill(n)[:n] }
	for name, text := range map[string]string{
		"append over the limit, not synchronising":  "a APPEND INBOX {200000+}\r\n" + body(200000) + "\r\n",
		"append over the limit, synchronising":      "a APPEND INBOX {200000}\r\n",
		"append over LITERAL-":                      "a APPEND INBOX {5000+}\r\n" + body(5000) + "\r\n",
		"long set":                                  "a UID FETCH " + strings.Repeat("1,", 40000) + "1 FLAGS\r\n" + pwned,
		"long set that hides a command":             "a UID FETCH " + strings.Repeat("1,", 32761) + pwned,
		"buffered literal":                          "a SEARCH SUBJECT {70000+}\r\n" + body(70000) + "\r\n",
		"buffered literal, mailbox name":            "a SELECT {8192+}\r\n" + body(8192) + "\r\n",
		"literal with line ends":                    "a BOGUS {40+}\r\n" + body(40) + "\r\n",
		"literal with line ends in a known command": "a STATUS {16+}\r\n" + pwned + " (MESSAGES)\r\n",
		"literal after a syntax error":              "a APPEND INBOX (\\Seen {16+}\r\n" + pwned + "\r\n",
		"literal of a command that takes none":      "a NOOP {16+}\r\n" + pwned + "\r\n",
		"second message":                            "a APPEND INBOX {1+}\r\nx {16+}\r\n" + pwned + "\r\n",
		"unknown append extension":                  "a APPEND INBOX CATENATE (TEXT {16+}\r\n" + pwned + ")\r\n",
		"append to nowhere":                         "a APPEND nowhere {16+}\r\n" + pwned + "\r\n",
		"open quote":                                "a SELECT \"x\r\n" + pwned,
		"huge number":                               "a APPEND INBOX {99999999999999999999+}\r\n",
		"half a literal":                            "a SEARCH TEXT {16+}\r\n" + pwned + " {16+}\r\n" + pwned + "\r\n",
		"idle":                                      "a IDLE\r\n" + strings.Repeat("z", 5000) + "\r\n",
		"sasl":                                      "a LOGOUT\r\n" + pwned,
	} {
		t.Run(name, func(t *testing.T) {
			s := start(t, true, func(c *imap.Config) { c.MaxMessage = 100000 })
			c := s.raw(true)
			// The connection may be closed while this is written.
			io.WriteString(c, text)
			io.WriteString(c, "end LOGOUT\r\n")
			c.Conn.(*net.TCPConn).CloseWrite()
			reply := c.rest()
			if s.mailboxExists("pwned") {
				t.Fatalf("content was run as a command; the server said %q", reply)
			}
			if strings.Contains(reply, "x OK") || strings.Contains(reply, "y OK") {
				t.Fatalf("content was answered as a command: %q", reply)
			}
		})
	}
}

// TestRefusedKeepsInStep: where the client did nothing wrong in the framing, its
// session goes on.
func TestRefusedKeepsInStep(t *testing.T) {
	s := start(t, true, func(c *imap.Config) { c.MaxMessage = 100000 })
	c := s.raw(true)
	for _, d := range []struct{ say, want string }{
		{"a APPEND INBOX {200000}\r\n", "a NO [TOOBIG]"},
		{"b STATUS {70000}\r\n", "b NO [TOOBIG]"},
		{"c APPEND nowhere {5+}\r\nhello\r\n", "c NO [TRYCREATE]"},
		{"d STATUS {5+}\r\nINBOX (MESSAGES)\r\n", "d OK"},
		{"e STATUS {3+}\r\na\r\n (MESSAGES)\r\n", "e BAD"},
		{"f APPEND INBOX (\\Seen {5+}\r\nhello\r\n", "f BAD"},
		{"g ID NIL\r\n", "g OK"},
		{"h BOGUS\r\n", "h BAD"},
		{"i APPEND INBOX {0+}\r\n\r\n", "i NO"},
		{"j NOOP\r\n", "j OK"},
	} {
		c.say(d.say)
		if got := c.until(d.want[:2]); !strings.Contains(got, d.want) {
			t.Errorf("%q: got %q, want %q", d.say, got, d.want)
		}
	}
}

func TestPipelined(t *testing.T) {
	s := start(t, true, nil)
	s.deposit("Subject: 1\r\n\r\none\r\n")
	c := s.raw(true)
	c.say("a SELECT INBOX\r\nb FETCH 1 (FLAGS)\r\nc APPEND INBOX {5+}\r\nhello\r\nd NOOP\r\ne STORE 1 +FLAGS (\\Flagged)\r\nf LOGOUT\r\n")
	at := -1
	reply := c.rest()
	for _, want := range []string{"a OK", "b OK", "c OK [APPENDUID", "d OK", "e OK", "* BYE", "f OK"} {
		i := strings.Index(reply, want)
		if i <= at {
			t.Fatalf("%q is missing or out of order in %q", want, reply)
		}
		at = i
	}
}

func TestNoPasswordInTheClear(t *testing.T) {
	s := start(t, false, nil)
	c := s.raw(false)
	c.say("a CAPABILITY\r\n")
	if got := c.until("a OK"); !strings.Contains(got, "LOGINDISABLED") || !strings.Contains(got, "STARTTLS") || strings.Contains(got, "AUTH=") {
		t.Errorf("capabilities in the clear: %q", got)
	}
	c.say("b LOGIN " + meg + " sleepless\r\n")
	if got := c.line(); !strings.HasPrefix(got, "b NO [PRIVACYREQUIRED]") {
		t.Errorf("LOGIN in the clear: %q", got)
	}
	c.say("c STARTTLS\r\n")
	if got := c.line(); !strings.HasPrefix(got, "c OK") {
		t.Fatalf("STARTTLS: %q", got)
	}
	under := tls.Client(c.Conn, &tls.Config{InsecureSkipVerify: true})
	if err := under.Handshake(); err != nil {
		t.Fatal(err)
	}
	c = &raw{Conn: under, t: t, r: bufio.NewReader(under)}
	c.say("d CAPABILITY\r\n")
	if got := c.until("d OK"); strings.Contains(got, "LOGINDISABLED") || strings.Contains(got, "STARTTLS") || !strings.Contains(got, "AUTH=PLAIN") || !strings.HasPrefix(got, "* CAPABILITY") {
		t.Errorf("capabilities under TLS: %q", got)
	}
	c.say("e LOGIN " + meg + " sleepless\r\n")
	c.until("e OK")

	implicit, err := tls.Dial("tcp", s.tls, &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	ic := imapclient.New(implicit, nil)
	defer ic.Close()
	if err := ic.Login(meg, "sleepless").Wait(); err != nil {
		t.Error(err)
	}
}

func TestStartTLSInjection(t *testing.T) {
	s := start(t, true, nil)
	c := s.raw(false)
	c.say("a STARTTLS\r\nb LOGIN " + meg + " sleepless\r\n")
	if got := c.rest(); strings.Contains(got, "a OK") || strings.Contains(got, "b OK") {
		t.Errorf("a command before the handshake was taken: %q", got)
	}
}

func TestLoginIsBounded(t *testing.T) {
	s := start(t, true, func(c *imap.Config) { c.MaxUserConnections = 1; c.MaxAddressConnections = 2 })
	c := s.raw(false)
	for i := range 3 {
		c.say(fmt.Sprintf("a%d LOGIN %s wrong\r\n", i, meg))
	}
	if got := c.rest(); strings.Count(got, "AUTHENTICATIONFAILED") != 3 || !strings.Contains(got, "* BYE") {
		t.Errorf("three wrong passwords: %q", got)
	}
	first := s.raw(true)
	second := s.raw(false)
	second.say("a LOGIN " + meg + " sleepless\r\n")
	if got := second.line(); !strings.HasPrefix(got, "a NO [LIMIT]") {
		t.Errorf("second session of an account: %q", got)
	}
	nc, err := net.Dial("tcp", s.address)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	if b, _ := io.ReadAll(nc); !strings.HasPrefix(string(b), "* BYE") {
		t.Errorf("third connection of an address: %q", b)
	}
	first.say("a NOOP\r\n")
	first.until("a OK")
}

func TestIdleTimeout(t *testing.T) {
	s := start(t, true, func(c *imap.Config) { c.LoginTimeout = 2 * time.Second; c.IdleTimeout = 200 * time.Millisecond })
	if got := s.raw(false).rest(); !strings.Contains(got, "* BYE Took too long to log in") {
		t.Errorf("no login: %q", got)
	}
	if got := s.raw(true).rest(); !strings.Contains(got, "* BYE Idle for too long") {
		t.Errorf("idle: %q", got)
	}
}
