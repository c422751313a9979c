package recipients_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stagecoach-mta/stagecoach/plugins/recipients"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
	"github.com/stagecoach-mta/stagecoach/sdk/sdktest"
)

func people(n, perDomain int) []string {
	var out []string
	for i := range n {
		out = append(out, fmt.Sprintf("p%d@d%d.example", i, i/perDomain))
	}
	return out
}

func TestLimits(t *testing.T) {
	const config = "strangers = 3\nusers = 5\nnull_sender = 1\ndomains = 2\n"
	for name, c := range map[string]struct {
		to           []string
		sender, user string
		want         string
	}{
		"three":                {to: people(3, 9), sender: "tom@hanks.example"},
		"four":                 {to: people(4, 9), sender: "tom@hanks.example", want: "A mail has at most 3 recipients here"},
		"a user's five":        {to: people(5, 9), sender: "tom@hanks.example", user: "tom"},
		"a user's six":         {to: people(6, 9), sender: "tom@hanks.example", user: "tom", want: "A mail has at most 5 recipients here"},
		"a notice":             {to: people(1, 9)},
		"a notice to two":      {to: people(2, 9), want: "A mail has at most 1 recipients here"},
		"three of three hosts": {to: people(3, 1), sender: "tom@hanks.example", want: "A mail has at most 2 domains here"},
	} {
		for _, action := range []string{"later", "reject"} {
			call, code, verdict := sdktest.Rcpt(c.to...), int32(452), v1.Verdict_DEFER
			if action == "reject" {
				call, code, verdict = sdktest.Envelope(c.to...), 550, v1.Verdict_REJECT
			}
			call.Envelope.Sender, call.Envelope.Client.User = c.sender, c.user
			r, err := sdktest.Filter(t, recipients.Plugin(), config+fmt.Sprintf("action = %q", action))(call)
			if err != nil {
				t.Fatal(err)
			}
			v := r.GetVerdict()
			if c.want == "" && v.GetAction() != v1.Verdict_ACCEPT || c.want != "" && (v.GetAction() != verdict || v.GetReply().GetCode() != code || v.GetReply().GetText() != c.want) {
				t.Errorf("%s, %s: %v", name, action, v)
			}
		}
	}
}

func TestZeroIsNoLimit(t *testing.T) {
	call := sdktest.Rcpt(people(500, 1)...)
	call.Envelope.Sender = ""
	r, err := sdktest.Filter(t, recipients.Plugin(), "strangers = 0\nnull_sender = 0")(call)
	if err != nil || r.GetVerdict().GetAction() != v1.Verdict_ACCEPT {
		t.Errorf("%v %v", r, err)
	}
}

func TestMistakes(t *testing.T) {
	for _, name := range []string{"strangers", "users", "null_sender", "domains"} {
		if diags := sdktest.Diagnostics(t, recipients.Plugin(), name+" = -1"); len(diags) != 1 || !strings.HasPrefix(diags[0], name) {
			t.Errorf("%s: %q", name, diags)
		}
	}
}
