package imap_test

import (
	"bufio"
	"compress/flate"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestCompress: commands, a large message and IDLE under compression, by a client
// with another implementation of it.
func TestCompress(t *testing.T) {
	s := start(t, true, nil)
	c := s.raw(true)
	c.say("a CAPABILITY\r\n")
	if got := c.until("a OK"); !strings.Contains(got, "COMPRESS=DEFLATE") {
		t.Errorf("capabilities %q", got)
	}
	c.say("b COMPRESS LZMA\r\n")
	c.until("b NO")
	c.say("c COMPRESS DEFLATE\r\n")
	c.until("c OK")
	w, err := flate.NewWriter(c.Conn, flate.DefaultCompression)
	if err != nil {
		t.Fatal(err)
	}
	r := &raw{t: t, Conn: c.Conn, r: bufio.NewReader(flate.NewReader(c.Conn))}
	say := func(text string) {
		t.Helper()
		if _, err := w.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
		if err := w.Flush(); err != nil {
			t.Fatal(err)
		}
	}
	body := "Subject: big\r\n\r\n" + strings.Repeat("All work and no play makes Jack a dull boy\r\n", 50000)
	say("d CAPABILITY\r\n")
	if got := r.until("d OK"); strings.Contains(got, "COMPRESS") {
		t.Errorf("it is announced again: %q", got)
	}
	say("e COMPRESS DEFLATE\r\n")
	r.until("e NO [COMPRESSIONACTIVE]")
	say("f APPEND INBOX {" + strconv.Itoa(len(body)) + "+}\r\n" + body + "\r\ng SELECT INBOX\r\nh FETCH 1 BODY[]\r\n")
	r.until("f OK")
	if got := r.until("h OK"); !strings.Contains(got, body) {
		t.Errorf("the message comes back with %d octets around it", len(got))
	}
	say("i IDLE\r\n")
	r.until("+ idling")
	s.deposit("Subject: two\r\n\r\n2\r\n")
	r.until("* 2 EXISTS")
	say("DONE\r\nj LOGOUT\r\n")
	r.until("i OK")
	r.until("j OK")

	early := s.raw(true)
	early.say("a COMPRESS DEFLATE\r\nb CREATE pwned\r\n")
	early.Conn.SetDeadline(time.Now().Add(10 * time.Second))
	if got := early.rest(); strings.Contains(got, "b OK") || s.mailboxExists("pwned") {
		t.Errorf("a command in the clear behind COMPRESS was run: %q", got)
	}
}
