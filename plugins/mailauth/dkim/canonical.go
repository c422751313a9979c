package dkim

import (
	"bytes"
	"io"
	"strings"

	"github.com/stagecoach-mta/stagecoach/plugins/mailauth/message"
)

// Canonicalization is how a header or a body is made ready for its hash (RFC 6376
// section 3.4).
type Canonicalization bool

// The two of them.
const (
	Simple  Canonicalization = false
	Relaxed Canonicalization = true
)

func (c Canonicalization) String() string {
	if c == Relaxed {
		return "relaxed"
	}
	return "simple"
}

// AppendField appends a field in its canonical form, with the final CRLF.
func (c Canonicalization) AppendField(out []byte, f message.Field) []byte {
	if c == Simple {
		return append(out, f.Raw...)
	}
	return relaxField(out, f.Name, f.Raw)
}

// relaxField is section 3.4.2; raw has the colon.
func relaxField(out []byte, name string, raw []byte) []byte {
	for i := range len(name) {
		c := name[i]
		if 'A' <= c && c <= 'Z' {
			c |= 0x20
		}
		out = append(out, c)
	}
	out = append(out, ':')
	value := raw[bytes.IndexByte(raw, ':')+1:]
	begin, blank := len(out), false
	for i := 0; i < len(value); i++ {
		switch c := value[i]; c {
		case ' ', '\t':
			blank = true
			continue
		case '\r':
			if i+1 < len(value) && value[i+1] == '\n' {
				i++
				continue
			}
		case '\n':
			continue
		}
		if blank && len(out) > begin {
			out = append(out, ' ')
		}
		blank = false
		// What needs no change goes in one piece.
		n := i + 1
		for n < len(value) && value[n] > ' ' {
			n++
		}
		out = append(out, value[i:n]...)
		i = n - 1
	}
	return append(out, '\r', '\n')
}

// HashFields writes the named fields in their canonical form: for each name the
// last one not yet taken, nothing where there is none left (section 5.4.2).
func (c Canonicalization) HashFields(w io.Writer, h message.Header, names []string) {
	taken := make([]int, len(h)) // how often a field was taken; 0 or 1
	var buf []byte
	for _, name := range names {
		for i := len(h) - 1; i >= 0; i-- {
			if taken[i] == 0 && h[i].Is(name) {
				taken[i] = 1
				buf = c.AppendField(buf[:0], h[i])
				_, _ = w.Write(buf) // a hash never fails
				break
			}
		}
	}
}

// HashUnsigned writes a signature's own field as it was before it was signed: its
// b= is empty and it has no final CRLF (section 3.5, b=).
func (c Canonicalization) HashUnsigned(w io.Writer, f message.Field) error {
	value := string(f.Value())
	tags, err := ParseTags(value)
	if err != nil {
		return err
	}
	for _, t := range tags {
		if t.Name == "b" {
			value = value[:t.start] + value[t.end:]
			break
		}
	}
	colon := bytes.IndexByte(f.Raw, ':')
	raw := append(bytes.Clone(f.Raw[:colon+1]), value...)
	if c == Relaxed {
		raw = bytes.TrimSuffix(relaxField(nil, f.Name, raw), []byte("\r\n"))
	}
	_, err = w.Write(raw)
	return err
}

// parseCanonicalization reads c=: "relaxed/simple", "relaxed" (section 3.5).
func parseCanonicalization(s string) (header, body Canonicalization, ok bool) {
	h, b, both := strings.Cut(strings.ToLower(unblanked(s)), "/")
	if !both {
		b = "simple"
	}
	known := func(s string) bool { return s == "simple" || s == "relaxed" }
	return h == "relaxed", b == "relaxed", known(h) && known(b)
}
