package simdisk

import (
	"fmt"
	"strings"
)

// Kind of an operation.
type Kind uint8

// The operations that change a disk.
const (
	Create Kind = iota + 1
	Write
	Sync    // of a file
	SyncDir // of a directory
	Link
	Rename
	Remove
	Mkdir
	Read // changes nothing, stands in no log, and fails only when asked for by name
)

func (k Kind) String() string {
	return [...]string{"", "create", "write", "sync", "sync", "link", "rename", "remove", "mkdir", "read"}[k]
}

// Op is one operation.
type Op struct {
	// Kind of it.
	Kind Kind
	// Path as it was named; To for Link and Rename.
	Path, To string
	// Offset and Data of a Write; Data is the log's and must not be changed.
	Offset int64
	Data   []byte

	dir, dir2, node int
	name, name2     string
	failed          bool // a Sync that said so
}

func (o Op) String() string {
	s := o.Kind.String() + " " + strings.TrimPrefix(clean(o.Path), "/")
	if o.Kind == SyncDir {
		s += "/"
	}
	if o.To != "" {
		s += " -> " + strings.TrimPrefix(clean(o.To), "/")
	}
	if o.Kind == Write {
		s += fmt.Sprintf(" %d+%d", o.Offset, len(o.Data))
	}
	if o.failed {
		s += " (failed)"
	}
	return s
}

// Log is what was done to a disk, from a moment on.
type Log struct {
	d    *Disk
	base *Disk // the disk at that moment
	ops  []Op
}

// Record starts a log. What is on the disk now counts as synced. A disk has one
// log: an older one gets nothing more.
func (d *Disk) Record() *Log {
	base := d.Clone()
	d.mu.Lock()
	defer d.mu.Unlock()
	// The base has the same nodes under the same numbers.
	renumber(d.root, base.root)
	base.last = d.last
	d.log = &Log{d: d, base: base}
	return d.log
}

func renumber(from, to *node) {
	to.num = from.num
	for name, n := range from.names {
		renumber(n, to.names[name])
	}
}

// Len is how many operations there are by now: a position in the log. What was
// acknowledged at a position must outlive a crash at it and at every later one.
func (l *Log) Len() int {
	l.d.mu.Lock()
	defer l.d.mu.Unlock()
	return len(l.ops)
}

// Ops are the operations from a position on.
func (l *Log) Ops(from int) []Op {
	l.d.mu.Lock()
	defer l.d.mu.Unlock()
	return append([]Op(nil), l.ops[from:]...)
}

// Stop ends the log.
func (l *Log) Stop() {
	l.d.mu.Lock()
	defer l.d.mu.Unlock()
	if l.d.log == l {
		l.d.log = nil
	}
}

// record notes an operation; mu is held. Writes that follow each other in a file
// become one: how a writer cuts its octets is chance, and a crash between the
// two is one that keeps a part of both.
func (d *Disk) record(op Op) {
	l := d.log
	if l == nil {
		return
	}
	if op.Kind == Write {
		if n := len(l.ops) - 1; n >= 0 {
			last := &l.ops[n]
			if last.Kind == Write && last.node == op.node && last.Offset+int64(len(last.Data)) == op.Offset {
				last.Data = append(last.Data, op.Data...)
				return
			}
		}
		op.Data = append([]byte(nil), op.Data...)
	}
	l.ops = append(l.ops, op)
}
