package main

import (
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-smtp"
)

// nextHop takes mail and tells under which reverse-path.
type nextHop struct{ senders chan string }

func (n nextHop) NewSession(*smtp.Conn) (smtp.Session, error) { return n, nil }
func (n nextHop) Rcpt(string, *smtp.RcptOptions) error        { return nil }
func (n nextHop) Reset()                                      {}
func (n nextHop) Logout() error                               { return nil }
func (n nextHop) Mail(from string, _ *smtp.MailOptions) error { n.senders <- from; return nil }
func (n nextHop) Data(r io.Reader) error                      { _, err := io.Copy(io.Discard, r); return err }

// TestSRS: a mail is forwarded under an address of the forwarder, and what comes
// back to that goes on to the sender; what somebody made up does not.
func TestSRS(t *testing.T) {
	next := nextHop{make(chan string, 10)}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := smtp.NewServer(next)
	server.Domain = "mx.cast.example"
	go func() { _ = server.Serve(l) }()
	t.Cleanup(func() { _ = server.Close() })

	path, dir := queueConfig(t, `
filter "srs" "forwarded" {
  domain  = "ryan.example"
  secrets = ["sleepless in seattle"]
}
directory "srsreverse" "bounces" {
  domain  = "ryan.example"
  secrets = ["sleepless in seattle"]
}
receive "smtp" "outside" { listen = ["127.0.0.3:0"] }
route "back" {
  when = sender.address == ""
  hold = "a bounce"
}
route "forward" {
  when    = recipient.domain == "cast.example"
  filters = [filter.srs.forwarded]
  deliver = deliver.smtp.next
}
deliver "smtp" "next" { hosts = ["`+l.Addr().String()+`"] }
`)
	s := serveFile(t, path, dir)
	if err := s.send("meg@cast.example", mailAbout("Dinner", "one")); err != nil {
		t.Fatal(err)
	}
	var from string
	select {
	case from = <-next.senders:
	case <-time.After(30 * time.Second):
		t.Fatal("the mail was not forwarded")
	}
	if !strings.HasPrefix(from, "SRS0=") || !strings.HasSuffix(from, "=hanks.example=tom@ryan.example") {
		t.Fatalf("forwarded under %q", from)
	}
	bounce := func(to string) error {
		c, err := smtp.Dial(s.printed(`receive\.smtp\.outside +([^ \n]+)`))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		return c.SendMail("", []string{to}, strings.NewReader(string(mailAbout("Undelivered", "two"))))
	}
	if err := bounce(from); err != nil {
		t.Fatal(err)
	}
	m := queued(t, s, 1)[0]
	last := m.Recipients[len(m.Recipients)-1]
	if last.Address != "tom@hanks.example" || last.Reason != "a bounce" {
		t.Errorf("the bounce is for %q: %s", last.Address, last.Reason)
	}
	if err := bounce(strings.Replace(from, "=tom@", "=joe@", 1)); err == nil || !strings.Contains(err.Error(), "550: No such user") {
		t.Errorf("to an address that was made up: %v", err)
	}
}
