package imap

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"errors"
	"io"
	"mime/quotedprintable"
	"strings"

	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// place is a stretch of the raw message.
type place struct{ offset, size int64 }

// Names of what is wanted of a part (RFC 9051 section 6.4.5.1).
const (
	wantAll    = ""
	wantHeader = "HEADER"
	wantText   = "TEXT"
	wantMIME   = "MIME"
)

// findPart follows a part number from the root; nil if there is no such part.
// A message that is no multipart has one part, itself (RFC 9051 section 6.4.5.1).
func findPart(root *v1.Part, path []int) *v1.Part {
	p := root
	for i, n := range path {
		if i > 0 && isMessage(p) {
			if len(p.GetChildren()) == 0 {
				return nil
			}
			p = p.GetChildren()[0]
		}
		switch {
		case isMultipart(p) && n >= 1 && n <= len(p.GetChildren()):
			p = p.GetChildren()[n-1]
		case !isMultipart(p) && n == 1 && (i == 0 || isInside(root, path[:i])):
		default:
			return nil
		}
	}
	return p
}

// isInside tells whether path names a message part, whose own "part 1" exists.
func isInside(root *v1.Part, path []int) bool {
	p := findPart(root, path)
	return p != nil && isMessage(p)
}

func isMultipart(p *v1.Part) bool {
	return strings.EqualFold(p.GetType(), "multipart") && len(p.GetChildren()) > 0
}

func isMessage(p *v1.Part) bool {
	return strings.EqualFold(p.GetType(), "message") && len(p.GetChildren()) > 0 &&
		(strings.EqualFold(p.GetSubtype(), "rfc822") || strings.EqualFold(p.GetSubtype(), "global"))
}

// locate finds a section in the raw message of that size; false if the message
// has no such section.
func locate(root *v1.Part, size int64, path []int, want string) (place, bool) {
	if len(path) == 0 {
		switch want {
		case wantAll:
			return place{0, size}, true
		case wantHeader:
			return place{0, root.GetBodyOffset()}, true
		case wantText:
			return place{root.GetBodyOffset(), size - root.GetBodyOffset()}, true
		}
		return place{}, false
	}
	p := findPart(root, path)
	if p == nil {
		return place{}, false
	}
	end := p.GetBodyOffset() + p.GetSize()
	switch want {
	case wantAll:
		return place{p.GetBodyOffset(), p.GetSize()}, true
	case wantMIME:
		return place{p.GetHeaderOffset(), p.GetBodyOffset() - p.GetHeaderOffset()}, true
	}
	if !isMessage(p) {
		return place{}, false
	}
	inner := p.GetChildren()[0]
	if want == wantHeader {
		return place{inner.GetHeaderOffset(), inner.GetBodyOffset() - inner.GetHeaderOffset()}, true
	}
	return place{inner.GetBodyOffset(), end - inner.GetBodyOffset()}, true
}

// cut takes the octets from offset on, at most size, out of p.
func (p place) cut(offset, size int64) place {
	offset = min(max(offset, 0), p.size)
	return place{p.offset + offset, min(max(size, 0), p.size-offset)}
}

// pickFields keeps (or, with not, leaves out) the fields of those names in a raw
// header, octet for octet, and ends with an empty line.
func pickFields(header []byte, names []string, not bool) []byte {
	var out bytes.Buffer
	keep := false
	for len(header) > 0 {
		n := bytes.IndexByte(header, '\n') + 1
		if n == 0 {
			n = len(header)
		}
		line := header[:n]
		header = header[n:]
		if len(bytes.TrimRight(line, "\r\n")) == 0 {
			break
		}
		if line[0] != ' ' && line[0] != '\t' {
			name, _, _ := bytes.Cut(line, []byte(":"))
			keep = hasName(names, string(bytes.TrimRight(name, " \t\r\n"))) != not
		}
		if keep {
			out.Write(line)
		}
	}
	out.WriteString("\r\n")
	return out.Bytes()
}

func hasName(names []string, name string) bool {
	for _, n := range names {
		if strings.EqualFold(n, name) {
			return true
		}
	}
	return false
}

// errUnknownEncoding: the part's content-transfer-encoding is not one that can
// be undone (RFC 3516 section 4.3).
var errUnknownEncoding = errors.New("unknown content-transfer-encoding")

// decoder undoes a content-transfer-encoding. What is malformed in it ends the
// text there, as a reader of the mail would see it.
func decoder(encoding string, r io.Reader) (io.Reader, error) {
	switch strings.ToLower(encoding) {
	case "", "7bit", "8bit", "binary":
		return r, nil
	case "base64":
		return lenient{base64.NewDecoder(base64.StdEncoding, &base64Only{r: bufio.NewReader(r)})}, nil
	case "quoted-printable":
		return lenient{quotedprintable.NewReader(r)}, nil
	}
	return nil, errUnknownEncoding
}

type lenient struct{ r io.Reader }

func (l lenient) Read(p []byte) (int, error) {
	n, err := l.r.Read(p)
	if err != nil {
		err = io.EOF
	}
	return n, err
}

// base64Only leaves out what is not of the alphabet, as RFC 2045 section 6.8
// demands of a reader.
type base64Only struct{ r *bufio.Reader }

func (b *base64Only) Read(p []byte) (int, error) {
	n := 0
	for n < len(p) {
		c, err := b.r.ReadByte()
		if err != nil {
			return n, err
		}
		if c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '+' || c == '/' || c == '=' {
			p[n] = c
			n++
		}
	}
	return n, nil
}
