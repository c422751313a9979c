package client_test

import (
	"regexp"
	"testing"
	"time"

	"github.com/emersion/go-smtp"

	"github.com/stagecoach-mta/stagecoach/core/smtp/client"
)

// For a server without SMTPUTF8 a domain has another form, a local-part has none
// (RFC 6531 section 3.2), and only those recipients are refused.
func TestAddressesWithoutSMTPUTF8(t *testing.T) {
	c := dial(t, listen(t, func(p *peer) {
		p.greet("PIPELINING", "DSN")
		for _, want := range []string{
			"MAIL FROM:<tom@xn--bcher-kva.example>", "RCPT TO:<meg@xn--bcher-kva.example>", "RCPT TO:<joe@ryan.example> ORCPT=utf-8;jo\\x{E9}@ryan.example", "DATA",
		} {
			if line := p.hear(want); line != want {
				t.Errorf("the client said %q, want %q", line, want)
			}
		}
		p.say("250 ok\r\n250 ok\r\n250 ok\r\n354 go\r\n")
		p.body()
		p.say("250 ok\r\n")
		p.hear("QUIT")
		p.say("221 bye\r\n")
	}), config)
	tx := mail(message, "meg@bücher.example", "mégane@ryan.example", "joe@ryan.example")
	tx.From, tx.Options.UTF8 = "tom@bücher.example", true
	tx.Recipients[2].Options.OriginalRecipientType, tx.Recipients[2].Options.OriginalRecipient = smtp.DSNAddressTypeUTF8, "joé@ryan.example"
	res, err := c.Send(t.Context(), tx)
	if err != nil || summary(res) != "[end of data 250] [local 550] [end of data 250] sent" || res.Recipients[1].Missing != "SMTPUTF8" {
		t.Errorf("%v, %v", summary(res), err)
	}
	if err := c.Quit(t.Context()); err != nil {
		t.Error(err)
	}
}

// What a server is told of a mail's times, and which server must not have it
// (RFC 2852 section 4.1, RFC 6710 section 4.2).
func TestDeliverByAndPriority(t *testing.T) {
	in := func(d time.Duration, ret, trace bool) *client.DeliverBy {
		return &client.DeliverBy{At: time.Now().Add(d), Return: ret, Trace: trace}
	}
	for _, tc := range []struct {
		name     string
		offered  []string
		lmtp     bool
		by       *client.DeliverBy
		priority int
		mail     string // a pattern for the MAIL command; "": it is not sent
		result   string
		missing  string
	}{
		{name: "returned", offered: []string{"DELIVERBY"}, by: in(time.Minute, true, false), mail: `^MAIL FROM:<tom@hanks.example> BY=59;R$`},
		{name: "traced", offered: []string{"DELIVERBY 30"}, by: in(time.Minute, true, true), mail: ` BY=59;RT$`},
		{name: "told", offered: []string{"DELIVERBY 300"}, by: in(time.Minute, false, false), mail: ` BY=59;N$`},
		{name: "told, and over", offered: []string{"DELIVERBY"}, by: in(-time.Minute, false, true), mail: ` BY=-60;NT$`},
		{name: "in centuries", offered: []string{"DELIVERBY"}, by: in(100*365*24*time.Hour, true, false), mail: ` BY=999999999;R$`},
		{name: "over", offered: []string{"DELIVERBY"}, by: in(-time.Second, true, false), result: "[local 550]"},
		{name: "too soon for it", offered: []string{"DELIVERBY 300"}, by: in(time.Minute, true, false), result: "[local 550]", missing: "DELIVERBY"},
		{name: "not offered", by: in(time.Minute, true, false), result: "[local 550]", missing: "DELIVERBY"},
		{name: "not offered, only told", by: in(time.Minute, false, true), mail: `^MAIL FROM:<tom@hanks.example>$`},
		{name: "LMTP delivers at once", lmtp: true, by: in(time.Minute, true, false), mail: `^MAIL FROM:<tom@hanks.example>$`},
		{name: "priority", offered: []string{"MT-PRIORITY MIXER"}, priority: -3, mail: `^MAIL FROM:<tom@hanks.example> MT-PRIORITY=-3$`},
		{name: "no priority", offered: []string{"MT-PRIORITY"}, mail: `^MAIL FROM:<tom@hanks.example>$`},
		{name: "priority not offered", priority: 9, mail: `^MAIL FROM:<tom@hanks.example>$`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			cfg := config
			cfg.LMTP = tc.lmtp
			c := dial(t, listen(t, func(p *peer) {
				if tc.lmtp {
					p.say("220 lmtp\r\n")
					p.hear("LHLO")
					p.say("250 lmtp\r\n")
				} else {
					p.greet(tc.offered...)
				}
				if tc.mail == "" {
					p.hear("QUIT")
					p.say("221 bye\r\n")
					return
				}
				if line := p.hear("MAIL"); !regexp.MustCompile(tc.mail).MatchString(line) {
					t.Errorf("the client said %q, want %s", line, tc.mail)
				}
				p.say("250 ok\r\n")
				p.hear("RCPT")
				p.say("250 ok\r\n")
				p.hear("DATA")
				p.say("354 go\r\n")
				p.body()
				p.say("250 ok\r\n")
				p.hear("QUIT")
				p.say("221 bye\r\n")
			}), cfg)
			tx := mail(message, "meg@ryan.example")
			tx.DeliverBy, tx.Priority = tc.by, tc.priority
			res, err := c.Send(t.Context(), tx)
			want := tc.result
			if tc.mail != "" {
				want = "[end of data 250] sent"
			}
			if err != nil || summary(res) != want || res.Recipients[0].Missing != tc.missing {
				t.Errorf("%v, %v, %+v; want %s", summary(res), err, res.Recipients[0], want)
			}
			if err := c.Quit(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
}
