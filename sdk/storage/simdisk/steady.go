package simdisk

import (
	"errors"
	"os"
	"sync"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// Steady has a pebble database do the same to its files each time that the same is
// done to it, so that a seed repeats a log: nothing is compacted unasked, and the
// files that it needs no more stay until Sweep. The zero value is ready.
type Steady struct {
	mu   sync.Mutex
	gone []goneFile
}

type goneFile struct {
	fs   vfs.FS
	path string
}

// Tune is for the database's options, before it is opened.
func (s *Steady) Tune(o *pebble.Options) {
	o.DisableAutomaticCompactions = true
	// Besides, pebble 2.1 panics in them when Open fails.
	o.DisableTableStats = true
	// Getting 16 MiB is a tenth of what a recovery costs.
	o.MemTableSize = 2 << 20
	o.Cleaner = cleanerOf(s, pebble.Cleaner.Clean)
}

// cleaner is a pebble.Cleaner, whose method has a parameter of a type T that has
// no name outside of pebble.
type cleaner[T any] struct{ s *Steady }

func cleanerOf[T any](s *Steady, _ func(pebble.Cleaner, vfs.FS, T, string) error) cleaner[T] {
	return cleaner[T]{s}
}

// Clean is part of pebble.Cleaner: it notes the file.
func (c cleaner[T]) Clean(fs vfs.FS, _ T, path string) error {
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	c.s.gone = append(c.s.gone, goneFile{fs, path})
	return nil
}

// String is a name that pebble's file of options gets.
func (cleaner[T]) String() string { return "delete" }

// Sweep removes what db needs no more. Without it a database only grows, until
// one without Steady opens it.
func (s *Steady) Sweep(db *pebble.DB) error {
	db.TestOnlyWaitForCleaning()
	s.mu.Lock()
	defer s.mu.Unlock()
	gone := s.gone
	s.gone = nil
	for _, g := range gone {
		if err := g.fs.Remove(g.path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return nil
}
