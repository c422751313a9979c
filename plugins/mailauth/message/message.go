// Package message splits a message into its header fields, octet by octet as
// they stand there, and its body: what signatures are made of. It decodes
// nothing and is no MIME parser.
package message

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"strings"
)

// MaxHeader is the longest header that Read takes, in octets.
const MaxHeader = 1 << 20

// Field is a header field.
type Field struct {
	// Name as it is written, without blanks around it.
	Name string
	// Raw is the whole field, folded as it is, with its last CRLF.
	Raw []byte
}

// Is compares the name without case.
func (f Field) Is(name string) bool { return strings.EqualFold(f.Name, name) }

// Value is what follows the colon, folded as it is, without the last CRLF.
func (f Field) Value() []byte {
	i := bytes.IndexByte(f.Raw, ':')
	return bytes.TrimSuffix(f.Raw[i+1:], crlf)
}

// Unfolded is the value on one line, without the blanks around it.
func (f Field) Unfolded() string {
	v := f.Value()
	if bytes.IndexByte(v, '\n') >= 0 {
		v = bytes.ReplaceAll(v, crlf, nil)
	}
	return strings.Trim(string(v), " \t")
}

// Header is a message's fields from top to bottom.
type Header []Field

// All returns the fields of a name, from top to bottom.
func (h Header) All(name string) []Field {
	var out []Field
	for _, f := range h {
		if f.Is(name) {
			out = append(out, f)
		}
	}
	return out
}

// Message is a header and a body that can be read once.
type Message struct {
	Header Header
	// Body begins behind the empty line that ends the header.
	Body io.Reader
}

var crlf = []byte("\r\n")

// Read reads the header; the body is read by the caller. Lines end in CRLF. A
// line that is no field is left out. The error is of reading, or a header over
// MaxHeader.
func Read(r io.Reader) (*Message, error) {
	br := bufio.NewReaderSize(r, 4<<10)
	m := &Message{Body: br}
	var (
		raw  []byte // the header in one piece: fields are slices of it
		ends []int
	)
	for {
		line, err := br.ReadSlice('\n')
		if err == bufio.ErrBufferFull {
			var rest []byte
			long := bytes.Clone(line)
			for err == bufio.ErrBufferFull && len(raw)+len(long) <= MaxHeader {
				rest, err = br.ReadSlice('\n')
				long = append(long, rest...)
			}
			line = long
		}
		if len(raw)+len(line) > MaxHeader {
			return nil, fmt.Errorf("the header is longer than %d octets", MaxHeader)
		}
		if err != nil && err != io.EOF {
			return nil, err
		}
		if len(line) == 0 || string(line) == "\r\n" {
			break
		}
		if (line[0] == ' ' || line[0] == '\t') && len(ends) > 0 {
			ends = ends[:len(ends)-1]
		}
		raw = append(raw, line...)
		ends = append(ends, len(raw))
		if err == io.EOF {
			break
		}
	}
	start := 0
	for _, end := range ends {
		f := raw[start:end:end] // appending copies
		start = end
		name, _, ok := bytes.Cut(f, []byte(":"))
		name = bytes.TrimRight(name, " \t")
		if !ok || len(name) == 0 || bytes.ContainsAny(name, " \t\r\n") {
			continue
		}
		if !bytes.HasSuffix(f, crlf) {
			// The message ends within its header, or its lines end as they should not.
			f = append(bytes.TrimSuffix(f, crlf[1:]), crlf...)
		}
		m.Header = append(m.Header, Field{Name: string(name), Raw: f})
	}
	return m, nil
}
