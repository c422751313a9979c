package spool

import (
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"sync"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stagecoach-mta/stagecoach/sdk/mail"
)

// memoryBody is a small message.
type memoryBody struct{ b []byte }

var _ Body = memoryBody{}

// FromBytes makes a body of b, which must not change any more.
func FromBytes(b []byte) Body { return &memoryBody{b} }

func (m memoryBody) Message() *mail.Message     { return mail.FromBytes(m.b) }
func (m memoryBody) Size() int64                { return int64(len(m.b)) }
func (m memoryBody) Path() string               { return "" }
func (m memoryBody) Bytes() []byte              { return m.b }
func (m memoryBody) Open() (mail.Reader, error) { return memoryReader{bytes.NewReader(m.b)}, nil }
func (m memoryBody) Discard()                   {}

type memoryReader struct{ *bytes.Reader }

func (memoryReader) Close() error { return nil }

// Mover is a body in a file that can become the queue's without a copy.
type Mover interface {
	Body
	// Sync puts the octets on stable storage. It is called once: after an
	// error the kernel may have dropped what it could not write, and a second
	// call would claim success.
	Sync() error
	// Move renames the file; from then on Discard is a no-op and the body is
	// read at its new place.
	Move(path string) error
}

// Summed is a body in a file whose checksum was made as it was written: the octets that
// were meant, not those that a disk gives back.
type Summed interface {
	Body
	// Sum is the CRC-32 (Castagnoli) of all octets; ok is false when nobody made it.
	Sum() (sum uint32, ok bool)
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// fileBody is a message in a spool file, still open for the Sync to come: an
// error of writing back is reported on a descriptor that was open at the time.
type fileBody struct {
	fs   vfs.FS
	size int64
	sum  *uint32 // nil: not known

	mu    sync.Mutex
	path  string
	file  vfs.File // nil after Sync
	moved bool
}

var (
	_ Mover  = (*fileBody)(nil)
	_ Summed = (*fileBody)(nil)
)

func (f *fileBody) Message() *mail.Message { return mail.FromFile(f.Path(), f.size) }
func (f *fileBody) Size() int64            { return f.size }
func (f *fileBody) Bytes() []byte          { return nil }

func (f *fileBody) Sum() (uint32, bool) {
	if f.sum == nil {
		return 0, false
	}
	return *f.sum, true
}

func (f *fileBody) Path() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.path
}

func (f *fileBody) Open() (mail.Reader, error) { return OpenFile(f.fs, f.Path()) }

func (f *fileBody) Sync() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.file == nil {
		return fmt.Errorf("sync %s: %w", f.path, fs.ErrClosed)
	}
	err := f.file.Sync()
	if cerr := f.file.Close(); err == nil {
		err = cerr
	}
	f.file = nil
	return full(err)
}

func (f *fileBody) Move(path string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.fs.Rename(f.path, path); err != nil {
		return full(err)
	}
	f.path, f.moved = path, true
	return nil
}

func (f *fileBody) Discard() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.moved {
		return
	}
	f.moved = true
	if f.file != nil {
		_ = f.file.Close()
		f.file = nil
	}
	// What stays behind is swept at the next start.
	_ = f.fs.Remove(f.path)
}

// FromFile makes a body of a file that belongs to somebody else: Discard leaves
// it, and the queue links or copies it.
func FromFile(fs vfs.FS, path string, size int64) Body {
	return &borrowedBody{fs: fs, path: path, size: size}
}

type borrowedBody struct {
	fs   vfs.FS
	path string
	size int64
}

var _ Body = (*borrowedBody)(nil)

func (f *borrowedBody) Message() *mail.Message     { return mail.FromFile(f.path, f.size) }
func (f *borrowedBody) Size() int64                { return f.size }
func (f *borrowedBody) Path() string               { return f.path }
func (f *borrowedBody) Bytes() []byte              { return nil }
func (f *borrowedBody) Open() (mail.Reader, error) { return OpenFile(f.fs, f.path) }
func (f *borrowedBody) Discard()                   {}

// OpenFile reads a file of any file system as a message.
func OpenFile(fs vfs.FS, path string) (mail.Reader, error) {
	f, err := fs.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open a message: %w", err)
	}
	if r, ok := f.(mail.Reader); ok { // the operating system's files can seek
		return r, nil
	}
	st, err := f.Stat()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open a message: %w", err), f.Close())
	}
	return &fileReader{SectionReader: io.NewSectionReader(f, 0, st.Size()), c: f}, nil
}

// fileReader adds the seeking that vfs.File lacks.
type fileReader struct {
	*io.SectionReader
	c io.Closer
}

func (r *fileReader) Close() error { return r.c.Close() }
