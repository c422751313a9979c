package dsn

import (
	"flag"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	gomessage "github.com/emersion/go-message"

	"github.com/stagecoach-mta/stagecoach/core/queue"
	"github.com/stagecoach-mta/stagecoach/core/spool"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

var update = flag.Bool("update", false, "write the golden files")

var at = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

const original = "From: Tom <tom@hanks.example>\r\nTo: meg@ryan.example\r\nSubject: The shop around the corner\r\nMessage-ID: <1@hanks.example>\r\n\r\nDear friend\r\n"

func report(a Action) Report {
	return Report{
		Hostname: "mx.hanks.example", Action: a, Now: at.Add(time.Hour), Unique: "unique",
		Body: spool.FromBytes([]byte(original)),
		Envelope: &queue.Envelope{
			Sender: "tom@hanks.example", Received: at, Subject: "The shop around the corner", MessageID: "<1@hanks.example>",
			Client: &v1.Client{Hello: "laptop.hanks.example"}, Parameters: &v1.MailParameters{EnvelopeId: "QQ314159"},
		},
		Recipients: []Recipient{{
			Recipient: &queue.Recipient{Address: "meg@ryan.example", Original: "rfc822;kathleen@ryan.example", Notify: []string{"SUCCESS", "FAILURE", "DELAY"}},
			Attempt:   &queue.Attempt{At: at.Add(time.Minute), Code: 550, Enhanced: "5.1.1", Text: "No such user\r\nX-Injected: here", RemoteMTA: "mx.ryan.example"},
		}},
	}
}

func TestGolden(t *testing.T) {
	delayed := report(Delayed)
	delayed.Recipients[0].Attempt = &queue.Attempt{At: at, Code: 451, Text: "4.7.1 Greylisted", Enhanced: "4.7.1"}
	delayed.Recipients[0].RetryUntil = at.Add(5 * 24 * time.Hour)
	headers := report(Failed)
	headers.Envelope.Parameters.DsnReturn = "HDRS"
	headers.Recipients = append(headers.Recipients, Recipient{Recipient: &queue.Recipient{Address: "joe@fox.example", Reason: "no route"}})
	global := report(Failed)
	global.Recipients[0].Recipient.Address, global.Recipients[0].Original = "mégane@ryan.example", ""
	late := report(Failed)
	late.Envelope.Parameters.DeliverByMs, late.Envelope.Parameters.DeliverByMode = at.Add(time.Hour).UnixMilli(), "R"
	late.Envelope.Parameters.HoldUntilMs = at.Add(30 * time.Minute).UnixMilli()
	late.Recipients[0].Attempt = &queue.Attempt{At: at.Add(time.Hour), Code: 550, Enhanced: "5.4.7", Text: "Not delivered by 2026-03-01T13:00:00Z, as the sender wanted it"}
	slow := report(Delayed)
	slow.Envelope.Parameters.DeliverByMs, slow.Envelope.Parameters.DeliverByMode = at.Add(time.Hour).UnixMilli(), "N"
	slow.Recipients[0].Attempt = &queue.Attempt{At: at, Code: 451, Text: "Greylisted", Enhanced: "4.7.1", RemoteMTA: "192.0.2.1:25"}
	traced := report(Relayed)
	traced.Envelope.Parameters.DeliverByMs, traced.Envelope.Parameters.DeliverByMode = at.Add(time.Hour).UnixMilli(), "N"
	traced.Recipients[0].Notify = []string{"FAILURE"}
	traced.Recipients[0].Attempt = &queue.Attempt{At: at, Code: 250, Enhanced: "2.0.0", Text: "Queued", RemoteMTA: "mx.ryan.example"}
	secret := report(Failed)
	secret.Envelope.Parameters.RequireTls, secret.Envelope.Parameters.DsnReturn = true, "FULL"
	bodiless := report(Failed) // its octets are gone
	bodiless.Body = nil
	delivered := report(Delivered)
	delivered.Recipients[0].Attempt = &queue.Attempt{At: at, Code: 250, Enhanced: "2.1.5", Text: "OK"}
	for name, c := range map[string]struct {
		Report
		kinds string
	}{
		"failed":    {report(Failed), "text/plain message/delivery-status message/rfc822"},
		"bodiless":  {bodiless, "text/plain message/delivery-status"},
		"headers":   {headers, "text/plain message/delivery-status text/rfc822-headers"},
		"global":    {global, "text/plain message/global-delivery-status message/global"},
		"late":      {late, "text/plain message/delivery-status message/rfc822"},
		"slow":      {slow, "text/plain message/delivery-status text/rfc822-headers"},
		"traced":    {traced, "text/plain message/delivery-status text/rfc822-headers"},
		"secret":    {secret, "text/plain message/delivery-status text/rfc822-headers"},
		"delayed":   {delayed, "text/plain message/delivery-status text/rfc822-headers"},
		"delivered": {delivered, "text/plain message/delivery-status text/rfc822-headers"},
		"relayed":   {report(Relayed), "text/plain message/delivery-status text/rfc822-headers"},
		"expanded":  {report(Expanded), "text/plain message/delivery-status text/rfc822-headers"},
	} {
		t.Run(name, func(t *testing.T) {
			m, err := Build(c.Report)
			if err != nil {
				t.Fatal(err)
			}
			got := string(m.Body.Bytes())
			file := filepath.Join("testdata", name+".eml")
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("differs from %s:\n%s", file, got)
			}
			if strings.Contains(strings.ReplaceAll(got, "\r\n", ""), "\n") {
				t.Error("a bare LF")
			}
			if p := m.Envelope.Parameters; p.GetRequireTls() != c.Envelope.Parameters.GetRequireTls() {
				t.Errorf("parameters %v", p)
			}
			if e := m.Envelope; e.Sender != "" || e.Recipients[0].Address != "tom@hanks.example" {
				t.Errorf("envelope %+v", e)
			}
			parsed, err := gomessage.Read(strings.NewReader(got))
			if err != nil {
				t.Fatal(err)
			}
			kind, params, err := parsed.Header.ContentType()
			if err != nil || kind != "multipart/report" || params["report-type"] != "delivery-status" || parsed.Header.Get("Auto-Submitted") != "auto-replied" {
				t.Errorf("%s %v %v", kind, params, err)
			}
			var kinds []string
			mr := parsed.MultipartReader()
			for {
				p, err := mr.NextPart()
				if err == io.EOF {
					break
				}
				if err != nil {
					t.Fatal(err)
				}
				kind, _, err := p.Header.ContentType()
				if err != nil {
					t.Fatal(err)
				}
				kinds = append(kinds, kind)
				b, err := io.ReadAll(p.Body)
				if err != nil {
					t.Fatal(err)
				}
				if (kind == "message/rfc822" || kind == "message/global") && string(b) != original {
					t.Errorf("the original came back as %q", b)
				}
			}
			if s := strings.Join(kinds, " "); s != c.kinds {
				t.Errorf("parts %s", s)
			}
			if strings.Contains(got, "\r\nX-Injected") {
				t.Error("a peer's reply made a field")
			}
		})
	}
}

func TestWhoIsTold(t *testing.T) {
	for _, c := range []struct {
		notify string
		told   string
	}{
		{"", "failed delayed"},
		{"NEVER", ""},
		{"FAILURE", "failed"},
		{"delay", "delayed"},
		{"SUCCESS", "delivered relayed expanded"},
		{"SUCCESS,FAILURE,DELAY", "failed delayed delivered relayed expanded"},
	} {
		var told []string
		for _, a := range []Action{Failed, Delayed, Delivered, Relayed, Expanded} {
			r := &queue.Recipient{}
			if c.notify != "" {
				r.Notify = strings.Split(c.notify, ",")
			}
			if ShouldNotify(r, a) {
				told = append(told, string(a))
			}
		}
		if got := strings.Join(told, " "); got != c.told {
			t.Errorf("NOTIFY=%s: %s", c.notify, got)
		}
	}
}

func TestNoNoticeAboutANotice(t *testing.T) {
	null := report(Failed)
	null.Envelope.Sender = ""
	never := report(Failed)
	never.Recipients[0].Notify = []string{"NEVER"}
	untraced := report(Relayed)
	untraced.Recipients[0].Notify, untraced.Envelope.Parameters.DeliverByMode = []string{"NEVER"}, "N"
	for _, r := range []Report{null, never, untraced} {
		if m, err := Build(r); m != nil || err != nil {
			t.Errorf("%+v %v", m, err)
		}
	}
	if _, err := Build(Report{Action: "lost", Envelope: &queue.Envelope{Sender: "a@b"}, Recipients: []Recipient{{Recipient: &queue.Recipient{Notify: []string{"SUCCESS"}}}}}); err == nil {
		t.Error("an unknown action passed")
	}
}

// An 8-bit header comes back octet by octet, under the name of what it is.
func TestEightBitHeaders(t *testing.T) {
	for _, c := range []struct{ name, header, reply, kinds string }{
		{"UTF-8", "Subject: Schön, dass du schreibst\r\n", "No such user", "text/plain message/delivery-status message/global"},
		{"Latin-1", "Subject: Sch\xf6n\r\n", "No such user", "text/plain message/delivery-status message/rfc822"},
		{"a peer's reply", "Subject: plain\r\n", "Unbekannter Empfänger", "text/plain message/global-delivery-status message/rfc822"},
		{"a reply that is no text", "Subject: plain\r\n", "Empf\xe4nger", "text/plain message/delivery-status message/rfc822"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := report(Failed)
			text := "From: Tom <tom@hanks.example>\r\n" + c.header + "\r\nDear friend\r\n"
			r.Body, r.Recipients[0].Attempt.Text = spool.FromBytes([]byte(text)), c.reply
			m, err := Build(r)
			if err != nil {
				t.Fatal(err)
			}
			got := string(m.Body.Bytes())
			if !strings.Contains(got, text) {
				t.Errorf("the original is not in\n%s", got)
			}
			if want := map[bool]string{true: "", false: "8BITMIME"}[ascii(got)]; m.Envelope.Parameters.GetBody() != want || m.Envelope.Parameters.GetSmtputf8() {
				t.Errorf("parameters %v", m.Envelope.Parameters)
			}
			head, _, _ := strings.Cut(got, "\r\n\r\n")
			if !ascii(head) {
				t.Errorf("the notice's own header is\n%s", head)
			}
			parsed, err := gomessage.Read(strings.NewReader(got))
			if err != nil {
				t.Fatal(err)
			}
			var kinds []string
			for mr := parsed.MultipartReader(); ; {
				p, err := mr.NextPart()
				if err == io.EOF {
					break
				}
				if err != nil {
					t.Fatal(err)
				}
				kind, _, err := p.Header.ContentType()
				if err != nil {
					t.Fatal(err)
				}
				b, err := io.ReadAll(p.Body)
				if err != nil {
					t.Fatal(err)
				}
				if ascii(string(b)) == (p.Header.Get("Content-Transfer-Encoding") == "8bit") {
					t.Errorf("%s is called %q", kind, p.Header.Get("Content-Transfer-Encoding"))
				}
				kinds = append(kinds, kind)
			}
			if s := strings.Join(kinds, " "); s != c.kinds {
				t.Errorf("parts %s", s)
			}
		})
	}
}

func TestStatus(t *testing.T) {
	for _, c := range []struct {
		a    Action
		at   *queue.Attempt
		want string
	}{
		{Failed, nil, "5.0.0"},
		{Failed, &queue.Attempt{Code: 451}, "4.0.0"},
		{Failed, &queue.Attempt{Code: 550, Enhanced: "5.1.1"}, "5.1.1"},
		{Failed, &queue.Attempt{Code: 550, Enhanced: "5.x"}, "5.0.0"},
		{Delayed, nil, "4.0.0"},
		{Delivered, nil, "2.0.0"},
	} {
		if got := status(c.a, c.at); got != c.want {
			t.Errorf("%s %+v: %s", c.a, c.at, got)
		}
	}
}
