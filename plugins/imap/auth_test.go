package imap_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/base64"
	"strings"
	"testing"

	"github.com/xdg-go/scram"

	"github.com/stagecoach-mta/stagecoach/plugins/imap"
	"github.com/stagecoach-mta/stagecoach/plugins/local"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// verified is people with SCRAM verifiers.
type verified struct {
	people
	stored scram.StoredCredentials
}

func (v verified) Credentials(_ context.Context, r *v1.CredentialsRequest) (*v1.CredentialsResponse, error) {
	out := &v1.CredentialsResponse{
		Salt: []byte(v.stored.Salt), Iterations: int32(v.stored.Iters), StoredKey: v.stored.StoredKey, ServerKey: v.stored.ServerKey,
	}
	if r.GetUsername() == meg {
		out.Account = meg
	}
	return out, nil
}

// TestSCRAM: the exchange proves each side to the other, bound to the TLS
// connection where both can.
func TestSCRAM(t *testing.T) {
	client, err := scram.SHA256.NewClient(meg, "sleepless", "")
	if err != nil {
		t.Fatal(err)
	}
	stored, err := client.GetStoredCredentialsWithError(scram.KeyFactors{Salt: "salt of the sea", Iters: 4096})
	if err != nil {
		t.Fatal(err)
	}
	store, err := local.New(local.Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	config := imap.DefaultConfig()
	config.LoginDelay = 0
	s := serveFor(t, store, listen(t), listen(t), false, config, verified{stored: stored})
	for _, d := range []struct {
		mechanism, password string
		bound, ok           bool
	}{
		{"SCRAM-SHA-256", "sleepless", false, true}, {"SCRAM-SHA-256", "wrong", false, false},
		{"SCRAM-SHA-256-PLUS", "sleepless", true, true}, {"SCRAM-SHA-256-PLUS", "sleepless", false, false},
	} {
		nc, err := tls.Dial("tcp", s.tls, &tls.Config{InsecureSkipVerify: true})
		if err != nil {
			t.Fatal(err)
		}
		c := &raw{Conn: nc, t: t, r: bufio.NewReader(nc)}
		if greeting := c.line(); !strings.Contains(greeting, "AUTH=SCRAM-SHA-256-PLUS AUTH=SCRAM-SHA-256 ") {
			t.Fatalf("greeting %q", greeting)
		}
		user, err := scram.SHA256.NewClient(meg, d.password, "")
		if err != nil {
			t.Fatal(err)
		}
		conversation := user.NewConversation()
		if d.bound {
			state := nc.ConnectionState()
			binding, err := scram.NewTLSExporterBinding(&state)
			if err != nil {
				t.Fatal(err)
			}
			conversation = user.NewConversationWithChannelBinding(binding)
		}
		c.say("a AUTHENTICATE " + d.mechanism + "\r\n")
		challenge, reply := "", ""
		for {
			l := c.line()
			text, ok := strings.CutPrefix(l, "+ ")
			if !ok {
				reply = l
				break
			}
			b, err := base64.StdEncoding.DecodeString(text)
			if err != nil {
				t.Fatal(err)
			}
			challenge = string(b)
			response, err := conversation.Step(challenge)
			if err != nil {
				t.Fatalf("%+v: the client does not accept %q: %v", d, challenge, err)
			}
			c.say(base64.StdEncoding.EncodeToString([]byte(response)) + "\r\n")
		}
		if ok := strings.HasPrefix(reply, "a OK"); ok != d.ok || ok != conversation.Valid() {
			t.Errorf("%+v: %q, the client found it valid: %v", d, reply, conversation.Valid())
		}
		nc.Close()
	}
}
