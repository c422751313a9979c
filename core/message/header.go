// Package message looks at the header of a message, changes it, and writes the
// fields that a mail server adds. It is not a MIME library: it neither decodes
// values nor looks into the body's structure.
package message

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/stagecoach-mta/stagecoach/core/spool"
	"github.com/stagecoach-mta/stagecoach/sdk/mail"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// Limits of a header. A longer one is no mail that a person or a program that
// means well has written.
const (
	MaxHeader = 1 << 20 // octets
	MaxFields = 10_000
)

// ErrHeader: the header is over a limit.
var ErrHeader = errors.New("header too large")

// Field is one field by its place in the header: it holds no octets.
type Field struct {
	start, colon, end int
}

// Header is a header as it stands, cut into fields without a copy.
type Header struct {
	raw    []byte // to the end of the last field
	fields []Field
	// body is the offset of the first octet after the empty line, or of the
	// first line that is no field.
	body int
	// separated: the empty line is there (RFC 5322 section 2.1).
	separated bool
}

// ReadHeader reads the header of a body; for one in memory it copies nothing.
func ReadHeader(b spool.Body) (*Header, error) {
	if b.Path() == "" {
		return Parse(b.Bytes())
	}
	r, err := b.Open()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return readFrom(r, b.Size())
}

// readFrom reads as much as the header takes, by doubling steps.
func readFrom(r io.ReaderAt, size int64) (*Header, error) {
	for n := int64(mail.InlineLimit); ; n *= 2 {
		n = min(n, size)
		buf := make([]byte, n)
		if _, err := r.ReadAt(buf, 0); err != nil && !(errors.Is(err, io.EOF) && n == size) {
			return nil, fmt.Errorf("read the header: %w", err)
		}
		h, err := Parse(buf)
		// A header that ends before the buffer does is whole: the octet after a
		// line decides whether the next one continues it.
		if err != nil || n == size || h.body < len(buf) && h.separated || h.body+MaxLine < len(buf) {
			return h, err
		}
	}
}

// MaxLine bounds a line of the header in octets, wide of the 998 of RFC 5322
// section 2.1.1, which senders do not keep.
const MaxLine = 1 << 16

// Parse cuts the header at the start of b into fields. A line that is neither a
// field nor continues one ends the header, as if an empty line stood before it.
func Parse(b []byte) (*Header, error) {
	h := &Header{}
	at := 0
	for at < len(b) {
		line, next := lineAt(b, at)
		if len(line) == 0 {
			h.body, h.separated = next, true
			break
		}
		if (line[0] == ' ' || line[0] == '\t') && len(h.fields) > 0 {
			h.fields[len(h.fields)-1].end = next
		} else {
			colon := nameEnd(line)
			if colon < 0 {
				h.body = at
				break
			}
			if len(h.fields) == MaxFields {
				return nil, fmt.Errorf("%w: more than %d fields", ErrHeader, MaxFields)
			}
			h.fields = append(h.fields, Field{at, at + colon, next})
		}
		at = next
		h.body = at
		if at > MaxHeader {
			return nil, fmt.Errorf("%w: more than %d octets", ErrHeader, MaxHeader)
		}
	}
	if n := len(h.fields); n > 0 {
		h.raw = b[:h.fields[n-1].end]
	}
	return h, nil
}

// lineAt returns the line at b[at:] without its end, and where the next begins.
func lineAt(b []byte, at int) (line []byte, next int) {
	n := bytes.IndexByte(b[at:], '\n')
	if n < 0 {
		return b[at:], len(b)
	}
	line = b[at : at+n]
	return bytes.TrimSuffix(line, []byte{'\r'}), at + n + 1
}

// nameEnd returns the index of the colon of a field's line; -1 for no field.
func nameEnd(line []byte) int {
	colon := bytes.IndexByte(line, ':')
	if colon < 1 {
		return -1
	}
	name := bytes.TrimRight(line[:colon], " \t") // RFC 5322 section 4.5
	if !isName(name) {
		return -1
	}
	return colon
}

// isName: RFC 5322 section 3.6.8, printable ASCII but the colon.
func isName(name []byte) bool {
	for _, c := range name {
		if c <= ' ' || c > '~' || c == ':' {
			return false
		}
	}
	return len(name) > 0
}

// Len is the number of fields.
func (h *Header) Len() int { return len(h.fields) }

// Separated tells whether an empty line ends the header (RFC 5322 section 2.1).
func (h *Header) Separated() bool { return h.separated }

// Size is the header with its empty line, in octets.
func (h *Header) Size() int { return h.body }

// Name of the i-th field, from 0, as it is written.
func (h *Header) Name(i int) string { return string(h.name(i)) }

func (h *Header) name(i int) []byte {
	f := h.fields[i]
	return bytes.TrimRight(h.raw[f.start:f.colon], " \t")
}

// Value of the i-th field: after the colon, folded as it stands, without the
// last line end. It is part of the message's memory.
func (h *Header) Value(i int) []byte {
	f := h.fields[i]
	v := h.raw[f.colon+1 : f.end]
	if cut, ok := bytes.CutSuffix(v, []byte{'\n'}); ok {
		return bytes.TrimSuffix(cut, []byte{'\r'})
	}
	return v
}

func (h *Header) is(i int, name string) bool {
	n := h.name(i)
	return len(n) == len(name) && strings.EqualFold(string(n), name)
}

// Count the fields of that name.
func (h *Header) Count(name string) int {
	n := 0
	for i := range h.fields {
		if h.is(i, name) {
			n++
		}
	}
	return n
}

// Has tells whether there is a field of that name.
func (h *Header) Has(name string) bool { return h.index(name, 1) >= 0 }

// index of the n-th field of that name, n from 1; -1 if there is none.
func (h *Header) index(name string, n int) int {
	for i := range h.fields {
		if h.is(i, name) {
			if n--; n <= 0 {
				return i
			}
		}
	}
	return -1
}

// Get returns the first field of that name, unfolded and trimmed; "" if none.
func (h *Header) Get(name string) string {
	i := h.index(name, 1)
	if i < 0 {
		return ""
	}
	return mail.Unfold(h.Value(i))
}

// Values returns all fields of that name, unfolded and trimmed.
func (h *Header) Values(name string) []string {
	var vs []string
	for i := range h.fields {
		if h.is(i, name) {
			vs = append(vs, mail.Unfold(h.Value(i)))
		}
	}
	return vs
}

// EightBit tells whether the header holds octets beyond ASCII (RFC 6532).
func (h *Header) EightBit() bool { return eightBit(h.raw) }

// Fields returns the fields as plugins see them, those of names only if there
// are any. The values are part of the message's memory.
func (h *Header) Fields(names []string) mail.Header {
	var out mail.Header
	for i := range h.fields {
		if len(names) == 0 || h.isAny(i, names) {
			out = append(out, &v1.HeaderField{Name: h.Name(i), Value: h.Value(i)})
		}
	}
	return out
}

func (h *Header) isAny(i int, names []string) bool {
	for _, name := range names {
		if h.is(i, name) {
			return true
		}
	}
	return false
}

func eightBit(b []byte) bool {
	for _, c := range b {
		if c >= 0x80 {
			return true
		}
	}
	return false
}

// EightBit tells whether a message needs 8BITMIME (RFC 6152), reading it once.
func EightBit(b spool.Body) (bool, error) {
	if b.Path() == "" {
		return eightBit(b.Bytes()), nil
	}
	r, err := b.Open()
	if err != nil {
		return false, err
	}
	defer r.Close()
	buf := make([]byte, 64<<10)
	for {
		n, err := r.Read(buf)
		if eightBit(buf[:n]) {
			return true, nil
		}
		if errors.Is(err, io.EOF) {
			return false, nil
		}
		if err != nil {
			return false, err
		}
	}
}
