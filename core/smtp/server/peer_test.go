package server

import (
	"bytes"
	"encoding/base64"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"testing"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"
	"github.com/xdg-go/scram"
)

// The tests of this file use go-smtp's client as a peer that knows nothing of us.

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestPeerSendsMail(t *testing.T) {
	s := serve(t, testConfig())
	c, err := smtp.Dial(s.addr)
	must(t, err)
	defer c.Close()
	must(t, c.Hello("hanks.example"))
	body := "Subject: hi\r\n\r\n.dot\r\n..two\r\n.\r\nend\r\n"
	for range 3 {
		must(t, c.SendMail("tom@hanks.example", []string{"meg@ryan.example", "kathleen@ryan.example"}, strings.NewReader(body)))
	}
	must(t, c.Quit())
	done := s.all("DONE")
	if len(done) != 3 || done[0] != `DONE "Subject: hi\r\n\r\n.dot\r\n..two\r\n.\r\nend\r\n"` {
		t.Fatalf("got %q", done)
	}
}

func TestPeerLargeMessage(t *testing.T) {
	cfg := testConfig()
	cfg.MaxBodyLine = 0
	s := serve(t, cfg)
	c, err := smtp.Dial(s.addr)
	must(t, err)
	defer c.Close()
	body := strings.Repeat(strings.Repeat("x", 70_000)+"\r\n.\r\n..\r\n"+strings.Repeat("0123456789\r\n", 5000), 10)
	must(t, c.SendMail("tom@hanks.example", []string{"meg@ryan.example"}, strings.NewReader(body)))
	must(t, c.Quit())
	s.waitFor(t, "CLOSE")
	r := s.all("DONE")
	if len(r) != 1 || len(r[0]) < len(body) || !strings.Contains(r[0], `\r\n.\r\n..\r\n`) {
		t.Fatalf("%d messages", len(r))
	}
}

func TestPeerSTARTTLSAndAuth(t *testing.T) {
	cfg := testConfig()
	serverTLS, clientTLS := testTLS(t)
	cfg.TLS, cfg.Auth, cfg.RequireAuth, cfg.RequireTLS = serverTLS, []string{"PLAIN", "LOGIN", "SCRAM-SHA-256"}, true, true
	s := serve(t, cfg)
	for _, a := range []sasl.Client{
		sasl.NewPlainClient("", "tom", "sleepless"),
		sasl.NewLoginClient("tom", "sleepless"),
		newScramClient(t, "tom", "sleepless"),
	} {
		nc, err := net.Dial("tcp", s.addr)
		must(t, err)
		c, err := smtp.NewClientStartTLS(nc, clientTLS)
		must(t, err)
		must(t, c.Auth(a))
		must(t, c.SendMail("tom@hanks.example", []string{"meg@ryan.example"}, strings.NewReader("Subject: hi\r\n\r\n")))
		must(t, c.Quit())
	}
	if n := len(s.all("DONE")); n != 3 {
		t.Fatalf("%d messages", n)
	}

	for _, a := range []sasl.Client{
		sasl.NewPlainClient("", "tom", "wrong"),
		sasl.NewLoginClient("meg", "sleepless"),
		newScramClient(t, "tom", "wrong"),
	} {
		nc, err := net.Dial("tcp", s.addr)
		must(t, err)
		c, err := smtp.NewClientStartTLS(nc, clientTLS)
		must(t, err)
		var se *smtp.SMTPError
		if err := c.Auth(a); !errors.As(err, &se) || se.Code != 535 || se.EnhancedCode != (smtp.EnhancedCode{5, 7, 8}) {
			t.Fatalf("wrong credentials: %v", err)
		}
		if err := c.Mail("tom@hanks.example", nil); !errors.As(err, &se) || se.Code != 530 {
			t.Fatalf("MAIL without AUTH: %v", err)
		}
		c.Close()
	}
}

func TestPeerImplicitTLS(t *testing.T) {
	cfg := testConfig()
	serverTLS, clientTLS := testTLS(t)
	cfg.TLS, cfg.ImplicitTLS = serverTLS, true
	s := serve(t, cfg)
	c, err := smtp.DialTLS(s.addr, clientTLS)
	must(t, err)
	defer c.Close()
	if ok, _ := c.Extension("STARTTLS"); ok {
		t.Error("STARTTLS offered under TLS")
	}
	if ok, _ := c.Extension("REQUIRETLS"); !ok {
		t.Error("REQUIRETLS not offered under TLS")
	}
	must(t, c.Mail("tom@hanks.example", &smtp.MailOptions{RequireTLS: true}))
	must(t, c.Rcpt("meg@ryan.example", nil))
	w, err := c.Data()
	must(t, err)
	body := bytes.Repeat([]byte("0123456789\r\n"), 40_000)
	_, err = w.Write(body)
	must(t, err)
	must(t, w.Close())
	if got := s.all("MAIL"); !slices.Equal(got, []string{"MAIL <tom@hanks.example> body=8BITMIME requiretls"}) {
		t.Errorf("%q", got)
	}
	if got := s.all("DONE"); len(got) != 1 || strings.Count(got[0], "0123456789") != 40_000 {
		t.Errorf("%d messages", len(got))
	}
}

func TestPeerLMTP(t *testing.T) {
	cfg := testConfig()
	cfg.LMTP = true
	s := serve(t, cfg)
	nc, err := net.Dial("tcp", s.addr)
	must(t, err)
	c := smtp.NewClientLMTP(nc)
	defer c.Close()
	must(t, c.Hello("hanks.example"))
	must(t, c.Mail("tom@hanks.example", nil))
	must(t, c.Rcpt("meg@ryan.example", nil))
	if err := c.Rcpt("nobody@ryan.example", nil); err == nil {
		t.Error("nobody accepted")
	}
	must(t, c.Rcpt("quota@ryan.example", nil))
	w, err := c.Data()
	must(t, err)
	_, err = io.WriteString(w, "Subject: hi\r\n")
	must(t, err)
	_, err = w.CloseWithLMTPResponse()
	var le smtp.LMTPDataError
	if !errors.As(err, &le) || len(le) != 1 || le["quota@ryan.example"] == nil || le["quota@ryan.example"].Code != 452 {
		t.Fatalf("LMTP results: %v", err)
	}
	must(t, c.Quit())
}

func TestPeerDSNAndUTF8(t *testing.T) {
	s := serve(t, testConfig())
	c, err := smtp.Dial(s.addr)
	must(t, err)
	defer c.Close()
	must(t, c.Mail("δοκιμή@παράδειγμα.example", &smtp.MailOptions{UTF8: true, Size: 5 << 20, Return: smtp.DSNReturnHeaders, EnvelopeID: "id+ =1"}))
	must(t, c.Rcpt("meg@ryan.example", &smtp.RcptOptions{
		Notify:                []smtp.DSNNotify{smtp.DSNNotifySuccess, smtp.DSNNotifyDelayed},
		OriginalRecipientType: smtp.DSNAddressTypeUTF8, OriginalRecipient: "μεγ=+@ryan.example",
	}))
	must(t, c.Rcpt("meg@ryan.example", &smtp.RcptOptions{
		OriginalRecipientType: smtp.DSNAddressTypeRFC822, OriginalRecipient: "meg+list@ryan.example",
	}))
	want := []string{
		"MAIL <δοκιμή@παράδειγμα.example> size=5242880 body=8BITMIME utf8 ret=HDRS envid=id+ =1",
		"RCPT <meg@ryan.example> notify=[SUCCESS DELAY] orcpt=UTF-8;μεγ=+@ryan.example",
		"RCPT <meg@ryan.example> orcpt=RFC822;meg+list@ryan.example",
	}
	if got := append(s.all("MAIL"), s.all("RCPT")...); !slices.Equal(got, want) {
		t.Fatalf("got  %q\nwant %q", got, want)
	}
}

// newScramClient adapts an independent SCRAM to go-smtp's client.
func newScramClient(t testing.TB, user, password string) sasl.Client {
	c, err := scram.SHA256.NewClient(user, password, "")
	must(t, err)
	return &scramClient{c.NewConversation()}
}

type scramClient struct{ *scram.ClientConversation }

func (s *scramClient) Start() (string, []byte, error) {
	first, err := s.Step("")
	return "SCRAM-SHA-256", []byte(first), err
}

func (s *scramClient) Next(challenge []byte) ([]byte, error) {
	out, err := s.Step(string(challenge))
	return []byte(out), err
}

func TestScramWithoutInitialResponse(t *testing.T) {
	cfg := testConfig()
	cfg.Auth, cfg.AllowInsecureAuth = []string{"SCRAM-SHA-256"}, true
	s := serve(t, cfg)
	w := s.greeted(t)
	// The server's proof comes as a challenge, and the answer to that is empty.
	for _, last := range []struct{ response, reply string }{{"YQ==", "535 5.7.8"}, {"", "235 2.7.0"}} {
		conv := newScramClient(t, "tom", "sleepless").(*scramClient)
		w.expect("AUTH SCRAM-SHA-256\r\n", "334 ")
		challenge := ""
		for range 2 {
			out, err := conv.Step(challenge)
			must(t, err)
			w.send(base64.StdEncoding.EncodeToString([]byte(out)) + "\r\n")
			b, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(w.reply(), "334 "))
			must(t, err)
			challenge = string(b)
		}
		if _, err := conv.Step(challenge); err != nil || !conv.Valid() {
			t.Errorf("the server did not prove that it knows the password: %v", err)
		}
		w.expect(last.response+"\r\n", last.reply)
	}
	w.expect("AUTH SCRAM-SHA-256\r\n", "503 5.5.1")
}
