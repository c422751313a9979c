package local

import (
	"strings"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// dbFS is the database's disk. What the database answers with a panic, some of it
// while it holds a lock that it gives back twice, ends the process here, with the
// reason in the log and nothing acknowledged.
type dbFS struct {
	vfs.FS
	s *Store
}

// must ends the process if err is not nil.
func (f dbFS) must(what, path string, err error) {
	if err != nil {
		f.s.fatal(what+" "+path, err)
	}
}

// retryPause is between two tries to write a table: the database makes none.
const retryPause = 100 * time.Millisecond

// pause is for a table that cannot be written, on a full disk, say: it is tried
// again. While the store opens it would be so for ever, and nobody would hear of
// it.
func (f dbFS) pause(path string, err error) error {
	if err == nil {
		return nil
	}
	if !f.s.opened.Load() {
		f.must("writing", path, err)
	}
	select {
	case <-time.After(retryPause):
	case <-f.s.stop:
	}
	return err
}

func (f dbFS) file(path string, g vfs.File, err error) (vfs.File, error) {
	if err != nil {
		return nil, err
	}
	return dbFile{g, f, path, false}, nil
}

func (f dbFS) made(path string, g vfs.File, err error) (vfs.File, error) {
	if !strings.HasSuffix(path, ".log") {
		return f.file(path, g, f.pause(path, err))
	}
	f.must("making", path, err)
	return dbFile{g, f, path, true}, nil
}

// Create is part of vfs.FS, as all below.
func (f dbFS) Create(path string, c vfs.DiskWriteCategory) (vfs.File, error) {
	g, err := f.FS.Create(path, c)
	return f.made(path, g, err)
}

func (f dbFS) ReuseForWrite(from, to string, c vfs.DiskWriteCategory) (vfs.File, error) {
	g, err := f.FS.ReuseForWrite(from, to, c)
	return f.made(to, g, err)
}

func (f dbFS) OpenReadWrite(path string, c vfs.DiskWriteCategory, o ...vfs.OpenOption) (vfs.File, error) {
	g, err := f.FS.OpenReadWrite(path, c, o...)
	return f.file(path, g, err)
}

func (f dbFS) OpenDir(path string) (vfs.File, error) {
	g, err := f.FS.OpenDir(path)
	return f.file(path, g, err)
}

func (f dbFS) Unwrap() vfs.FS { return f.FS }

type dbFile struct {
	vfs.File
	fs   dbFS
	path string
	log  bool
}

func (f dbFile) Write(b []byte) (int, error) {
	n, err := f.File.Write(b)
	if f.log {
		f.fs.must("writing", f.path, err)
	}
	return n, f.fs.pause(f.path, err)
}

// After a failed sync the kernel may have thrown the pages away: a later one
// would lie about them.
func (f dbFile) Sync() error {
	f.fs.must("fsync of", f.path, f.File.Sync())
	return nil
}

func (f dbFile) SyncData() error {
	f.fs.must("fsync of", f.path, f.File.SyncData())
	return nil
}

func (f dbFile) SyncTo(n int64) (bool, error) {
	full, err := f.File.SyncTo(n)
	f.fs.must("fsync of", f.path, err)
	return full, nil
}
