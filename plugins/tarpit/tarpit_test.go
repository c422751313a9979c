package tarpit_test

import (
	"strings"
	"testing"

	"github.com/stagecoach-mta/stagecoach/plugins/tarpit"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
	"github.com/stagecoach-mta/stagecoach/sdk/sdktest"
)

func TestWaiting(t *testing.T) {
	ask := sdktest.Filter(t, tarpit.Plugin(), `
banner          = "2s"
free_recipients = 2
recipient_delay = "500ms"
except          = ["198.51.100.0/24"]`)
	many := []string{"a@ryan.example", "b@ryan.example", "c@ryan.example"}
	for name, c := range map[string]struct {
		call *v1.FilterCall
		ip   string
		user string
		want int64
	}{
		"banner":             {call: sdktest.Connect(), want: 2000},
		"a neighbour":        {call: sdktest.Connect(), ip: "::ffff:198.51.100.7"},
		"hello":              {call: sdktest.Hello()},
		"two recipients":     {call: sdktest.Rcpt(many[:2]...)},
		"a third":            {call: sdktest.Rcpt(many...), want: 500},
		"a neighbour's":      {call: sdktest.Rcpt(many...), ip: "198.51.100.7"},
		"a user's recipient": {call: sdktest.Rcpt(many...), user: "tom"},
	} {
		c.call.Envelope.Client.User = c.user
		if c.ip != "" {
			c.call.Envelope.Client.Ip = c.ip
		}
		r, err := ask(c.call)
		if err != nil || r.GetVerdict().GetDelayMs() != c.want || r.GetVerdict().GetAction() != v1.Verdict_ACCEPT {
			t.Errorf("%s: %v %v", name, r, err)
		}
	}
}

func TestWhoSpeaksEarly(t *testing.T) {
	for action, want := range map[string]v1.Verdict_Action{"disconnect": v1.Verdict_DISCONNECT, "reject": v1.Verdict_REJECT, "tag": v1.Verdict_ACCEPT} {
		call := sdktest.Hello()
		call.Envelope.Client.Early = true
		r, err := sdktest.Filter(t, tarpit.Plugin(), `early = "`+action+`"`)(call)
		if err != nil || r.GetVerdict().GetAction() != want || !r.GetTags()["early"].GetFlag() {
			t.Errorf("%s: %v %v", action, r, err)
		}
	}
}

func TestMistakes(t *testing.T) {
	for config, want := range map[string]string{
		`banner = "61s"`: "banner", `recipient_delay = "2m"`: "recipient_delay", `free_recipients = -1`: "free_recipients",
	} {
		if diags := sdktest.Diagnostics(t, tarpit.Plugin(), config); len(diags) != 1 || !strings.HasPrefix(diags[0], want) {
			t.Errorf("%s: %q", config, diags)
		}
	}
}

func TestInterestIsNarrow(t *testing.T) {
	c := &tarpit.Config{}
	if in := c.Interest(); len(in.GetEvents()) != 1 || in.GetEvents()[0] != v1.FilterEvent_HELLO {
		t.Errorf("%v", in)
	}
}
