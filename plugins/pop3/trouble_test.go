package pop3_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stagecoach-mta/stagecoach/plugins/pop3"
	"github.com/stagecoach-mta/stagecoach/sdk/fail"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
	"github.com/stagecoach-mta/stagecoach/sdk/schema"
	"github.com/stagecoach-mta/stagecoach/sdk/storage"
)

// flaky is a storage that is away while down is set.
type flaky struct {
	storage.Storage
	down atomic.Bool
	// breaks is what the next Expunge meets: nothing, or the end of the storage's
	// process before or after it was done.
	breaks atomic.Int32
}

const (
	breaksBefore = 1 + iota
	breaksAfter
)

// over puts it between a storage and its clients.
func (f *flaky) over(s storage.Storage) storage.Storage {
	f.Storage = s
	return f
}

func (f *flaky) trouble() error {
	if f.down.Load() {
		return fail.New(fail.Unavailable, "secret detail")
	}
	return nil
}

func (f *flaky) Open(ctx context.Context, name string) (storage.Account, error) {
	if err := f.trouble(); err != nil {
		return nil, err
	}
	a, err := f.Storage.Open(ctx, name)
	return &flakyAccount{a, f}, err
}

type flakyAccount struct {
	storage.Account
	f *flaky
}

func (a *flakyAccount) Fetch(ctx context.Context, r *v1.FetchRequest, item func(*v1.FetchResponse_Item) error) error {
	if err := a.f.trouble(); err != nil {
		return err
	}
	return a.Account.Fetch(ctx, r, item)
}

func (a *flakyAccount) Expunge(ctx context.Context, r *v1.ExpungeRequest) (*v1.ExpungeResponse, error) {
	if err := a.f.trouble(); err != nil {
		return nil, err
	}
	broken := fail.New(fail.Unavailable, "session broken")
	switch a.f.breaks.Swap(0) {
	case breaksBefore:
		return nil, broken
	case breaksAfter:
		if _, err := a.Account.Expunge(ctx, r); err != nil {
			return nil, err
		}
		return nil, broken
	}
	return a.Account.Expunge(ctx, r)
}

// ask says a line and wants its answer to begin so.
func (c *raw) ask(line, want string) {
	c.t.Helper()
	if line != "" {
		c.say(line + "\r\n")
	}
	if got := c.line(); !strings.HasPrefix(got, want) {
		c.t.Fatalf("%q is answered with %q, want %q", line, got, want)
	}
}

// in is raw, logged in; a session that just ended may still have the maildrop.
func (s *site) in() *raw {
	s.t.Helper()
	c := s.raw()
	c.ask("", "+OK")
	for limit := time.Now().Add(20 * time.Second); ; {
		c.ask("USER "+meg, "+OK")
		c.say("PASS sleep less\r\n")
		got := c.line()
		if strings.HasPrefix(got, "+OK") {
			return c
		}
		if !strings.HasPrefix(got, "-ERR [IN-USE]") || time.Now().After(limit) {
			s.t.Fatal(got)
		}
	}
}

func TestStorageAway(t *testing.T) {
	f := &flaky{}
	s := startOver(t, true, nil, f.over)
	s.deposit("Subject: 1\r\n\r\none\r\n")
	f.down.Store(true)
	c := s.raw()
	c.ask("", "+OK")
	c.ask("USER "+meg, "+OK")
	c.ask("PASS sleep less", "-ERR [SYS/TEMP] Cannot open the maildrop now")
	f.down.Store(false)
	c.ask("USER "+meg, "+OK")
	c.ask("PASS sleep less", "+OK 1 messages")
	f.down.Store(true)
	c.ask("RETR 1", "-ERR [SYS/TEMP] Cannot read the message now, try again later")
	c.ask("STAT", "+OK 1 ")
	f.down.Store(false)
	c.ask("RETR 1", "+OK")
	for c.line() != "." {
	}
	c.ask("DELE 1", "+OK")
	f.down.Store(true)
	c.ask("QUIT", "-ERR [SYS/TEMP] Cannot remove the deleted messages now")
	if rest := c.rest(); rest != "" {
		t.Errorf("after QUIT came %q", rest)
	}
	if n := s.left(); n != 1 {
		t.Errorf("%d messages left, want 1", n)
	}
}

func TestRemovedElsewhere(t *testing.T) {
	s := start(t, true, nil)
	s.deposit("Subject: 1\r\n\r\none\r\n", "Subject: 2\r\n\r\ntwo\r\n", "Subject: 3\r\n\r\nthree\r\n")
	c := s.in()
	a, inbox := s.inbox()
	_, err := a.Expunge(context.Background(), &v1.ExpungeRequest{MailboxId: inbox.GetId(), Uids: []*v1.UIDRange{{First: 2, Last: 2}}, Force: true})
	if err != nil {
		t.Fatal(err)
	}
	// Mail that comes now is the next session's.
	s.deposit("Subject: 4\r\n\r\nfour\r\n")
	c.ask("STAT", "+OK 3 ")
	c.ask("RETR 2", "-ERR Message 2 is gone")
	c.ask("TOP 2 1", "-ERR Message 2 is gone")
	c.ask("RETR 4", "-ERR No such message")
	for i := range 3 {
		c.ask(fmt.Sprint("DELE ", i+1), "+OK")
	}
	c.ask("QUIT", "+OK")
	if n := s.left(); n != 1 {
		t.Errorf("%d messages left, want the new one", n)
	}
}

func TestAnnouncedPolicies(t *testing.T) {
	s := start(t, true, func(c *pop3.Config) { c.MinLoginInterval, c.Expire = time.Hour, "never" })
	c := s.in()
	c.say("CAPA\r\n")
	var caps []string
	for l := c.line(); l != "."; l = c.line() {
		caps = append(caps, l)
	}
	if all := strings.Join(caps, "\n") + "\n"; !strings.Contains(all, "\nLOGIN-DELAY 3600\n") || !strings.Contains(all, "\nEXPIRE NEVER\n") {
		t.Errorf("capabilities %q", all)
	}
	c.ask("QUIT", "+OK")
	c = s.raw()
	c.ask("", "+OK")
	c.ask("USER "+meg, "+OK")
	c.ask("PASS sleep less", "-ERR [LOGIN-DELAY] ")
	// Another account's time has come.
	c.ask("USER tom@hanks.example", "+OK")
	c.ask("PASS sleep less", "+OK")
}

// TestClientStopsReading: a client that takes no more of a message loses its
// session, and with it the lock.
func TestClientStopsReading(t *testing.T) {
	s := start(t, true, func(c *pop3.Config) { c.WriteTimeout = time.Second })
	s.deposit("Subject: big\r\n\r\n" + strings.Repeat("123456789012345678901234567890\r\n", 20<<20/32))
	c := s.in()
	c.say("DELE 1\r\nRSET\r\nRETR 1\r\n")
	s.in()
	if got := c.rest(); strings.HasSuffix(got, "\r\n.\r\n") {
		t.Error("the message came whole")
	}
}

func TestTooManyConnections(t *testing.T) {
	s := start(t, true, func(c *pop3.Config) { c.MaxAddressConnections = 1 })
	first := s.raw()
	first.ask("", "+OK")
	if got := s.raw().rest(); got != "-ERR [SYS/TEMP] Too many connections\r\n" {
		t.Errorf("second connection: %q", got)
	}
	first.ask("QUIT", "+OK")
}

// TestSilence: who says nothing before the login does not stay, under TLS neither.
func TestSilence(t *testing.T) {
	s := start(t, true, func(c *pop3.Config) { c.LoginTimeout = 500 * time.Millisecond })
	c := s.raw()
	c.ask("", "+OK")
	if got := c.rest(); got != "-ERR Idle for too long\r\n" {
		t.Errorf("in the clear: %q", got)
	}
	nc, err := net.Dial("tcp", s.tls)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	nc.SetDeadline(time.Now().Add(30 * time.Second))
	if _, err := io.ReadAll(nc); err != nil {
		t.Errorf("without a handshake: %v", err)
	}
}

// TestHalfALine: answers do not wait for the rest of the next command.
func TestHalfALine(t *testing.T) {
	s := start(t, true, nil)
	c := s.in()
	c.say("NOOP\r\nNOOP\r\nNO")
	c.ask("", "+OK")
	c.ask("", "+OK")
	c.ask("OP", "+OK")
}

// TestTLSEndsProperly: the end of a TLS session is announced, so that clients do
// not take it for a cut.
func TestTLSEndsProperly(t *testing.T) {
	s := start(t, false, nil)
	nc, err := tls.Dial("tcp", s.tls, &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	nc.SetDeadline(time.Now().Add(30 * time.Second))
	c := &raw{Conn: nc, t: t, r: bufio.NewReader(nc)}
	c.ask("", "+OK")
	c.ask("QUIT", "+OK Bye")
	if _, err := c.r.ReadByte(); !errors.Is(err, io.EOF) {
		t.Errorf("the end is %v", err)
	}
}

func TestConfig(t *testing.T) {
	for _, d := range []struct {
		attribute string
		edit      func(*pop3.Config)
	}{
		{"", func(*pop3.Config) {}},
		{"", func(c *pop3.Config) { c.MinLoginInterval, c.Expire = time.Minute, "30" }},
		{"idle_timeout", func(c *pop3.Config) { c.IdleTimeout = 0 }},
		{"max_errors", func(c *pop3.Config) { c.MaxErrors = 0 }},
		{"max_login_attempts", func(c *pop3.Config) { c.MaxLoginAttempts = 0 }},
		{"min_login_interval", func(c *pop3.Config) { c.MinLoginInterval = 1500 * time.Millisecond }},
		{"expire", func(c *pop3.Config) { c.Expire = "soon" }},
	} {
		c := pop3.DefaultConfig()
		d.edit(&c)
		err := c.Validate()
		if (err == nil) != (d.attribute == "") {
			t.Errorf("%q: %v", d.attribute, err)
			continue
		}
		if err != nil && !strings.Contains(err.Error(), d.attribute) {
			t.Errorf("%q is not named in %q", d.attribute, err)
		}
	}
	if _, err := schema.FromStruct(pop3.Plugin().Config); err != nil {
		t.Error(err)
	}
}
