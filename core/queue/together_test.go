package queue

import (
	"errors"
	"maps"
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// gated is fs with a gate before the syncs of the database's log.
func (w *world) gated(fs vfs.FS) vfs.FS {
	return w.gate.FS(fs, func(path string) bool { return strings.HasSuffix(path, ".log") })
}

// together has several callers at once. The first one's sync is held up until all
// others have joined the next group, in an order that the seed repeats; then it
// passes, and its caller is answered while the group of the others is written and
// not synced.
func (w *world) together() error {
	w.gate.Shut()
	defer w.gate.Open()
	first := w.start(w.beginPut())
	w.gate.Meet()
	all := []*caller{first}
	free := maps.Clone(w.held) // one call for each claim
	for range 1 + w.rng.IntN(4) {
		c := w.beginPut
		if subject, ok := pick(w, free); ok && w.rng.IntN(2) == 0 {
			delete(free, subject)
			c = func() *call { return w.beginCommit(subject) }
		}
		all = append(all, w.start(c()))
	}
	w.gate.Pass()
	errs := []error{<-first.done}
	w.gate.Meet()
	w.reached(first.next)
	w.gate.Open()
	for _, c := range all[1:] {
		errs = append(errs, <-c.done)
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	w.lazy = false
	for _, c := range all {
		c.well()
	}
	return nil
}

type caller struct {
	*call
	done chan error
}

// start has a call made by a goroutine of its own and returns when it is in a
// group.
func (w *world) start(c *call) *caller {
	w.doing(c.next)
	w.now = c.next
	k := &caller{c, make(chan error, 1)}
	e := w.e
	e.mu.Lock()
	defer e.mu.Unlock()
	g, had, ended := e.group, e.group.batch.Count(), false
	go func() {
		k.done <- c.run()
		e.mu.Lock()
		defer e.mu.Unlock()
		ended = true
		e.changed.Broadcast()
	}()
	for e.group == g && g.batch.Count() == had && !ended {
		e.changed.Wait()
	}
	return k
}
