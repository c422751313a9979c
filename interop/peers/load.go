package main

import (
	"bufio"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// load is what a client sends.
type load struct {
	// tool is "smtp-source", a connection per mail, or "kept": our own client,
	// whose sessions keep their connections.
	tool     string
	sessions int
	size     int
	mails    int
	to       func(n int) string
	// rate is how many mails begin in a second; 0: each session sends as fast as
	// it is answered.
	rate float64
}

// sent is what the client saw.
type sent struct {
	took    time.Duration
	latency []time.Duration // from when a mail was due to its 250, sorted; kept only
}

func (s *sent) quantile(q float64) time.Duration {
	if len(s.latency) == 0 {
		return 0
	}
	return s.latency[int(q*float64(len(s.latency)-1))]
}

// run sends the load to a server on loopback. A single refusal is an error: the
// servers are given nothing that they should refuse.
func (l load) run(client *group, tools tools, port int) (*sent, error) {
	began := time.Now()
	if l.tool == "smtp-source" {
		log, err := os.CreateTemp("", "smtp-source")
		if err != nil {
			return nil, err
		}
		defer os.Remove(log.Name())
		defer log.Close()
		err = client.run(log, tools.source, "-s", strconv.Itoa(l.sessions), "-m", strconv.Itoa(l.mails), "-l", strconv.Itoa(l.size),
			"-f", "tom@hanks.example", "-t", l.to(0), "127.0.0.1:"+strconv.Itoa(port))
		if err != nil {
			text, _ := os.ReadFile(log.Name())
			return nil, fmt.Errorf("%w: %s", err, text)
		}
		return &sent{took: time.Since(began)}, nil
	}
	var (
		next    atomic.Int64
		mu      sync.Mutex
		all     []time.Duration
		problem error
		wg      sync.WaitGroup
	)
	for range l.sessions {
		wg.Go(func() {
			mine, err := l.session(&next, began, port)
			mu.Lock()
			defer mu.Unlock()
			all = append(all, mine...)
			if problem == nil {
				problem = err
			}
		})
	}
	wg.Wait()
	if problem != nil {
		return nil, problem
	}
	slices.Sort(all)
	return &sent{took: time.Since(began), latency: all}, nil
}

// session sends mails over one connection until the load's mails are used up.
func (l load) session(next *atomic.Int64, began time.Time, port int) (latency []time.Duration, err error) {
	var c *conn
	defer func() {
		if c != nil {
			c.quit()
		}
	}()
	mail := make([]byte, 0, l.size+512)
	for {
		n := int(next.Add(1)) - 1
		if n >= l.mails {
			return latency, nil
		}
		due := time.Now()
		if l.rate > 0 {
			due = began.Add(time.Duration(float64(n) / l.rate * float64(time.Second)))
			time.Sleep(time.Until(due))
		}
		// A server may end a session after its share of mails; ours does after 1,000.
		if c != nil && c.mails == 500 {
			c.quit()
			c = nil
		}
		if c == nil {
			if c, err = dial(port); err != nil {
				return nil, err
			}
		}
		to := l.to(n)
		mail = appendMail(mail[:0], to, n, l.size)
		if err := c.mail("tom@hanks.example", to, mail); err != nil {
			return nil, err
		}
		latency = append(latency, time.Since(due))
	}
}

// conn is an SMTP client that waits for each reply.
type conn struct {
	net.Conn
	r     *bufio.Reader
	w     *bufio.Writer
	mails int
}

// patience bounds the wait for one reply.
const patience = time.Minute

func dial(port int) (*conn, error) {
	c, err := net.DialTimeout("tcp", "127.0.0.1:"+strconv.Itoa(port), 10*time.Second)
	if err != nil {
		return nil, err
	}
	s := &conn{Conn: c, r: bufio.NewReader(c), w: bufio.NewWriterSize(c, 64<<10)}
	if err = s.reply(220); err == nil {
		err = s.say(250, "EHLO client.example")
	}
	if err != nil {
		c.Close()
		return nil, err
	}
	return s, nil
}

func (c *conn) mail(from, to string, mail []byte) error {
	err := c.say(250, "MAIL FROM:<"+from+">")
	if err == nil {
		err = c.say(250, "RCPT TO:<"+to+">")
	}
	if err == nil {
		err = c.say(354, "DATA")
	}
	if err != nil {
		return err
	}
	c.w.Write(mail)
	c.mails++
	return c.say(250, ".")
}

func (c *conn) say(want int, line string) error {
	c.w.WriteString(line)
	c.w.WriteString("\r\n")
	if err := c.w.Flush(); err != nil {
		return err
	}
	if err := c.reply(want); err != nil {
		return fmt.Errorf("%s: %w", line, err)
	}
	return nil
}

// quit says goodbye; what the server makes of it is its own.
func (c *conn) quit() {
	_ = c.say(221, "QUIT")
	c.Close()
}

func (c *conn) reply(want int) error {
	c.SetReadDeadline(time.Now().Add(patience))
	for {
		line, err := c.r.ReadSlice('\n')
		if err != nil {
			return err
		}
		if len(line) < 4 || line[3] != '-' {
			if !strings.HasPrefix(string(line), strconv.Itoa(want)) {
				return errors.New("the server said " + strings.TrimSpace(string(line)))
			}
			return nil
		}
	}
}

// appendMail makes a plain text of about size octets, no line of which begins
// with a dot.
func appendMail(b []byte, to string, n, size int) []byte {
	b = fmt.Appendf(b, "From: Tom <tom@hanks.example>\r\nTo: <%s>\r\nSubject: You have got mail, number %d\r\n"+
		"Date: %s\r\nMessage-ID: <%d.%x@hanks.example>\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n",
		to, n, time.Now().Format(time.RFC1123Z), n, rand.Uint64())
	for len(b) < size {
		line := min(72, max(1, size-len(b)-2))
		at := rand.IntN(len(prose) - line)
		b = append(append(b, prose[at:at+line]...), "\r\n"...)
	}
	return b
}

// prose is cut into lines; without dots, so that none begins with one.
var prose = strings.Repeat("I would send you a bouquet of newly sharpened pencils if I knew your name and address, he wrote, and she read it twice before the bell rang ", 16)
