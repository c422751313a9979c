package pop3_test

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
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/migadu/go-pop3/pop3client"
	"github.com/rs/zerolog"
	"go.uber.org/goleak"

	"github.com/stagecoach-mta/stagecoach/plugins/local"
	"github.com/stagecoach-mta/stagecoach/plugins/pop3"
	"github.com/stagecoach-mta/stagecoach/sdk/access"
	"github.com/stagecoach-mta/stagecoach/sdk/fail"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
	"github.com/stagecoach-mta/stagecoach/sdk/storage"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const meg = "meg@ryan.example"

// people is a directory in which everybody's password is "sleep less".
type people struct{}

func (people) Authenticate(_ context.Context, r *v1.AuthenticateRequest) (*v1.AuthenticateResponse, error) {
	if r.GetPassword() != "sleep less" || !strings.Contains(r.GetUsername(), "@") {
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

type site struct {
	t            testing.TB
	server       *pop3.Server
	store        storage.Storage
	address, tls string
}

func start(t testing.TB, insecure bool, edit func(*pop3.Config)) *site {
	t.Helper()
	return startOver(t, insecure, edit, func(s storage.Storage) storage.Storage { return s })
}

// startOver is start with something between the server and the storage.
func startOver(t testing.TB, insecure bool, edit func(*pop3.Config), between func(storage.Storage) storage.Storage) *site {
	t.Helper()
	store, err := local.New(local.Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	config := pop3.DefaultConfig()
	config.LoginDelay, config.MaxLoginDelay = time.Millisecond, time.Millisecond
	if edit != nil {
		edit(&config)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	var listeners []access.Listener
	for _, implicit := range []bool{false, true} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		listeners = append(listeners, access.Listener{Listener: l, ImplicitTLS: implicit})
	}
	s := &site{t: t, store: store, address: listeners[0].Addr().String(), tls: listeners[1].Addr().String()}
	s.server, err = pop3.New(config, &access.Host{
		Hostname: "mx.ryan.example", Listeners: listeners, InsecureAuth: insecure,
		TLS:     &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}},
		Storage: between(store), Directory: people{}, Log: zerolog.Nop(),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- s.server.Serve(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-served; err != nil {
			t.Error(err)
		}
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// inbox returns Meg's account and her inbox.
func (s *site) inbox() (storage.Account, *v1.Mailbox) {
	s.t.Helper()
	a, err := s.store.Open(context.Background(), meg)
	if err != nil {
		s.t.Fatal(err)
	}
	list, err := a.List(context.Background(), &v1.ListMailboxesRequest{Name: "INBOX"})
	if err != nil {
		s.t.Fatal(err)
	}
	return a, list.GetMailboxes()[0]
}

func (s *site) deposit(mails ...string) {
	s.t.Helper()
	a, m := s.inbox()
	req := &v1.AppendRequest{MailboxId: m.GetId()}
	for i, text := range mails {
		ref := &v1.MessageRef{Size: int64(len(text)), Where: &v1.MessageRef_Inline{Inline: []byte(text)}}
		if len(text) > 16<<10 {
			path := filepath.Join(s.t.TempDir(), fmt.Sprint(i))
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				s.t.Fatal(err)
			}
			ref.Where = &v1.MessageRef_Path{Path: path}
		}
		req.Messages = append(req.Messages, &v1.AppendRequest_Message{Message: ref})
	}
	if _, err := a.Append(context.Background(), req); err != nil {
		s.t.Fatal(err)
	}
}

func (s *site) left() uint32 {
	_, m := s.inbox()
	return m.GetMessages()
}

func (s *site) client() *pop3client.Client {
	s.t.Helper()
	c, err := pop3client.Dial(context.Background(), s.address, pop3client.Options{})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { c.Close() })
	if err := c.User(context.Background(), meg, "sleep less"); err != nil {
		s.t.Fatal(err)
	}
	return c
}

type raw struct {
	net.Conn
	t testing.TB
	r *bufio.Reader
}

func (s *site) raw() *raw {
	s.t.Helper()
	nc, err := net.Dial("tcp", s.address)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { nc.Close() })
	nc.SetDeadline(time.Now().Add(30 * time.Second))
	return &raw{Conn: nc, t: s.t, r: bufio.NewReader(nc)}
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

func (c *raw) rest() string {
	b, _ := io.ReadAll(c.r)
	return string(b)
}

// TestDialogues plays testdata/*.txt: "M: " a line of a mail that is in the
// inbox before ("--" ends it), "C: " is said, "S: " is the next line, where "…"
// stands for anything.
func TestDialogues(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal("no dialogues", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			s := start(t, true, nil)
			var c *raw
			mail := ""
			for i, line := range strings.Split(strings.TrimSuffix(string(text), "\n"), "\n") {
				kind, rest, _ := strings.Cut(line, ":")
				rest = strings.TrimPrefix(rest, " ")
				if c == nil && (kind == "C" || kind == "S") {
					c = s.raw()
				}
				switch kind {
				case "M":
					mail += rest + "\r\n"
				case "--":
					s.deposit(mail)
					mail = ""
				case "C":
					c.say(rest + "\r\n")
				case "S":
					pattern := "^" + strings.ReplaceAll(regexp.QuoteMeta(rest), "…", ".*") + "$"
					if got := c.line(); !regexp.MustCompile(pattern).MatchString(got) {
						t.Fatalf("%s:%d: got  %s\nwant %s", file, i+1, got, rest)
					}
				}
			}
		})
	}
}

// TestByteExact: what is undone of the stuffing is the message.
func TestByteExact(t *testing.T) {
	mails := []string{
		"Subject: x\r\n\r\n.\r\n..\r\n.dot\r\nend\r\n",
		"Subject: \xe4\xf6\r\n\r\n\x80\xff\x01\r\n",
		"Subject: x\r\n\r\nno line end",
		"Subject: x\r\n\r\nends with CR\r",
		"Subject: x\r\n",
		"\r\n",
		"Subject: x\r\n\r\n" + strings.Repeat("."+strings.Repeat("x", 40000)+"\r\n", 3),
		"Subject: big\r\n\r\n" + strings.Repeat(".23456789012345678901234567890123456789\r\n", 20<<20/41),
	}
	s := start(t, true, nil)
	s.deposit(mails...)
	c := s.raw()
	c.say("USER " + meg + "\r\nPASS sleep less\r\n")
	for range 3 {
		c.line()
	}
	for i, want := range mails {
		c.say(fmt.Sprintf("RETR %d\r\n", i+1))
		if got := c.line(); got != fmt.Sprintf("+OK %d octets", len(want)) {
			t.Fatalf("message %d: %q", i+1, got)
		}
		var got strings.Builder
		for {
			l, err := c.r.ReadString('\n')
			if err != nil {
				t.Fatal(err)
			}
			if l == ".\r\n" {
				break
			}
			got.WriteString(strings.TrimPrefix(l, "."))
		}
		switch {
		case strings.HasSuffix(want, "\r"):
			want += "\n"
		case !strings.HasSuffix(want, "\n"):
			want += "\r\n"
		}
		if got.String() != want {
			t.Errorf("message %d: %d octets came, want %d", i+1, got.Len(), len(want))
		}
	}
}

func TestClient(t *testing.T) {
	ctx := context.Background()
	s := start(t, true, nil)
	s.deposit("Subject: 1\r\n\r\none\r\n", "Subject: 2\r\n\r\ntwo\r\n")
	c := s.client()
	ids, err := c.Uidl(ctx)
	if err != nil || len(ids) != 2 {
		t.Fatal(ids, err)
	}
	if err := c.Dele(ctx, 1); err != nil {
		t.Fatal(err)
	}
	// Gone without QUIT: nothing is removed (RFC 1939 section 6).
	c.Close()
	again, err := pop3client.Dial(ctx, s.address, pop3client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	// The server may still be at the end of the first session.
	for limit := time.Now().Add(10 * time.Second); ; {
		if err = again.AuthPlain(ctx, "", meg, "sleep less"); err == nil {
			break
		}
		if !strings.Contains(err.Error(), "IN-USE") || time.Now().After(limit) {
			t.Fatal(err)
		}
	}
	if n := s.left(); n != 2 {
		t.Fatalf("%d messages after a session without QUIT", n)
	}
	same, err := again.Uidl(ctx)
	if err != nil || len(same) != 2 || same[0].UniqueID != ids[0].UniqueID || same[1].UniqueID != ids[1].UniqueID {
		t.Errorf("unique ids %v, before %v (%v)", same, ids, err)
	}
	if err := again.Dele(ctx, 1); err != nil {
		t.Fatal(err)
	}
	if err := again.Quit(ctx); err != nil {
		t.Fatal(err)
	}
	if n := s.left(); n != 1 {
		t.Errorf("%d messages after DELE and QUIT", n)
	}
	last := s.client()
	if left, err := last.Uidl(ctx); err != nil || len(left) != 1 || left[0].UniqueID != ids[1].UniqueID {
		t.Errorf("unique ids %v (%v), want that of message 2 in %v", left, err, ids)
	}
}

func TestMaildropIsLocked(t *testing.T) {
	s := start(t, true, nil)
	s.client()
	c := s.raw()
	c.say("USER " + meg + "\r\nPASS sleep less\r\n")
	c.line()
	c.line()
	if got := c.line(); !strings.HasPrefix(got, "-ERR [IN-USE]") {
		t.Errorf("second session: %q", got)
	}
}

func TestPipelined(t *testing.T) {
	s := start(t, true, nil)
	s.deposit("Subject: 1\r\n\r\none\r\n")
	c := s.raw()
	c.say("USER " + meg + "\r\nPASS sleep less\r\nSTAT\r\nRETR 1\r\nDELE 1\r\nQUIT\r\n")
	got := c.rest()
	if strings.Count(got, "+OK") != 7 || !strings.HasSuffix(got, "+OK Bye, 1 messages removed\r\n") {
		t.Errorf("got %q", got)
	}
	if n := s.left(); n != 0 {
		t.Errorf("%d messages left", n)
	}
}

func TestTLS(t *testing.T) {
	s := start(t, false, nil)
	c := s.raw()
	c.say("CAPA\r\nUSER " + meg + "\r\nAUTH PLAIN\r\nSTLS\r\n")
	got := ""
	for !strings.Contains(got, "+OK Begin TLS") {
		got += c.line() + "\n"
	}
	if strings.Contains(got, "\nUSER") || strings.Contains(got, "SASL") || !strings.Contains(got, "\nSTLS\n") || strings.Count(got, "-ERR A password goes only over TLS") != 2 {
		t.Errorf("in the clear: %q", got)
	}
	under := tls.Client(c.Conn, &tls.Config{InsecureSkipVerify: true})
	c = &raw{Conn: under, t: t, r: bufio.NewReader(under)}
	c.say("CAPA\r\nUSER " + meg + "\r\nPASS sleep less\r\nQUIT\r\n")
	if got := c.rest(); !strings.Contains(got, "SASL PLAIN") || strings.Contains(got, "STLS") || !strings.Contains(got, "+OK Bye") {
		t.Errorf("under TLS: %q", got)
	}
	implicit, err := tls.Dial("tcp", s.tls, &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	defer implicit.Close()
	c = &raw{Conn: implicit, t: t, r: bufio.NewReader(implicit)}
	c.say("USER " + meg + "\r\nPASS sleep less\r\nQUIT\r\n")
	if got := c.rest(); !strings.Contains(got, "+OK Bye") {
		t.Errorf("implicit TLS: %q", got)
	}
	c = s.raw()
	c.say("STLS\r\nQUIT\r\n")
	if got := c.rest(); strings.Contains(got, "Bye") || strings.Contains(got, "+OK Begin") {
		t.Errorf("a command before the handshake was taken: %q", got)
	}
}

func TestBounds(t *testing.T) {
	s := start(t, true, func(c *pop3.Config) {
		c.MaxAddressConnections = 2
		c.MaxErrors = 3
		c.IdleTimeout = 500 * time.Millisecond
	})
	for name, d := range map[string]struct{ say, want string }{
		"wrong passwords": {strings.Repeat("USER "+meg+"\r\nPASS x\r\n", 5), "-ERR [AUTH] Authentication failed\r\n"},
		"nonsense":        {strings.Repeat("X\r\n", 5), "-ERR Too many errors\r\n"},
		"long line":       {strings.Repeat("x", 13<<10), "-ERR Line too long\r\n"},
		"idle":            {"USER " + meg + "\r\nPASS sleep less\r\n", "-ERR Idle for too long\r\n"},
	} {
		c := s.raw()
		io.WriteString(c, d.say)
		if got := c.rest(); !strings.HasSuffix(got, d.want) {
			t.Errorf("%s: %q", name, got)
		}
		c.Close()
	}
}
