package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"
)

// conn is one session at one server.
type conn struct {
	c   net.Conn
	in  *bufio.Reader
	tag int
	// uids of the selected mailbox, by sequence number, as the server has told
	// them: so an EXPUNGE can be told by its UID, whatever the order.
	uids []string
	open bool
}

func dial(address, user, password string) (*conn, error) {
	nc, err := net.DialTimeout("tcp", address, 20*time.Second)
	if err != nil {
		return nil, err
	}
	c := &conn{c: nc, in: bufio.NewReader(nc)}
	if _, err := c.line(); err != nil {
		nc.Close()
		return nil, err
	}
	_, last, err := c.exchange(command{text: fmt.Sprintf("LOGIN %s %s", user, password)})
	if err == nil && !strings.HasPrefix(last, "OK") {
		err = fmt.Errorf("LOGIN: %s", last)
	}
	if err != nil {
		nc.Close()
		return nil, err
	}
	return c, nil
}

// line reads one response, with its literals.
func (c *conn) line() (string, error) {
	_ = c.c.SetReadDeadline(time.Now().Add(time.Minute))
	var out strings.Builder
	for {
		l, err := c.in.ReadString('\n')
		if err != nil {
			return "", err
		}
		out.WriteString(l)
		text := strings.TrimSuffix(l, "\r\n")
		at := strings.LastIndexByte(text, '{')
		if at < 0 || !strings.HasSuffix(text, "}") {
			break
		}
		n, err := strconv.Atoi(text[at+1 : len(text)-1])
		if err != nil {
			break
		}
		b := make([]byte, n)
		if _, err := io.ReadFull(c.in, b); err != nil {
			return "", err
		}
		out.Write(b)
	}
	return strings.TrimSuffix(out.String(), "\r\n"), nil
}

// exchange sends a command and returns the untagged responses and the rest of the
// tagged one.
func (c *conn) exchange(cmd command) (untagged []string, last string, err error) {
	c.tag++
	tag := "t" + strconv.Itoa(c.tag)
	text := tag + " " + cmd.text
	if cmd.literal != "" {
		text += fmt.Sprintf(" {%d+}\r\n%s", len(cmd.literal), cmd.literal)
	}
	_ = c.c.SetWriteDeadline(time.Now().Add(time.Minute))
	if _, err := io.WriteString(c.c, text+"\r\n"); err != nil {
		return nil, "", err
	}
	for {
		l, err := c.line()
		if err != nil {
			return untagged, "", fmt.Errorf("after %q: %w", text, err)
		}
		if rest, ok := strings.CutPrefix(l, tag+" "); ok {
			return untagged, rest, nil
		}
		untagged = append(untagged, l)
	}
}

// run sends a command and returns the normal form of what came of it.
func (c *conn) run(cmd command) ([]string, error) {
	untagged, last, err := c.exchange(cmd)
	if err != nil {
		return nil, err
	}
	word, _, _ := strings.Cut(cmd.text, " ")
	grown := false
	if word == "SELECT" || word == "EXAMINE" {
		c.uids, c.open = nil, strings.HasPrefix(last, "OK")
		grown = c.open
	}
	if (word == "CLOSE" || word == "UNSELECT") && strings.HasPrefix(last, "OK") {
		c.open, c.uids = false, nil
	}
	out, more := c.normal(untagged, last)
	if c.open && (grown || more) {
		return out, c.number()
	}
	return out, nil
}

// number asks for the UIDs of the selected mailbox.
func (c *conn) number() error {
	untagged, last, err := c.exchange(command{text: "FETCH 1:* (UID)"})
	if err != nil || !strings.HasPrefix(last, "OK") && !strings.HasPrefix(last, "BAD") {
		return fmt.Errorf("FETCH 1:* (UID): %s %w", last, err)
	}
	c.uids = nil
	for _, l := range untagged {
		if f := strings.Fields(l); len(f) > 4 && f[2] == "FETCH" {
			c.uids = append(c.uids, strings.TrimRight(f[4], ")"))
		}
	}
	return nil
}
