package spool

import (
	"fmt"
	"hash/crc32"
	"io"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stagecoach-mta/stagecoach/sdk/mail"
)

// Writer takes a message as it arrives: into memory up to mail.InlineLimit,
// from then on into one file. It ends with Finish or Abort. After an error of
// Write the message cannot be completed. It is not for concurrent use.
type Writer struct {
	dir    *Dir
	buf    *[bufferSize]byte
	n      int // octets in buf, not yet in the file
	size   int64
	sum    uint32 // of what is in the file
	toFile bool
	name   string
	file   vfs.File
	err    error
}

var _ io.Writer = (*Writer)(nil)

// Write adds p, which is copied. A full disk gives an error that wraps ErrFull.
func (w *Writer) Write(p []byte) (int, error) {
	if w.err != nil {
		return 0, w.err
	}
	if w.buf == nil {
		w.buf = buffers.Get().(*[bufferSize]byte)
	}
	total := len(p)
	for len(p) > 0 {
		room := len(w.buf)
		if w.file == nil && !w.toFile {
			room = mail.InlineLimit
		}
		if w.n == room {
			if err := w.spill(); err != nil {
				return total - len(p), err
			}
			continue
		}
		c := copy(w.buf[w.n:room], p)
		p = p[c:]
		w.n += c
		w.size += int64(c)
	}
	return total, nil
}

// Prefix puts b, a trace header field, in front of the message. It must come
// before the first Write.
func (w *Writer) Prefix(b []byte) error {
	if w.size > 0 {
		return fmt.Errorf("a prefix after %d octets of the message", w.size)
	}
	_, err := w.Write(b)
	return err
}

// Size is what was written so far, in octets.
func (w *Writer) Size() int64 { return w.size }

// spill writes the buffer to the file, which it makes at the first time.
func (w *Writer) spill() error {
	if w.file == nil {
		name := w.dir.newName()
		f, err := w.dir.fs.Create(name, category)
		if err != nil {
			return w.fail(fmt.Errorf("make a spool file: %w", full(err)))
		}
		w.file, w.name = f, name
	}
	if w.n == 0 {
		return nil
	}
	n, err := w.file.Write(w.buf[:w.n])
	if err == nil && n < w.n {
		err = io.ErrShortWrite
	}
	if err != nil {
		return w.fail(fmt.Errorf("write a spool file: %w", full(err)))
	}
	w.sum = crc32.Update(w.sum, castagnoli, w.buf[:w.n])
	w.n = 0
	return nil
}

func (w *Writer) fail(err error) error {
	w.release()
	w.err = err
	return err
}

// Finish ends the message and hands it over. The Writer is spent.
func (w *Writer) Finish() (Body, error) {
	if w.err != nil {
		return nil, w.err
	}
	if w.file == nil && !w.toFile {
		var b []byte
		if w.n > 0 {
			b = make([]byte, w.n)
			copy(b, w.buf[:w.n])
		}
		w.release()
		w.err = ErrClosed
		return FromBytes(b), nil
	}
	if err := w.spill(); err != nil {
		return nil, err
	}
	sum := w.sum
	body := &fileBody{fs: w.dir.fs, path: w.name, size: w.size, sum: &sum, file: w.file}
	w.file = nil // the body's now
	w.release()
	w.err = ErrClosed
	return body, nil
}

// Abort throws the message away; after Finish it does nothing.
func (w *Writer) Abort() {
	if w.err == nil {
		_ = w.fail(ErrClosed)
	}
}

// release gives buffer and file back.
func (w *Writer) release() {
	if w.file != nil {
		// The file goes away: nothing hangs on these errors.
		_ = w.file.Close()
		_ = w.dir.fs.Remove(w.name)
		w.file = nil
	}
	if w.buf != nil {
		buffers.Put(w.buf)
		w.buf = nil
	}
}
