// Package accesstest is the conformance suite that every access plugin must
// pass. It knows enough of IMAP and POP3 to be greeted, to start TLS and to log
// in; of other protocols it sees that connections are taken. What a protocol
// does with mailboxes is its own test's business.
//
// The checks:
//
//	greeting: …   a client on the listener is greeted
//	TLS: …        implicit TLS and STARTTLS work with the certificate given, and
//	              nothing that came before TLS counts behind it
//	login: …      none in the clear, the right password under TLS, no wrong one
//	trouble: …    endless lines, binary and early ends harm nobody else
//	drain: …      clients are told to go, and Drain returns
package accesstest

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/stagecoach-mta/stagecoach/sdk/conform"
)

// User and Password are those of the directory that NewDirectory makes.
const (
	User     = "meg@ryan.example"
	Password = "sleepless"
)

// defaultPatience with a line on a busy machine.
const defaultPatience = 20 * time.Second

// Subject is an access plugin that is ready, with TLS, without insecure_auth,
// and with the storage and directory of this package as its peers.
type Subject struct {
	// Address of a listener in the clear, TLSAddress of one with implicit TLS.
	Address, TLSAddress string
	// Roots that the plugin's certificate is checked against; it is for "localhost".
	Roots *x509.CertPool
	// Asked tells how often the directory was asked for a password.
	Asked func() int
	// Drain asks the plugin to drain.
	Drain func(ctx context.Context) error
}

// Options of a run.
type Options struct {
	Facts conform.Facts
	// Patience is how long a line may take; 0: 20 s.
	Patience time.Duration
}

// Run makes the checks. open returns a plugin that lives: the same one each
// time, or with fresh set one that nobody else uses. Under `go test`,
// sdktest.Conform calls it.
func Run(t conform.T, open func(t conform.T, fresh bool) *Subject, opts Options) {
	s := &suite{open: open, protocol: opts.Facts.Protocol, patience: opts.Patience}
	if s.patience == 0 {
		s.patience = defaultPatience
	}
	for _, c := range []conform.Check{
		{
			Name: "greeting: a client on the listener is greeted", Contract: "plugin.proto, Listener.fd; RFC 9051 section 7.1, RFC 1939 section 4",
			Remedy: "accept on the listeners that Configure names (open files), or name the protocol \"silent\" in the facts", Do: s.greeting,
		},
		{
			Name: "TLS: from the first octet where it is implicit", Contract: "plugin.proto, Listener.implicit_tls, TLS; RFC 8314 section 3.3",
			Remedy: "do the TLS handshake first on listeners with implicit_tls, with the certificate of Configure's tls", Do: s.implicit,
		},
		{
			Name: "TLS: STARTTLS is offered and works", Contract: "plugin.proto, TLS; RFC 9051 section 6.2.1, RFC 2595 section 4",
			Remedy: "offer STARTTLS (POP3: STLS) in the clear when there is a certificate, and no longer under TLS", Do: s.startTLS,
		},
		{
			Name: "TLS: what came before it is not obeyed behind it", Contract: "RFC 9051 section 6.2.1, RFC 2595 section 9; CVE-2011-0411",
			Remedy: "throw away what is in the read buffer when STARTTLS begins, or end the connection", Do: s.injection,
		},
		{
			Name: "login: none in the clear", Contract: "plugin.proto, ConfigureRequest.insecure_auth; RFC 9051 section 11.4",
			Remedy: "refuse the login before you ask the directory, unless the connection has TLS or insecure_auth is set", Do: s.clear,
		},
		{
			Name: "login: under TLS the right password is taken", Contract: "directory.proto, AuthenticateRequest",
			Remedy: "ask the granted directory (role \"auth\") and open the granted storage (role \"storage\")", Do: s.login,
		},
		{
			Name: "login: a wrong password is refused", Contract: "directory.proto, AuthenticateRequest; common.proto, Problem.DENIED",
			Remedy: "answer NO (POP3: -ERR) to Problem DENIED", Do: s.wrong,
		},
		{
			Name: "trouble: endless lines, binary and early ends harm nobody else", Contract: "plugin.proto, Plugin",
			Remedy: "bound the length of a line, and end the connection of who breaks the protocol", Do: s.trouble,
		},
		{
			Name: "drain: clients are told to go", Contract: "plugin.proto, Plugin.Drain; RFC 9051 section 7.1.5",
			Remedy: "stop accepting, say BYE (POP3: end the connection between two commands), and return when all have gone", Do: s.drain,
		},
	} {
		t.Run(c)
	}
}

type suite struct {
	open     func(t conform.T, fresh bool) *Subject
	protocol string
	patience time.Duration
}

// client is a connection with its reader.
type client struct {
	net.Conn
	r        *bufio.Reader
	patience time.Duration
}

func (s *suite) dial(t conform.T, address string) *client {
	t.Helper()
	var d net.Dialer
	c, err := d.DialContext(t.Context(), "tcp", address)
	if err != nil {
		t.Fatalf("connect to %s: %v", address, err)
	}
	t.Cleanup(func() { c.Close() })
	return &client{c, bufio.NewReader(c), s.patience}
}

// line reads one line without its end.
func (c *client) line() (string, error) {
	c.SetReadDeadline(time.Now().Add(c.patience))
	s, err := c.r.ReadString('\n')
	return strings.TrimRight(s, "\r\n"), err
}

func (c *client) send(text string) error {
	c.SetWriteDeadline(time.Now().Add(c.patience))
	_, err := c.Write([]byte(text))
	return err
}

// secure does the client's part of a TLS handshake.
func (c *client) secure(ctx context.Context, roots *x509.CertPool) (*client, error) {
	conn := tls.Client(c.Conn, &tls.Config{RootCAs: roots, ServerName: "localhost", MinVersion: tls.VersionTLS12})
	ctx, cancel := context.WithTimeout(ctx, c.patience)
	defer cancel()
	if err := conn.HandshakeContext(ctx); err != nil {
		return nil, err
	}
	return &client{conn, bufio.NewReader(conn), c.patience}, nil
}

// command sends one and reads up to its last line: the tagged one of IMAP, the
// status (or with many the dot) of POP3.
func (s *suite) command(c *client, text string, many bool) (last string, all []string, err error) {
	tag := "conform"
	if s.protocol == "imap" {
		text = tag + " " + text
	}
	if err := c.send(text + "\r\n"); err != nil {
		return "", nil, err
	}
	for {
		l, err := c.line()
		if err != nil {
			return l, all, fmt.Errorf("after %.40q: %w", text, err)
		}
		all = append(all, l)
		switch {
		case s.protocol == "imap" && strings.HasPrefix(l, tag+" "):
			return strings.TrimPrefix(l, tag+" "), all, nil
		case s.protocol == "imap":
		case !many || strings.HasPrefix(l, "-ERR"):
			return l, all, nil
		case l == ".":
			return all[0], all, nil
		}
	}
}

func ok(status string) bool {
	return strings.HasPrefix(status, "OK") || strings.HasPrefix(status, "+OK")
}

// greeted connects and is greeted; it learns the protocol by that.
func (s *suite) greeted(t conform.T, sub *Subject) *client {
	t.Helper()
	c := s.dial(t, sub.Address)
	if s.protocol == "silent" {
		t.Skipf("the facts say that its clients speak first: only IMAP and POP3 are known here")
	}
	l, err := c.line()
	if err != nil {
		t.Fatalf("no greeting on %s: %v (read %q)", sub.Address, err, l)
	}
	s.learn(t, l)
	return c
}

func (s *suite) learn(t conform.T, greeting string) {
	t.Helper()
	is := ""
	switch {
	case strings.HasPrefix(greeting, "* OK"), strings.HasPrefix(greeting, "* PREAUTH"):
		is = "imap"
	case strings.HasPrefix(greeting, "+OK"):
		is = "pop3"
	case s.protocol == "":
		t.Skipf("the greeting %.60q is neither IMAP's nor POP3's: no more is known of this protocol", greeting)
	}
	if s.protocol == "" {
		s.protocol = is
	}
	if is != s.protocol {
		t.Fatalf("the greeting is %.60q, and the protocol is %s", greeting, s.protocol)
	}
}

func (s *suite) greeting(t conform.T) {
	sub := s.open(t, false)
	s.greeted(t, sub)
	// The next one need not wait for the first to leave.
	s.greeted(t, sub)
}

// secured is a client under implicit TLS, greeted.
func (s *suite) secured(t conform.T, sub *Subject) *client {
	t.Helper()
	if s.protocol == "" {
		s.greeted(t, sub).Close()
	}
	if s.protocol == "silent" {
		t.Skipf("the facts say that its clients speak first: only IMAP and POP3 are known here")
	}
	c, err := s.dial(t, sub.TLSAddress).secure(t.Context(), sub.Roots)
	if err != nil {
		t.Fatalf("TLS handshake on %s, which has implicit_tls: %v", sub.TLSAddress, err)
	}
	l, err := c.line()
	if err != nil {
		t.Fatalf("no greeting under TLS: %v", err)
	}
	s.learn(t, l)
	return c
}

func (s *suite) implicit(t conform.T) { s.secured(t, s.open(t, false)) }

func (s *suite) words() (capability, startTLS string) {
	if s.protocol == "imap" {
		return "CAPABILITY", "STARTTLS"
	}
	return "CAPA", "STLS"
}

func (s *suite) startTLS(t conform.T) {
	sub := s.open(t, false)
	c := s.greeted(t, sub)
	capability, start := s.words()
	_, all, err := s.command(c, capability, true)
	if err != nil || !strings.Contains(strings.Join(all, " "), start) {
		t.Fatalf("%s in the clear does not offer %s: %q %v", capability, start, all, err)
	}
	status, _, err := s.command(c, start, false)
	if err != nil || !ok(status) {
		t.Fatalf("%s was answered with %q %v", start, status, err)
	}
	c, err = c.secure(t.Context(), sub.Roots)
	if err != nil {
		t.Fatalf("TLS handshake after %s: %v", start, err)
	}
	_, all, err = s.command(c, capability, true)
	if err != nil || strings.Contains(strings.Join(all, " "), start) {
		t.Errorf("%s under TLS: %q %v; it may not offer %s again", capability, all, err, start)
	}
}

func (s *suite) injection(t conform.T) {
	sub := s.open(t, false)
	c := s.greeted(t, sub)
	_, start := s.words()
	inject := "NOOP\r\n"
	if s.protocol == "imap" {
		start, inject = "conform STARTTLS", "injected NOOP\r\n"
	}
	if err := c.send(start + "\r\n" + inject); err != nil {
		t.Fatalf("send: %v", err)
	}
	if l, err := c.line(); err != nil || !strings.Contains(l, "OK") || strings.HasPrefix(l, "* BYE") {
		return // it ends the connection: as good
	}
	c, err := c.secure(t.Context(), sub.Roots)
	if err != nil {
		return // likewise
	}
	capability, _ := s.words()
	_, all, err := s.command(c, capability, false)
	if err == nil && len(all) > 0 {
		if s.protocol == "imap" && strings.Contains(strings.Join(all, "\n"), "injected ") {
			t.Errorf("a command sent in the clear behind STARTTLS was answered under TLS: %q", all)
		}
		if s.protocol == "pop3" && strings.HasPrefix(all[0], "+OK") {
			// A reply to CAPA is a list; one more reply means that NOOP had its own.
			c.SetReadDeadline(time.Now().Add(c.patience))
			if l, err := c.line(); err == nil && (strings.HasPrefix(l, "+OK") || strings.HasPrefix(l, "-ERR")) {
				t.Errorf("a command sent in the clear behind STLS was answered under TLS: %q, then %q", all[0], l)
			}
		}
	}
}

// enter tries to log in.
func (s *suite) enter(c *client, password string) (status string, err error) {
	if s.protocol == "imap" {
		status, _, err = s.command(c, fmt.Sprintf("LOGIN %q %q", User, password), false)
		return status, err
	}
	if status, _, err = s.command(c, "USER "+User, false); err != nil || !ok(status) {
		return status, err
	}
	status, _, err = s.command(c, "PASS "+password, false)
	return status, err
}

func (s *suite) clear(t conform.T) {
	sub := s.open(t, false)
	c := s.greeted(t, sub)
	before := sub.Asked()
	if status, err := s.enter(c, Password); err == nil && ok(status) {
		t.Errorf("the password was taken in the clear: %q", status)
	}
	if n := sub.Asked() - before; n > 0 {
		t.Errorf("the directory was asked %d times for a login that may not be", n)
	}
}

func (s *suite) login(t conform.T) {
	c := s.secured(t, s.open(t, false))
	if status, err := s.enter(c, Password); err != nil || !ok(status) {
		t.Errorf("the right password was answered with %q %v", status, err)
	}
}

func (s *suite) wrong(t conform.T) {
	c := s.secured(t, s.open(t, false))
	if status, err := s.enter(c, "wrong"); err == nil && ok(status) {
		t.Errorf("a wrong password was answered with %q", status)
	}
}

func (s *suite) trouble(t conform.T) {
	sub := s.open(t, false)
	endless := strings.Repeat("x", 64<<10)
	for _, text := range []string{"\x00\x01\x02\xff\r\n", "\r\n\r\n\r\n", "{99999999999}\r\n", "a LOGIN {5+}\r\nab", "\x16\x03\x01\x02\x00\x01", ""} {
		c := s.dial(t, sub.Address)
		_ = c.send(text)
		c.Close()
	}
	c := s.dial(t, sub.Address)
	for range 64 { // 4 MiB without a line end
		if c.send(endless) != nil {
			break
		}
	}
	s.greeted(t, sub)
	c.Close()
}

func (s *suite) drain(t conform.T) {
	sub := s.open(t, true)
	waiting := s.greeted(t, sub)
	inside := s.secured(t, sub)
	if status, err := s.enter(inside, Password); err != nil || !ok(status) {
		t.Logf("the login failed with %q %v: only clients before it are looked at", status, err)
	}
	// A server may let its clients stay for most of the time that it has.
	ctx, cancel := context.WithTimeout(t.Context(), min(s.patience, 6*time.Second))
	defer cancel()
	drained := make(chan error, 1)
	go func() { drained <- sub.Drain(ctx) }()
	for name, c := range map[string]*client{"before the login": waiting, "logged in": inside} {
		var last string
		for {
			l, err := c.line()
			if err != nil {
				if ne, is := err.(net.Error); is && ne.Timeout() {
					t.Errorf("a client %s is still connected %s after Drain was called", name, s.patience)
				} else if s.protocol == "imap" && !strings.HasPrefix(last, "* BYE") {
					t.Errorf("a client %s was cut off without BYE: the last line was %q", name, last)
				}
				break
			}
			last = l
		}
		c.Close()
	}
	select {
	case err := <-drained:
		if err != nil {
			t.Errorf("Drain: %v", err)
		}
	case <-t.Context().Done():
		t.Errorf("Drain did not return when all clients had gone")
	}
}
