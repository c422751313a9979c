package mime

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"testing/iotest"

	"google.golang.org/protobuf/proto"

	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

func crlf(s string) string { return strings.ReplaceAll(s, "\n", "\r\n") }

// draw writes a structure as one line per part: type, place, size, lines.
func draw(p *v1.Part, depth int) string {
	s := fmt.Sprintf("%s%s/%s @%d+%d size %d lines %d %s\n", strings.Repeat("  ", depth), p.Type, p.Subtype, p.HeaderOffset, p.BodyOffset-p.HeaderOffset, p.Size, p.Lines, p.Encoding)
	for _, c := range p.Children {
		s += draw(c, depth+1)
	}
	return s
}

func TestStructure(t *testing.T) {
	const nested = `From: user@domain.org
Content-Type: multipart/mixed; boundary="foo
 bar"

Root prologue

--foo bar
Content-Type: text/x-myown; charset=us-ascii

hello

--foo bar
Content-Type: message/rfc822

Subject: submsg
Content-Type: multipart/alternative; boundary="sub1"

--sub1
Content-Type: text/html

<p>Hello world</p>

--sub1

Hello another world

--sub1--
Sub epilogue

--foo bar--
Root epilogue
`
	for _, c := range []struct{ name, in, want string }{
		{"nested", nested, `multipart/mixed @0+78 size 345 lines 27 7bit
  text/x-myown @106+48 size 7 lines 1 7bit
  message/rfc822 @174+32 size 187 lines 14 7bit
    multipart/alternative @206+73 size 114 lines 11 7bit
      text/html @287+27 size 20 lines 1 7bit
      text/plain @344+2 size 21 lines 1 7bit
`},
		{"empty", "", "text/plain @0+0 size 0 lines 0 7bit\n"},
		{"header only", "Subject: x\n", "text/plain @0+12 size 0 lines 0 7bit\n"},
		{"no header", "\nbody\n", "text/plain @0+2 size 6 lines 1 7bit\n"},
		{"no terminator", "Content-Type: multipart/mixed; boundary=a\n\n--a\n\nx\n", "multipart/mixed @0+45 size 10 lines 3 7bit\n  text/plain @50+2 size 3 lines 1 7bit\n"},
		{"inner unterminated", "Content-Type: multipart/mixed; boundary=a\n\n--a\nContent-Type: multipart/mixed; boundary=b\n\n--b\n\nx\n--a\n\ny\n--a--\n",
			"multipart/mixed @0+45 size 77 lines 10 7bit\n  multipart/mixed @50+45 size 8 lines 2 7bit\n    text/plain @100+2 size 1 lines 0 7bit\n  text/plain @110+2 size 1 lines 0 7bit\n"},
		{"no boundary", "Content-Type: multipart/mixed\n\nx\n", "text/plain @0+33 size 3 lines 1 7bit\n"},
		{"no part", "Content-Type: multipart/mixed; boundary=a\n\nx\n", "text/plain @0+45 size 3 lines 1 7bit\n"},
		{"garbage type", "Content-Type: ;;;\n\nx", "text/plain @0+21 size 1 lines 0 7bit\n"},
		{"digest", "Content-Type: multipart/digest; boundary=a\n\n--a\n\nSubject: in\n\nx\n--a--\n",
			"multipart/digest @0+46 size 32 lines 6 7bit\n  message/rfc822 @51+2 size 16 lines 2 7bit\n    text/plain @53+15 size 1 lines 0 7bit\n"},
		{"delimiter in header", "Content-Type: multipart/mixed; boundary=a\n\n--a\nContent-Type: text/html\n--a--\n",
			"multipart/mixed @0+45 size 37 lines 3 7bit\n  text/html @50+25 size 0 lines 0 7bit\n"},
		{"similar boundaries", "Content-Type: multipart/mixed; boundary=ab\n\n--ab\nContent-Type: multipart/mixed; boundary=a\n\n--a\n\nx\n--ab--\n",
			"multipart/mixed @0+46 size 69 lines 7 7bit\n  multipart/mixed @52+45 size 8 lines 2 7bit\n    text/plain @102+2 size 1 lines 0 7bit\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, err := Summarize(strings.NewReader(crlf(c.in)))
			if err != nil {
				t.Fatal(err)
			}
			if got := draw(r.Structure, 0); got != c.want {
				t.Errorf("got\n%swant\n%s", got, c.want)
			}
			if r.Size != int64(len(crlf(c.in))) {
				t.Errorf("size %d, want %d", r.Size, len(crlf(c.in)))
			}
		})
	}
}

// TestBlocksAreLines: what is read in blocks is what is read line by line, also
// where a buffer ends within a line, a line end or a delimiter.
func TestBlocksAreLines(t *testing.T) {
	for _, eol := range []string{"\r\n", "\n"} {
		for _, pad := range []int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 40} {
			line := strings.Repeat("x", 70) + eol
			body := strings.Repeat("y", pad) + eol + strings.Repeat(line, 2*chunkSize/len(line)) +
				"-" + eol + "--" + eol + "--other" + eol + "---" + eol + strings.Repeat("z", chunkSize+pad) + eol + eol
			text := strings.ReplaceAll("Content-Type: multipart/mixed; boundary=b\n\n"+"preamble\n\n--b\n\n", "\n", eol) + body + "--b" + eol +
				"Content-Type: text/html" + eol + eol + body + "--b--" + eol + body
			at := strings.Index(text, body)
			r, err := Summarize(strings.NewReader(text))
			if err != nil {
				t.Fatal(err)
			}
			slow, err := Summarize(iotest.OneByteReader(strings.NewReader(text)))
			if err != nil || !proto.Equal(r.Structure, slow.Structure) || r.Preview != slow.Preview {
				t.Errorf("%q, pad %d: another result line by line: %v", eol, pad, err)
			}
			if len(r.Structure.Children) != 2 {
				t.Fatalf("%q, pad %d: %d parts", eol, pad, len(r.Structure.Children))
			}
			first := r.Structure.Children[0]
			if want := strings.Count(body, "\n") - 1; first.BodyOffset != int64(at) || first.Size != int64(len(body)-len(eol)) || first.Lines != int64(want) {
				t.Errorf("%q, pad %d: body at %d of %d octets in %d lines, want %d, %d, %d", eol, pad, first.BodyOffset, first.Size, first.Lines, at, len(body)-len(eol), want)
			}
		}
	}
}

func BenchmarkSummarize(b *testing.B) {
	text := []byte("Subject: a long one\r\n\r\n" + strings.Repeat(strings.Repeat("A line of a longer story. ", 3)+"\r\n", 13_000))
	parts := []byte("Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\nsee\r\n--b\r\nContent-Transfer-Encoding: base64\r\n\r\n" +
		strings.Repeat(strings.Repeat("QUJD", 19)+"\r\n", 13_000) + "--b--\r\n")
	for name, m := range map[string][]byte{"text": text, "attachment": parts} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(m)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := Summarize(bytes.NewReader(m)); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
