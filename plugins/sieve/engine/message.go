package engine

import (
	"bytes"
	"fmt"
	"io"
	"strings"

	"github.com/stagecoach-mta/stagecoach/sdk/mime"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// What of a message is looked at.
const (
	maxHeader = 1 << 20  // octets of its header
	maxBody   = 16 << 20 // octets of its body, for tests
)

// Field of a header as it stands there, with its line ends.
type Field struct {
	Name string
	Raw  []byte
}

// value is what follows the colon, unfolded and trimmed; not decoded.
func (f *Field) value() string {
	_, v, _ := bytes.Cut(f.Raw, []byte(":"))
	return unfold(v)
}

func unfold(v []byte) string {
	if bytes.IndexByte(v, '\n') < 0 {
		return strings.Trim(string(v), " \t")
	}
	var b strings.Builder
	for line := range bytes.Lines(v) {
		b.Write(bytes.TrimRight(line, "\r\n"))
	}
	return strings.Trim(b.String(), " \t")
}

// Message is a mail as a script sees it. It is not changed: an edit makes another
// one that shares the rest.
type Message struct {
	Fields []Field
	// Edited tells that the fields are no longer those that came.
	Edited bool
	src    io.ReaderAt
	bodyAt int64
	size   int64
	header int64 // octets of the header with its empty line, as edited
	whole  *whole
	// headed: the header did not end, so there is no body, not even an empty one.
	headed bool
}

// whole is what was read of the message, once.
type whole struct {
	body []byte
	read bool
	root *Part
}

// ReadMessage reads the header of a message of that size; its body is read when a
// test asks for it.
func ReadMessage(src io.ReaderAt, size int64) (*Message, error) {
	m := &Message{src: src, size: size, whole: &whole{}}
	head := make([]byte, 0, min(size, 16<<10))
	for int64(len(head)) < min(size, maxHeader) {
		begin := len(head)
		n := min(max(begin, 8<<10), int(min(size, maxHeader))-begin)
		head = append(head, make([]byte, n)...)
		if _, err := src.ReadAt(head[begin:], int64(begin)); err != nil && err != io.EOF {
			return nil, fmt.Errorf("read the message: %w", err)
		}
		if end := headerEnd(head); end >= 0 {
			head = head[:end]
			m.bodyAt = int64(end)
			m.Fields = parseFields(head)
			m.header = m.bodyAt
			return m, nil
		}
	}
	m.bodyAt, m.header, m.headed = int64(len(head)), int64(len(head)), true
	m.Fields = parseFields(head)
	return m, nil
}

// NewMessage makes one of octets.
func NewMessage(b []byte) *Message {
	m, _ := ReadMessage(bytes.NewReader(b), int64(len(b)))
	return m
}

// headerEnd is where the body begins, -1 if the header does not end.
func headerEnd(b []byte) int {
	switch {
	case bytes.HasPrefix(b, []byte("\r\n")):
		return 2
	case bytes.HasPrefix(b, []byte("\n")):
		return 1
	}
	at := -1
	for _, end := range []string{"\n\r\n", "\n\n"} {
		if i := bytes.Index(b, []byte(end)); i >= 0 && (at < 0 || i+len(end) < at) {
			at = i + len(end)
		}
	}
	return at
}

func parseFields(head []byte) []Field {
	var out []Field
	for line := range bytes.Lines(head) {
		switch {
		case len(line) > 0 && (line[0] == ' ' || line[0] == '\t') && len(out) > 0 && len(bytes.TrimSpace(line)) > 0:
			last := &out[len(out)-1]
			last.Raw = append(last.Raw[:len(last.Raw):len(last.Raw)], line...)
			continue
		case len(bytes.TrimRight(line, "\r\n")) == 0:
			continue
		}
		name, _, ok := bytes.Cut(line, []byte(":"))
		if !ok {
			continue // no field
		}
		out = append(out, Field{Name: string(bytes.TrimRight(name, " \t")), Raw: line})
	}
	return out
}

// Size in octets.
func (m *Message) Size() int64 { return m.size - m.bodyAt + m.header }

// edit makes a message with other fields.
func (m *Message) edit(fields []Field) *Message {
	out := *m
	out.Fields, out.Edited = fields, true
	out.header = 2
	for i := range fields {
		out.header += int64(len(fields[i].Raw))
	}
	out.whole = &whole{body: m.whole.body, read: m.whole.read}
	return &out
}

// WriteTo writes the message as it is now.
func (m *Message) WriteTo(w io.Writer) (int64, error) {
	if !m.Edited {
		return io.Copy(w, io.NewSectionReader(m.src, 0, m.size))
	}
	var head bytes.Buffer
	for i := range m.Fields {
		head.Write(m.Fields[i].Raw)
	}
	head.WriteString("\r\n")
	n, err := w.Write(head.Bytes())
	if err != nil {
		return int64(n), err
	}
	rest, err := io.Copy(w, io.NewSectionReader(m.src, m.bodyAt, m.size-m.bodyAt))
	return int64(n) + rest, err
}

// body of the message, or its beginning.
func (m *Message) body() ([]byte, error) {
	if m.whole.read {
		return m.whole.body, nil
	}
	b := make([]byte, min(m.size-m.bodyAt, maxBody))
	if _, err := m.src.ReadAt(b, m.bodyAt); err != nil && err != io.EOF {
		return nil, fmt.Errorf("read the message: %w", err)
	}
	m.whole.body, m.whole.read = b, true
	return b, nil
}

// Part is an entity of the message (RFC 2045); the message itself is one.
type Part struct {
	Fields   []Field
	Type     string // "text/plain", lower case
	Body     []byte // as it stands there
	Children []*Part
	desc     *v1.Part
	// undecoded: its transfer encoding is not known.
	undecoded bool
}

// root of the message's parts.
func (m *Message) root() (*Part, error) {
	if m.whole.root != nil {
		return m.whole.root, nil
	}
	body, err := m.body()
	if err != nil {
		return nil, err
	}
	var raw bytes.Buffer
	for i := range m.Fields {
		raw.Write(m.Fields[i].Raw)
	}
	raw.WriteString("\r\n")
	raw.Write(body)
	r, err := mime.Summarize(bytes.NewReader(raw.Bytes()))
	if err != nil {
		return nil, err
	}
	m.whole.root = makePart(raw.Bytes(), r.Structure)
	m.whole.root.Fields = m.Fields
	return m.whole.root, nil
}

func makePart(raw []byte, p *v1.Part) *Part {
	n := int64(len(raw))
	head, body := min(p.GetHeaderOffset(), n), min(p.GetBodyOffset(), n)
	out := &Part{
		Fields: parseFields(raw[min(head, body):body]), Type: p.GetType() + "/" + p.GetSubtype(),
		Body: raw[body:min(body+p.GetSize(), n)], desc: p,
	}
	if f := fieldsNamed(out.Fields, "content-transfer-encoding"); len(f) > 0 {
		out.undecoded = !knownEncoding(f[0].value())
	}
	if f := fieldsNamed(out.Fields, "content-type"); len(f) > 0 {
		if main, _ := parseStructured(f[0].value()); main != "" && strings.Count(main, "/") != 1 {
			out.Type = main // what is no type matches none
		}
	}
	for _, c := range p.GetChildren() {
		out.Children = append(out.Children, makePart(raw, c))
	}
	return out
}

func knownEncoding(s string) bool {
	switch strings.ToLower(s) {
	case "", "7bit", "8bit", "binary", "base64", "quoted-printable":
		return true
	}
	return false
}

// all parts below and with p, depth first.
func (p *Part) all() []*Part {
	out := []*Part{p}
	for _, c := range p.Children {
		out = append(out, c.all()...)
	}
	return out
}

// decoded is the body without its transfer encoding, text in UTF-8; at most limit
// octets of it.
func (p *Part) decoded(limit int64) string {
	b, _ := io.ReadAll(io.LimitReader(mime.Decode(p.desc, bytes.NewReader(p.Body)), limit))
	return string(b)
}

// multipart tells whether the part has parts of its own.
func (p *Part) multipart() bool { return strings.HasPrefix(p.Type, "multipart/") }

// fieldsNamed are the fields of that name.
func fieldsNamed(fields []Field, name string) []*Field {
	var out []*Field
	for i := range fields {
		if strings.EqualFold(fields[i].Name, name) {
			out = append(out, &fields[i])
		}
	}
	return out
}
