package recode

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"io"
	"mime/quotedprintable"
	"slices"
	"strings"
)

// state is what the next line belongs to.
type state int

const (
	inHeader state = iota
	inBody         // of a part that has no parts
	inFiller       // preamble or epilogue of a multipart
)

// machine reads a message line by line and writes it anew. With survey it counts
// what the parts hold instead, in the order in which they come.
type machine struct {
	src    *bufio.Reader
	out    bytes.Buffer
	form   Form
	survey bool
	plan   []leaf
	next   int // of plan

	stack  []multipart
	state  state
	header []byte
	// root: the header is a message's own, not a part's.
	root bool
	// depth counts enclosed messages.
	depth int
	// fresh: the line begins where a delimiter may stand.
	fresh bool

	how     method
	leaf    *leaf
	enc     io.WriteCloser
	newline bool // a CRLF is held back: it may belong to a delimiter
	err     error
}

type multipart struct {
	boundary string
	signed   bool
	digest   bool
	depth    int // of enclosed messages around it
}

func newMachine(src io.Reader, form Form) *machine {
	return &machine{src: bufio.NewReaderSize(src, 32<<10), form: form, root: true, fresh: true}
}

// Read implements io.Reader.
func (m *machine) Read(p []byte) (int, error) {
	for m.out.Len() == 0 {
		if m.err != nil {
			return 0, m.err
		}
		if m.err = m.step(); m.err != nil && m.err != io.EOF {
			m.out.Reset()
		}
	}
	return m.out.Read(p)
}

// piece is a line, or a part of one that is longer than the buffer.
func (m *machine) piece() ([]byte, error) {
	piece, err := m.src.ReadSlice('\n')
	if err == bufio.ErrBufferFull {
		err = nil
		if n := len(piece) - 1; piece[n] == '\r' {
			_ = m.src.UnreadByte() // of what ReadSlice gave, which cannot fail
			piece = piece[:n]
		}
	}
	return piece, err
}

func (m *machine) step() error {
	piece, err := m.piece()
	if err != nil && err != io.EOF {
		return err
	}
	if len(piece) == 0 {
		if err := m.finish(); err != nil {
			return err
		}
		return io.EOF
	}
	fresh := m.fresh
	m.fresh = bytes.HasSuffix(piece, []byte("\r\n"))
	if fresh {
		if n, last, ok := m.delimiter(piece); ok {
			return m.boundary(piece, n, last)
		}
	}
	switch m.state {
	case inHeader:
		if fresh && string(piece) == "\r\n" {
			return m.endHeader(piece)
		}
		if len(m.header)+len(piece) > maxHeader {
			return ErrShape
		}
		m.header = append(m.header, piece...)
		return nil
	case inFiller:
		m.filler(piece)
		return nil
	}
	return m.body(piece)
}

// delimiter finds the multipart that a line delimits (RFC 2046 section 5.1.1):
// the innermost, or one around it when the inner ones were not closed.
func (m *machine) delimiter(line []byte) (n int, last, ok bool) {
	if len(m.stack) == 0 || !bytes.HasPrefix(line, []byte("--")) {
		return 0, false, false
	}
	s := string(bytes.TrimRight(line[2:], " \t\r\n"))
	for n := len(m.stack) - 1; n >= 0; n-- {
		switch s {
		case m.stack[n].boundary:
			return n, false, true
		case m.stack[n].boundary + "--":
			return n, true, true
		}
	}
	return 0, false, false
}

func (m *machine) boundary(line []byte, n int, last bool) error {
	if err := m.endPart(true); err != nil {
		return err
	}
	m.out.Write(line)
	m.stack = m.stack[:n+1]
	if last {
		m.stack = m.stack[:n]
		m.state = inFiller
		return nil
	}
	m.state, m.root, m.depth = inHeader, false, m.stack[n].depth
	return nil
}

// endPart ends what is being read; delimited: a delimiter follows, with the last
// line's end for its own.
func (m *machine) endPart(delimited bool) error {
	switch m.state {
	case inHeader:
		h := m.header
		m.header = nil
		return m.write(h)
	case inBody:
		return m.endBody(delimited)
	case inFiller:
	}
	return nil
}

func (m *machine) endBody(delimited bool) error {
	if m.enc == nil {
		return nil
	}
	if m.newline && !delimited {
		if _, err := io.WriteString(m.enc, "\r\n"); err != nil {
			return err
		}
	}
	if err := m.enc.Close(); err != nil {
		return err
	}
	if m.newline && delimited || !delimited && m.how == base64Lines {
		m.out.WriteString("\r\n")
	}
	m.enc, m.newline = nil, false
	return nil
}

func (m *machine) finish() error { return m.endPart(false) }

// write puts a header out.
func (m *machine) write(h []byte) error {
	if m.form == SevenBit && bytes.ContainsFunc(h, func(r rune) bool { return r >= 0x80 }) {
		return ErrHeader
	}
	m.out.Write(h)
	return nil
}

// filler is read by nobody; it only must be in form.
func (m *machine) filler(piece []byte) {
	for i, b := range piece {
		switch {
		case b >= 0x80 && m.form == SevenBit, b == 0, b == '\r' && (i+1 == len(piece) || piece[i+1] != '\n'):
			m.out.WriteByte('?')
		case b == '\n' && (i == 0 || piece[i-1] != '\r'):
			m.out.WriteString("\r\n")
		default:
			m.out.WriteByte(b)
		}
	}
}

func (m *machine) signed() bool {
	return slices.ContainsFunc(m.stack, func(p multipart) bool { return p.signed })
}

// body is a piece of a part that has no parts.
func (m *machine) body(piece []byte) error {
	if m.survey {
		m.leaf.count(piece)
		return nil
	}
	switch {
	case m.enc != nil:
		if m.newline {
			if _, err := io.WriteString(m.enc, "\r\n"); err != nil {
				return err
			}
		}
		text, held := bytes.CutSuffix(piece, []byte("\r\n"))
		m.newline = held
		_, err := m.enc.Write(text)
		return err
	case m.how == asIs:
		m.out.Write(piece)
	default:
		for _, b := range piece {
			switch {
			case b < 0x80:
				m.out.WriteByte(b)
			case m.how == patchedQP:
				m.out.WriteString("=" + string(hexDigits[b>>4]) + string(hexDigits[b&15]))
			}
		}
	}
	return nil
}

const hexDigits = "0123456789ABCDEF"

// beginBody takes the next part's body, to be written like that.
func (m *machine) beginBody(how method) {
	m.state, m.how, m.newline, m.enc = inBody, how, false, nil
	switch how {
	case quotedPrintable:
		m.enc = quotedprintable.NewWriter(&m.out)
	case base64Lines:
		m.enc = base64.NewEncoder(base64.StdEncoding, &wrapped{out: &m.out})
	case asIs, patchedQP, sifted:
	}
}

// wrapped breaks lines after 76 octets (RFC 2045 section 6.8).
type wrapped struct {
	out *bytes.Buffer
	at  int
}

func (w *wrapped) Write(p []byte) (int, error) {
	n := len(p)
	for len(p) > 0 {
		if w.at == 76 {
			w.out.WriteString("\r\n")
			w.at = 0
		}
		k := min(76-w.at, len(p))
		w.out.Write(p[:k])
		w.at += k
		p = p[k:]
	}
	return n, nil
}

func isType(kind, prefix string) bool { return strings.HasPrefix(kind, prefix) }
