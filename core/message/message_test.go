package message

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	netmail "net/mail"
	"net/netip"
	"strings"
	"testing"
	"time"

	"bufio"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/emersion/go-message/textproto"

	"github.com/stagecoach-mta/stagecoach/core/spool"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

const sample = "Received: from a\r\n\tby b\r\nReceived: from c\r\nFROM : Tom <tom@hanks.example>\r\nsubject: a\r\n folded one\r\nX-Empty:\r\n\r\nbody: not a field\r\n"

func dir(t testing.TB) *spool.Dir {
	t.Helper()
	d, err := spool.OpenDir(vfs.NewMem(), "spool")
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func inFile(t testing.TB, d *spool.Dir, b []byte) spool.Body {
	t.Helper()
	w := d.NewWriter(1 << 20)
	if _, err := w.Write(b); err != nil {
		t.Fatal(err)
	}
	body, err := w.Finish()
	if err != nil {
		t.Fatal(err)
	}
	return body
}

func text(t testing.TB, b spool.Body) string {
	t.Helper()
	r, err := b.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	s, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(s)
}

func TestHeaderIsReadInMemoryAndFromAFile(t *testing.T) {
	long := "X-Long: " + strings.Repeat("0123456789 ", 5000) + "\r\n" + sample
	d := dir(t)
	for _, b := range []spool.Body{
		spool.FromBytes([]byte(sample)), inFile(t, d, []byte(sample)),
		inFile(t, d, []byte(long)), inFile(t, d, []byte(long+strings.Repeat("x", 100_000))),
	} {
		h, err := ReadHeader(b)
		if err != nil {
			t.Fatal(err)
		}
		if h.Count("received") != 2 || h.Get("From") != "Tom <tom@hanks.example>" || h.Get("SUBJECT") != "a folded one" {
			t.Errorf("count %d, from %q, subject %q", h.Count("received"), h.Get("from"), h.Get("subject"))
		}
		if h.Has("body") || !h.Has("x-empty") || h.Get("x-empty") != "" || h.EightBit() {
			t.Error("fields are confused")
		}
		if got := fmt.Sprintf("%q", h.Values("Received")); got != `["from a\tby b" "from c"]` {
			t.Error(got)
		}
		fs := h.Fields([]string{"subject"})
		if len(fs) != 1 || string(fs[0].Value) != " a\r\n folded one" || fs[0].Name != "subject" {
			t.Errorf("%v", fs)
		}
	}
}

func TestWhereAHeaderEnds(t *testing.T) {
	for _, c := range []struct {
		in        string
		fields    int
		size      int
		separated bool
	}{
		{"", 0, 0, false},
		{"\r\n", 0, 2, true},
		{"\r\nA: b\r\n", 0, 2, true},
		{"A: b", 1, 4, false},
		{"A: b\r\n", 1, 6, false},
		{"A: b\r\n\r\nx", 1, 8, true},
		{"A: b\n\nx", 1, 6, true},
		{"A: b\r\nno field\r\n", 1, 6, false},
		{" folded first\r\nA: b\r\n\r\n", 0, 0, false},
		{": no name\r\n\r\n", 0, 0, false},
		{"A b: c\r\n\r\n", 0, 0, false},
	} {
		h, err := Parse([]byte(c.in))
		if err != nil || h.Len() != c.fields || h.Size() != c.size || h.separated != c.separated {
			t.Errorf("%q: %d fields, size %d, separated %v, %v", c.in, h.Len(), h.Size(), h.separated, err)
		}
	}
	for _, in := range []string{strings.Repeat("A: b\r\n", MaxFields+1), "A: " + strings.Repeat("x\r\n ", MaxHeader/4)} {
		if _, err := Parse([]byte(in)); !errors.Is(err, ErrHeader) {
			t.Errorf("%d octets: %v", len(in), err)
		}
	}
}

func insert(at int32, name, value string) *v1.Edit {
	return &v1.Edit{Edit: &v1.Edit_InsertHeader_{InsertHeader: &v1.Edit_InsertHeader{
		Position: at, Field: &v1.HeaderField{Name: name, Value: []byte(value)}}}}
}

func replace(name string, index int32, value string) *v1.Edit {
	return &v1.Edit{Edit: &v1.Edit_ReplaceHeader_{ReplaceHeader: &v1.Edit_ReplaceHeader{Name: name, Index: index, Value: []byte(value)}}}
}

func remove(name string, index int32) *v1.Edit {
	return &v1.Edit{Edit: &v1.Edit_DeleteHeader_{DeleteHeader: &v1.Edit_DeleteHeader{Name: name, Index: index}}}
}

func body(s string) *v1.Edit {
	return &v1.Edit{Edit: &v1.Edit_ReplaceBody_{ReplaceBody: &v1.Edit_ReplaceBody{
		Body: &v1.MessageRef{Size: int64(len(s)), Where: &v1.MessageRef_Inline{Inline: []byte(s)}}}}}
}

func TestEdits(t *testing.T) {
	const in = "A: 1\r\nB: 2\r\nA: 3\r\n\r\nbody\r\n"
	d := dir(t)
	for _, c := range []struct {
		in    string
		edits []*v1.Edit
		want  string
	}{
		{in, []*v1.Edit{insert(0, "X", " y"), insert(0, "Y", " z")}, "X: y\r\nY: z\r\n" + in},
		{in, []*v1.Edit{insert(1, "X", " y")}, "A: 1\r\nX: y\r\nB: 2\r\nA: 3\r\n\r\nbody\r\n"},
		{in, []*v1.Edit{insert(-1, "X", " y")}, "A: 1\r\nB: 2\r\nA: 3\r\nX: y\r\n\r\nbody\r\n"},
		{in, []*v1.Edit{insert(99, "X", " a\n b")}, "A: 1\r\nB: 2\r\nA: 3\r\nX: a\r\n b\r\n\r\nbody\r\n"},
		{in, []*v1.Edit{replace("a", 2, " new"), replace("C", 1, " none")}, "A: 1\r\nB: 2\r\nA: new\r\n\r\nbody\r\n"},
		{in, []*v1.Edit{remove("a", 0)}, "B: 2\r\n\r\nbody\r\n"},
		// Counted before the edits: the second A is deleted, not the third.
		{in, []*v1.Edit{insert(0, "A", " 0"), remove("A", 2)}, "A: 0\r\nA: 1\r\nB: 2\r\n\r\nbody\r\n"},
		{in, []*v1.Edit{body("other\r\n"), remove("B", 1)}, "A: 1\r\nA: 3\r\n\r\nother\r\n"},
		{"no header\r\n", []*v1.Edit{insert(0, "X", " y")}, "X: y\r\n\r\nno header\r\n"},
		{"", []*v1.Edit{insert(0, "X", " y")}, "X: y\r\n\r\n"},
		{"A: 1", []*v1.Edit{insert(-1, "X", " y")}, "A: 1\r\nX: y\r\n\r\n"},
	} {
		for _, b := range []spool.Body{spool.FromBytes([]byte(c.in)), inFile(t, d, []byte(c.in))} {
			got, err := Editor{d}.Apply(b, c.edits)
			if err != nil {
				t.Fatal(err)
			}
			if text(t, got) != c.want || got.Size() != int64(len(c.want)) {
				t.Errorf("%v of %q:\n%q, want\n%q", c.edits, c.in, text(t, got), c.want)
			}
			if text(t, b) != c.in {
				t.Error("the message itself was changed")
			}
		}
	}
}

func TestEditsThatWouldBreakTheMessage(t *testing.T) {
	d := dir(t)
	for _, e := range []*v1.Edit{
		insert(0, "", " x"), insert(0, "A B", " x"), insert(0, "A:", " x"), insert(0, "A\r\nBcc", " x"),
		insert(0, "A", " x\r\nBcc: y"), insert(0, "A", " x\r\n\r\nbody"), insert(0, "A", " x\r\n"),
		insert(0, "A", " x\ry"), insert(0, "A", " x\x00"), replace("A", 1, " x\nB: c"),
	} {
		if _, err := (Editor{d}).Apply(spool.FromBytes([]byte("A: 1\r\n\r\n")), []*v1.Edit{e}); !errors.Is(err, ErrEdit) {
			t.Errorf("%v: %v", e, err)
		}
	}
}

func TestReceivedField(t *testing.T) {
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.FixedZone("", 3600))
	r := Received{
		Helo: "mail.hanks.example", RDNS: "out.hanks.example.", IP: netip.MustParseAddr("192.0.2.7"), By: "mx.ryan.example",
		With: "ESMTPS", ID: "4fK2", For: "meg@ryan.example", TLSVersion: "TLSv1.3", TLSCipher: "TLS_AES_128_GCM_SHA256", Date: at,
	}
	want := "Received: from mail.hanks.example (out.hanks.example [192.0.2.7])\r\n" +
		"\tby mx.ryan.example with ESMTPS\r\n\t(TLSv1.3 TLS_AES_128_GCM_SHA256)\r\n\tid 4fK2\r\n" +
		"\tfor <meg@ryan.example>;\r\n\tSun, 1 Mar 2026 12:00:00 +0100\r\n"
	if got := string(r.Field()); got != want {
		t.Errorf("%s", got)
	}
	r = Received{Helo: "[192.0.2.1]", IP: netip.MustParseAddr("2001:db8::1"), By: "mx.ryan.example", With: "ESMTP", Date: at}
	want = "Received: from [192.0.2.1] ([IPv6:2001:db8::1])\r\n\tby mx.ryan.example with ESMTP;\r\n\tSun, 1 Mar 2026 12:00:00 +0100\r\n"
	if got := string(r.Field()); got != want {
		t.Errorf("%s", got)
	}
}

func TestHeloCannotForgeAField(t *testing.T) {
	r := Received{Helo: "x\r\nBcc: y (z; for", By: "mx", For: "a>\r\nX: <b", RDNS: "(", ID: "\n", Date: time.Unix(0, 0)}
	h, err := Parse(append(r.Field(), "\r\n"...))
	if err != nil || h.Len() != 1 || !h.separated {
		t.Errorf("%q", r.Field())
	}
}

func TestDateAndMessageID(t *testing.T) {
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.FixedZone("", -5400))
	back, err := netmail.ParseDate(FormatDate(at))
	if err != nil || !back.Equal(at) {
		t.Errorf("%q: %v", FormatDate(at), err)
	}
	a, b := NewMessageID("mx.ryan.example"), NewMessageID("mx.ryan.example")
	if a == b || !strings.HasPrefix(a, "<") || !strings.HasSuffix(a, "@mx.ryan.example>") {
		t.Errorf("%s %s", a, b)
	}
}

func TestEightBit(t *testing.T) {
	d := dir(t)
	for s, want := range map[string]bool{"A: b\r\n\r\nplain": false, "A: b\r\n\r\nna\xc3\xafve": true} {
		for _, b := range []spool.Body{spool.FromBytes([]byte(s)), inFile(t, d, []byte(s))} {
			if got, err := EightBit(b); err != nil || got != want {
				t.Errorf("%q: %v %v", s, got, err)
			}
		}
	}
}

// The fields lie side by side in the message, and an edit that puts a field at
// the top leaves all others as they were. Where go-message can read the header,
// it finds the same fields.
func FuzzHeader(f *testing.F) {
	f.Add([]byte(sample))
	f.Add([]byte("A: b\n\tc\r\n\n"))
	f.Add([]byte("From x\r\nA: b"))
	d := dir(f)
	f.Fuzz(func(t *testing.T, in []byte) {
		h, err := Parse(in)
		if err != nil {
			return
		}
		at := 0
		for i := range h.Len() {
			if h.fields[i].start != at || h.fields[i].end <= at || h.Name(i) == "" {
				t.Fatalf("field %d at %+v, the last ended at %d", i, h.fields[i], at)
			}
			at = h.fields[i].end
		}
		if h.Size() < at || h.Size() > len(in) {
			t.Fatalf("size %d", h.Size())
		}
		if len(in) > 0 && h.separated {
			if th, err := textproto.ReadHeader(bufio.NewReader(bytes.NewReader(in))); err == nil && th.Len() != h.Len() {
				t.Fatalf("%d fields, go-message has %d", h.Len(), th.Len())
			}
		}
		file := inFile(t, d, in)
		defer file.Discard()
		fromFile, err := ReadHeader(file)
		if err != nil || fromFile.Len() != h.Len() || fromFile.Size() != h.Size() {
			t.Fatalf("from a file: %v", err)
		}
		out, err := Editor{d}.Apply(spool.FromBytes(in), []*v1.Edit{insert(0, "X", " y")})
		if err != nil {
			t.Fatal(err)
		}
		after, err := Parse([]byte(text(t, out)))
		if err != nil || after.Len() != h.Len()+1 || !after.separated {
			t.Fatalf("after the edit: %d fields of %d, %v", after.Len(), h.Len(), err)
		}
		for i := range h.Len() {
			if after.Name(i+1) != h.Name(i) || !bytes.Equal(after.Value(i+1), h.Value(i)) {
				t.Fatalf("field %d changed", i)
			}
		}
		if !bytes.Equal([]byte(text(t, out))[after.Size():], in[h.Size():]) {
			t.Fatal("the body changed")
		}
	})
}

func BenchmarkReadHeader(b *testing.B) {
	body := spool.FromBytes([]byte(sample))
	b.ReportAllocs()
	for b.Loop() {
		h, err := ReadHeader(body)
		if err != nil || h.Count("Received") != 2 {
			b.Fatal(err)
		}
	}
}
