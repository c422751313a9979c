package queue

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/rs/zerolog"
)

// stopper remembers the first failure after which nothing is safe any more.
type stopper struct {
	once   sync.Once
	reason error
	down   chan struct{} // closed after reason is set
	failed chan error
}

func newStopper() *stopper {
	return &stopper{down: make(chan struct{}), failed: make(chan error, 1)}
}

func (s *stopper) stop(err error) {
	s.once.Do(func() {
		s.reason = fmt.Errorf("%w: %w", ErrStopped, err)
		close(s.down)
		s.failed <- s.reason
	})
}

// err is nil until the queue stopped.
func (s *stopper) err() error {
	select {
	case <-s.down:
		return s.reason
	default:
		return nil
	}
}

// syncGuard watches every sync of the queue's files: after a failed one the
// kernel may have thrown the pages away, and a later sync would lie about them
// (promise 2 of the queue).
type syncGuard struct {
	vfs.FS
	s *stopper
}

func (g syncGuard) file(f vfs.File, err error) (vfs.File, error) {
	if err != nil {
		return nil, err
	}
	return guardedFile{f, g.s}, nil
}

func (g syncGuard) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	return g.file(g.FS.Create(name, c))
}

func (g syncGuard) OpenReadWrite(name string, c vfs.DiskWriteCategory, o ...vfs.OpenOption) (vfs.File, error) {
	return g.file(g.FS.OpenReadWrite(name, c, o...))
}

func (g syncGuard) OpenDir(name string) (vfs.File, error) { return g.file(g.FS.OpenDir(name)) }

func (g syncGuard) ReuseForWrite(from, to string, c vfs.DiskWriteCategory) (vfs.File, error) {
	return g.file(g.FS.ReuseForWrite(from, to, c))
}

// Unwrap is for pebble, which asks what disk lies below.
func (g syncGuard) Unwrap() vfs.FS { return g.FS }

type guardedFile struct {
	vfs.File
	s *stopper
}

func (f guardedFile) watch(err error) error {
	if err != nil {
		f.s.stop(fmt.Errorf("sync: %w", err))
	}
	return err
}

func (f guardedFile) Sync() error     { return f.watch(f.File.Sync()) }
func (f guardedFile) SyncData() error { return f.watch(f.File.SyncData()) }

func (f guardedFile) SyncTo(n int64) (bool, error) {
	full, err := f.File.SyncTo(n)
	return full, f.watch(err)
}

// dbFS is the database's: what pebble answers with a panic, some of it while it
// holds a lock twice given back, which ends a process without a word, stops the
// queue here, and the goroutine that found it stays where it is.
type dbFS struct {
	syncGuard
	opened *atomic.Bool
}

func (f dbFS) park(what string, err error) {
	if err != nil {
		f.s.stop(fmt.Errorf("%s: %w", what, err))
		select {}
	}
}

// retryPause is between two tries to write a table: pebble makes none.
const retryPause = 100 * time.Millisecond

// pause is for a table that cannot be written, on a full disk, say. While the
// queue opens, pebble would try for ever and nobody would hear of it.
func (f dbFS) pause(err error) error {
	if !f.opened.Load() {
		f.park("write a table", err)
	}
	if err != nil {
		select {
		case <-time.After(retryPause):
		case <-f.s.down:
		}
	}
	return err
}

func (f dbFS) file(g vfs.File, err error) (vfs.File, error) {
	if err != nil {
		return nil, err
	}
	return dbFile{g, f, false}, nil
}

func (f dbFS) log(name string, g vfs.File, err error) (vfs.File, error) {
	if !strings.HasSuffix(name, ".log") {
		return f.file(g, f.pause(err))
	}
	f.park("make a log", err)
	return dbFile{g, f, true}, nil
}

func (f dbFS) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	g, err := f.FS.Create(name, c)
	return f.log(name, g, err)
}

func (f dbFS) ReuseForWrite(from, to string, c vfs.DiskWriteCategory) (vfs.File, error) {
	g, err := f.FS.ReuseForWrite(from, to, c)
	return f.log(to, g, err)
}

func (f dbFS) OpenReadWrite(name string, c vfs.DiskWriteCategory, o ...vfs.OpenOption) (vfs.File, error) {
	return f.file(f.FS.OpenReadWrite(name, c, o...))
}

func (f dbFS) OpenDir(name string) (vfs.File, error) { return f.file(f.FS.OpenDir(name)) }

type dbFile struct {
	vfs.File
	fs  dbFS
	log bool
}

func (f dbFile) Write(b []byte) (int, error) {
	n, err := f.File.Write(b)
	if f.log {
		f.fs.park("write the log", err)
	}
	return n, f.fs.pause(err)
}

func (f dbFile) Sync() error {
	f.fs.park("sync", f.File.Sync())
	return nil
}

func (f dbFile) SyncData() error {
	f.fs.park("sync", f.File.SyncData())
	return nil
}

func (f dbFile) SyncTo(n int64) (bool, error) {
	full, err := f.File.SyncTo(n)
	f.fs.park("sync", err)
	return full, nil
}

// dbLog is pebble's logger. What pebble calls fatal would end the process; here
// it stops the queue, and the goroutine that found it stays where it is: it
// holds locks over a state that must not be used.
type dbLog struct {
	log zerolog.Logger
	s   *stopper
}

func (l dbLog) Infof(format string, args ...any)  { l.log.Debug().Msgf(format, args...) }
func (l dbLog) Errorf(format string, args ...any) { l.log.Error().Msgf(format, args...) }

func (l dbLog) Fatalf(format string, args ...any) {
	l.s.stop(fmt.Errorf(format, args...))
	select {}
}

// isFull tells a full disk or quota from other errors.
func isFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}
