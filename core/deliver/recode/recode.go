// Package recode gives a message other transfer encodings, for servers that take
// no 8-bit or no binary content (RFC 6152 section 3, RFC 3030 section 3): parts are
// encoded as quoted-printable or base64, within multiparts and enclosed messages
// too. What a reader decodes is the same, octet by octet.
//
// It does not touch header fields other than those that name the encoding, and
// refuses what it cannot do without loss. A DKIM signature over the body does not
// survive it: RFC 6376 section 5.3 asks signers to send 7-bit mail for that reason.
package recode

import (
	"errors"
	"fmt"
	"io"
)

// Form of a message that a server takes.
type Form int

const (
	// SevenBit is ASCII in lines.
	SevenBit Form = iota
	// EightBit is any octets but NUL in lines (8BITMIME).
	EightBit
)

// Why a message cannot have another form.
var (
	ErrHeader = errors.New("a header of it has 8-bit text")
	ErrSigned = errors.New("it is signed as it is (multipart/signed)")
	ErrPart   = errors.New("a part of it must not be encoded (RFC 2046)")
	ErrShape  = errors.New("its MIME structure is too deep, or its headers are too large")
)

const (
	maxDepth  = 100
	maxHeader = 1 << 20
)

// Message is a message in another form. It reads the original anew each time it
// is opened, and holds none of it.
type Message struct {
	open func() (io.ReadCloser, error)
	form Form
	plan []leaf
	size int64
}

// New finds out how a message is to be encoded. open gives the original, lines
// ended by CRLF, and is called again for each Open. An error is one of those
// above, or that of reading.
func New(open func() (io.ReadCloser, error), form Form) (*Message, error) {
	m := &Message{open: open, form: form}
	src, err := open()
	if err != nil {
		return nil, err
	}
	defer src.Close()
	look := newMachine(src, form)
	look.survey = true
	if _, err := io.Copy(io.Discard, look); err != nil {
		return nil, err
	}
	m.plan = look.plan
	r, err := m.Open()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	m.size, err = io.Copy(io.Discard, r)
	if err != nil {
		return nil, err
	}
	return m, nil
}

// Size in octets.
func (m *Message) Size() int64 { return m.size }

// Open reads the message in its new form.
func (m *Message) Open() (io.ReadCloser, error) {
	src, err := m.open()
	if err != nil {
		return nil, err
	}
	r := newMachine(src, m.form)
	r.plan = m.plan
	return &reader{r, src}, nil
}

type reader struct {
	*machine
	src io.Closer
}

func (r *reader) Close() error { return r.src.Close() }

// leaf is what a part that has no parts holds.
type leaf struct {
	octets, high int64 // high: above 127
	// unclean: a NUL, or a CR or LF that is not part of a CRLF.
	unclean bool
	// long: a line above the 998 octets of RFC 5322.
	long bool
	line int
}

// count adds the next octets; pieces end with a line, or in the midst of a long
// one, but never between CR and LF.
func (l *leaf) count(piece []byte) {
	l.octets += int64(len(piece))
	for i, b := range piece {
		switch {
		case b >= 0x80:
			l.high++
		case b == 0,
			b == '\r' && (i+1 == len(piece) || piece[i+1] != '\n'),
			b == '\n' && (i == 0 || piece[i-1] != '\r'):
			l.unclean = true
		}
		if l.line++; b == '\n' {
			l.line = 0
		}
		l.long = l.long || l.line > 998
	}
}

// method of writing a part's body.
type method int

const (
	asIs method = iota
	quotedPrintable
	base64Lines
	patchedQP // it is quoted-printable but for some octets
	sifted    // it is base64 but for some octets, which mean nothing there
)

// encoding decides on a part: how its body is written, and what the field says
// then ("": as it did).
func (m *machine) encoding(kind, cte string, l *leaf) (method, string, error) {
	needed := l.unclean || m.form == SevenBit && l.high > 0 || cte == "binary" && l.long
	switch {
	case !needed && m.form == SevenBit && (cte == "8bit" || cte == "binary"):
		return asIs, "7bit", nil
	case !needed && m.form == EightBit && cte == "binary":
		return asIs, "8bit", nil
	case !needed:
		return asIs, "", nil
	case m.signed():
		return asIs, "", ErrSigned
	}
	switch cte {
	case "", "7bit", "8bit", "binary":
	case "quoted-printable", "base64":
		if l.unclean {
			return asIs, "", ErrPart
		}
		if cte == "base64" {
			return sifted, "", nil
		}
		return patchedQP, "", nil
	default:
		return asIs, "", fmt.Errorf("%w: its encoding is %q", ErrPart, cte)
	}
	switch {
	case isType(kind, "multipart/"), isType(kind, "message/") && !isType(kind, "message/global"): // RFC 6532 section 3.7 allows it there
		return asIs, "", fmt.Errorf("%w: %s", ErrPart, kind)
	case isType(kind, "text/") && !l.unclean && l.high*6 <= l.octets:
		return quotedPrintable, "quoted-printable", nil
	}
	return base64Lines, "base64", nil
}
