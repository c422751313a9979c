package message

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/stagecoach-mta/stagecoach/core/spool"
	"github.com/stagecoach-mta/stagecoach/sdk/mail"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// Adopt copies octets that a plugin made into the spool. A file is read only if
// it lies under one of dirs, with no link that leads out of it: a plugin must
// not get at a file through us that it may not read itself. Lines get CRLF as
// their end; a bare CR or a NUL is refused, as it is on the wire.
func (ed Editor) Adopt(ref *v1.MessageRef, dirs []string) (spool.Body, error) {
	r, err := open(ref, dirs)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrEdit, err)
	}
	defer r.Close()
	w := ed.Dir.NewWriter(ref.GetSize())
	if err := copyLines(w, r); err != nil {
		w.Abort()
		return nil, err
	}
	return w.Finish()
}

// Keep gives a body that outlives b, for who reads it later.
func (ed Editor) Keep(b spool.Body) (spool.Body, error) { return ed.Dir.Link(b) }

func open(ref *v1.MessageRef, dirs []string) (io.ReadCloser, error) {
	path := ref.GetPath()
	if path == "" {
		return mail.FromRef(ref).Open()
	}
	for _, dir := range dirs {
		name, err := filepath.Rel(dir, path)
		if err != nil || name == ".." || strings.HasPrefix(name, "../") {
			continue
		}
		root, err := os.OpenRoot(dir)
		if err != nil {
			return nil, err
		}
		defer root.Close()
		f, err := root.Open(name)
		if err != nil {
			return nil, err
		}
		if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() {
			f.Close()
			return nil, fmt.Errorf("%s is no regular file", path)
		}
		return f, nil
	}
	return nil, fmt.Errorf("%s is neither under the plugin's data directory nor in a spool directory", path)
}

// copyLines copies with CRLF for LF.
func copyLines(w io.Writer, r io.Reader) error {
	in := make([]byte, 32<<10)
	out := make([]byte, 0, 2*len(in))
	cr := false
	for {
		n, err := r.Read(in)
		out = out[:0]
		for _, c := range in[:n] {
			switch {
			case c == 0, cr && c != '\n':
				return fmt.Errorf("%w: the new text holds a NUL or a bare CR", ErrEdit)
			case c == '\n' && !cr:
				out = append(out, '\r')
			}
			cr = c == '\r'
			out = append(out, c)
		}
		if _, werr := w.Write(out); werr != nil {
			return werr
		}
		if err == io.EOF {
			if cr {
				return fmt.Errorf("%w: the new text ends with a bare CR", ErrEdit)
			}
			return nil
		}
		if err != nil {
			return err
		}
	}
}
