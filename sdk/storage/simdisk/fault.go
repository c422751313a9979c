package simdisk

import (
	"io"
	"os"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// Fault is how an I/O fails.
type Fault struct {
	// Err is what the caller gets: syscall.EIO, syscall.ENOSPC.
	Err error
	// Short: half of a write is done before it fails.
	Short bool
	// Persistent: all I/O after it fails as well, else it alone.
	Persistent bool
	// Only these operations count and fail; nil: all that change the disk or
	// sync.
	Only func(op Op) bool
}

// plan is a fault to come.
type plan struct {
	Fault
	at   int // the I/O that fails, counted among those of Only
	seen int
	hit  bool
}

// Fail has the n-th operation from now on fail, counted from 0. A later call
// takes the place of an earlier one.
func (d *Disk) Fail(n int, f Fault) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.plan = &plan{Fault: f, at: n}
}

// Heal ends the faults; it tells whether there was one.
func (d *Disk) Heal() (failed bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	failed = d.plan != nil && d.plan.hit
	d.plan = nil
	return failed
}

// half is how much of a failing write is done.
func (p *plan) half(n int) int {
	if !p.Short {
		return 0
	}
	return n / 2
}

// fails tells whether the plan has it fail; mu is held.
func (d *Disk) fails(op Op) error {
	p := d.plan
	if p == nil || p.Only == nil && op.Kind == Read || p.Only != nil && !p.Only(op) {
		return nil
	}
	p.seen++
	if p.seen-1 < p.at || p.seen-1 > p.at && !p.Persistent {
		return nil
	}
	p.hit = true
	return p.Err
}

// io notes an operation, or fails it; mu is held.
func (d *Disk) io(op Op) error {
	err := d.fails(op)
	if err == nil {
		d.record(op)
	}
	return err
}

// Damage changes a bit of a file, as a bad sector does: nothing notices but who
// looks at a checksum.
func (d *Disk) Damage(name string, offset int64) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := d.find(name)
	if n == nil || offset < 0 || offset >= int64(len(n.data)) {
		return pathError("damage", name, os.ErrNotExist)
	}
	n.put([]byte{n.data[offset] ^ 1}, offset)
	return nil
}

// A lie is a file system that does not do what its caller thinks that it does:
// the bugs that a checker is to find, planted below a program that has none.
type lie struct {
	vfs.FS
	sync func(path string, sync func() error) error
}

// Forget is fs with the syncs left out of all files and directories whose path
// match picks, as if the program did not call them.
func Forget(fs vfs.FS, match func(path string) bool) vfs.FS {
	return lie{fs, func(path string, sync func() error) error {
		if match(path) {
			return nil
		}
		return sync()
	}}
}

// Retry is fs with a failed sync tried again, once, as if the program did that.
func Retry(fs vfs.FS) vfs.FS {
	return lie{fs, func(_ string, sync func() error) error {
		if sync() == nil {
			return nil
		}
		return sync()
	}}
}

func (l lie) file(f vfs.File, path string, err error) (vfs.File, error) {
	if err != nil {
		return nil, err
	}
	return lyingFile{f, path, l.sync}, nil
}

func (l lie) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := l.FS.Create(name, c)
	return l.file(f, name, err)
}

func (l lie) Open(name string, o ...vfs.OpenOption) (vfs.File, error) {
	f, err := l.FS.Open(name, o...)
	return l.file(f, name, err)
}

func (l lie) OpenReadWrite(name string, c vfs.DiskWriteCategory, o ...vfs.OpenOption) (vfs.File, error) {
	f, err := l.FS.OpenReadWrite(name, c, o...)
	return l.file(f, name, err)
}

func (l lie) OpenDir(name string) (vfs.File, error) {
	f, err := l.FS.OpenDir(name)
	return l.file(f, name, err)
}

func (l lie) ReuseForWrite(from, to string, c vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := l.FS.ReuseForWrite(from, to, c)
	return l.file(f, to, err)
}

func (l lie) Lock(name string) (io.Closer, error) { return l.FS.Lock(name) }
func (l lie) Unwrap() vfs.FS                      { return l.FS }

type lyingFile struct {
	vfs.File
	path string
	sync func(path string, sync func() error) error
}

func (f lyingFile) Sync() error     { return f.sync(f.path, f.File.Sync) }
func (f lyingFile) SyncData() error { return f.sync(f.path, f.File.SyncData) }
