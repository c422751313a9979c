package local

import (
	"bytes"
	"container/list"
	"fmt"
	"io"
	"os"
	"sync"

	"github.com/stagecoach-mta/stagecoach/sdk/fail"
)

// views are the large messages that were fetched: the shared body with the
// message's own prefix before it, as one file, since a reference names a whole
// file. They are made when first asked for and are no part of what is durable:
// the least recently used go when they take too much room, and all at start.
// A message without a prefix is its own view.
type views struct {
	mu    sync.Mutex
	files map[string]*viewFile
	lru   list.List // of *viewFile, the last used at the front
	size  int64
}

type viewFile struct {
	path  string
	size  int64
	users int
	elem  *list.Element
	ready chan struct{}
	err   error
}

func (vs *views) clear(s *Store) error {
	vs.files = map[string]*viewFile{}
	old, err := s.fs.List(s.path("views"))
	if err != nil {
		return err
	}
	for _, f := range old {
		if err := s.fs.Remove(s.path("views", f)); err != nil {
			return err
		}
	}
	return nil
}

// get returns the path of a file that holds the message and stays until release.
func (vs *views) get(s *Store, account, msg uint64, r *rendered, blob io.Reader) (path string, release func(), err error) {
	if len(r.prefix) == 0 {
		return s.blobPath(r.blob), func() {}, nil
	}
	path = s.path("views", fmt.Sprintf("%016x-%016x.eml", account, msg))
	vs.mu.Lock()
	vf := vs.files[path]
	if vf == nil {
		vf = &viewFile{path: path, size: r.size, ready: make(chan struct{})}
		vf.elem = vs.lru.PushFront(vf)
		vs.files[path] = vf
		vs.size += vf.size
		vf.users++
		vs.evict(s)
		vs.mu.Unlock()
		vf.err = vs.make(s, path, r, blob)
		close(vf.ready)
	} else {
		vf.users++
		vs.lru.MoveToFront(vf.elem)
		vs.mu.Unlock()
		<-vf.ready
	}
	if vf.err != nil {
		vs.release(s, vf)
		return "", nil, vf.err
	}
	return path, func() { vs.release(s, vf) }, nil
}

func (vs *views) make(s *Store, path string, r *rendered, blob io.Reader) error {
	if err := s.room(r.size); err != nil {
		return fail.New(fail.NoSpace, "the disk has no room for the copy that reading a large message needs")
	}
	err := s.copyFile(path, io.MultiReader(bytes.NewReader(r.prefix), blob), false)
	if err != nil {
		_ = s.fs.Remove(path)
	}
	return err
}

func (vs *views) release(s *Store, vf *viewFile) {
	vs.mu.Lock()
	defer vs.mu.Unlock()
	vf.users--
	if vf.err != nil {
		vs.remove(vf)
		return
	}
	vs.evict(s)
}

// evict removes what is too much and not in use.
func (vs *views) evict(s *Store) {
	for e := vs.lru.Back(); e != nil && vs.size > s.opts.ViewBytes; {
		vf := e.Value.(*viewFile)
		e = e.Prev()
		if vf.users > 0 {
			continue
		}
		if err := s.fs.Remove(vf.path); err != nil && !os.IsNotExist(err) {
			s.opts.Log.Error().Err(err).Msg("storage local: removing a copy of a large message")
			continue
		}
		vs.remove(vf)
	}
}

func (vs *views) remove(vf *viewFile) {
	if vs.files[vf.path] == vf {
		delete(vs.files, vf.path)
		vs.lru.Remove(vf.elem)
		vs.size -= vf.size
	}
}
