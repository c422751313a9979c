package server

import (
	"context"
	"crypto/tls"
	"fmt"
	"strings"
	"testing"

	"github.com/emersion/go-smtp"
)

// telling is a recorder whose Session writes down what its Conn says of the client.
type telling struct{ *recorder }

type tellingSession struct{ *recording }

func (b telling) NewSession(ctx context.Context, c *Conn) (Session, error) {
	s, err := b.recorder.NewSession(ctx, c)
	if err != nil {
		return nil, err
	}
	return tellingSession{s.(*recording)}, nil
}

func (s tellingSession) Mail(context.Context, Path, *MailOptions) error { return nil }

func (s tellingSession) Done(context.Context) []Reply {
	c := s.c
	s.r.event("TOLD %s %s user=%q tls=%v ip=%s xclient=%+v id=%v local=%v", c.Protocol(), c.Hello().Name, c.AuthUser(), c.TLS() != nil,
		c.RemoteIP(), c.XClient(), c.ID() != "", c.LocalAddr().String() == c.raw.LocalAddr().String())
	return []Reply{OK("OK")}
}

func (s tellingSession) AuthPlain(_ context.Context, _, identity, username, _ string) error {
	if identity == "" && username == "TOM" {
		s.c.SetAuthUser("tom@hanks.example")
	}
	return nil
}

func TestConnTellsWhoTheClientIs(t *testing.T) {
	serverTLS, clientTLS := testTLS(t)
	const send = "%s x\r\nMAIL FROM:<tom@hanks.example>%s\r\nRCPT TO:<meg@ryan.example>\r\nDATA\r\n"
	for _, c := range []struct {
		lmtp, tls  bool
		auth       string // PLAIN's initial response
		verb, opts string
		want       string
	}{
		{verb: "HELO", want: `SMTP x user="" tls=false`},
		{verb: "EHLO", want: `ESMTP x user="" tls=false`},
		{verb: "EHLO", opts: " SMTPUTF8", want: `UTF8SMTP x user="" tls=false`},
		{verb: "EHLO", tls: true, want: `ESMTPS x user="" tls=true`},
		{verb: "EHLO", tls: true, auth: "AHRvbQB4", want: `ESMTPSA x user="tom" tls=true`},    // \0tom\0x
		{verb: "EHLO", auth: "AFRPTQB4", want: `ESMTPA x user="tom@hanks.example" tls=false`}, // \0TOM\0x
		{verb: "EHLO", auth: "bWVnAFRPTQB4", want: `ESMTPA x user="meg" tls=false`},           // meg\0TOM\0x
		{verb: "LHLO", lmtp: true, want: `LMTP x user="" tls=false`},
		{verb: "LHLO", lmtp: true, opts: " SMTPUTF8", want: `UTF8LMTP x user="" tls=false`},
	} {
		cfg := testConfig()
		cfg.LMTP, cfg.Auth, cfg.AllowInsecureAuth = c.lmtp, []string{"PLAIN"}, true
		if c.tls {
			cfg.TLS, cfg.ImplicitTLS = serverTLS, true
		}
		s := serve(t, cfg, func(s *testServer) { s.Backend = telling{s.recorder} })
		w := s.dial(t)
		if c.tls {
			w = newWire(t, tls.Client(w.Conn, clientTLS))
		}
		w.expect("", "220")
		if c.auth != "" {
			w.expect(c.verb+" x\r\nAUTH PLAIN "+c.auth+"\r\n", "250", "235")
		}
		w.expect(fmt.Sprintf(send, c.verb, c.opts), "250", "250", "250", "354")
		w.expect("hi\r\n.\r\n", "250")
		want := "TOLD " + c.want + " ip=127.0.0.1 xclient={Name: Helo: Proto:} id=true local=true"
		if got := s.all("TOLD"); len(got) != 1 || got[0] != want {
			t.Errorf("got  %q\nwant %q", got, want)
		}
	}
}

func TestXClientIsTold(t *testing.T) {
	cfg := testConfig()
	setOption(t, &cfg, "XClientFrom", "")
	s := serve(t, cfg, func(s *testServer) { s.Backend = telling{s.recorder} })
	w := s.greeted(t)
	w.expect("XCLIENT NAME=mail.hanks.example HELO=tom+20pc PROTO=SMTP LOGIN=tom ADDR=192.0.2.7 DESTADDR=192.0.2.1 DESTPORT=25\r\n", "220")
	w.expect("EHLO y\r\n"+envelope+"DATA\r\n", "250", "250", "250", "354")
	w.expect("hi\r\n.\r\n", "250")
	want := `TOLD ESMTPA y user="tom" tls=false ip=192.0.2.7 xclient={Name:mail.hanks.example Helo:tom pc Proto:SMTP} id=true local=false`
	if got := s.all("TOLD"); len(got) != 1 || got[0] != want {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	// What becomes unknown is no longer the old address.
	w.expect("XCLIENT ADDR=[UNAVAILABLE] PORT=[UNAVAILABLE]\r\n", "220")
	if got := s.all("CONNECT"); got[len(got)-1] != "CONNECT 0.0.0.0" {
		t.Error(got)
	}
	for _, bad := range []string{"PORT=70000", "ADDR=fe80::1%lo", "NAME=a+0Ab", "NAME", "NAME=+2"} {
		w.expect("XCLIENT "+bad+"\r\n", "501 5.5.4")
	}
}

func TestMessageRefusedAtFirstChunk(t *testing.T) {
	for _, lmtp := range []bool{false, true} {
		cfg := testConfig()
		cfg.LMTP = lmtp
		s := serve(t, cfg, func(s *testServer) {
			s.refuse["BODY"] = NewReply(452, smtp.EnhancedCode{4, 3, 1}, "Disk is full").Err()
		})
		w := s.greeted(t)
		two := envelope + "RCPT TO:<kathleen@ryan.example>\r\n"
		w.expect(two+"BDAT 6\r\nNOOP\r\nBDAT 6 LAST\r\nNOOP\r\n", "250", "250", "250", "452 4.3.1", "503 5.5.1")
		last := []string{"250", "250", "250", "452 4.3.1"}
		if lmtp {
			last = append(last, "452 4.3.1") // RFC 2033 section 4.3: for each recipient
		}
		w.expect(two+"BDAT 6 LAST\r\nNOOP\r\n", last...)
		w.expect(two+"DATA\r\n", "250", "250", "250", "452 4.3.1")
		w.expect("NOOP\r\n", "250")
	}
}

func TestStartTLSAfterAuthIsRefused(t *testing.T) {
	cfg := testConfig()
	cfg.TLS, _ = testTLS(t)
	cfg.Auth, cfg.AllowInsecureAuth = []string{"PLAIN"}, true
	s := serve(t, cfg)
	w := s.greeted(t)
	w.expect("AUTH PLAIN\r\nx\n", "334", "500 5.5.2")
	w.expect("AUTH PLAIN AHRvbQBzbGVlcGxlc3M=\r\n", "235")
	w.expect("STARTTLS\r\n", "503 5.5.1")
	w.expect("NOOP\r\n", "250")

	w = s.greeted(t)
	w.expect("STARTTLS\r\n", "220")
	w.send(strings.Repeat("this is no handshake\r\n", 10))
	for {
		if _, err := w.line(); err != nil {
			break
		}
	}
	s.waitFor(t, "CLOSE")
}
