// Package simdisk is a disk in memory for the tests of a queue or a storage: it
// keeps a log of what was done to it, builds every disk that a power cut at any
// moment of that log may leave, and fails the I/O that it is told to. It is a
// pebble vfs.FS. It is no model of a particular file system: what none of ext4,
// xfs and btrfs promises, it does not promise either.
//
// What is promised:
//   - Sync and SyncData of a file put its octets on the disk, not its name.
//   - Sync of a directory puts the names in it on the disk, not what they name.
//   - A rename within a directory is atomic; one into another directory never
//     loses the file, and may leave it under both names.
//
// What else may be there after a power cut: of the octets that were not synced
// any subset, in sectors of 512 octets, a sector as any of the writes to it left
// it, with zeros where a later one was kept and an earlier one was not; of the
// names made and removed any subset.
//
// After a failed Sync of a file its octets may or may not be on the disk, and no
// later Sync that succeeds changes that, unless they are written again: so does
// Linux.
package simdisk

import (
	"io"
	"os"
	"path"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// sectorSize is what a power cut keeps or loses as a whole, in octets.
const sectorSize = 512

// Disk is a disk in memory. Its methods are safe for concurrent use.
type Disk struct {
	mu    sync.Mutex
	root  *node
	last  int // the number given to a node last
	log   *Log
	plan  *plan
	locks map[string]bool
	usage vfs.DiskUsage
}

var _ vfs.FS = (*Disk)(nil)

// node is a file or a directory.
type node struct {
	num      int
	names    map[string]*node // of a directory
	data     []byte           // of a file
	borrowed bool             // data belongs to another disk, too: it is copied before it is changed in place
}

func (n *node) isDir() bool { return n.names != nil }

// New is an empty disk.
func New() *Disk {
	d := &Disk{locks: map[string]bool{}, usage: vfs.DiskUsage{AvailBytes: 1 << 40, TotalBytes: 1 << 41, UsedBytes: 1 << 40}}
	d.root = d.newDir()
	return d
}

func (d *Disk) newDir() *node {
	d.last++
	return &node{num: d.last, names: map[string]*node{}}
}

func (d *Disk) newFile() *node {
	d.last++
	return &node{num: d.last}
}

// Clone is another disk with the same content, all of it on the disk for good.
// It has no log, no faults and no locks: the process that held them is gone.
func (d *Disk) Clone() *Disk {
	d.mu.Lock()
	defer d.mu.Unlock()
	c := New()
	seen := map[*node]*node{}
	var clone func(n *node) *node
	clone = func(n *node) *node {
		if m := seen[n]; m != nil { // a second name of a file
			return m
		}
		c.last++
		m := &node{num: c.last}
		seen[n] = m
		if n.isDir() {
			m.names = make(map[string]*node, len(n.names))
			for _, name := range sorted(n.names) {
				m.names[name] = clone(n.names[name])
			}
			return m
		}
		n.borrowed, m.borrowed = true, true
		m.data = slices.Clip(n.data)
		return m
	}
	c.root = clone(d.root)
	c.usage = d.usage
	return c
}

// SetFree says what GetDiskUsage answers, in octets. Nothing is refused by it:
// see Fail.
func (d *Disk) SetFree(octets uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.usage.AvailBytes = octets
}

func sorted(names map[string]*node) []string {
	out := make([]string, 0, len(names))
	for name := range names {
		out = append(out, name)
	}
	slices.Sort(out)
	return out
}

func clean(name string) string { return path.Clean("/" + name) }

// parts splits a path; none for the root.
func parts(name string) []string {
	name = clean(name)
	if name == "/" {
		return nil
	}
	return strings.Split(name[1:], "/")
}

func pathError(op, name string, err error) error {
	return &os.PathError{Op: op, Path: name, Err: err}
}

// find returns the node of that name; mu is held.
func (d *Disk) find(name string) *node {
	n := d.root
	for _, p := range parts(name) {
		if n = n.names[p]; n == nil {
			return nil
		}
	}
	return n
}

// parent returns the directory in which name lies or would lie; mu is held.
func (d *Disk) parent(op, name string) (dir *node, base string, err error) {
	name = clean(name)
	dir = d.find(path.Dir(name))
	switch {
	case name == "/":
		return nil, "", pathError(op, name, os.ErrInvalid)
	case dir == nil:
		return nil, "", pathError(op, name, os.ErrNotExist)
	case !dir.isDir():
		return nil, "", pathError(op, name, syscall.ENOTDIR)
	}
	return dir, path.Base(name), nil
}

// Create is part of vfs.FS: a file of that name is removed first.
func (d *Disk) Create(name string, _ vfs.DiskWriteCategory) (vfs.File, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.create(name)
}

func (d *Disk) create(name string) (vfs.File, error) {
	dir, base, err := d.parent("create", name)
	if err != nil {
		return nil, err
	}
	if old := dir.names[base]; old != nil {
		if old.isDir() {
			return nil, pathError("create", name, syscall.EISDIR)
		}
		if err := d.unlink(dir, base, name); err != nil {
			return nil, err
		}
	}
	n := d.newFile()
	if err := d.io(Op{Kind: Create, Path: name, dir: dir.num, name: base, node: n.num}); err != nil {
		return nil, pathError("create", name, err)
	}
	dir.names[base] = n
	return &file{d: d, n: n, path: clean(name), read: true, write: true}, nil
}

func (d *Disk) unlink(dir *node, base, name string) error {
	if err := d.io(Op{Kind: Remove, Path: name, dir: dir.num, name: base}); err != nil {
		return pathError("remove", name, err)
	}
	delete(dir.names, base)
	return nil
}

// Link is part of vfs.FS.
func (d *Disk) Link(from, to string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := d.find(from)
	if n == nil {
		return pathError("link", from, os.ErrNotExist)
	}
	dir, base, err := d.parent("link", to)
	if err != nil {
		return err
	}
	if dir.names[base] != nil {
		return pathError("link", to, os.ErrExist)
	}
	if n.isDir() {
		return pathError("link", from, os.ErrPermission)
	}
	if err := d.io(Op{Kind: Link, Path: from, To: to, dir: dir.num, name: base, node: n.num}); err != nil {
		return pathError("link", to, err)
	}
	dir.names[base] = n
	return nil
}

// Open is part of vfs.FS.
func (d *Disk) Open(name string, opts ...vfs.OpenOption) (vfs.File, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.open(name, opts)
}

func (d *Disk) open(name string, opts []vfs.OpenOption) (*file, error) {
	n := d.find(name)
	if n == nil {
		return nil, pathError("open", name, os.ErrNotExist)
	}
	f := &file{d: d, n: n, path: clean(name), read: true}
	for _, o := range opts {
		o.Apply(f)
	}
	return f, nil
}

// OpenReadWrite is part of vfs.FS.
func (d *Disk) OpenReadWrite(name string, _ vfs.DiskWriteCategory, opts ...vfs.OpenOption) (vfs.File, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f, err := d.open(name, opts)
	if err != nil {
		return d.create(name)
	}
	f.write = true
	return f, nil
}

// OpenDir is part of vfs.FS.
func (d *Disk) OpenDir(name string) (vfs.File, error) { return d.Open(name) }

// Remove is part of vfs.FS.
func (d *Disk) Remove(name string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	dir, base, err := d.parent("remove", name)
	if err != nil {
		return err
	}
	n := dir.names[base]
	switch {
	case n == nil:
		return pathError("remove", name, os.ErrNotExist)
	case len(n.names) > 0:
		return pathError("remove", name, syscall.ENOTEMPTY)
	}
	return d.unlink(dir, base, name)
}

// RemoveAll is part of vfs.FS.
func (d *Disk) RemoveAll(name string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	dir, base, err := d.parent("remove", name)
	if err != nil || dir.names[base] == nil {
		return nil //nolint:nilerr // as os.RemoveAll: what is not there is removed
	}
	return d.removeAll(dir, base, name)
}

func (d *Disk) removeAll(dir *node, base, name string) error {
	n := dir.names[base]
	for _, child := range sorted(n.names) {
		if err := d.removeAll(n, child, path.Join(name, child)); err != nil {
			return err
		}
	}
	return d.unlink(dir, base, name)
}

// Rename is part of vfs.FS.
func (d *Disk) Rename(from, to string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.rename(from, to)
}

func (d *Disk) rename(from, to string) error {
	dir, base, err := d.parent("rename", from)
	if err != nil {
		return err
	}
	n := dir.names[base]
	if n == nil {
		return pathError("rename", from, os.ErrNotExist)
	}
	dir2, base2, err := d.parent("rename", to)
	if err != nil {
		return err
	}
	if old := dir2.names[base2]; old == n {
		return nil
	} else if old != nil && (len(old.names) > 0 || old.isDir() != n.isDir()) {
		return pathError("rename", to, os.ErrExist)
	}
	op := Op{Kind: Rename, Path: from, To: to, dir: dir.num, name: base, node: n.num, dir2: dir2.num, name2: base2}
	if err := d.io(op); err != nil {
		return pathError("rename", to, err)
	}
	delete(dir.names, base)
	dir2.names[base2] = n
	return nil
}

// ReuseForWrite is part of vfs.FS.
func (d *Disk) ReuseForWrite(from, to string, _ vfs.DiskWriteCategory) (vfs.File, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.rename(from, to); err != nil {
		return nil, err
	}
	f, err := d.open(to, nil)
	if err != nil {
		return nil, err
	}
	f.write = true
	return f, nil
}

// MkdirAll is part of vfs.FS.
func (d *Disk) MkdirAll(name string, _ os.FileMode) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	at, n := "/", d.root
	for _, p := range parts(name) {
		at = path.Join(at, p)
		next := n.names[p]
		if next == nil {
			next = d.newDir()
			if err := d.io(Op{Kind: Mkdir, Path: at, dir: n.num, name: p, node: next.num}); err != nil {
				return pathError("mkdir", at, err)
			}
			n.names[p] = next
		}
		if !next.isDir() {
			return pathError("mkdir", at, syscall.ENOTDIR)
		}
		n = next
	}
	return nil
}

// Lock is part of vfs.FS.
func (d *Disk) Lock(name string) (io.Closer, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	name = clean(name)
	if d.locks[name] {
		return nil, pathError("lock", name, syscall.EAGAIN)
	}
	if d.find(name) == nil {
		if _, err := d.create(name); err != nil {
			return nil, err
		}
	}
	d.locks[name] = true
	return unlocker{d, name}, nil
}

type unlocker struct {
	d    *Disk
	name string
}

func (u unlocker) Close() error {
	u.d.mu.Lock()
	defer u.d.mu.Unlock()
	delete(u.d.locks, u.name)
	return nil
}

// List is part of vfs.FS; the names are sorted.
func (d *Disk) List(name string) ([]string, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := d.find(name)
	switch {
	case n == nil:
		return nil, pathError("open", name, os.ErrNotExist)
	case !n.isDir():
		return nil, pathError("open", name, syscall.ENOTDIR)
	}
	return sorted(n.names), nil
}

// Stat is part of vfs.FS. All times are one.
func (d *Disk) Stat(name string) (vfs.FileInfo, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := d.find(name)
	if n == nil {
		return nil, pathError("stat", name, os.ErrNotExist)
	}
	return info{path.Base(clean(name)), int64(len(n.data)), n.isDir()}, nil
}

// PathBase is part of vfs.FS.
func (*Disk) PathBase(p string) string { return path.Base(p) }

// PathJoin is part of vfs.FS.
func (*Disk) PathJoin(elem ...string) string { return path.Join(elem...) }

// PathDir is part of vfs.FS.
func (*Disk) PathDir(p string) string { return path.Dir(p) }

// GetDiskUsage is part of vfs.FS.
func (d *Disk) GetDiskUsage(string) (vfs.DiskUsage, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.usage, nil
}

// Unwrap is part of vfs.FS: there is nothing below.
func (*Disk) Unwrap() vfs.FS { return nil }

type info struct {
	name string
	size int64
	dir  bool
}

func (i info) Name() string         { return i.name }
func (i info) Size() int64          { return i.size }
func (i info) ModTime() time.Time   { return time.Unix(0, 0) }
func (i info) IsDir() bool          { return i.dir }
func (i info) Sys() any             { return nil }
func (info) DeviceID() vfs.DeviceID { return vfs.DeviceID{} }

func (i info) Mode() os.FileMode {
	if i.dir {
		return os.ModeDir | 0o700
	}
	return 0o600
}
