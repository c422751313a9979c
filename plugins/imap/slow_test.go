package imap_test

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stagecoach-mta/stagecoach/plugins/imap"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// TestSlowClients: clients that stop in the middle of a large FETCH, and connections
// on which nobody says anything, take nothing from the others, who are answered as
// ever and while those hang.
func TestSlowClients(t *testing.T) {
	const (
		stuck  = 5
		silent = 200
		size   = 50 << 20
	)
	s := start(t, true, func(c *imap.Config) { c.MaxAddressConnections, c.MaxUserConnections = 0, 0 })
	s.deposit("Subject: small\r\n\r\nsmall\r\n")
	large := filepath.Join(t.TempDir(), "large.eml")
	line := strings.Repeat("x", 76) + "\r\n"
	text := "Subject: large\r\n\r\n" + strings.Repeat(line, size/len(line))
	if err := os.WriteFile(large, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	account := s.account()
	boxes, err := account.List(t.Context(), &v1.ListMailboxesRequest{Name: "INBOX"})
	if err != nil {
		t.Fatal(err)
	}
	_, err = account.Append(t.Context(), &v1.AppendRequest{MailboxId: boxes.GetMailboxes()[0].GetId(), Messages: []*v1.AppendRequest_Message{{
		Message: &v1.MessageRef{Size: int64(len(text)), Where: &v1.MessageRef_Path{Path: large}},
	}}})
	if err != nil {
		t.Fatal(err)
	}

	for range silent {
		nc, err := net.Dial("tcp", s.address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { nc.Close() })
	}
	for range stuck {
		c := s.raw(true)
		c.say("a SELECT INBOX\r\nb FETCH 2 BODY.PEEK[]\r\n")
		c.until(fmt.Sprintf("* 2 FETCH (BODY[] {%d}", len(text)))
		// It has begun, and nobody reads on: the server's write now blocks.
	}

	other := s.raw(true)
	begun := time.Now()
	other.say("a SELECT INBOX\r\n")
	other.until("a OK")
	for i := range 50 {
		tag := fmt.Sprintf("b%d", i)
		other.say(tag + " FETCH 1 (UID FLAGS BODY.PEEK[])\r\n" + tag + "s STORE 1 +FLAGS (\\Seen)\r\n" + tag + "a APPEND Sent {5+}\r\nhello\r\n")
		other.until(tag + "a OK")
	}
	if took := time.Since(begun); took > 20*time.Second {
		t.Errorf("150 commands took %s beside %d clients that hang", took, stuck+silent)
	} else {
		t.Logf("150 commands took %s", took)
	}
}
