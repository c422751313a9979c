package rules

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/stagecoach-mta/stagecoach/sdk"
	"github.com/stagecoach-mta/stagecoach/sdk/filter"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
	"github.com/stagecoach-mta/stagecoach/sdk/schema"
	"github.com/stagecoach-mta/stagecoach/sdk/sdktest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// asked is what the rules say of a call.
func asked(t *testing.T, call *v1.FilterCall, rules ...Rule) *v1.FilterReply {
	t.Helper()
	for i := range rules {
		if rules[i].At == "" {
			rules[i].At = "message"
		}
		if rules[i].Name == "" {
			rules[i].Name = fmt.Sprintf("r%d", i)
		}
	}
	c := &Config{Rules: rules}
	if err := c.Validate(); err != nil {
		t.Fatal(err)
	}
	f, err := newFilter(c, &sdk.Metrics{})
	if err != nil {
		t.Fatal(err)
	}
	v, err := f.Filter(t.Context(), filter.NewEvent(call))
	if err != nil {
		t.Fatal(err)
	}
	return v.Reply()
}

// letter to Meg and Sam, of whom SPF says that its sender is forged.
func letter(t *testing.T, header ...string) *v1.FilterCall {
	call := sdktest.Message(t, strings.Join(append(header, "From: tom@hanks.example"), "\r\n")+"\r\n\r\nHi\r\n")
	call.Envelope.Recipients = []*v1.Recipient{{Address: "meg@ryan.example", Index: 3}, {Address: "sam@ryan.example", Index: 5}}
	call.Envelope.Tags = map[string]*v1.Tag{"spf": {Value: &v1.Tag_Text{Text: "fail"}}}
	call.Envelope.Sender = "tom@hanks.example"
	return call
}

func said(v *v1.Verdict) string {
	s := v.GetAction().String()
	if r := v.GetReply(); r != nil {
		s += fmt.Sprintf(" %d %s %s", r.GetCode(), r.GetEnhanced(), r.GetText())
	}
	return s
}

func TestVerdicts(t *testing.T) {
	for want, r := range map[string]Rule{
		"REJECT 550 5.7.1 No":       {Reject: "No"},
		"REJECT 554 5.7.9 Not that": {Reject: "554 5.7.9 Not that"},
		"REJECT 550 5.1.8 Who":      {Reject: "5.1.8 Who"},
		"DEFER 451 4.7.1 Later":     {Defer: "Later"},
		"DEFER 450 4.7.1 4 o'clock": {Defer: "450 4 o'clock"},
		"DISCONNECT 421 4.7.0 Bye":  {Disconnect: "Bye"},
		"HOLD":                      {Hold: "for Annie"},
		"DISCARD":                   {Discard: true},
		"ACCEPT":                    {Accept: true},
	} {
		r.When = `tags.spf == "fail" && sender.domain == "hanks.example"`
		got := asked(t, letter(t), r)
		if s := said(got.GetVerdict()); s != want {
			t.Errorf("%q, want %q", s, want)
		}
		if l := got.GetTags()["rules"].GetList().GetValues(); !slices.Equal(l, []string{"r0"}) {
			t.Errorf("tags.rules is %q", l)
		}
		r.When = `tags.spf == "pass"`
		if got := asked(t, letter(t), r); said(got.GetVerdict()) != "ACCEPT" || len(got.GetTags()) > 0 {
			t.Errorf("of another mail: %v", got)
		}
	}
}

// TestInTheirOrder: what rules add adds up, later ones see it, and the first verdict
// is the last word.
func TestInTheirOrder(t *testing.T) {
	got := asked(t, letter(t, "Subject: =?utf-8?q?Caf=C3=A9?=", "List-Id: <x>"),
		Rule{When: `tags.spf == "fail"`, Score: 2, Tags: map[string]string{"stream": "doubtful"}},
		Rule{When: `message.subject == "Café" && contains(message.headers["list-id"], "<x>")`, Score: 1.5, Headers: map[string]string{"X-B": "2", "X-A": "1"}, Copy: []string{"audit@ryan.example"}},
		Rule{When: `tags.stream == "doubtful"`, Hold: "doubtful"},
		Rule{When: `true`, Reject: "No", Score: 9},
	)
	if said(got.GetVerdict()) != "HOLD" || got.GetVerdict().GetReason() != "doubtful" || got.GetScore() != 3.5 || got.GetTags()["stream"].GetText() != "doubtful" {
		t.Errorf("%v", got)
	}
	if e := got.GetEdits(); len(e) != 3 || e[0].GetInsertHeader().GetField().GetName() != "X-A" || e[2].GetAddRecipient().GetRecipient().GetAddress() != "audit@ryan.example" {
		t.Errorf("edits %v", e)
	}
}

// TestOfEachRecipient: a rule that asks for the recipient decides of that one.
func TestOfEachRecipient(t *testing.T) {
	meg := Rule{When: `recipient.local == "meg"`, Reject: "Not to Meg"}
	got := asked(t, letter(t), meg)
	if p := got.GetPerRecipient(); said(got.GetVerdict()) != "ACCEPT" || len(p) != 1 || said(p[3]) != "REJECT 550 5.7.1 Not to Meg" {
		t.Errorf("%v", got)
	}
	// Who was decided keeps it; the others get what is said of all.
	got = asked(t, letter(t), meg, Rule{When: `tags.spf == "fail"`, Hold: "look"})
	if p := got.GetPerRecipient(); said(got.GetVerdict()) != "ACCEPT" || said(p[3]) != "REJECT 550 5.7.1 Not to Meg" || said(p[5]) != "HOLD" {
		t.Errorf("%v", got)
	}
	got = asked(t, letter(t), Rule{When: `recipient.local == "meg"`, Accept: true}, Rule{When: "true", Discard: true})
	if p := got.GetPerRecipient(); len(p) != 1 || said(p[5]) != "DISCARD" {
		t.Errorf("%v", got)
	}
	got = asked(t, letter(t), Rule{When: `recipient.domain == "ryan.example"`, Score: 1, Hold: "all"}, Rule{When: "true", Reject: "No", Score: 7})
	if p := got.GetPerRecipient(); len(p) != 2 || got.GetScore() != 1 {
		t.Errorf("%v", got)
	}
}

func TestMoments(t *testing.T) {
	rules := []Rule{
		{When: `client.ip != ""`, At: "connect", Score: 1},
		{When: `client.hello == "mx.hanks.example" || client.hello != ""`, At: "hello", Delay: 2e9},
		{When: `sender.null`, At: "mail", Reject: "No notices"},
		{When: `recipient.local == "postmaster"`, At: "rcpt", Defer: "Later"},
	}
	if got := asked(t, sdktest.Connect(), rules...); got.GetScore() != 1 {
		t.Errorf("connect: %v", got)
	}
	if got := asked(t, sdktest.Hello(), rules...); got.GetVerdict().GetDelayMs() != 2000 {
		t.Errorf("hello: %v", got)
	}
	mail := sdktest.Mail()
	mail.Envelope.Sender = ""
	if got := asked(t, mail, rules...); said(got.GetVerdict()) != "REJECT 550 5.7.1 No notices" {
		t.Errorf("mail: %v", got)
	}
	if got := asked(t, sdktest.Rcpt("postmaster@ryan.example"), rules...); said(got.GetVerdict()) != "DEFER 451 4.7.1 Later" {
		t.Errorf("rcpt: %v", got)
	}
	if got := asked(t, sdktest.Rcpt("meg@ryan.example"), rules...); said(got.GetVerdict()) != "ACCEPT" {
		t.Errorf("rcpt: %v", got)
	}
}

// TestInterestIsNarrow: nothing is sent that no rule reads.
func TestInterestIsNarrow(t *testing.T) {
	for _, c := range []struct {
		rule Rule
		want string
	}{
		{Rule{When: `sender.null`, At: "mail", Reject: "x"}, "[MAIL] NONE JUDGE []"},
		{Rule{When: `message.size > 5`, At: "message", Hold: "x"}, "[MESSAGE] NONE JUDGE []"},
		{Rule{When: `message.subject == "x" && message.headers["list-id"] != null`, At: "message", Hold: "x"}, "[MESSAGE] HEADER JUDGE [list-id subject]"},
		{Rule{When: `length(message.headers) > 50`, At: "message", Copy: []string{"a@ryan.example"}}, "[MESSAGE] HEADER EDIT []"},
	} {
		in := (&Config{Rules: []Rule{c.rule}}).Interest()
		if got := fmt.Sprint(in.GetEvents(), in.GetBody(), in.GetEffect(), in.GetHeaderNames()); got != strings.ReplaceAll(c.want, "] ", "]") && got != c.want {
			t.Errorf("%s: %s, want %s", c.rule.When, got, c.want)
		}
	}
}

func TestMistakes(t *testing.T) {
	for _, c := range []struct {
		rule            Rule
		attribute, want string
	}{
		{Rule{When: `tags.spf ==`, Hold: "x"}, "when", "is no expression"},
		{Rule{When: `true`}, "when", "does nothing"},
		{Rule{When: `true`, Hold: "x", Discard: true}, "when", "one of reject"},
		{Rule{When: `message.size > 1`, At: "rcpt", Hold: "x"}, "at", "message is not known at rcpt"},
		{Rule{When: `recipient.local == "x"`, At: "mail", Hold: "x"}, "at", `write at = "rcpt"`},
		{Rule{When: `true`, Reject: "450 Later"}, "reject", "begin with 5"},
		{Rule{When: `true`, Defer: "5.7.1 Later"}, "defer", "begin with 4"},
		{Rule{When: `true`, Reject: "550 5.7.1"}, "reject", "in words"},
		{Rule{When: `true`, Reject: "Näh"}, "reject", "ASCII"},
		{Rule{When: `true`, Headers: map[string]string{"X": "a\r\nY: b"}}, "headers", "line end"},
		{Rule{When: `true`, At: "mail", Headers: map[string]string{"X": "a"}}, "headers", "no header yet"},
		{Rule{When: `true`, Tags: map[string]string{"a b": "x"}}, "tags", "no tag's name"},
		{Rule{When: `true`, Copy: []string{"192.0.2.1"}}, "copy", "no mail address"},
		{Rule{When: `true`, Delay: 61e9}, "delay", "60s"},
	} {
		if c.rule.At == "" {
			c.rule.At = "message"
		}
		found := false
		for _, d := range schema.Diagnostics((&Config{Rules: []Rule{c.rule}}).Validate()) {
			p := d.GetPath()
			found = found || len(p) == 3 && p[2].GetName() == c.attribute && strings.Contains(d.GetSummary()+d.GetDetail(), c.want)
		}
		if !found {
			t.Errorf("%+v: %v, want %q at %s", c.rule, (&Config{Rules: []Rule{c.rule}}).Validate(), c.want, c.attribute)
		}
	}
	if err := (&Config{}).Validate(); err == nil {
		t.Error("no rule at all is right")
	}
}

func BenchmarkRules(b *testing.B) {
	call := sdktest.Message(b, "From: tom@hanks.example\r\nSubject: Hello\r\n\r\nHi\r\n")
	call.Envelope.Tags = map[string]*v1.Tag{"spf": {Value: &v1.Tag_Text{Text: "pass"}}}
	c := &Config{}
	for i := range 10 {
		c.Rules = append(c.Rules, Rule{Name: fmt.Sprint(i), At: "message", When: `tags.spf == "fail" && endswith(sender.domain, ".example") || startswith(message.subject, "[spam]")`, Hold: "x"})
	}
	f, err := newFilter(c, &sdk.Metrics{})
	if err != nil {
		b.Fatal(err)
	}
	ev := filter.NewEvent(call)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := f.Filter(b.Context(), ev); err != nil {
			b.Fatal(err)
		}
	}
}
