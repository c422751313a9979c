package sieve

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/stagecoach-mta/stagecoach/sdk"
	"github.com/stagecoach-mta/stagecoach/sdk/filter"
	"github.com/stagecoach-mta/stagecoach/sdk/mail"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
	"github.com/stagecoach-mta/stagecoach/sdk/schema"
)

const letter = "From: Tom <tom@hanks.example>\r\nTo: meg@ryan.example\r\nSubject: Sleepless\r\nMessage-ID: <1@hanks.example>\r\n\r\nIn Seattle.\r\n"

// start makes a filter with a folder of scripts.
func start(t *testing.T, change func(*Config)) *Filter {
	t.Helper()
	c := DefaultConfig()
	c.Scripts = t.TempDir()
	if change != nil {
		change(&c)
	}
	f, err := newFilter(&sdk.Instance{Name: "filter.sieve.users", DataDir: t.TempDir(), Hostname: "mx.ryan.example", Config: &c, Log: zerolog.Nop(), Metrics: new(sdk.Metrics)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func (f *Filter) give(t *testing.T, user, text string) {
	t.Helper()
	a := f.scripts.Account(user)
	if err := a.Put(t.Context(), "main", []byte(text)); err != nil {
		t.Fatal(err)
	}
	if err := a.Activate(t.Context(), "main"); err != nil {
		t.Fatal(err)
	}
}

func event(queueID, text string, users ...string) *filter.Event {
	ev := &filter.Event{Kind: v1.FilterEvent_PRE_DELIVERY, Message: mail.FromBytes([]byte(text)), Envelope: &v1.Envelope{QueueId: queueID, Sender: "tom@hanks.example"}}
	for i, u := range users {
		ev.Envelope.Recipients = append(ev.Envelope.Recipients, &v1.Recipient{Address: u, Account: u, Index: int32(10 * i)})
	}
	return ev
}

// decided is a verdict in words.
func decided(t *testing.T, f *Filter, ev *filter.Event) string {
	t.Helper()
	v, err := f.Filter(t.Context(), ev)
	if err != nil {
		return "error: " + err.Error()
	}
	var out []string
	r := v.Reply()
	for i, p := range r.GetPlacements() {
		for _, c := range p.GetCopies() {
			s := fmt.Sprintf("%d into %q %v", i, c.GetMailbox(), c.GetFlags())
			if c.GetMessage() != nil {
				s += " edited"
			}
			out = append(out, s)
		}
	}
	for i, v := range r.GetPerRecipient() {
		out = append(out, fmt.Sprintf("%d %s %s", i, v.GetAction(), v.GetReply().GetText()))
	}
	for _, in := range r.GetInject() {
		b, err := mail.FromRef(in.GetMessage()).Bytes(0)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, fmt.Sprintf("<%s> to %s: %s", in.GetSender(), in.GetRecipients()[0].GetAddress(), first(string(b))))
	}
	slices.Sort(out)
	return strings.Join(out, "\n")
}

func first(s string) string {
	for line := range strings.Lines(s) {
		if strings.HasPrefix(line, "Subject:") {
			return strings.TrimSpace(line)
		}
	}
	return "no subject"
}

func TestWhatScriptsDecide(t *testing.T) {
	for name, c := range map[string]struct{ script, want string }{
		"nothing":  {"", ""},
		"keep":     {"keep;", ""},
		"a folder": {`require "fileinto"; fileinto "Films/Seattle";`, `0 into "Films/Seattle" []`},
		"a folder, flags and the inbox": {
			`require ["fileinto", "imap4flags"]; setflag "\\Seen"; fileinto :flags "$film" "Films"; keep;`,
			"0 into \"\" [\\Seen]\n0 into \"Films\" [$film]",
		},
		"an edited copy":         {`require ["editheader", "fileinto"]; addheader "X-A" "b"; fileinto "A";`, `0 into "A" [] edited`},
		"an edited keep":         {`require "editheader"; addheader "X-A" "b";`, `0 into "" [] edited`},
		"discard":                {"discard;", "0 DISCARD "},
		"on to another address":  {`redirect "reed@reed.example";`, "0 DISCARD \n<tom@hanks.example> to reed@reed.example: Subject: Sleepless"},
		"a copy to another":      {`require "copy"; redirect :copy "reed@reed.example";`, "<tom@hanks.example> to reed@reed.example: Subject: Sleepless"},
		"refused with a notice":  {`require "reject"; reject "Nein, danke für nichts";`, "0 DISCARD \n<> to tom@hanks.example: Subject: Automatically rejected mail"},
		"refused by the server":  {`require "ereject"; ereject "No  thanks";`, "0 REJECT No thanks"},
		"absent":                 {`require "vacation"; vacation "At sea";`, "<> to tom@hanks.example: Subject: Auto: Sleepless"},
		"a notice":               {`require "enotify"; notify "mailto:reed@reed.example?subject=New";`, "<postmaster@mx.ryan.example> to reed@reed.example: Subject: New"},
		"a mistake":              {`fileinto "x";`, ""},
		"a failure":              {`require ["ihave", "fileinto"]; fileinto "x"; error "no";`, ""},
		"a name that cannot be":  {`require "fileinto"; fileinto "a//b";`, ""},
		"a mail that is the own": {`require ["envelope", "fileinto"]; if envelope :localpart "to" "meg" { fileinto "Mine"; }`, `0 into "Mine" []`},
	} {
		f := start(t, nil)
		if c.script != "" {
			f.give(t, "meg@ryan.example", c.script)
		}
		if got := decided(t, f, event("q1", letter, "meg@ryan.example")); got != c.want {
			t.Errorf("%s:\n%s\nwant\n%s", name, got, c.want)
		}
		trouble, err := f.scripts.Account("meg@ryan.example").Trouble(t.Context())
		if wants := name == "a mistake" || name == "a failure" || name == "a name that cannot be"; err != nil || (trouble != "") != wants {
			t.Errorf("%s: the user is told %q, %v", name, trouble, err)
		}
	}
}

func TestEachRecipientHasTheirOwnScript(t *testing.T) {
	f := start(t, nil)
	f.give(t, "meg@ryan.example", `require "fileinto"; fileinto "Films";`)
	f.give(t, "joe@ryan.example", `discard;`)
	got := decided(t, f, event("q1", letter, "annie@ryan.example", "meg@ryan.example", "joe@ryan.example"))
	if want := "10 into \"Films\" []\n20 DISCARD "; got != want {
		t.Errorf("%s\nwant\n%s", got, want)
	}
}

// A reply goes out once in its time; the same delivery tried again answers the same,
// and who only asks what would happen leaves no trace.
func TestMemoryIsOfDeliveries(t *testing.T) {
	f := start(t, nil)
	now := time.Now()
	f.now = func() time.Time { return now }
	f.give(t, "meg@ryan.example", `require ["vacation", "duplicate", "fileinto"]; vacation "At sea"; if duplicate { fileinto "Twice"; }`)
	reply := "<> to tom@hanks.example: Subject: Auto: Sleepless"
	for _, step := range []struct{ queueID, want string }{
		{"", reply}, {"q1", reply}, {"q1", reply}, {"q2", `0 into "Twice" []`}, {"q1", reply}, {"", `0 into "Twice" []`},
	} {
		if got := decided(t, f, event(step.queueID, letter, "meg@ryan.example")); got != step.want {
			t.Errorf("%q: %s\nwant\n%s", step.queueID, got, step.want)
		}
	}
}

func TestALargeMailIsHandedOverAsAFile(t *testing.T) {
	f := start(t, nil)
	f.give(t, "meg@ryan.example", `require ["editheader"]; addheader "X-A" "b"; redirect "reed@reed.example"; keep;`)
	text := letter + strings.Repeat("All work and no play.\r\n", 2000)
	v, err := f.Filter(t.Context(), event("q1", text, "meg@ryan.example"))
	if err != nil {
		t.Fatal(err)
	}
	m := mail.FromRef(v.Reply().GetPlacements()[0].GetCopies()[0].GetMessage())
	src, err := m.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	b, err := io.ReadAll(src)
	if err != nil || m.Path() == "" || int64(len(b)) != m.Size() || string(b) != "X-A: b\r\n"+text {
		t.Errorf("%v, %d octets of %d in %q", err, len(b), m.Size(), m.Path())
	}
	if in := v.Reply().GetInject()[0].GetMessage(); in.GetPath() == "" || in.GetPath() == m.Path() {
		t.Errorf("injected %v", in)
	}
}

func TestTheOperatorsScriptIsForWhoHasNone(t *testing.T) {
	f := start(t, func(c *Config) { c.Default = "spam" })
	if got := decided(t, f, event("q1", letter, "meg@ryan.example")); got != "" {
		t.Errorf("without a script: %s", got)
	}
	put(t, f, "spam", `require "fileinto"; if header "x-spam" "yes" { fileinto "Junk"; }`)
	if got := decided(t, f, event("q1", "X-Spam: yes\r\n"+letter, "meg@ryan.example")); got != `0 into "Junk" []` {
		t.Errorf("with the operator's: %s", got)
	}
	f.give(t, "meg@ryan.example", `require "include"; include :global "spam";`)
	if got := decided(t, f, event("q1", "X-Spam: yes\r\n"+letter, "meg@ryan.example")); got != `0 into "Junk" []` {
		t.Errorf("included: %s", got)
	}
	f.give(t, "meg@ryan.example", `keep;`)
	if got := decided(t, f, event("q1", "X-Spam: yes\r\n"+letter, "meg@ryan.example")); got != "" {
		t.Errorf("with an own one: %s", got)
	}
}

func TestValidatePointsAtTheAttribute(t *testing.T) {
	for attribute, change := range map[string]func(*Config){
		"max_actions":   func(c *Config) { c.MaxActions = 0 },
		"max_redirects": func(c *Config) { c.MaxRedirects = 33 },
		"max_cpu":       func(c *Config) { c.MaxCPU = 0 },
		"vacation_min":  func(c *Config) { c.VacationMin = -1 },
		"redirect_from": func(c *Config) { c.RedirectFrom = "me" },
		"without":       func(c *Config) { c.Without = []string{"nonsense"} },
		"global":        func(c *Config) { c.Global = "/etc/stagecoach/sieve" },
		"default":       func(c *Config) { c.Scripts, c.Storage, c.Default = "", "storage.local.mail", "spam" },
	} {
		c := DefaultConfig()
		c.Scripts = "/var/lib/stagecoach/sieve"
		change(&c)
		diags := schema.Diagnostics(c.Validate())
		if len(diags) != 1 || diags[0].GetPath()[0].GetName() != attribute {
			t.Errorf("%s: %v", attribute, diags)
		}
	}
	c := DefaultConfig()
	if err := c.Validate(); err == nil || !strings.Contains(err.Error(), "where are the scripts?") {
		t.Errorf("nowhere: %v", err)
	}
	c.Storage = "storage.local.mail"
	if err := c.Validate(); err != nil {
		t.Error(err)
	}
}
