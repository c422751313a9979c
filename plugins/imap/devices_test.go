package imap_test

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	goimap "github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"
)

func check[T any](t testing.TB) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// await waits for the next event that has the text.
func await(t testing.TB, events <-chan string, want string) {
	t.Helper()
	limit := time.After(10 * time.Second)
	for {
		select {
		case e := <-events:
			if e == want {
				return
			}
		case <-limit:
			t.Fatalf("device two never heard %q", want)
		}
	}
}

func TestTwoDevices(t *testing.T) {
	s := start(t, true, nil)
	s.deposit("Subject: one\r\n\r\n1\r\n", "Subject: two\r\n\r\n2\r\n", "Subject: three\r\n\r\n3\r\n")
	events := make(chan string, 100)
	one := s.client(nil)
	two := s.client(&imapclient.Options{UnilateralDataHandler: &imapclient.UnilateralDataHandler{
		Expunge: func(seq uint32) { events <- fmt.Sprint("expunge ", seq) },
		Mailbox: func(d *imapclient.UnilateralDataMailbox) {
			if d.NumMessages != nil {
				events <- fmt.Sprint("exists ", *d.NumMessages)
			}
		},
		Fetch: func(m *imapclient.FetchMessageData) {
			if b, err := m.Collect(); err == nil {
				events <- fmt.Sprint("flags ", b.SeqNum, " ", slices.Contains(b.Flags, goimap.FlagSeen))
			}
		},
	}})
	check[*goimap.SelectData](t)(one.Select("INBOX", nil).Wait())
	if d := check[*goimap.SelectData](t)(two.Select("INBOX", nil).Wait()); d.NumMessages != 3 {
		t.Fatalf("device two sees %d messages", d.NumMessages)
	}
	idle := check[*imapclient.IdleCommand](t)(two.Idle())

	seen := &goimap.StoreFlags{Op: goimap.StoreFlagsAdd, Flags: []goimap.Flag{goimap.FlagSeen, "$Work"}}
	if err := one.Store(goimap.SeqSetNum(2), seen, nil).Close(); err != nil {
		t.Fatal(err)
	}
	await(t, events, "flags 2 true")

	s.deposit("Subject: four\r\n\r\n4\r\n")
	await(t, events, "exists 4")

	if err := one.Create("Old mail/Ärger", nil).Wait(); err != nil {
		t.Fatal(err)
	}
	moved := check[*imapclient.MoveData](t)(one.Move(goimap.SeqSetNum(1), "Old mail/Ärger").Wait())
	if moved.UIDValidity == 0 || moved.SourceUIDs == nil {
		t.Errorf("no COPYUID: %+v", moved)
	}
	await(t, events, "expunge 1")

	deleted := &goimap.StoreFlags{Op: goimap.StoreFlagsAdd, Flags: []goimap.Flag{goimap.FlagDeleted}}
	if err := one.Store(goimap.SeqSetNum(1), deleted, nil).Close(); err != nil {
		t.Fatal(err)
	}
	if err := one.Expunge().Close(); err != nil {
		t.Fatal(err)
	}
	await(t, events, "expunge 1")
	if err := idle.Close(); err != nil {
		t.Fatal(err)
	}
	if err := idle.Wait(); err != nil {
		t.Fatal(err)
	}

	// Without IDLE the change is told with the next command.
	if err := one.Store(goimap.SeqSetNum(1), seen, nil).Close(); err != nil {
		t.Fatal(err)
	}
	if err := two.Noop().Wait(); err != nil {
		t.Fatal(err)
	}
	await(t, events, "flags 1 true")

	msgs := check[[]*imapclient.FetchMessageBuffer](t)(two.Fetch(goimap.SeqSet{{Start: 1, Stop: 0}}, &goimap.FetchOptions{Envelope: true, Flags: true}).Collect())
	if len(msgs) != 2 || msgs[0].Envelope.Subject != "three" || msgs[1].Envelope.Subject != "four" || !slices.Contains(msgs[0].Flags, "$Work") {
		t.Errorf("device two sees %d messages: %+v", len(msgs), msgs)
	}
	list := check[[]*goimap.ListData](t)(two.List("", "*", nil).Collect())
	if !slices.ContainsFunc(list, func(d *goimap.ListData) bool { return d.Mailbox == "Old mail/Ärger" }) {
		t.Errorf("device two does not see the folder: %+v", list)
	}
}

// TestExpungeWaits: during FETCH and STORE by number the numbers of others stay
// (RFC 9051 section 7.5.1).
func TestExpungeWaits(t *testing.T) {
	s := start(t, true, nil)
	s.deposit("Subject: one\r\n\r\n1\r\n", "Subject: two\r\n\r\n2\r\n")
	one, two := s.raw(true), s.raw(true)
	for _, c := range []*raw{one, two} {
		c.say("a SELECT INBOX\r\n")
		c.until("a OK")
	}
	one.say("b STORE 1 +FLAGS.SILENT (\\Deleted)\r\nc EXPUNGE\r\n")
	one.until("c OK")
	two.say("b FETCH 2 (UID)\r\n")
	if got := two.until("b OK"); strings.Contains(got, "EXPUNGE") || !strings.Contains(got, "* 2 FETCH (UID 2)") {
		t.Errorf("FETCH after another's EXPUNGE: %q", got)
	}
	two.say("c NOOP\r\n")
	if got := two.until("c OK"); !strings.Contains(got, "* 1 EXPUNGE") {
		t.Errorf("NOOP: %q", got)
	}
}

func TestByteExact(t *testing.T) {
	big := "Subject: big\r\n\r\n" + strings.Repeat(strings.Repeat("0123456789", 7)+"\r\n", 20<<20/72)
	mails := map[string]string{
		"8-bit":            "From: Tom <tom@hanks.example>\r\nSubject: \xe4\xf6\xfc\r\n\r\n\x80\xff\x01\r\n",
		"no header":        "\r\nbody\r\n",
		"no body":          "Subject: x\r\n",
		"no line end":      "Subject: x\r\n\r\nbody",
		"bare line feeds":  "Subject: x\n\nbody\nmore\n",
		"open multipart":   "Content-Type: multipart/mixed; boundary=a\r\n\r\n--a\r\n\r\none\r\n--a\r\nContent-Type: text/html\r\n\r\ntwo",
		"empty multipart":  "Content-Type: multipart/mixed; boundary=a\r\n\r\nnothing\r\n",
		"broken message":   "Content-Type: message/rfc822\r\n\r\n",
		"not a field":      "this is not a header\r\n\r\nbody\r\n",
		"a reply in it":    "Subject: x\r\n\r\na OK done\r\n* BYE\r\n{10}\r\n",
		"above the inline": "Subject: x\r\n\r\n" + strings.Repeat("y\r\n", 10000),
		"20 MB":            big,
	}
	s := start(t, true, nil)
	c := s.client(nil)
	check[*goimap.SelectData](t)(c.Select("INBOX", nil).Wait())
	for name, text := range mails {
		a := c.Append("INBOX", int64(len(text)), &goimap.AppendOptions{Flags: []goimap.Flag{goimap.FlagDraft}, Time: time.Unix(1e9, 0)})
		if _, err := io.WriteString(a, text); err != nil {
			t.Fatal(err)
		}
		if err := a.Close(); err != nil {
			t.Fatal(err)
		}
		uid := check[*goimap.AppendData](t)(a.Wait()).UID
		whole := &goimap.FetchItemBodySection{Peek: true}
		part := &goimap.FetchItemBodySection{Peek: true, Partial: &goimap.SectionPartial{Offset: 5, Size: 100}}
		header := &goimap.FetchItemBodySection{Peek: true, Specifier: goimap.PartSpecifierHeader}
		rest := &goimap.FetchItemBodySection{Peek: true, Specifier: goimap.PartSpecifierText}
		msgs := check[[]*imapclient.FetchMessageBuffer](t)(c.Fetch(goimap.UIDSetNum(uid), &goimap.FetchOptions{
			UID: true, Flags: true, Envelope: true, InternalDate: true, RFC822Size: true, BodyStructure: &goimap.FetchItemBodyStructure{Extended: true},
			BodySection: []*goimap.FetchItemBodySection{whole, header, rest},
		}).Collect())
		if len(msgs) != 1 {
			t.Fatalf("%s: %d messages", name, len(msgs))
		}
		m := msgs[0]
		if got := m.FindBodySection(whole); string(got) != text {
			t.Errorf("%s: BODY[] has %d octets, want %d", name, len(got), len(text))
		}
		if got := slices.Concat(m.FindBodySection(header), m.FindBodySection(rest)); string(got) != text {
			t.Errorf("%s: HEADER and TEXT are %q", name, got[:min(len(got), 200)])
		}
		if m.RFC822Size != int64(len(text)) || !m.InternalDate.Equal(time.Unix(1e9, 0)) || !slices.Contains(m.Flags, goimap.FlagDraft) {
			t.Errorf("%s: size %d, date %v, flags %v", name, m.RFC822Size, m.InternalDate, m.Flags)
		}
		msgs = check[[]*imapclient.FetchMessageBuffer](t)(c.Fetch(goimap.UIDSetNum(uid), &goimap.FetchOptions{BodySection: []*goimap.FetchItemBodySection{part}}).Collect())
		want := text[min(5, len(text)):min(105, len(text))]
		if got := msgs[0].FindBodySection(part); !bytes.Equal(got, []byte(want)) {
			t.Errorf("%s: partial is %q, want %q", name, got, want)
		}
	}
}
