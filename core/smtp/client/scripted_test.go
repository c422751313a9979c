package client_test

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"

	"github.com/stagecoach-mta/stagecoach/core/smtp/client"
)

func TestPipelinedFlight(t *testing.T) {
	addr := listen(t, func(p *peer) {
		p.greet("PIPELINING", "size 1000", "8bitmime", "DSN", "ENHANCEDSTATUSCODES")
		// Nothing is answered before the whole flight is here.
		p.hear("MAIL FROM:<tom@hanks.example> SIZE=")
		p.hear("RCPT TO:<meg@ryan.example>")
		p.hear("RCPT TO:<nobody@ryan.example>")
		p.hear("RCPT TO:<kit@ryan.example>")
		p.hear("DATA")
		p.say("250 2.1.0 ok\r\n250 2.1.5 ok\r\n550 5.1.1 who?\r\n450 4.2.0 later\r\n354 go\r\n")
		if got := p.body(); got != strings.ReplaceAll("\r\n"+message, "\r\n.", "\r\n..")[2:] {
			t.Errorf("body %q", got)
		}
		p.say("250 2.0.0 queued as 1\r\n")
		p.hear("MAIL") // the next mail, without RSET
		p.hear("RCPT")
		p.hear("DATA")
		p.say("250 ok\r\n550 no\r\n354 go on though\r\n")
		p.hear(".") // no recipient: an empty message
		p.say("554 no valid recipients\r\n")
		p.hear("RSET")
		p.hear("MAIL")
		p.hear("RCPT")
		p.hear("DATA")
		p.say("250 ok\r\n452 4.3.1 full\r\n503 no mail\r\n503 no recipients\r\n")
		p.hear("QUIT")
		p.say("221 bye\r\n")
	})
	c := dial(t, addr, config)
	res, err := c.Send(t.Context(), mail(message, "meg@ryan.example", "nobody@ryan.example", "kit@ryan.example"))
	if err != nil || summary(res) != "[end of data 250] [RCPT 550] [RCPT 450] sent" {
		t.Fatalf("%v, %v", summary(res), err)
	}
	if r := res.Recipients[1].Reply; r.String() != "550 5.1.1 who?" || r.SMTPError().EnhancedCode != (smtp.EnhancedCode{5, 1, 1}) {
		t.Errorf("reply %+v", r)
	}
	for _, want := range []string{"[RCPT 550]", "[MAIL 452]"} {
		res, err = c.Send(t.Context(), mail(message, "x@ryan.example"))
		if err != nil || summary(res) != want {
			t.Errorf("%v, %v; want %s", summary(res), err, want)
		}
	}
	if err := c.Quit(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestLockstepAndHELO(t *testing.T) {
	addr := listen(t, func(p *peer) {
		p.say("220 old\r\n")
		p.hear("EHLO")
		p.say("502 what?\r\n")
		p.hear("HELO mx.hanks.example")
		p.say("250 hello\r\n")
		p.hear("MAIL FROM:<tom@hanks.example>")
		if p.br.Buffered() > 0 {
			t.Error("the client pipelines though nobody offered it")
		}
		p.say("250 ok\r\n")
		if line := p.hear("RCPT TO:<meg@ryan.example>"); strings.Contains(line, "NOTIFY") {
			t.Errorf("DSN parameters without DSN: %q", line)
		}
		p.say("251 forwarded\r\n")
		p.hear("DATA")
		p.say("354 go\r\n")
		p.body()
		p.say("554 5.7.1 spam\r\n")
	})
	c := dial(t, addr, config)
	tx := mail(message, "meg@ryan.example")
	tx.Options.EnvelopeID = "x"
	tx.Recipients[0].Options.Notify = []smtp.DSNNotify{smtp.DSNNotifyNever}
	res, err := c.Send(t.Context(), tx)
	if err != nil || summary(res) != "[end of data 554] sent" {
		t.Errorf("%v, %v", summary(res), err)
	}
}

func TestLMTPRepliesPerRecipient(t *testing.T) {
	script := func(data string) func(*peer) {
		return func(p *peer) {
			p.say("220 lmtp\r\n")
			p.hear("LHLO")
			p.say("250-lmtp\r\n250-PIPELINING\r\n250 " + data + "\r\n")
			for _, c := range []string{"MAIL", "RCPT", "RCPT", "RCPT"} {
				p.hear(c)
			}
			p.say("250 ok\r\n250 a\r\n550 b\r\n250 c\r\n")
			if data == "CHUNKING" {
				p.hear("BDAT ")
				io.CopyN(io.Discard, p.br, int64(len(message)))
			} else {
				p.hear("DATA")
				p.say("354 go\r\n")
				p.body()
			}
			p.say("250 a\r\n452 4.2.2 c is full\r\n")
		}
	}
	for _, ext := range []string{"CHUNKING", "SIZE"} {
		cfg := config
		cfg.LMTP = true
		c := dial(t, listen(t, script(ext)), cfg)
		res, err := c.Send(t.Context(), mail(message, "a@x.example", "b@x.example", "c@x.example"))
		if err != nil || summary(res) != "[end of data 250] [RCPT 550] [end of data 452] sent" {
			t.Errorf("%s: %v, %v", ext, summary(res), err)
		}
	}
}

// TestMisbehaviour has one server for each way to break the dialogue after EHLO.
func TestMisbehaviour(t *testing.T) {
	flight := func(p *peer) { p.hear("MAIL"); p.hear("RCPT"); p.hear("DATA") }
	for _, tc := range []struct {
		name   string
		big    bool
		script func(*peer)
		want   string
		err    string // in the error; empty: none
	}{
		{"drops at MAIL", false, func(p *peer) { p.hear("MAIL"); p.hear("RCPT"); p.hear("DATA") }, "[ 0]", "MAIL: the server closed"},
		{"silent at MAIL", false, func(p *peer) { p.gone() }, "[ 0]", "MAIL: the server did not answer in time"},
		{"garbage", false, func(p *peer) { flight(p); p.say("hello\r\n"); p.gone() }, "[ 0]", "not SMTP"},
		{"endless line", false, func(p *peer) { flight(p); p.say("250 " + strings.Repeat("x", 10000)); p.gone() }, "[ 0]", "more than"},
		{"endless lines", false, func(p *peer) { flight(p); p.say(strings.Repeat("250-x\r\n", 10000)); p.gone() }, "[ 0]", "more than"},
		{"250 to DATA", false, func(p *peer) { flight(p); p.say("250 a\r\n250 b\r\n250 c\r\n"); p.gone() }, "[ 0]", "DATA"},
		{"354 to RCPT", false, func(p *peer) { flight(p); p.say("250 a\r\n354 b\r\n250 c\r\n"); p.gone() }, "[ 0]", "RCPT"},
		{"421 at MAIL", false, func(p *peer) { flight(p); p.say("421 4.3.2 down\r\n") }, "[MAIL 421]", ""},
		{"421 at DATA", false, func(p *peer) { flight(p); p.say("250 a\r\n250 b\r\n421 bye\r\n") }, "[DATA 421]", ""},
		{"451 at DATA", false, func(p *peer) { flight(p); p.say("250 a\r\n250 b\r\n451 no\r\n"); p.gone() }, "[DATA 451]", ""},
		{"stuck in the body", true, func(p *peer) {
			flight(p)
			p.say("250 a\r\n250 b\r\n354 go\r\n")
			<-p.clientDone // reads nothing
		}, "[ 0]", "body: the server stopped reading"},
		{"552 in the body", true, func(p *peer) {
			flight(p)
			p.say("250 a\r\n250 b\r\n354 go\r\n")
			io.CopyN(io.Discard, p.br, 100_000)
			p.say("552 5.3.4 too big\r\n")
			p.nc.(*net.TCPConn).CloseWrite()
			p.gone()
		}, "[end of data 552] sent", ""},
		{"drops after the final dot", false, func(p *peer) {
			flight(p)
			p.say("250 a\r\n250 b\r\n354 go\r\n")
			p.body()
		}, "[ 0] sent", "end of data: the server closed"},
		{"silent after the final dot", false, func(p *peer) {
			flight(p)
			p.say("250 a\r\n250 b\r\n354 go\r\n")
			p.body()
			p.gone()
		}, "[ 0] sent", "end of data: the server did not answer"},
		{"354 after the final dot", false, func(p *peer) {
			flight(p)
			p.say("250 a\r\n250 b\r\n354 go\r\n")
			p.body()
			p.say("354 more?\r\n")
			p.gone()
		}, "[ 0] sent", "not SMTP"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			finished := make(chan struct{})
			c := dial(t, listen(t, func(p *peer) { p.clientDone = finished; p.greet("PIPELINING"); tc.script(p) }), short())
			body := message
			if tc.big {
				body += strings.Repeat(strings.Repeat("x", 70)+"\r\n", 400_000)
			}
			res, err := c.Send(t.Context(), mail(body, "meg@ryan.example"))
			close(finished)
			if summary(res) != tc.want {
				t.Errorf("result %s, want %s", summary(res), tc.want)
			}
			if (err == nil) != (tc.err == "") || err != nil && !strings.Contains(err.Error(), tc.err) {
				t.Errorf("error %v, want %q", err, tc.err)
			}
			if err != nil {
				var ce *client.Error
				if !errors.As(err, &ce) || c.Usable() {
					t.Errorf("error %T, usable %v", err, c.Usable())
				}
			}
			c.Close()
		})
	}
}

func TestGreeting(t *testing.T) {
	for _, tc := range []struct {
		name   string
		script func(*peer)
		phase  client.Phase
		code   int
	}{
		{"554", func(p *peer) { p.say("554-no\r\n554 service here\r\n"); p.gone() }, client.PhaseBanner, 554},
		{"silent", func(p *peer) { p.gone() }, client.PhaseBanner, 0},
		{"drops", func(p *peer) {}, client.PhaseBanner, 0},
		{"SSH", func(p *peer) { p.say("SSH-2.0-OpenSSH_9.2\r\n"); p.gone() }, client.PhaseBanner, 0},
		{"421 to EHLO", func(p *peer) { p.say("220 x\r\n"); p.hear("EHLO"); p.say("421 busy\r\n") }, client.PhaseHello, 421},
		{"550 to HELO", func(p *peer) {
			p.say("220 x\r\n")
			p.hear("EHLO")
			p.say("550 no\r\n")
			p.hear("HELO")
			p.say("550 still no\r\n")
		}, client.PhaseHello, 550},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := client.Dial(t.Context(), "tcp", listen(t, tc.script), short())
			var ce *client.Error
			if !errors.As(err, &ce) || ce.Phase != tc.phase || ce.Reply.Code != tc.code {
				t.Errorf("error %v", err)
			}
		})
	}
	if _, err := client.Dial(t.Context(), "tcp", listen(t, func(p *peer) { p.gone() }), client.Config{LocalName: "x\r\nDATA"}); err == nil {
		t.Error("a local name with CRLF was accepted")
	}
}

func TestContextEndsTheConnection(t *testing.T) {
	c := dial(t, listen(t, func(p *peer) { p.greet(); p.gone() }), config)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	begin := time.Now()
	res, err := c.Send(ctx, mail(message, "meg@ryan.example"))
	if !errors.Is(err, context.DeadlineExceeded) || summary(res) != "[ 0]" || c.Usable() || time.Since(begin) > 5*time.Second {
		t.Errorf("%v, %v", summary(res), err)
	}
}

// TestRefusedHere: what this server cannot take is never sent to it.
func TestRefusedHere(t *testing.T) {
	utf := func(tx *client.Transaction) { tx.Options.UTF8 = true }
	for _, tc := range []struct {
		name    string
		ext     []string
		change  func(*client.Transaction)
		body    string
		want    string
		missing string
	}{
		{"8-bit content", []string{"SMTPUTF8"}, nil, "A: b\r\n\r\n\xfc\r\n", "550 5.6.3", "8BITMIME"},
		{"UTF-8 header", []string{"8BITMIME"}, utf, "A: ü\r\n\r\nx\r\n", "550 5.6.7", "SMTPUTF8"},
		{"UTF-8 address", []string{"8BITMIME"}, func(tx *client.Transaction) { tx.Recipients[0].Addr = "büro@ryan.example" }, message, "550 5.6.7", "SMTPUTF8"},
		{"REQUIRETLS without TLS", []string{"REQUIRETLS"}, func(tx *client.Transaction) { tx.Options.RequireTLS = true }, message, "550 5.7.30", "REQUIRETLS"},
		{"binary", []string{"CHUNKING", "8BITMIME"}, func(tx *client.Transaction) { tx.Options.Body = smtp.BodyBinaryMIME }, "a\nb", "550 5.6.3", "BINARYMIME"},
		{"SIZE", []string{"SIZE 10"}, nil, message, "552 5.3.4", ""},
		{"sender with CRLF", nil, func(tx *client.Transaction) { tx.From = "a@b.example>\r\nRCPT TO:<c@d.example" }, message, "553 5.1.7", ""},
		{"recipient with >", nil, func(tx *client.Transaction) { tx.Recipients[0].Addr = "a@b.example> NOTIFY=NEVER" }, message, "553 5.1.3", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := dial(t, listen(t, func(p *peer) {
				p.greet(tc.ext...)
				p.hear("NOOP") // the first command after the greeting
				p.say("250 ok\r\n")
			}), config)
			tx := mail(tc.body, "meg@ryan.example")
			if tc.change != nil {
				tc.change(tx)
			}
			res, err := c.Send(t.Context(), tx)
			if err != nil {
				t.Fatal(err)
			}
			r := res.Recipients[0]
			if r.Phase != client.PhaseLocal || r.Missing != tc.missing || !strings.HasPrefix(r.Reply.String(), tc.want) {
				t.Errorf("got %+v", r)
			}
			if err := c.Noop(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestPassesOldServers: declared extensions that the content does not need are
// no reason to refuse.
func TestPassesOldServers(t *testing.T) {
	c := dial(t, listen(t, func(p *peer) {
		p.greet()
		if line := p.hear("MAIL FROM:<tom@hanks.example>"); line != "MAIL FROM:<tom@hanks.example>" {
			t.Errorf("parameters that nobody offered: %q", line)
		}
		p.say("250 ok\r\n")
		p.hear("RCPT TO:<\"a> b\"@ryan.example>")
		p.say("250 ok\r\n")
		p.hear("DATA")
		p.say("354 ok\r\n")
		p.body()
		p.say("250 ok\r\n")
	}), config)
	tx := mail(message, `"a> b"@ryan.example`)
	tx.Options = smtp.MailOptions{Body: smtp.Body8BitMIME, UTF8: true, Return: smtp.DSNReturnFull}
	if res, err := c.Send(t.Context(), tx); err != nil || summary(res) != "[end of data 250] sent" {
		t.Errorf("%v, %v", summary(res), err)
	}
}

func TestBadSource(t *testing.T) {
	for _, ext := range []string{"PIPELINING", "CHUNKING"} {
		for _, tc := range []struct {
			name, body string
			size       int64
			want       string
		}{
			{"bare LF", "a\r\n\n.\n\r\nMAIL FROM:<ceo@bank.example>\r\n", 0, "[local 550]"},
			{"bare CR", "a\r\n.\rb\r\n", 0, "[local 550]"},
			{"shorter than said", "a\r\n", 5, "[ 0]"},
			{"longer than said", "a\r\nb\r\n", 3, "[ 0]"},
		} {
			if ext == "PIPELINING" && tc.size != 0 {
				continue // DATA needs no size
			}
			t.Run(ext+" "+tc.name, func(t *testing.T) {
				c := dial(t, listen(t, func(p *peer) {
					p.greet(ext)
					p.hear("MAIL")
					if ext == "CHUNKING" {
						p.say("250 a\r\n")
						p.hear("RCPT")
						p.say("250 a\r\n")
					} else {
						p.hear("RCPT")
						p.hear("DATA")
						p.say("250 a\r\n250 b\r\n354 go\r\n")
					}
					rest, _ := io.ReadAll(p.br)
					if strings.HasSuffix(string(rest), "\r\n.\r\n") || strings.Contains(string(rest), "ceo@") {
						t.Errorf("the server got %q", rest)
					}
				}), config)
				tx := mail(tc.body, "meg@ryan.example")
				if tc.size != 0 {
					tx.Size = tc.size
				}
				res, err := c.Send(t.Context(), tx)
				c.Close()
				var ce *client.Error
				if !errors.As(err, &ce) || ce.Phase != client.PhaseLocal || summary(res) != tc.want || c.Usable() {
					t.Errorf("%v, %v", summary(res), err)
				}
			})
		}
	}
}

func TestAuthAndLimits(t *testing.T) {
	c := dial(t, listen(t, func(p *peer) {
		p.greet("auth=LOGIN", "AUTH PLAIN LOGIN", "LIMITS RCPTMAX=7 MAILMAX=3")
		p.hear("AUTH PLAIN AHRvbQBzbGVlcGxlc3M=")
		p.say("535 5.7.8 no\r\n")
		p.hear("AUTH LOGIN dG9t")
		p.say("334 %%%\r\n")
		p.hear("*")
		p.say("501 cancelled\r\n")
		p.hear("AUTH LOGIN dG9t")
		p.say("334 UGFzc3dvcmQ6\r\n")
		p.hear("c2xlZXBsZXNz")
		p.say("235 ok\r\n")
	}), config)
	if c.MaxRecipients() != 7 || c.MaxMails() != 3 || len(c.AuthMechanisms()) != 3 {
		t.Errorf("limits %d %d, mechanisms %v", c.MaxRecipients(), c.MaxMails(), c.AuthMechanisms())
	}
	err := c.Auth(t.Context(), sasl.NewPlainClient("", "tom", "sleepless"))
	var ce *client.Error
	if !errors.As(err, &ce) || ce.Reply.Code != 535 || strings.Contains(err.Error(), "sleepless") {
		t.Error(err)
	}
	login := func() sasl.Client { return sasl.NewLoginClient("tom", "sleepless") }
	if err := c.Auth(t.Context(), login()); err == nil || !c.Usable() {
		t.Errorf("a challenge that is not base64 passed: %v", err)
	}
	if err := c.Auth(t.Context(), login()); err != nil {
		t.Error(err)
	}
}

func TestStartTLSInjection(t *testing.T) {
	c := dial(t, listen(t, func(p *peer) {
		p.greet("STARTTLS")
		p.hear("STARTTLS")
		p.say("220 go\r\n250 injected\r\n")
		p.gone()
	}), config)
	if err := c.StartTLS(t.Context(), nil); err == nil || c.Usable() || !strings.Contains(err.Error(), "in plain") {
		t.Error(err)
	}
	c.Close()
	c = dial(t, listen(t, func(p *peer) {
		p.greet("STARTTLS")
		p.hear("STARTTLS")
		p.say("454 no\r\n")
		p.hear("NOOP")
		p.say("250 ok\r\n")
	}), config)
	if err := c.StartTLS(t.Context(), nil); err == nil || !c.Usable() {
		t.Error(err)
	}
	if err := c.Noop(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestManyRecipientsDoNotDeadlock(t *testing.T) {
	const n = 5000
	c := dial(t, listen(t, func(p *peer) {
		p.greet("PIPELINING")
		for {
			line, err := p.br.ReadString('\n')
			if err != nil {
				return
			}
			switch {
			case strings.HasPrefix(line, "DATA"):
				p.say("354 go\r\n")
				p.body()
				p.say("250 done\r\n")
			default:
				p.say("250-" + strings.Repeat("x", 400) + "\r\n250 ok\r\n")
			}
		}
	}), config)
	tx := mail(message)
	for range n {
		tx.Recipients = append(tx.Recipients, client.Rcpt{Addr: strings.Repeat("m", 60) + "@ryan.example"})
	}
	res, err := c.Send(t.Context(), tx)
	if err != nil || !res.Recipients[n-1].Delivered() {
		t.Error(err)
	}
	c.Close()
}
