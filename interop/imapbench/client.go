package main

import (
	"bufio"
	"bytes"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"
)

// client is an IMAP client that reads and throws away, so that it costs little
// beside the server.
type client struct {
	conn net.Conn
	in   *bufio.Reader
	out  *bufio.Writer
	tag  int
}

// patience with one read or write.
const patience = 10 * time.Minute

// dial connects and logs in.
func dial(port int, user, password string, buffer int) (*client, error) {
	conn, err := net.DialTimeout("tcp", "127.0.0.1:"+strconv.Itoa(port), 30*time.Second)
	if err != nil {
		return nil, err
	}
	c := &client{conn: conn, in: bufio.NewReaderSize(conn, buffer), out: bufio.NewWriterSize(conn, buffer)}
	_ = conn.SetDeadline(time.Now().Add(patience))
	if _, err := c.in.ReadSlice('\n'); err != nil {
		conn.Close()
		return nil, err
	}
	if _, err := c.do(nil, "LOGIN %s %s", user, password); err != nil {
		conn.Close()
		return nil, err
	}
	return c, nil
}

func (c *client) close() {
	_, _ = c.do(nil, "LOGOUT")
	c.conn.Close()
}

// do runs a command, and counts the untagged replies; see is shown the beginning
// of each.
func (c *client) do(see func([]byte), format string, args ...any) (replies int, err error) {
	tag, err := c.say(format, args...)
	if err == nil {
		replies, err = c.replies(tag, see)
	}
	if err != nil {
		word, _, _ := strings.Cut(format, " ")
		err = fmt.Errorf("%s: %w", word, err)
	}
	return replies, err
}

func (c *client) say(format string, args ...any) (tag string, err error) {
	c.tag++
	tag = "a" + strconv.Itoa(c.tag)
	_ = c.conn.SetDeadline(time.Now().Add(patience))
	fmt.Fprintf(c.out, tag+" "+format+"\r\n", args...)
	return tag, c.out.Flush()
}

// replies reads up to the tagged reply.
func (c *client) replies(tag string, see func([]byte)) (n int, err error) {
	for begins := true; ; {
		line, err := c.in.ReadSlice('\n')
		if err != nil && err != bufio.ErrBufferFull {
			return n, err
		}
		if begins {
			if rest, ours := bytes.CutPrefix(line, []byte(tag+" ")); ours {
				if !bytes.HasPrefix(rest, []byte("OK")) {
					return n, fmt.Errorf("%s", bytes.TrimSpace(rest))
				}
				return n, nil
			}
			n++
			if see != nil {
				see(line)
			}
		}
		begins = err == nil
		if size, ok := literal(line); ok && begins {
			if _, err := c.in.Discard(size); err != nil {
				return n, err
			}
			begins = false
		}
	}
}

// literal is the size that a line's end announces.
func literal(line []byte) (int, bool) {
	line, ok := bytes.CutSuffix(line, []byte("}\r\n"))
	if !ok {
		return 0, false
	}
	n, err := strconv.Atoi(string(line[bytes.LastIndexByte(line, '{')+1:]))
	return n, err == nil
}

// append stores mails by one APPEND (RFC 3502), with literals that do not wait
// (RFC 7888).
func (c *client) append(box string, mails ...[]byte) error {
	c.tag++
	tag := "a" + strconv.Itoa(c.tag)
	_ = c.conn.SetDeadline(time.Now().Add(patience))
	fmt.Fprintf(c.out, "%s APPEND %s", tag, box)
	for _, m := range mails {
		fmt.Fprintf(c.out, " (\\Seen) {%d+}\r\n", len(m))
		_, _ = c.out.Write(m)
	}
	_, _ = c.out.WriteString("\r\n")
	if err := c.out.Flush(); err != nil {
		return err
	}
	if _, err := c.replies(tag, nil); err != nil {
		return fmt.Errorf("APPEND: %w", err)
	}
	return nil
}

// uids of the selected mailbox.
func (c *client) uids() (list []string, err error) {
	_, err = c.do(func(line []byte) {
		if f := strings.Fields(string(line)); len(f) > 4 && f[2] == "FETCH" {
			list = append(list, strings.Trim(f[4], "()"))
		}
	}, "FETCH 1:* (UID)")
	return list, err
}

// pop is a POP3 session.
type pop struct {
	conn net.Conn
	in   *bufio.Reader
}

func dialPOP(port int, user, password string) (*pop, error) {
	conn, err := net.DialTimeout("tcp", "127.0.0.1:"+strconv.Itoa(port), 30*time.Second)
	if err != nil {
		return nil, err
	}
	p := &pop{conn: conn, in: bufio.NewReaderSize(conn, 1<<18)}
	_ = conn.SetDeadline(time.Now().Add(patience))
	for _, say := range []string{"", "USER " + user + "\r\n", "PASS " + password + "\r\n"} {
		if err := p.one(say); err != nil {
			conn.Close()
			return nil, err
		}
	}
	return p, nil
}

func (p *pop) one(say string) error {
	if _, err := p.conn.Write([]byte(say)); err != nil {
		return err
	}
	line, err := p.in.ReadString('\n')
	if err == nil && !strings.HasPrefix(line, "+OK") {
		err = fmt.Errorf("%s: %s", strings.TrimSpace(say), strings.TrimSpace(line))
	}
	return err
}

// many reads a reply of several lines and counts them.
func (p *pop) many(say string) (n int, err error) {
	if err := p.one(say); err != nil {
		return 0, err
	}
	for {
		line, err := p.in.ReadSlice('\n')
		if err != nil {
			return n, err
		}
		if len(line) == 3 && line[0] == '.' {
			return n, nil
		}
		n++
	}
}

func (p *pop) close() error {
	err := p.one("QUIT\r\n")
	p.conn.Close()
	return err
}
