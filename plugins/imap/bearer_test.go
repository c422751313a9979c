package imap_test

import (
	"bufio"
	"crypto/tls"
	"encoding/base64"
	"net"
	"strings"
	"testing"

	"github.com/stagecoach-mta/stagecoach/plugins/imap"
	"github.com/stagecoach-mta/stagecoach/sdk/fail"
	"github.com/stagecoach-mta/stagecoach/sdk/sdktest"
)

// TestBearer: a token logs in by either mechanism; what does not hold gets the
// RFC's challenge, and then the exchange fails.
func TestBearer(t *testing.T) {
	config := imap.DefaultConfig()
	config.LoginDelay = 0
	who := &sdktest.Directory{Users: map[string]string{meg: "secret"}, Tokens: map[string]string{"pearl": meg}}
	s := serveFor(t, sdktest.NewStorage(t.TempDir()), listen(t), listen(t), false, config, who)
	b64 := func(text string) string { return base64.StdEncoding.EncodeToString([]byte(text)) }
	session := func() *raw {
		nc, err := tls.Dial("tcp", s.tls, &tls.Config{InsecureSkipVerify: true})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { nc.Close() })
		return &raw{Conn: nc, t: t, r: bufio.NewReader(nc)}
	}
	oauth := "n,a=" + meg + ",\x01host=mx.ryan.example\x01port=993\x01auth=Bearer pearl\x01\x01"
	xoauth := "user=" + meg + "\x01auth=Bearer pearl\x01\x01"
	for _, d := range []struct{ say, want string }{
		{"a AUTHENTICATE OAUTHBEARER " + b64(oauth), "a OK"},
		{"a AUTHENTICATE OAUTHBEARER\r\n" + b64(oauth), "+ |a OK"},
		{"a AUTHENTICATE xoauth2 " + b64(xoauth), "a OK"},
		{"a AUTHENTICATE OAUTHBEARER " + b64("n,,\x01auth=Bearer pearl\x01\x01"), "a OK"},
		{"a AUTHENTICATE OAUTHBEARER " + b64("n,,\x01auth=Bearer oyster\x01\x01") + "\r\nAQ==", "+ " + b64(`{"status":"invalid_token"}`) + "|a NO [AUTHENTICATIONFAILED]"},
		{"a AUTHENTICATE OAUTHBEARER " + b64("n,a=tom@hanks.example,\x01auth=Bearer pearl\x01\x01") + "\r\nAQ==", "+ " + b64(`{"status":"invalid_token"}`) + "|a NO [AUTHENTICATIONFAILED]"},
		{"a AUTHENTICATE OAUTHBEARER " + b64("nonsense") + "\r\n*", "+ " + b64(`{"status":"invalid_request"}`) + "|a NO [AUTHENTICATIONFAILED]"},
		{"a AUTHENTICATE XOAUTH2 " + b64("user="+meg+"\x01auth=Bearer oyster\x01\x01") + "\r\n", "+ " + b64(`{"status":"401","schemes":"Bearer"}`) + "|a NO [AUTHENTICATIONFAILED]"},
	} {
		c := session()
		if greeting := c.line(); !strings.Contains(greeting, " AUTH=OAUTHBEARER AUTH=XOAUTH2]") {
			t.Fatalf("greeting %q", greeting)
		}
		c.say(d.say + "\r\n")
		for want := range strings.SplitSeq(d.want, "|") {
			if got := c.line(); !strings.HasPrefix(got, want) {
				t.Errorf("%.60q: %q, want %q", d.say, got, want)
			}
		}
		c.Close()
	}
	// What the directory cannot answer is no wrong login.
	who.FailWith(fail.New(fail.Unavailable, "away"))
	c := session()
	c.line()
	c.say("a AUTHENTICATE XOAUTH2 " + b64(xoauth) + "\r\n")
	if got := c.line(); !strings.HasPrefix(got, "a NO [UNAVAILABLE]") {
		t.Errorf("with the directory away: %q", got)
	}
}

func TestBearerIsNotOffered(t *testing.T) {
	s := serveFor(t, sdktest.NewStorage(t.TempDir()), listen(t), listen(t), true, imap.DefaultConfig(), &sdktest.Directory{})
	nc, err := net.Dial("tcp", s.address)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	c := &raw{Conn: nc, t: t, r: bufio.NewReader(nc)}
	if greeting := c.line(); strings.Contains(greeting, "OAUTH") || !strings.Contains(greeting, "AUTH=PLAIN") {
		t.Errorf("greeting %q", greeting)
	}
	c.say("a AUTHENTICATE XOAUTH2 eA==\r\n")
	if got := c.line(); !strings.HasPrefix(got, "a NO That mechanism is not offered") {
		t.Errorf("%q", got)
	}
}
