package spool

import (
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stagecoach-mta/stagecoach/sdk/mail"
)

// ErrFull: no space on the disk (or in the quota) for the message.
var ErrFull = errors.New("no space left for the message")

// ErrClosed: the Writer was finished or aborted before.
var ErrClosed = errors.New("the message is finished")

// category is the label under which a counting file system books spool writes.
const category = vfs.DiskWriteCategory("stagecoach-spool")

// Dir is the directory of the files of messages that are not queued yet. It
// must lie on the queue's file system, so that the queue can take a file over
// by renaming it.
type Dir struct {
	fs   vfs.FS
	path string
	next atomic.Uint64
}

// OpenDir makes the directory if need be and removes what an earlier process
// left there: nobody was told that those messages are safe. One process opens a
// directory once.
func OpenDir(fs vfs.FS, path string) (*Dir, error) {
	if err := fs.MkdirAll(path, 0o700); err != nil {
		return nil, fmt.Errorf("make the spool directory: %w", err)
	}
	names, err := fs.List(path)
	if err != nil {
		return nil, fmt.Errorf("read the spool directory: %w", err)
	}
	for _, name := range names {
		if err := fs.Remove(fs.PathJoin(path, name)); err != nil {
			return nil, fmt.Errorf("sweep the spool directory: %w", err)
		}
	}
	return &Dir{fs: fs, path: path}, nil
}

// NewWriter starts a message. With a sizeHint (octets; 0: unknown) above
// mail.InlineLimit it goes to a file from the first octet.
func (d *Dir) NewWriter(sizeHint int64) *Writer {
	return &Writer{dir: d, toFile: sizeHint > mail.InlineLimit}
}

func (d *Dir) newName() string {
	return d.fs.PathJoin(d.path, strconv.FormatUint(d.next.Add(1), 36))
}

// bufferSize holds any message that stays in memory and, beyond that, is the
// size of the writes to the file.
const bufferSize = 2 * mail.InlineLimit

var buffers = sync.Pool{New: func() any { return new([bufferSize]byte) }}

// full turns a disk-full error into ErrFull and leaves any other as it is.
func full(err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return fmt.Errorf("%w: %w", ErrFull, err)
	}
	return err
}

// Link gives a body with the octets of b and a life of its own.
func (d *Dir) Link(b Body) (Body, error) {
	if b.Path() == "" {
		return b, nil
	}
	name := d.newName()
	if err := d.fs.Link(b.Path(), name); err != nil {
		return nil, full(err)
	}
	linked := &fileBody{fs: d.fs, path: name, size: b.Size()}
	if s, ok := b.(Summed); ok {
		if sum, ok := s.Sum(); ok {
			linked.sum = &sum
		}
	}
	return linked, nil
}
