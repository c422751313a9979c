package filter

import (
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/stagecoach-mta/stagecoach/sdk/mail"
)

// bodyKept is how long a large body stays: the core copies it while it reads the
// answer, and does not say when it has.
const bodyKept = time.Minute

// Bodies replaces bodies of any size: a large one becomes a file under the
// instance's data directory, and is removed a minute later. Safe for concurrent
// use. A filter that has one closes it in its Close.
type Bodies struct {
	dir string

	mu     sync.Mutex
	timers map[string]*time.Timer
}

// NewBodies also removes what an earlier process left behind. dataDir is
// Instance.DataDir, for which Needs must ask.
func NewBodies(dataDir string) (*Bodies, error) {
	b := &Bodies{dir: filepath.Join(dataDir, "bodies"), timers: map[string]*time.Timer{}}
	old, err := filepath.Glob(filepath.Join(b.dir, "body-*"))
	if err != nil {
		return nil, err
	}
	for _, path := range old {
		// On a reload the process before this one still answers.
		if info, err := os.Stat(path); err == nil && time.Since(info.ModTime()) > bodyKept {
			_ = os.Remove(path)
		}
	}
	return b, os.MkdirAll(b.dir, 0o700)
}

// Replace is Verdict.ReplaceBody for a body of any size. An error is that of
// writing the file.
func (b *Bodies) Replace(v *Verdict, body []byte) error {
	if len(body) <= mail.InlineLimit {
		v.ReplaceBody(body)
		return nil
	}
	file, err := os.CreateTemp(b.dir, "body-*")
	if err != nil {
		return err
	}
	path := file.Name()
	_, err = file.Write(body)
	if cerr := file.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		_ = os.Remove(path)
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.timers[path] = time.AfterFunc(bodyKept, func() { b.drop(path) })
	v.ReplaceBodyFile(path, int64(len(body)))
	return nil
}

func (b *Bodies) drop(path string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.timers, path)
	_ = os.Remove(path)
}

// Close removes all: nobody asks any more.
func (b *Bodies) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	for path, t := range b.timers {
		t.Stop()
		_ = os.Remove(path)
	}
	clear(b.timers)
	return nil
}
