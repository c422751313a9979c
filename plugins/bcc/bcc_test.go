package bcc_test

import (
	"strings"
	"testing"

	"github.com/stagecoach-mta/stagecoach/plugins/bcc"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
	"github.com/stagecoach-mta/stagecoach/sdk/sdktest"
)

const config = `
copy "archive@ryan.example" { notices = true }
copy "audit@ryan.example" {
  senders    = ["@Hanks.example", "meg@ryan.example"]
  recipients = ["sales@ryan.example", "@reed.example"]
}
copy "sam@ryan.example" { recipients = ["meg@ryan.example"] }
`

func TestCopies(t *testing.T) {
	for name, c := range map[string]struct {
		sender string
		to     []string
		want   string
	}{
		"everything is archived":    {"joe@elsewhere.example", []string{"joe@ryan.example"}, "archive@ryan.example"},
		"a sender and a recipient":  {"tom@hanks.example", []string{"joe@ryan.example", "Sales@ryan.example"}, "archive@ryan.example audit@ryan.example"},
		"a sender alone":            {"tom@hanks.example", []string{"joe@ryan.example"}, "archive@ryan.example"},
		"a domain":                  {"MEG@ryan.example", []string{"annie@reed.example"}, "archive@ryan.example audit@ryan.example"},
		"a notice":                  {"", []string{"meg@ryan.example"}, "archive@ryan.example"},
		"who gets it anyhow":        {"joe@elsewhere.example", []string{"meg@ryan.example", "SAM@ryan.example", "archive@ryan.example"}, ""},
		"a domain of another name":  {"tom@nothanks.example", []string{"sales@ryan.example"}, "archive@ryan.example"},
		"an address without domain": {"root", []string{"postmaster"}, "archive@ryan.example"},
	} {
		call := sdktest.Message(t, "From: tom@hanks.example\r\n\r\nHi\r\n")
		call.Envelope.Sender, call.Envelope.Recipients = c.sender, nil
		for i, a := range c.to {
			call.Envelope.Recipients = append(call.Envelope.Recipients, &v1.Recipient{Address: a, Index: int32(i)})
		}
		r, err := sdktest.Filter(t, bcc.Plugin(), config)(call)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, e := range r.GetEdits() {
			a := e.GetAddRecipient().GetRecipient()
			if n := a.GetNotify(); len(n) != 1 || n[0] != "NEVER" {
				t.Errorf("%s: the sender hears of it: %v", name, a)
			}
			got = append(got, a.GetAddress())
		}
		if s := strings.Join(got, " "); s != c.want {
			t.Errorf("%s: %q, want %q", name, s, c.want)
		}
	}
}

func TestMistakes(t *testing.T) {
	for config, want := range map[string]string{
		``:                  "there is no copy",
		`copy "archive" {}`: "copy[0]",
		`copy "a@ryan.example" { senders = ["ryan.example"] }`:      "copy[0].senders[0]",
		`copy "a@ryan.example" { recipients = ["*@reed.example"] }`: "copy[0].recipients[0]",
	} {
		if diags := sdktest.Diagnostics(t, bcc.Plugin(), config); len(diags) != 1 || !strings.HasPrefix(strings.TrimPrefix(diags[0], ": "), want) {
			t.Errorf("%s: %q", config, diags)
		}
	}
}
