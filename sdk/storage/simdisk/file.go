package simdisk

import (
	"io"
	"os"
	"path"
	"slices"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// file is an open file or directory.
type file struct {
	d           *Disk
	n           *node
	path        string
	at          int64
	read, write bool
	closed      bool
}

var _ vfs.File = (*file)(nil)

func (f *file) check(op string, allowed bool) error {
	switch {
	case f.closed:
		return pathError(op, f.path, os.ErrClosed)
	case !allowed:
		return pathError(op, f.path, os.ErrPermission)
	}
	return nil
}

func (f *file) Close() error {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	if err := f.check("close", true); err != nil {
		return err
	}
	f.closed = true
	return nil
}

func (f *file) Read(b []byte) (int, error) {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	n, err := f.readAt(b, f.at)
	f.at += int64(n)
	if n > 0 {
		err = nil
	}
	return n, err
}

func (f *file) ReadAt(b []byte, off int64) (int, error) {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	return f.readAt(b, off)
}

func (f *file) readAt(b []byte, off int64) (int, error) {
	if err := f.check("read", f.read && !f.n.isDir()); err != nil {
		return 0, err
	}
	if err := f.d.fails(Op{Kind: Read, Path: f.path, Offset: off}); err != nil {
		return 0, pathError("read", f.path, err)
	}
	if off >= int64(len(f.n.data)) {
		return 0, io.EOF
	}
	n := copy(b, f.n.data[off:])
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

func (f *file) Write(b []byte) (int, error) {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	n, err := f.writeAt(b, f.at)
	f.at += int64(n)
	return n, err
}

func (f *file) WriteAt(b []byte, off int64) (int, error) {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	return f.writeAt(b, off)
}

func (f *file) writeAt(b []byte, off int64) (int, error) {
	if err := f.check("write", f.write && !f.n.isDir()); err != nil {
		return 0, err
	}
	if len(b) == 0 {
		return 0, nil
	}
	op := Op{Kind: Write, Path: f.path, Offset: off, Data: b, node: f.n.num}
	err := f.d.io(op)
	if err != nil {
		err = pathError("write", f.path, err)
		b = b[:f.d.plan.half(len(b))]
		if op.Data = b; len(b) == 0 {
			return 0, err
		}
		f.d.record(op)
	}
	f.n.put(b, off)
	return len(b), err
}

// put changes the octets from off on, with zeros before them if need be.
func (n *node) put(b []byte, off int64) {
	end := off + int64(len(b))
	if n.borrowed {
		n.data, n.borrowed = slices.Grow(slices.Clone(n.data), len(b)), false
	}
	if grow := end - int64(len(n.data)); grow > 0 {
		n.data = append(n.data, make([]byte, grow)...)
	}
	copy(n.data[off:], b)
}

// Preallocate makes room and changes no octet.
func (f *file) Preallocate(int64, int64) error { return nil }

func (f *file) Stat() (vfs.FileInfo, error) {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	return info{path.Base(f.path), int64(len(f.n.data)), f.n.isDir()}, nil
}

func (f *file) Sync() error {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	if err := f.check("sync", true); err != nil {
		return err
	}
	op := Op{Kind: Sync, Path: f.path, node: f.n.num}
	if f.n.isDir() {
		op.Kind = SyncDir
	}
	if err := f.d.io(op); err != nil {
		// The kernel tried once and will not try again.
		op.failed = true
		f.d.record(op)
		return pathError("sync", f.path, err)
	}
	return nil
}

func (f *file) SyncData() error { return f.Sync() }

// SyncTo starts writing back and promises nothing.
func (f *file) SyncTo(int64) (bool, error) { return false, nil }

func (f *file) Prefetch(int64, int64) error { return nil }
func (f *file) Fd() uintptr                 { return vfs.InvalidFd }
