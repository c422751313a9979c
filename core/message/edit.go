package message

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/stagecoach-mta/stagecoach/core/spool"
	"github.com/stagecoach-mta/stagecoach/sdk/mail"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// ErrEdit: the edit would break the message; it was not done.
var ErrEdit = errors.New("edit refused")

// Editor shows headers and does the edits of filter.proto, into its spool.
type Editor struct{ Dir *spool.Dir }

// Fields returns the header's fields, those of names only if there are any.
func (Editor) Fields(b spool.Body, names []string) (mail.Header, error) {
	h, err := ReadHeader(b)
	if err != nil {
		return nil, err
	}
	return h.Fields(names), nil
}

// Apply returns a new body with the edits done; b stays as it is. The message is
// copied once, whatever the number of edits. Indexes and positions are counted
// before them; a field that is not there is neither replaced nor deleted. Edits
// of the envelope are not for here and passed over.
func (ed Editor) Apply(b spool.Body, edits []*v1.Edit) (spool.Body, error) {
	h, err := ReadHeader(b)
	if err != nil {
		return nil, err
	}
	p, err := plan(h, edits)
	if err != nil {
		return nil, err
	}
	w := ed.Dir.NewWriter(b.Size() + p.grows)
	if err := p.write(w, h, b); err != nil {
		w.Abort()
		return nil, fmt.Errorf("edit a message: %w", err)
	}
	return w.Finish()
}

// edited is an edit list brought into the header's order.
type edited struct {
	// inserted[i] stands before field i; the last after all fields.
	inserted map[int][]*v1.HeaderField
	replaced map[int][]byte
	deleted  map[int]bool
	body     *v1.MessageRef
	grows    int64
}

func plan(h *Header, edits []*v1.Edit) (*edited, error) {
	p := &edited{inserted: map[int][]*v1.HeaderField{}, replaced: map[int][]byte{}, deleted: map[int]bool{}}
	for _, e := range edits {
		switch e := e.GetEdit().(type) {
		case *v1.Edit_InsertHeader_:
			f := e.InsertHeader.GetField()
			if err := checkField(f.GetName(), f.GetValue()); err != nil {
				return nil, err
			}
			at := int(e.InsertHeader.GetPosition())
			if at < 0 || at > h.Len() {
				at = h.Len()
			}
			p.inserted[at] = append(p.inserted[at], f)
			p.grows += int64(len(f.GetName()) + len(f.GetValue()) + len(":\r\n"))
		case *v1.Edit_ReplaceHeader_:
			name, value := e.ReplaceHeader.GetName(), e.ReplaceHeader.GetValue()
			if err := checkField(name, value); err != nil {
				return nil, err
			}
			if i := h.index(name, int(e.ReplaceHeader.GetIndex())); i >= 0 {
				p.replaced[i] = value
				p.grows += int64(len(value))
			}
		case *v1.Edit_DeleteHeader_:
			name, n := e.DeleteHeader.GetName(), int(e.DeleteHeader.GetIndex())
			if n > 0 {
				if i := h.index(name, n); i >= 0 {
					p.deleted[i] = true
				}
				continue
			}
			for i := range h.fields {
				if h.is(i, name) {
					p.deleted[i] = true
				}
			}
		case *v1.Edit_ReplaceBody_:
			p.body = e.ReplaceBody.GetBody()
			p.grows += p.body.GetSize()
		}
	}
	return p, nil
}

// checkField refuses what would end the field or the header early.
func checkField(name string, value []byte) error {
	if !isName([]byte(name)) {
		return fmt.Errorf("%w: %q is no name of a header field", ErrEdit, name)
	}
	for i, c := range value {
		switch {
		case c == 0, c == '\r' && (i+1 == len(value) || value[i+1] != '\n'):
			return fmt.Errorf("%w: %s holds a NUL or a bare CR", ErrEdit, name)
		case c == '\n' && (i+1 == len(value) || value[i+1] != ' ' && value[i+1] != '\t'):
			return fmt.Errorf("%w: a line of %s begins without a space", ErrEdit, name)
		}
	}
	return nil
}

func (p *edited) write(w io.Writer, h *Header, b spool.Body) error {
	out := bytes.NewBuffer(make([]byte, 0, len(h.raw)+1024))
	for i := range h.Len() + 1 {
		for _, f := range p.inserted[i] {
			writeField(out, f.GetName(), f.GetValue())
		}
		if i == h.Len() || p.deleted[i] {
			continue
		}
		if v, ok := p.replaced[i]; ok {
			writeField(out, h.Name(i), v)
			continue
		}
		f := h.raw[h.fields[i].start:h.fields[i].end]
		out.Write(f)
		if f[len(f)-1] != '\n' { // a message of a header alone, cut short
			out.WriteString("\r\n")
		}
	}
	// Also where the message had none: what follows must not turn into a field.
	out.WriteString("\r\n")
	if _, err := w.Write(out.Bytes()); err != nil {
		return err
	}
	if p.body != nil {
		r, err := mail.FromRef(p.body).Open()
		if err != nil {
			return err
		}
		defer r.Close()
		_, err = io.Copy(w, r)
		return err
	}
	if b.Path() == "" {
		_, err := w.Write(b.Bytes()[h.body:])
		return err
	}
	r, err := b.Open()
	if err != nil {
		return err
	}
	defer r.Close()
	n, err := io.Copy(w, io.NewSectionReader(r, int64(h.body), b.Size()-int64(h.body)))
	if err == nil && n != b.Size()-int64(h.body) {
		err = io.ErrUnexpectedEOF
	}
	return err
}

// writeField writes line ends as CRLF, however the plugin wrote them.
func writeField(out *bytes.Buffer, name string, value []byte) {
	out.WriteString(name)
	out.WriteByte(':')
	for i, c := range value {
		if c == '\n' && (i == 0 || value[i-1] != '\r') {
			out.WriteByte('\r')
		}
		out.WriteByte(c)
	}
	out.WriteString("\r\n")
}
