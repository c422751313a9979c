package transfer

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"

	"github.com/stagecoach-mta/stagecoach/sdk/mail"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// mostOctets is the largest message that is carried.
const mostOctets = 1 << 30

var errTooLarge = fmt.Errorf("it has more than %d MiB", mostOctets>>20)

// Body is the octets of a message on its way, with CRLF line ends: small ones in
// memory, large ones in a file of the spool.
type Body struct {
	Size int64
	// Sum is the SHA-256 of the octets.
	Sum    [sha256.Size]byte
	inline []byte
	path   string
}

func (b *Body) small() bool { return b.path == "" }

func (b *Body) ref() *v1.MessageRef {
	if b.small() {
		return &v1.MessageRef{Size: b.Size, Where: &v1.MessageRef_Inline{Inline: b.inline}}
	}
	return &v1.MessageRef{Size: b.Size, Where: &v1.MessageRef_Path{Path: b.path}}
}

// drop removes the file, if there is one.
func (b *Body) drop() {
	if b != nil && b.path != "" {
		_ = os.Remove(b.path) // the next run sweeps the spool
	}
}

// filling is a Body that is being written.
type filling struct {
	dir   string
	sum   hash.Hash
	size  int64
	small bytes.Buffer
	file  *os.File
	out   *bufio.Writer
}

func newFilling(dir string) *filling { return &filling{dir: dir, sum: sha256.New()} }

// Write implements io.Writer.
func (f *filling) Write(p []byte) (int, error) {
	f.size += int64(len(p))
	if f.size > mostOctets {
		return 0, errTooLarge
	}
	f.sum.Write(p)
	if f.file == nil && f.size <= mail.InlineLimit {
		return f.small.Write(p)
	}
	if f.file == nil {
		file, err := os.CreateTemp(f.dir, "message-*")
		if err != nil {
			return 0, err
		}
		f.file, f.out = file, bufio.NewWriterSize(file, 64<<10)
		if _, err := f.out.Write(f.small.Bytes()); err != nil {
			return 0, err
		}
	}
	return f.out.Write(p)
}

// end returns the Body; failed: there is to be none.
func (f *filling) end(failed error) (*Body, error) {
	b := &Body{Size: f.size}
	f.sum.Sum(b.Sum[:0])
	if f.file == nil {
		b.inline = f.small.Bytes()
		return b, failed
	}
	b.path = f.file.Name()
	if failed == nil {
		failed = f.out.Flush()
	}
	if err := errors.Join(failed, f.file.Close()); err != nil {
		b.drop()
		return nil, err
	}
	return b, nil
}

// crlfWriter ends lines with CRLF that end with LF.
type crlfWriter struct{ w io.Writer }

// Write implements io.Writer.
func (c crlfWriter) Write(p []byte) (int, error) {
	n := len(p)
	for len(p) > 0 {
		line, rest, ended := bytes.Cut(p, []byte{'\n'})
		if _, err := c.w.Write(line); err != nil {
			return 0, err
		}
		if ended {
			if _, err := io.WriteString(c.w, "\r\n"); err != nil {
				return 0, err
			}
		}
		p = rest
	}
	return n, nil
}

// lfWriter ends lines with LF that end with CRLF, for octets whose every CR and LF
// is part of a CRLF.
type lfWriter struct{ w io.Writer }

// Write implements io.Writer.
func (l lfWriter) Write(p []byte) (int, error) {
	n := len(p)
	for len(p) > 0 {
		part, rest, _ := bytes.Cut(p, []byte{'\r'})
		if _, err := l.w.Write(part); err != nil {
			return 0, err
		}
		p = rest
	}
	return n, nil
}

// lineEnds counts how lines end.
type lineEnds struct {
	cr, lf, crlf int64
	after        bool // a CR
}

// Write implements io.Writer.
func (e *lineEnds) Write(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if e.after && p[0] == '\n' {
		e.crlf++
	}
	e.after = p[len(p)-1] == '\r'
	e.cr += int64(bytes.Count(p, []byte{'\r'}))
	e.lf += int64(bytes.Count(p, []byte{'\n'}))
	e.crlf += int64(bytes.Count(p, []byte("\r\n")))
	return len(p), nil
}

// plain: every line end is a CRLF, and nothing else is part of one. Such a message
// is written with LF, as is the custom in files; any other as it is.
func (e *lineEnds) plain() bool { return e.cr == e.crlf && e.lf == e.crlf }

// local: written with LF, as is the custom in files.
func (e *lineEnds) local() bool { return e.crlf == 0 }

func endsOf(r io.Reader) (e lineEnds, err error) {
	_, err = io.Copy(&e, r)
	return e, err
}
