package pop3_test

import (
	"bufio"
	"context"
	"encoding/base64"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/stagecoach-mta/stagecoach/plugins/pop3"
	"github.com/stagecoach-mta/stagecoach/sdk/access"
	"github.com/stagecoach-mta/stagecoach/sdk/sdktest"
)

// TestBearer: OAUTHBEARER and XOAUTH2, where the directory verifies tokens.
func TestBearer(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	config := pop3.DefaultConfig()
	config.LoginDelay, config.MaxLoginDelay = time.Millisecond, time.Millisecond
	server, err := pop3.New(config, &access.Host{
		Hostname: "mx.ryan.example", Listeners: []access.Listener{{Listener: l}}, InsecureAuth: true,
		Storage:   sdktest.NewStorage(t.TempDir()),
		Directory: &sdktest.Directory{Users: map[string]string{meg: "secret"}, Tokens: map[string]string{"pearl": meg}}, Log: zerolog.Nop(),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- server.Serve(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	b64 := func(text string) string { return base64.StdEncoding.EncodeToString([]byte(text)) }
	oauth := "n,a=" + meg + ",\x01auth=Bearer pearl\x01\x01"
	for _, d := range []struct{ say, want string }{
		{"AUTH OAUTHBEARER " + b64(oauth), "+OK 0 messages"},
		{"AUTH oauthbearer\r\n" + b64(oauth), "+ |+OK 0 messages"},
		{"AUTH XOAUTH2 " + b64("user="+meg+"\x01auth=Bearer pearl\x01\x01"), "+OK 0 messages"},
		{"AUTH OAUTHBEARER " + b64("n,,\x01auth=Bearer oyster\x01\x01") + "\r\nAQ==", "+ " + b64(`{"status":"invalid_token"}`) + "|-ERR [AUTH]"},
		{"AUTH XOAUTH2 " + b64("user="+meg+"\x01auth=Bearer oyster\x01\x01") + "\r\n*", "+ " + b64(`{"status":"401","schemes":"Bearer"}`) + "|-ERR [AUTH]"},
		{"CAPA", "+OK|TOP|UIDL|RESP-CODES|AUTH-RESP-CODE|PIPELINING|UTF8|IMPLEMENTATION|USER|SASL PLAIN OAUTHBEARER XOAUTH2"},
		{"AUTH", "+OK|PLAIN|OAUTHBEARER|XOAUTH2|."},
	} {
		nc, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		r := bufio.NewReader(nc)
		if _, err := nc.Write([]byte(d.say + "\r\nQUIT\r\n")); err != nil {
			t.Fatal(err)
		}
		for want := range strings.SplitSeq("+OK|"+d.want, "|") {
			if got, err := r.ReadString('\n'); err != nil || !strings.HasPrefix(got, want) {
				t.Errorf("%.60q: %q (%v), want %q", d.say, got, err, want)
			}
		}
		// The next one may have the maildrop when this session has ended.
		for err == nil {
			_, err = r.ReadString('\n')
		}
		nc.Close()
	}
}
