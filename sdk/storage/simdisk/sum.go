package simdisk

import (
	"bytes"
	"hash/maphash"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"
)

// Nine of ten crashes leave what another one has left. Therefore a disk has a sum
// that is worked out from its sectors and names without making the disk: what is
// the same at all crashes of a position is summed up once.

// sumAt is a sector's part in the sum of its file. Zeros at its end have none, so
// that nothing changes when the file grows behind it; nor have those between.
func (p *platter) sumAt(at int64, b []byte) uint64 {
	b = bytes.TrimRight(b, "\x00")
	if len(b) == 0 {
		return 0
	}
	return mix(p.seed, maphash.Bytes(p.seed, b), uint64(at))
}

func mix(seed maphash.Seed, a, b uint64) uint64 {
	return maphash.Comparable(seed, [2]uint64{a, b})
}

// position has what the sums of a position's crashes have in common.
type position struct {
	p       *platter
	touched map[int]bool // nodes with something open, and directories above
	sums    map[int]uint64
}

func newPosition(p *platter, slots []slot) *position {
	o := &position{p: p, touched: map[int]bool{}, sums: map[int]uint64{}}
	open := map[int][]int{} // what else may stand in a directory
	for _, s := range slots {
		if s.change == nil {
			o.touched[s.file] = true
			continue
		}
		o.touched[s.change.dir] = true
		for _, e := range s.change.sets {
			if e.node != 0 {
				open[s.change.dir] = append(open[s.change.dir], e.node)
			}
		}
	}
	o.touch(p.root, open)
	return o
}

// touch finds out which directories are above something open.
func (o *position) touch(num int, open map[int][]int) bool {
	touched := o.touched[num]
	for _, child := range o.p.nodes[num].names {
		touched = o.touch(child, open) || touched
	}
	for _, child := range open[num] {
		touched = o.touch(child, open) || touched
	}
	o.touched[num] = touched
	return touched
}

// sum of the disk that d leaves; it is not made for that.
func (o *position) sum(d *decision) uint64 { return o.of(d, o.p.root) }

func (o *position) of(d *decision, num int) uint64 {
	if sum, ok := o.sums[num]; ok {
		return sum
	}
	s, sum := o.p.nodes[num], uint64(0)
	if s.names == nil {
		sum = s.sum
		for _, sl := range d.images[num] {
			sum += sl.sector.sums[d.chosen[sl.sector]-1] - o.p.sumAt(sl.sector.at, s.sector(sl.sector.at))
		}
		sum = mix(o.p.seed, sum, uint64(d.size(num)))
	} else {
		for name, child := range d.names(num) {
			sum += mix(o.p.seed, maphash.String(o.p.seed, name), o.of(d, child))
		}
		sum = mix(o.p.seed, sum, 1<<63)
	}
	if !o.touched[num] {
		o.sums[num] = sum
	}
	return sum
}

// Sum is a hash of all that lies below a path, names and octets; 0 if nothing
// does. It is the same for the same content within one process.
func (d *Disk) Sum(name string) uint64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := d.find(name)
	if n == nil {
		return 0
	}
	return n.sum()
}

var contentSeed = maphash.MakeSeed()

func (n *node) sum() uint64 {
	if !n.isDir() {
		return maphash.Bytes(contentSeed, n.data)
	}
	sum := uint64(1)
	for name, child := range n.names {
		sum += mix(contentSeed, maphash.String(contentSeed, name), child.sum())
	}
	return sum
}

// SumDB is a hash of all that a database has, keys and values, wherever in its
// files they stand. All of it is read.
func SumDB(db pebble.Reader) (uint64, error) {
	it, err := db.NewIter(nil)
	if err != nil {
		return 0, err
	}
	defer it.Close()
	var h maphash.Hash
	h.SetSeed(contentSeed)
	for valid := it.First(); valid; valid = it.Next() {
		v, err := it.ValueAndErr()
		if err != nil {
			return 0, err
		}
		maphash.WriteComparable(&h, [2]int{len(it.Key()), len(v)})
		h.Write(it.Key())
		h.Write(v)
	}
	return h.Sum64(), it.Error()
}

// judgeAgain: of so many contents that were found right before, one is judged
// all the same.
const judgeAgain = 32

// Judged remembers which contents were found right. Crashes differ in what they
// leave in files more than in what a database makes of it when it opens: that is
// what is judged, and once for each answer is enough but for a few, whose files
// lie otherwise. The zero value is ready.
type Judged struct {
	mu    sync.Mutex
	right map[uint64]bool
	n     atomic.Int64
}

// Once calls judge, unless it found nothing wrong with the same content under the
// same oracle before.
func (j *Judged) Once(content, oracle uint64, judge func() error) error {
	key := mix(contentSeed, content, oracle)
	j.mu.Lock()
	known := j.right[key]
	j.mu.Unlock()
	if known && j.n.Add(1)%judgeAgain != 0 {
		return nil
	}
	err := judge()
	if err == nil && !known {
		j.mu.Lock()
		defer j.mu.Unlock()
		if j.right == nil {
			j.right = map[uint64]bool{}
		}
		j.right[key] = true
	}
	return err
}
