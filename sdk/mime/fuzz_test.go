package mime

import (
	"bytes"
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"

	"github.com/stagecoach-mta/stagecoach/sdk/mail"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

var seeds = []string{
	"", "\r\n", "Subject: x\r\n\r\nbody", "Content-Type: multipart/mixed; boundary=\"a b\"\r\n\r\npre\r\n--a b\r\n\r\nx\r\n--a b--\r\npost",
	"Content-Type: multipart/digest; boundary=a\r\n\r\n--a\r\n\r\nSubject: in\r\n\r\nx\r\n--a--",
	"From: \"A B\" <a@b>, g: c@d, e@f;, (c) x@[1.2.3.4] (n)\r\nDate: Thu, 15 Feb 2007 01:02:03 +0200 (x)\r\n\r\n",
	"Content-Type: text/html; charset=koi8-r\r\nContent-Transfer-Encoding: base64\r\n\r\nPGI+8PI=\r\n",
	"Content-Type: text/plain\nContent-Transfer-Encoding: quoted-printable\n\na=\nb=C3=A4=",
	"Content-Type: message/rfc822\r\n\r\nContent-Type: message/rfc822\r\n\r\nSubject: =?utf-8?q?=C3=A4?=\r\n\r\nx",
}

// inside checks that a part lies within its parent's body.
func inside(t *testing.T, p *v1.Part, from, to int64) {
	end := p.BodyOffset + p.Size
	if p.HeaderOffset < from || p.BodyOffset < p.HeaderOffset || p.Size < 0 || p.Lines < 0 || end > to {
		t.Fatalf("part %s/%s header %d body %d size %d lines %d is not within %d…%d", p.Type, p.Subtype, p.HeaderOffset, p.BodyOffset, p.Size, p.Lines, from, to)
	}
	if p.Type == "multipart" && len(p.Children) == 0 || p.Message != nil && len(p.Children) != 1 {
		t.Fatalf("%s/%s has %d parts", p.Type, p.Subtype, len(p.Children))
	}
	at := p.BodyOffset
	for _, c := range p.Children {
		inside(t, c, at, end)
		at = c.BodyOffset + c.Size
	}
}

func FuzzSummarize(f *testing.F) {
	for _, s := range seeds {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		r, err := Summarize(bytes.NewReader(in))
		if err != nil {
			t.Fatal(err)
		}
		if r.Size != int64(len(in)) {
			t.Fatalf("size %d of %d", r.Size, len(in))
		}
		inside(t, r.Structure, 0, r.Size)
		if !utf8.ValidString(r.Preview) || utf8.RuneCountInString(r.Preview) > previewRunes {
			t.Fatalf("preview %q", r.Preview)
		}
		if _, err := proto.Marshal(r.Structure); err != nil {
			t.Fatal(err)
		}
		if _, err := proto.Marshal(r.Summary); err != nil {
			t.Fatal(err)
		}
		// The result does not hang on how the octets come.
		again, err := Summarize(iotest.OneByteReader(bytes.NewReader(in)))
		if err != nil || !proto.Equal(r.Structure, again.Structure) || !proto.Equal(r.Summary, again.Summary) {
			t.Fatal("another result from a reader that gives one octet at a time")
		}
	})
}

// stored is a Candidate of a message in memory.
type stored struct {
	raw []byte
	r   *Rendered
}

func (s stored) Columns() Columns              { return Columns{UID: 1, Size: int64(len(s.raw))} }
func (s stored) Summary() (*v1.Summary, error) { return s.r.Summary, nil }
func (s stored) Structure() (*v1.Part, error)  { return s.r.Structure, nil }
func (s stored) Header() ([]byte, error)       { return s.raw[:s.r.HeaderLen], nil }
func (s stored) Open() (mail.Reader, error)    { return mail.FromBytes(s.raw).Open() }
func criterionText(text string) *v1.Criterion {
	return &v1.Criterion{Test: &v1.Criterion_Text{Text: text}}
}
func criterionNot(c *v1.Criterion) *v1.Criterion {
	return &v1.Criterion{Test: &v1.Criterion_Not{Not: c}}
}

func FuzzMatch(f *testing.F) {
	for _, s := range seeds {
		f.Add([]byte(s), "x")
		f.Add([]byte(s), "Ä")
	}
	f.Fuzz(func(t *testing.T, in []byte, text string) {
		r, err := Summarize(bytes.NewReader(in))
		if err != nil {
			t.Fatal(err)
		}
		c := stored{in, r}
		match := func(c *v1.Criterion, s stored) bool {
			m, err := Compile(c)
			if err != nil {
				t.Fatal(err)
			}
			ok, err := m.Match(s)
			if err != nil {
				t.Fatal(err)
			}
			return ok
		}
		found := match(criterionText(text), c)
		if found == match(criterionNot(criterionText(text)), c) {
			t.Fatal("found and not found")
		}
		if utf8.ValidString(text) && found != match(criterionText(strings.ToLower(text)), c) && Fold(text) == Fold(strings.ToLower(text)) {
			t.Fatal("case matters")
		}
	})
}

// FuzzContains compares the search by pieces with the one at once.
func FuzzContains(f *testing.F) {
	f.Add([]byte("hello Wörld"), "WÖR")
	f.Fuzz(func(t *testing.T, in []byte, text string) {
		needle := Fold(text)
		if needle == "" || !utf8.ValidString(text) || !utf8.Valid(in) {
			return
		}
		got, err := foldedText(iotest.OneByteReader(bytes.NewReader(in)), (&finder{needle: []byte(needle)}).piece)
		if want := strings.Contains(Fold(string(in)), needle); err != nil || got != want {
			t.Fatalf("contains(%q, %q) = %v, want %v", in, needle, got, want)
		}
	})
}

// TestMemory streams a message of 50 MB through a bounded piece of memory.
func TestMemory(t *testing.T) {
	line := strings.Repeat("x", 76) + "\r\n"
	const lines = 50 << 20 / 78
	in := io.MultiReader(strings.NewReader("Content-Type: multipart/mixed; boundary=a\r\n\r\n--a\r\n\r\n"), &repeat{line: line, n: lines}, strings.NewReader("\r\n--a--\r\n"))
	var got *Rendered
	allocated := testing.Benchmark(func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if got == nil {
				got, _ = Summarize(in)
			}
		}
	}).AllocedBytesPerOp()
	if got == nil || got.Structure.Children[0].Lines != lines || got.Structure.Children[0].Size != lines*78 {
		t.Fatalf("structure %v", got)
	}
	if allocated > 1<<20 {
		t.Errorf("allocated %d octets", allocated)
	}
}

type repeat struct {
	line string
	n    int
	rest string
}

func (r *repeat) Read(p []byte) (int, error) {
	if r.rest == "" {
		if r.n == 0 {
			return 0, io.EOF
		}
		r.n--
		r.rest = r.line
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}
