package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/textproto"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// patience is what a client has: a server that is silent for longer hangs.
const patience = time.Minute

// pipelined are clients that each keep one SMTP session, and send with each message
// the commands of the next (RFC 2920): of every moment some are in it.
type pipelined struct {
	mu    sync.Mutex
	acked map[string]bool
	errs  []error
	stop  chan struct{}
	done  sync.WaitGroup
}

func pipeline(t *testing.T, mx string, sessions int) *pipelined {
	t.Helper()
	p := &pipelined{acked: map[string]bool{}, stop: make(chan struct{})}
	for n := range sessions {
		p.done.Go(func() {
			if err := p.session(mx, n); err != nil {
				p.mu.Lock()
				defer p.mu.Unlock()
				p.errs = append(p.errs, fmt.Errorf("session %d: %w", n, err))
			}
		})
	}
	t.Cleanup(func() { p.end(t) })
	return p
}

// session sends until stop. Every reply must be the good one.
func (p *pipelined) session(mx string, n int) error {
	conn, err := net.DialTimeout("tcp", mx, patience)
	if err != nil {
		return err
	}
	c := textproto.NewConn(conn)
	defer c.Close()
	step := func(text string, codes ...int) error {
		_ = conn.SetDeadline(time.Now().Add(patience)) // a TCP connection takes one
		if _, err := c.W.WriteString(text); err != nil {
			return err
		}
		if err := c.W.Flush(); err != nil {
			return err
		}
		for _, code := range codes {
			if _, _, err := c.ReadResponse(code); err != nil {
				return fmt.Errorf("after %.60q: %w", text, err)
			}
		}
		return nil
	}
	const next = "MAIL FROM:<tom@hanks.example>\r\nRCPT TO:<meg@ryan.example>\r\nDATA\r\n"
	if err := step("EHLO hanks.example\r\n", 220, 250); err != nil {
		return err
	}
	if err := step(next, 250, 250, 354); err != nil {
		return err
	}
	for k := 0; ; k++ {
		id := fmt.Sprintf("m%d.%d", n, k)
		message := "Subject: " + id + "\r\n\r\nHello Meg\r\n.\r\n"
		select {
		case <-p.stop:
			if err := step(message+"QUIT\r\n", 250, 221); err != nil {
				return err
			}
			p.ack(id)
			return nil
		default:
		}
		if err := step(message+next, 250, 250, 250, 354); err != nil {
			return err
		}
		p.ack(id)
	}
}

func (p *pipelined) ack(id string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.acked[id] = true
}

// more waits until so many more mails are acknowledged.
func (p *pipelined) more(t *testing.T, n int) {
	t.Helper()
	count := func() (int, error) {
		p.mu.Lock()
		defer p.mu.Unlock()
		return len(p.acked), errors.Join(p.errs...)
	}
	before, _ := count()
	eventually(t, func() error {
		now, err := count()
		if err != nil {
			t.Fatal(err)
		}
		if now < before+n {
			return fmt.Errorf("%d mails acknowledged, want %d", now-before, n)
		}
		return nil
	})
}

// end lets the sessions finish, and gives the names of the mails acknowledged.
func (p *pipelined) end(t *testing.T) map[string]bool {
	t.Helper()
	select {
	case <-p.stop:
	default:
		close(p.stop)
	}
	p.done.Wait()
	for _, err := range p.errs {
		t.Error(err)
	}
	p.errs = nil
	return p.acked
}

// client speaks a protocol of lines. What does not come fails the test.
type client struct {
	*testing.T
	net.Conn
	r *bufio.Reader
	// tag is the number of the last IMAP command.
	tag int
}

func dial(t *testing.T, addr string) *client {
	t.Helper()
	conn, err := net.DialTimeout("tcp", addr, patience)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return &client{T: t, Conn: conn, r: bufio.NewReader(conn)}
}

func (c *client) say(line string) {
	c.Helper()
	_ = c.SetDeadline(time.Now().Add(patience)) // a TCP connection takes one
	if _, err := fmt.Fprintf(c.Conn, "%s\r\n", line); err != nil {
		c.Fatalf("%q: %v", line, err)
	}
}

func (c *client) line() string {
	c.Helper()
	_ = c.SetDeadline(time.Now().Add(patience)) // a TCP connection takes one
	line, err := c.r.ReadString('\n')
	if err != nil {
		c.Fatalf("after %q: %v", line, err)
	}
	return strings.TrimRight(line, "\r\n")
}

// ask says a line of POP3 and gives its status line.
func (c *client) ask(line string) string {
	c.Helper()
	c.say(line)
	return c.line()
}

// want is ask for an answer that must begin so.
func (c *client) want(begins, line string) string {
	c.Helper()
	got := c.ask(line)
	if !strings.HasPrefix(got, begins) {
		c.Fatalf("%q is answered with %q, want %q", line, got, begins)
	}
	return got
}

// body reads the lines of a POP3 answer that follow its status line.
func (c *client) body() string {
	c.Helper()
	var b strings.Builder
	for {
		line := c.line()
		if line == "." {
			return b.String()
		}
		b.WriteString(strings.TrimPrefix(line, ".") + "\n")
	}
}

// maildrop is a POP3 session of Meg's. Another one that just ends may still have
// the maildrop.
func maildrop(t *testing.T, addr string) *client {
	t.Helper()
	var c *client
	eventually(t, func() error {
		c = dial(t, addr)
		if greeting := c.line(); !strings.HasPrefix(greeting, "+OK") {
			return errors.New(greeting)
		}
		c.want("+OK", "USER meg@ryan.example")
		if got := c.ask("PASS sleepless"); !strings.HasPrefix(got, "+OK") {
			return errors.New(got)
		}
		return nil
	})
	return c
}

// count of the messages in the maildrop.
func (c *client) count() (n int) {
	c.Helper()
	if _, err := fmt.Sscanf(c.want("+OK", "STAT"), "+OK %d", &n); err != nil {
		c.Fatal(err)
	}
	return n
}

// mails reads all that is in Meg's INBOX.
func mails(t *testing.T, pop3 string) []string {
	t.Helper()
	c := maildrop(t, pop3)
	var all []string
	for n := range c.count() {
		c.want("+OK", fmt.Sprint("RETR ", n+1))
		all = append(all, c.body())
	}
	c.want("+OK", "QUIT")
	return all
}

// field is a header field of a mail; "" if it is not there once.
func field(mail, name string) string {
	head, _, _ := strings.Cut(mail, "\n\n")
	all := regexp.MustCompile(`(?m)^`+name+`: (.*)$`).FindAllStringSubmatch(head, -1)
	if len(all) != 1 {
		return ""
	}
	return all[0][1]
}

// imap sends a command and reads up to its end: the status line without the tag,
// and all that came before it, literals included.
func (c *client) imap(command string) (status, data string) {
	c.Helper()
	c.tag++
	tag := fmt.Sprintf("a%d ", c.tag)
	c.say(tag + command)
	var b strings.Builder
	for {
		line := c.line()
		if rest, ok := strings.CutPrefix(line, tag); ok {
			return rest, b.String()
		}
		if strings.HasPrefix(line, "* BYE") && command != "LOGOUT" {
			c.Fatalf("%q ends the session: %s", command, line)
		}
		b.WriteString(line + "\r\n")
		if size := literal.FindStringSubmatch(line); size != nil {
			n, _ := strconv.ParseInt(size[1], 10, 64)
			if _, err := io.CopyN(&b, c.r, n); err != nil {
				c.Fatalf("%q: a literal of %d octets: %v", command, n, err)
			}
		}
	}
}

var literal = regexp.MustCompile(`\{(\d+)\}$`)

// inbox is an IMAP session of Meg's with INBOX selected.
func inbox(t *testing.T, addr string) *client {
	t.Helper()
	c := dial(t, addr)
	if greeting := c.line(); !strings.HasPrefix(greeting, "* OK") {
		t.Fatal(greeting)
	}
	for _, command := range []string{"LOGIN meg@ryan.example sleepless", "SELECT INBOX"} {
		if status, _ := c.imap(command); !strings.HasPrefix(status, "OK") {
			t.Fatalf("%s: %s", command, status)
		}
	}
	return c
}
