package imap_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/stagecoach-mta/stagecoach/plugins/imap"
	"github.com/stagecoach-mta/stagecoach/sdk/sdktest"
	"github.com/stagecoach-mta/stagecoach/sdk/storage"
)

// TestMetadataChanges: who enabled METADATA, or asked by NOTIFY, hears which entries
// changed, without their values.
func TestMetadataChanges(t *testing.T) {
	s := start(t, true, func(c *imap.Config) { c.Admin = "mailto:postmaster@ryan.example" })
	one, two, three := s.raw(true), s.raw(true), s.raw(true)
	one.say("a CAPABILITY\r\n")
	if got := one.until("a OK"); !strings.Contains(got, " METADATA ") {
		t.Errorf("CAPABILITY: %q", got)
	}
	one.say("b GETMETADATA \"\" /shared/admin\r\n")
	if got := one.until("b OK"); !strings.Contains(got, `* METADATA "" (/shared/admin "mailto:postmaster@ryan.example")`) {
		t.Errorf("the administrator: %q", got)
	}
	one.say("c ENABLE METADATA\r\n")
	if got := one.until("c OK"); !strings.Contains(got, "* ENABLED METADATA\r\n") {
		t.Errorf("ENABLE: %q", got)
	}
	one.say("d IDLE\r\n")
	one.until("+ ")
	three.say("a NOTIFY SET (mailboxes INBOX (MailboxMetadataChange ServerMetadataChange)) (mailboxes Sent NONE)\r\n")
	three.until("a OK")

	two.say("a SETMETADATA INBOX (/shared/comment \"x\" /private/comment \"y\")\r\n")
	two.until("a OK")
	const changed = "* METADATA INBOX /private/comment /shared/comment\r\n"
	if got := one.until("* METADATA"); got != changed {
		t.Errorf("ENABLE heard %q", got)
	}
	if got := three.until("* METADATA"); got != changed {
		t.Errorf("NOTIFY heard %q", got)
	}
	// Of Sent the one wants to hear, the other does not; of the server both.
	two.say("b SETMETADATA Sent (/shared/comment \"x\")\r\n")
	two.until("b OK")
	if got := one.until("* METADATA"); got != "* METADATA \"Sent\" /shared/comment\r\n" {
		t.Errorf("ENABLE heard %q", got)
	}
	two.say("c SETMETADATA \"\" (/private/comment \"x\")\r\n")
	two.until("c OK")
	for _, c := range []*raw{one, three} {
		if got := c.until("* METADATA"); got != "* METADATA \"\" /private/comment\r\n" {
			t.Errorf("of the server: %q", got)
		}
	}
	two.say("d SETMETADATA INBOX (/shared/comment NIL)\r\n")
	two.until("d OK")
	if got := one.until("* METADATA"); got != "* METADATA INBOX /shared/comment\r\n" {
		t.Errorf("a removal: %q", got)
	}
	one.say("DONE\r\n")
	one.until("d OK")
}

// TestMetadataLimits: too many entries are refused, and nothing of them is kept.
func TestMetadataLimits(t *testing.T) {
	s := start(t, true, func(c *imap.Config) { c.MaxAnnotations, c.MaxAnnotation = 3, 10 })
	c := s.raw(true)
	for i, d := range []struct{ say, want string }{
		{`SETMETADATA INBOX (/shared/a "1" /shared/b "2" /shared/c "3" /shared/d "4")`, "NO [METADATA TOOMANY]"},
		{`SETMETADATA INBOX (/shared/a "12345678901")`, "NO [METADATA MAXSIZE 10]"},
		{`SETMETADATA INBOX (/shared/a "1" /shared/b "2" /shared/c "1234567890")`, "OK"},
		{`SETMETADATA INBOX (/shared/d "1")`, "NO [METADATA TOOMANY]"},
		{`SETMETADATA INBOX (/shared/a NIL /shared/d "1")`, "OK"},
		{`SETMETADATA Sent (/shared/a "1")`, "OK"},
	} {
		c.say(fmt.Sprintf("a%d %s\r\n", i, d.say))
		if got := c.line(); !strings.HasPrefix(got, fmt.Sprintf("a%d %s", i, d.want)) {
			t.Errorf("%s: %q, want %q", d.say, got, d.want)
		}
	}
	c.say("b GETMETADATA (DEPTH 1) INBOX /shared\r\n")
	if got := c.line(); got != `* METADATA INBOX (/shared/b "2" /shared/c "1234567890" /shared/d "1")` {
		t.Errorf("in the end: %q", got)
	}
}

// plain is a storage that keeps no annotations.
type plain struct{ storage.Storage }

func (p plain) Open(ctx context.Context, name string) (storage.Account, error) {
	a, err := p.Storage.Open(ctx, name)
	return struct{ storage.Account }{a}, err
}

// TestNoMetadata: over a storage without annotations nothing of it is announced.
func TestNoMetadata(t *testing.T) {
	s := serve(t, plain{sdktest.NewStorage(t.TempDir())}, listen(t), listen(t), true, imap.DefaultConfig())
	c := s.raw(true)
	c.say("a CAPABILITY\r\nb ENABLE METADATA\r\n")
	if got := c.until("b OK"); strings.Contains(got, " METADATA") {
		t.Errorf("announced: %q", got)
	}
	c.say("c SETMETADATA INBOX (/shared/a \"1\")\r\n")
	if got := c.line(); !strings.HasPrefix(got, "c NO [CANNOT]") {
		t.Errorf("%q", got)
	}
	c.say("d NOTIFY SET (personal (MailboxMetadataChange))\r\n")
	if got := c.line(); !strings.HasPrefix(got, "d NO [BADEVENT (MessageNew ") || strings.Contains(got, "Metadata") {
		t.Errorf("%q", got)
	}
}
