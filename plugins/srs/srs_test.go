package srs_test

import (
	"strings"
	"testing"

	"github.com/stagecoach-mta/stagecoach/plugins/srs"
	"github.com/stagecoach-mta/stagecoach/sdk/sdktest"
)

const config = `domain = "ryan.example"
secrets = ["sleepless in seattle\n"]
except = ["Ryan.Example", "reed.example"]`

func TestRewritten(t *testing.T) {
	filter := sdktest.Filter(t, srs.Plugin(), config)
	for sender, want := range map[string]string{
		"tom@hanks.example": "SRS0=", "SRS0=abcdef=aa=hanks.example=tom@cast.example": "SRS1=",
		"": "", "meg@ryan.example": "", "joe@REED.example": "",
	} {
		call := sdktest.Route(t, "Subject: x\n\nx\n")
		call.Envelope.Sender = sender
		r, err := filter(call)
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		for _, e := range r.GetEdits() {
			got = e.GetSetSender().GetAddress()
		}
		if !strings.HasPrefix(got, want) || (want == "") != (got == "") {
			t.Errorf("%s became %q, want %q…", sender, got, want)
		}
	}
}

func TestMistakes(t *testing.T) {
	for config, want := range map[string]string{
		`domain = "ryan"
secrets = ["sleepless in seattle"]`: "domain", `domain = "ryan.example"
secrets = []`: "secrets: there is no secret", `domain = "ryan.example"
secrets = ["short"]`: "secrets: a secret of 5 octets can be guessed", `domain = "[192.0.2.1]"
secrets = ["sleepless in seattle"]`: "domain",
	} {
		diags := sdktest.Diagnostics(t, srs.Plugin(), config)
		if len(diags) != 1 || !strings.HasPrefix(diags[0], want) {
			t.Errorf("%s: %q, want %s", config, diags, want)
		}
	}
}
