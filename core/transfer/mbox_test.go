package transfer

import (
	"bufio"
	"bytes"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

type parsed struct {
	text  string
	flags []string
	date  time.Time
}

func readMbox(t testing.TB, b []byte) (list []parsed) {
	t.Helper()
	dir := t.TempDir()
	err := scanMbox(bytes.NewReader(b), func(p mboxPart) error {
		m, internal, err := p.read(bytes.NewReader(b), dir)
		if err != nil || internal {
			return err
		}
		r, err := openRef(m.Body.ref())
		if err != nil {
			return err
		}
		defer r.Close()
		text, err := io.ReadAll(r)
		list = append(list, parsed{string(text), m.Flags, m.Received})
		m.Body.drop()
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func outgoing(text string, flags ...string) *Outgoing {
	return &Outgoing{Flags: flags, Received: time.Unix(1700000000, 0), Open: func() (io.ReadSeekCloser, error) {
		return openRef(&v1.MessageRef{Where: &v1.MessageRef_Inline{Inline: []byte(text)}})
	}}
}

func writtenMbox(t testing.TB, list ...*Outgoing) []byte {
	t.Helper()
	var b bytes.Buffer
	w := bufio.NewWriter(&b)
	for _, m := range list {
		if err := writeMbox(w, m); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestMboxHoldsWhatItGot: whatever a message says, it is the same after an export and
// an import.
func TestMboxHoldsWhatItGot(t *testing.T) {
	texts := []string{
		"Subject: plain\r\n\r\nbody\r\n",
		"Return-Path: <tom@hanks.example>\r\nSubject: quotes\r\n\r\nFrom here on\r\n>From there\r\n>>From all\r\n\r\nFrom me Fri Nov 27 08:00:00 2026\r\n",
		"Subject: no body\r\n",
		"\r\nno header\r\n",
		"Subject: mixed\r\n\r\none\ntwo\r\nthree\rfour\r\n",
		"Subject: empty lines\r\n\r\n\r\n\r\n",
		"Subject: large\r\n\r\n" + strings.Repeat("x", 200000) + "\r\n" + strings.Repeat("line\r\n", 9000),
		"Subject: bare CR\r\n\r\na\r\r\nb\r\n",
		"From odd\r\n\r\nbody\r\n",
		" begins with a blank\r\n",
		"Subject: last\r\n\r\nbody\r\n",
	}
	var list []*Outgoing
	for _, x := range texts {
		list = append(list, outgoing(x, `\Seen`, `\Answered`, `\Draft`, "$Forwarded"))
	}
	b := writtenMbox(t, list...)
	got := readMbox(t, b)
	if len(got) != len(texts) {
		t.Fatalf("%d messages, want %d", len(got), len(texts))
	}
	for n, x := range got {
		if x.text != texts[n] {
			t.Errorf("message %d: %.80q, want %.80q", n, x.text, texts[n])
		}
		if !x.date.Equal(list[n].Received) || !slices.Equal(x.flags, []string{"$Forwarded", `\Answered`, `\Draft`, `\Seen`}) {
			t.Errorf("message %d: %v %v", n, x.date, x.flags)
		}
	}
	if !bytes.Contains(b, []byte("From tom@hanks.example Tue Nov 14 22:13:20 2023\n")) {
		t.Error("the sender or the date is missing from a line From")
	}
}

// TestMboxesOfOthers: what other programs write is understood.
func TestMboxesOfOthers(t *testing.T) {
	for _, x := range []struct {
		name, mbox string
		want       []parsed
	}{
		{"Thunderbird", "From - Tue Nov 14 22:13:20 2023\r\nX-Mozilla-Status: 0005\r\nSubject: a\r\n\r\nbody\r\n\r\n", []parsed{{"X-Mozilla-Status: 0005\r\nSubject: a\r\n\r\nbody\r\n", []string{`\Flagged`, `\Seen`}, time.Unix(1700000000, 0)}}},
		{"zone", "From a@b Tue Nov 14 23:13:20 2023 +0100\nStatus: O\n\nx\n", []parsed{{"\r\nx\r\n", nil, time.Unix(1700000000, 0)}}},
		{"pine's note", "From a@b Tue Nov 14 22:13:20 2023\nSubject: DON'T DELETE THIS MESSAGE -- FOLDER INTERNAL DATA\nX-IMAP: 1 2\n\nx\n\nFrom a@b Tue Nov 14 22:13:20 2023\n\ny\n", []parsed{{"\r\ny\r\n", nil, time.Unix(1700000000, 0)}}},
		{"a text that begins so", "From a@b Tue Nov 14 22:13:20 2023\n\nx\n\nFrom now on it rains\n", []parsed{{"\r\nx\r\n\r\nFrom now on it rains\r\n", nil, time.Unix(1700000000, 0)}}},
		{"none", "", nil},
	} {
		got := readMbox(t, []byte(x.mbox))
		if len(got) != len(x.want) {
			t.Errorf("%s: %+v", x.name, got)
			continue
		}
		for n, w := range x.want {
			slices.Sort(got[n].flags)
			if got[n].text != w.text || !got[n].date.Equal(w.date) || !slices.Equal(got[n].flags, w.flags) {
				t.Errorf("%s: %+v, want %+v", x.name, got[n], w)
			}
		}
	}
}

// TestMboxNames: each mailbox has a file of its own, and its name comes back.
func TestMboxNames(t *testing.T) {
	dir := t.TempDir()
	to, err := NewMbox(filepath.Join(dir, "out"))
	if err != nil {
		t.Fatal(err)
	}
	names := []string{"INBOX", "Archive", "Archive/2026", "Archive.mbox/2026", ".hidden", "a%2Eb", "x.sbd/y", "Entwürfe"}
	for _, name := range names {
		box, _, err := to.Open(Mailbox{Name: name}, "1")
		if err != nil {
			t.Fatal(err)
		}
		if err := box.Put(outgoing("Subject: " + name + "\r\n\r\nbody\r\n")); err != nil {
			t.Fatal(err)
		}
		if err := box.Close(); err != nil {
			t.Fatal(err)
		}
	}
	src, err := OpenMbox(filepath.Join(dir, "out"), dir)
	if err != nil {
		t.Fatal(err)
	}
	list, err := src.Mailboxes(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, m := range list {
		got = append(got, m.Name)
	}
	slices.Sort(got)
	slices.Sort(names)
	if !slices.Equal(got, names) {
		t.Errorf("%q, want %q", got, names)
	}
	if err := os.WriteFile(filepath.Join(dir, "file"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := NewMbox(dir); err == nil {
		t.Error("an export goes into a folder with other files")
	}
}

// FuzzMbox: any octets can be read, and a message that is written is read again.
func FuzzMbox(f *testing.F) {
	f.Add([]byte("From a@b Tue Nov 14 22:13:20 2023\nStatus: RO\n\n>From x\n\nFrom a@b Tue Nov 14 22:13:20 2023\r\n\r\nx"))
	f.Add([]byte("Subject: x\r\n\r\nFrom y\r\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		readMbox(t, b)
		// A message that ends with a line end, and has no fields of an mbox.
		text := strings.ReplaceAll(strings.ReplaceAll(string(b), "\r", ""), "\n", "\r\n") + "\r\n"
		var kept bytes.Buffer
		w := bufio.NewWriter(&kept)
		if err := unquoteMbox(strings.NewReader(strings.ReplaceAll(text, ">", "")), w, &mboxHead{}); err != nil {
			t.Fatal(err)
		}
		if err := w.Flush(); err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{kept.String(), ">" + kept.String()} {
			if !strings.HasSuffix(want, "\n") {
				continue // all of it was fields of an mbox
			}
			got := readMbox(t, writtenMbox(t, outgoing(want)))
			if len(got) != 1 || got[0].text != want && !internalNote(want) {
				t.Fatalf("%q became %+v", want, got)
			}
		}
	})
}

// internalNote: its second writing may uncover a field that the first one hid.
func internalNote(s string) bool {
	h := &mboxHead{}
	for line := range strings.Lines(s) {
		if h.take([]byte(line)) {
			return true
		}
	}
	return h.internal > 0
}
