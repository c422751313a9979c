package local

import (
	"io"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// prefixed reads a prefix and a file as one message.
type prefixed struct {
	*io.SectionReader
	prefix []byte
	file   vfs.File
}

func newPrefixed(prefix []byte, file vfs.File, size int64) *prefixed {
	p := &prefixed{prefix: append([]byte(nil), prefix...), file: file}
	p.SectionReader = io.NewSectionReader(joined{p}, 0, size)
	return p
}

func (p *prefixed) Close() error { return p.file.Close() }

type joined struct{ p *prefixed }

func (j joined) ReadAt(b []byte, off int64) (int, error) {
	n := 0
	if size := int64(len(j.p.prefix)); off < size {
		n = copy(b, j.p.prefix[off:])
		if n == len(b) {
			return n, nil
		}
		off = size
	}
	m, err := j.p.file.ReadAt(b[n:], off-int64(len(j.p.prefix)))
	return n + m, err
}
