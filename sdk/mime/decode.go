package mime

import (
	"bufio"
	"bytes"
	"io"
	stdmime "mime"
	"strings"
	"unicode"
	"unicode/utf8"

	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
	"golang.org/x/text/encoding/htmlindex"
)

// sample is the raw beginning of a text, for the preview.
type sample struct {
	part *v1.Part
	max  int
	data []byte
}

func (s *sample) add(b []byte) {
	if s != nil && len(s.data) < s.max {
		s.data = append(s.data, b[:min(len(b), s.max-len(s.data))]...)
	}
}

// sampleFor returns where to keep the beginning of this leaf; nil: nowhere.
func (p *parser) sampleFor(part *v1.Part) *sample {
	if part.Type != "text" || part.Disposition == "attachment" {
		return nil
	}
	switch {
	case part.Subtype == "plain" && p.text.part == nil:
		p.text = sample{part: part, max: 4 << 10}
		return &p.text
	case part.Subtype == "html" && p.html.part == nil:
		p.html = sample{part: part, max: 32 << 10}
		return &p.html
	}
	return nil
}

// preview is the beginning of the first plain text or, if there is none, of the
// first HTML without its tags (RFC 8970 section 3.1).
func (p *parser) preview() string {
	if p.text.part != nil {
		if t := p.text.decode(); t != "" {
			return clip(t)
		}
	}
	if p.html.part != nil {
		return clip(stripTags(p.html.decode()))
	}
	return ""
}

func (s *sample) decode() string {
	b := bytes.NewBuffer(make([]byte, 0, len(s.data)+bytes.MinRead))
	_, _ = b.ReadFrom(io.LimitReader(Decode(s.part, bytes.NewReader(s.data)), 64<<10))
	return b.String()
}

// clip collapses white space and control characters and cuts.
func clip(s string) string {
	var b strings.Builder
	space, n := false, 0
	for _, r := range s {
		if r == utf8.RuneError || unicode.IsSpace(r) || unicode.IsControl(r) {
			space = n > 0
			continue
		}
		if space {
			if n++; n >= previewRunes {
				break
			}
			b.WriteByte(' ')
			space = false
		}
		b.WriteRune(r)
		if n++; n >= previewRunes {
			break
		}
	}
	return b.String()
}

// stripTags leaves the text of HTML, roughly: a preview is not a rendering.
func stripTags(s string) string {
	var b strings.Builder
	for s != "" {
		i := strings.IndexByte(s, '<')
		if i < 0 {
			b.WriteString(s)
			break
		}
		b.WriteString(s[:i])
		b.WriteByte(' ')
		s = s[i:]
		low := strings.ToLower(s[:min(len(s), 8)])
		end := ">"
		for _, t := range []string{"style", "script", "head", "title"} {
			if strings.HasPrefix(low, "<"+t) {
				end = "</" + t
			}
		}
		j := indexFold(s, end)
		if j < 0 {
			break
		}
		s = s[j+len(end):]
		if end != ">" {
			if k := strings.IndexByte(s, '>'); k >= 0 {
				s = s[k+1:]
			}
		}
	}
	return entities.Replace(b.String())
}

var entities = strings.NewReplacer("&nbsp;", " ", "&lt;", "<", "&gt;", ">", "&quot;", `"`, "&#39;", "'", "&amp;", "&")

func indexFold(s, ascii string) int {
	return strings.Index(strings.Map(func(r rune) rune {
		if r >= 'A' && r <= 'Z' {
			return r + 32
		}
		return r
	}, s), ascii)
}

// Decode undoes the content-transfer-encoding of part's body and converts text
// to UTF-8. It forgives what is malformed; the only errors are r's.
func Decode(part *v1.Part, r io.Reader) io.Reader {
	switch strings.ToLower(part.GetEncoding()) {
	case "base64":
		r = &base64Reader{r: bufio.NewReader(r)}
	case "quoted-printable":
		r = &quotedReader{r: bufio.NewReader(r)}
	}
	if part.GetType() == "text" {
		r = charsetReader(param(part.GetParams(), "charset"), r)
	}
	return r
}

func charsetReader(charset string, r io.Reader) io.Reader {
	switch charset = strings.ToLower(charset); charset {
	case "", "us-ascii", "utf-8", "utf8":
		return r
	}
	enc, err := htmlindex.Get(charset)
	if err != nil {
		return r
	}
	return enc.NewDecoder().Reader(r)
}

// DecodeHeader turns the encoded words (RFC 2047) of an unfolded header value
// into UTF-8. What cannot be decoded stays as it stands.
func DecodeHeader(value string) string {
	if !strings.Contains(value, "=?") {
		return value
	}
	d := stdmime.WordDecoder{CharsetReader: func(charset string, in io.Reader) (io.Reader, error) {
		return charsetReader(charset, in), nil
	}}
	s, err := d.DecodeHeader(value)
	if err != nil {
		return value
	}
	return s
}

// base64Reader passes over every octet that is not of the alphabet (RFC 2045
// section 6.8) and keeps what is whole.
type base64Reader struct {
	r    *bufio.Reader
	bits uint32
	n    int
}

func (b *base64Reader) Read(p []byte) (int, error) {
	for i := 0; i < len(p); {
		c, err := b.r.ReadByte()
		if err != nil {
			if i > 0 && err == io.EOF {
				return i, nil
			}
			return i, err
		}
		var v byte
		switch {
		case c >= 'A' && c <= 'Z':
			v = c - 'A'
		case c >= 'a' && c <= 'z':
			v = c - 'a' + 26
		case c >= '0' && c <= '9':
			v = c - '0' + 52
		case c == '+':
			v = 62
		case c == '/':
			v = 63
		case c == '=':
			b.bits, b.n = 0, 0
			continue
		default:
			continue
		}
		b.bits = b.bits<<6 | uint32(v)
		if b.n += 6; b.n >= 8 {
			b.n -= 8
			p[i] = byte(b.bits >> b.n)
			i++
		}
	}
	return len(p), nil
}

// quotedReader decodes quoted-printable (RFC 2045 section 6.7); a "=" that
// begins nothing stays as it is.
type quotedReader struct {
	r *bufio.Reader
}

func (q *quotedReader) Read(p []byte) (int, error) {
	for i := 0; i < len(p); {
		c, err := q.r.ReadByte()
		if err != nil {
			if i > 0 && err == io.EOF {
				return i, nil
			}
			return i, err
		}
		if c == '=' {
			next, _ := q.r.Peek(2)
			switch {
			case len(next) >= 1 && next[0] == '\n':
				q.r.Discard(1)
				continue
			case len(next) == 2 && next[0] == '\r' && next[1] == '\n':
				q.r.Discard(2)
				continue
			case len(next) == 2 && hex(next[0]) >= 0 && hex(next[1]) >= 0:
				c = byte(hex(next[0])<<4 | hex(next[1]))
				q.r.Discard(2)
			}
		}
		p[i] = c
		i++
	}
	return len(p), nil
}

func hex(c byte) int {
	switch {
	case c >= '0' && c <= '9':
		return int(c - '0')
	case c >= 'A' && c <= 'F':
		return int(c-'A') + 10
	case c >= 'a' && c <= 'f':
		return int(c-'a') + 10
	}
	return -1
}
