package receive

import (
	"encoding/base64"
	"net/textproto"
	"strings"
	"testing"

	"github.com/stagecoach-mta/stagecoach/core/smtp/server"
	"github.com/stagecoach-mta/stagecoach/sdk/fail"
	"github.com/stagecoach-mta/stagecoach/sdk/sdktest"
)

// TestTokens: a bearer token logs in where the directory verifies them, and only
// there is it offered.
func TestTokens(t *testing.T) {
	who := &sdktest.Directory{
		Users: map[string]string{"meg@ryan.example": "secret"}, Tokens: map[string]string{"pearl": "meg@ryan.example"},
	}
	r := newRig(t, func(p *Policy, _ *server.Config) { p.Auth = who })
	b64 := func(text string) string { return base64.StdEncoding.EncodeToString([]byte(text)) }
	oauth := b64("n,a=meg@ryan.example,\x01auth=Bearer pearl\x01\x01")
	talk := func(r *rig, say, want string) {
		t.Helper()
		c, err := textproto.Dial("tcp", r.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		for line := range strings.SplitSeq(say, "\n") {
			if err := c.PrintfLine("%s", line); err != nil {
				t.Fatal(err)
			}
		}
		for code := range strings.SplitSeq(want, "|") {
			if _, got, err := c.ReadResponse(0); err != nil || !strings.Contains(got, code) {
				t.Errorf("%.60q: %q (%v), want %q", say, got, err, code)
			}
		}
	}
	const offered = "AUTH SCRAM-SHA-256 PLAIN LOGIN OAUTHBEARER XOAUTH2"
	hello := "EHLO client.example\n"
	talk(r, hello+"AUTH OAUTHBEARER "+oauth+"\nMAIL FROM:<meg@ryan.example>\nRCPT TO:<annie@reed.example>", "|"+offered+"|2.7.0|2.1.0|2.1.5")
	talk(r, hello+"AUTH XOAUTH2\n"+b64("user=meg@ryan.example\x01auth=Bearer pearl\x01\x01"), "|"+offered+"||2.7.0")
	talk(r, hello+"AUTH OAUTHBEARER "+b64("n,,\x01auth=Bearer oyster\x01\x01")+"\nAQ==\nMAIL FROM:<meg@ryan.example>\nRCPT TO:<annie@reed.example>",
		"|"+offered+"|"+b64(`{"status":"invalid_token"}`)+"|5.7.8|2.1.0|5.7.1")
	talk(r, hello+"AUTH XOAUTH2 "+b64("user=tom@hanks.example\x01auth=Bearer pearl\x01\x01")+"\n", "|"+offered+"|"+b64(`{"status":"401","schemes":"Bearer"}`)+"|5.7.8")
	talk(r, hello+"AUTH OAUTHBEARER "+b64("nonsense")+"\nAQ==", "|"+offered+"|"+b64(`{"status":"invalid_request"}`)+"|5.7.8")
	who.FailWith(fail.New(fail.Unavailable, "away"))
	talk(r, hello+"AUTH OAUTHBEARER "+oauth, "|"+offered+"|4.7.0")

	without := newRig(t, func(p *Policy, _ *server.Config) { p.Auth = &sdktest.Directory{} })
	talk(without, hello+"AUTH XOAUTH2 eA==", "|AUTH SCRAM-SHA-256 PLAIN LOGIN\n|5.5.4")
}
