package maildir

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// readingDir holds the names by which callers read large messages. It is emptied
// at each start.
const readingDir = ".stagecoach-reading"

// readingTime is how long a caller may take to open a message that it fetched.
// The session that carries the answer does not tell when it has been read, and
// who hands mail on to a slow client has many answers waiting.
const readingTime = time.Hour

// reading keeps second names of messages, because the first ones change with the
// flags, until their time is over.
type reading struct {
	dir string
	now func() time.Time

	mu    sync.Mutex
	seq   uint64
	names []secondName // by growing time
}

type secondName struct {
	path  string
	until time.Time
}

func newReading(dir string, now func() time.Time) (*reading, error) {
	r := &reading{dir: filepath.Join(dir, readingDir), now: now}
	if err := os.RemoveAll(r.dir); err != nil {
		return nil, err
	}
	return r, os.Mkdir(r.dir, 0o700)
}

// name gives the file a second name, for readingTime.
func (r *reading) name(file string) (string, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sweep(r.now())
	r.seq++
	// A file on another file system has its second name in its own folder's tmp,
	// which every program that knows Maildir cleans up.
	var err error
	for _, dir := range []string{r.dir, filepath.Join(filepath.Dir(filepath.Dir(file)), "tmp")} {
		path := filepath.Join(dir, fmt.Sprintf("%d.%d.eml", os.Getpid(), r.seq))
		if err = os.Link(file, path); err == nil {
			r.names = append(r.names, secondName{path, r.now().Add(readingTime)})
			return path, nil
		}
	}
	return "", err
}

// sweep removes the names whose time is over. Who has the file open reads on.
func (r *reading) sweep(now time.Time) {
	for len(r.names) > 0 && r.names[0].until.Before(now) {
		os.Remove(r.names[0].path)
		r.names = r.names[1:]
	}
}

func (r *reading) close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, n := range r.names {
		os.Remove(n.path)
	}
	r.names = nil
	os.RemoveAll(r.dir)
}
