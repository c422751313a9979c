package queue

import (
	"errors"
	"fmt"
	"sync"
	"syscall"

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
