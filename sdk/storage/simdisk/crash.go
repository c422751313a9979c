package simdisk

import (
	"hash/maphash"
	"math/rand/v2"
	"slices"
	"strings"
)

// platter is what is on the disk for good at a position of a log, and what may
// be there beside it.
type platter struct {
	seed    maphash.Seed
	nodes   map[int]*stored
	changes []*change // of names, in order
	order   Order
	root    int
	last    int // the highest number of a node
}

// Order tells of two names in one directory whether what is done to the later
// one never reaches the disk before what was done to the earlier one. The zero
// Order of a Config is PebbleOrder.
type Order func(earlier, later string) bool

// PebbleOrder is what pebble needs of a file system beyond what Sync promises: it
// makes a manifest, makes the marker that names it, removes the old marker, and
// syncs the directory once. ext4, xfs and btrfs journal what is done to a
// directory in order; a disk that had the last of the three alone would be an
// empty database to pebble.
func PebbleOrder(earlier, later string) bool {
	return strings.HasPrefix(later, "marker.") && (strings.HasPrefix(earlier, "marker.") || strings.HasPrefix(earlier, "MANIFEST-"))
}

// stored is a file or a directory on the platter.
type stored struct {
	names map[string]int // of a directory
	data  []byte         // of a file; shared, never changed in place
	sum   uint64         // of data's sectors
	dirty []*sector
}

// sector is a piece of a file that was written and not synced.
type sector struct {
	at int64
	// images are what it may be beside what it was: as each write left it.
	images [][]byte
	sums   []uint64 // of images
	lost   bool     // its sync failed: none to come will bring it to the disk
}

// change of names that is not synced.
type change struct {
	dir   int
	sets  []set
	needs []*change
	lost  bool
}

// set gives a name to a node; 0: takes it away.
type set struct {
	name string
	node int
}

func newPlatter(l *Log, order Order, seed maphash.Seed) *platter {
	if order == nil {
		order = PebbleOrder
	}
	p := &platter{seed: seed, nodes: map[int]*stored{}, order: order, root: l.base.root.num, last: l.base.last}
	var add func(n *node)
	add = func(n *node) {
		s := &stored{data: slices.Clip(n.data)}
		for at := 0; at < len(s.data); at += sectorSize {
			s.sum += p.sumAt(int64(at), s.data[at:min(at+sectorSize, len(s.data))])
		}
		p.nodes[n.num] = s
		if n.isDir() {
			s.names = make(map[string]int, len(n.names))
			for name, child := range n.names {
				s.names[name] = child.num
				add(child)
			}
		}
	}
	add(l.base.root)
	return p
}

// apply moves the position past an operation.
func (p *platter) apply(op *Op) {
	p.last = max(p.last, op.node)
	switch op.Kind {
	case Create, Mkdir:
		s := &stored{}
		if op.Kind == Mkdir {
			s.names = map[string]int{}
		}
		p.nodes[op.node] = s
		p.change(op.dir, set{op.name, op.node})
	case Link:
		p.change(op.dir, set{op.name, op.node})
	case Remove:
		p.change(op.dir, set{op.name, 0})
	case Rename:
		if op.dir == op.dir2 {
			p.change(op.dir, set{op.name, 0}, set{op.name2, op.node})
			return
		}
		to := p.change(op.dir2, set{op.name2, op.node})
		from := p.change(op.dir, set{op.name, 0})
		from.needs = append(from.needs, to)
	case Write:
		p.write(p.nodes[op.node], op.Offset, op.Data)
	case Sync:
		p.sync(p.nodes[op.node], op.failed)
	case SyncDir:
		p.syncDir(op.node, op.failed)
	}
}

func (p *platter) change(dir int, sets ...set) *change {
	c := &change{dir: dir, sets: sets}
	for _, earlier := range p.changes {
		if earlier.dir == dir && slices.ContainsFunc(earlier.sets, func(e set) bool {
			return slices.ContainsFunc(sets, func(l set) bool { return e.name == l.name || p.order(e.name, l.name) })
		}) {
			c.needs = append(c.needs, earlier)
		}
	}
	p.changes = append(p.changes, c)
	return c
}

func (p *platter) syncDir(dir int, failed bool) {
	settled := map[*change]bool{}
	var settle func(c *change)
	settle = func(c *change) {
		if !settled[c] {
			settled[c] = true
			for _, n := range c.needs {
				settle(n)
			}
		}
	}
	for _, c := range p.changes {
		switch {
		case c.dir != dir:
		case failed:
			c.lost = true
		case !c.lost:
			settle(c)
		}
	}
	left := p.changes[:0:0]
	for _, c := range p.changes {
		if !settled[c] {
			left = append(left, c)
			continue
		}
		p.nodes[c.dir].set(c.sets)
	}
	for _, c := range left {
		c.needs = slices.DeleteFunc(c.needs, func(n *change) bool { return settled[n] })
	}
	p.changes = left
}

func (s *stored) set(sets []set) {
	for _, e := range sets {
		if e.node == 0 {
			delete(s.names, e.name)
		} else {
			s.names[e.name] = e.node
		}
	}
}

// now is the sector as the program sees it.
func (s *stored) now(at int64) ([]byte, *sector) {
	for _, sec := range s.dirty {
		if sec.at == at {
			return sec.images[len(sec.images)-1], sec
		}
	}
	return s.sector(at), nil
}

// sector is what of it is on the disk for good.
func (s *stored) sector(at int64) []byte {
	if at >= int64(len(s.data)) {
		return nil
	}
	return s.data[at:min(at+sectorSize, int64(len(s.data)))]
}

func (p *platter) write(s *stored, off int64, b []byte) {
	for len(b) > 0 {
		at := off / sectorSize * sectorSize
		n := min(int64(len(b)), at+sectorSize-off)
		before, sec := s.now(at)
		image := make([]byte, max(int64(len(before)), off-at+n))
		copy(image, before)
		copy(image[off-at:], b[:n])
		if sec == nil {
			sec = &sector{at: at}
			s.dirty = append(s.dirty, sec)
		}
		sec.images, sec.sums = append(sec.images, image), append(sec.sums, p.sumAt(at, image))
		sec.lost = false
		off, b = off+n, b[n:]
	}
}

func (p *platter) sync(s *stored, failed bool) {
	var left []*sector
	for _, sec := range s.dirty {
		switch {
		case failed:
			sec.lost = true
			left = append(left, sec)
		case sec.lost:
			left = append(left, sec)
		default:
			s.sum += sec.sums[len(sec.sums)-1] - p.sumAt(sec.at, s.sector(sec.at))
			s.data = overlay(s.data, sec.at, sec.images[len(sec.images)-1])
		}
	}
	s.dirty = left
}

// overlay is data with b at off; data stays as it is, for whoever else has it.
func overlay(data []byte, off int64, b []byte) []byte {
	if off < int64(len(data)) {
		data = slices.Clone(data)
	}
	if grow := off + int64(len(b)) - int64(len(data)); grow > 0 {
		data = append(data, make([]byte, grow)...)
	}
	copy(data[off:], b)
	return data
}

// slot is one thing that a crash decides: which of so many states it leaves.
type slot struct {
	states int
	change *change
	file   int
	sector *sector
}

// slots are what is open at this position, the oldest first within a kind.
func (p *platter) slots() []slot {
	var out []slot
	for _, c := range p.changes {
		out = append(out, slot{states: 2, change: c})
	}
	for _, num := range p.reachable() {
		for _, sec := range p.nodes[num].dirty {
			out = append(out, slot{states: 1 + len(sec.images), file: num, sector: sec})
		}
	}
	return out
}

// reachable are the files that may have a name after a crash, in their order.
func (p *platter) reachable() []int {
	named := map[int]bool{}
	for _, s := range p.nodes {
		for _, num := range s.names {
			named[num] = true
		}
	}
	for _, c := range p.changes {
		for _, e := range c.sets {
			named[e.node] = true
		}
	}
	var out []int
	for num, s := range p.nodes {
		switch {
		case num == p.root || named[num]:
			if len(s.dirty) > 0 {
				out = append(out, num)
			}
		case s.names == nil:
			// Nothing gives it a name again but a descriptor's write, which
			// nobody will read.
			s.dirty = nil
		}
	}
	slices.Sort(out)
	return out
}

// choice has one state per slot.
type choice []uint8

// combinations of the slots' states, at most limit.
func combinations(slots []slot, limit int) int {
	n := 1
	for _, s := range slots {
		if n *= s.states; n > limit {
			return limit + 1
		}
	}
	return n
}

// nth is the choice of that number when all are counted through.
func nth(slots []slot, n int) choice {
	c := make(choice, len(slots))
	for i, s := range slots {
		c[i] = uint8(n % s.states)
		n /= s.states
	}
	return c
}

// sample is a choice by chance. Chances that are the same for each slot would
// hardly ever meet the ones that hurt: all but one, one alone, a prefix.
func sample(slots []slot, rng *rand.Rand) choice {
	c := make(choice, len(slots))
	names := 0
	for names < len(slots) && slots[names].change != nil {
		names++
	}
	sampleSome(slots[:names], c[:names], rng)
	sampleSome(slots[names:], c[names:], rng)
	return c
}

func sampleSome(slots []slot, c choice, rng *rand.Rand) {
	if len(slots) == 0 {
		return
	}
	last := func(i int) uint8 { return uint8(slots[i].states - 1) }
	pick := rng.IntN(len(slots))
	switch rng.IntN(8) {
	case 0: // none
	case 1: // all
		for i := range c {
			c[i] = last(i)
		}
	case 2: // in order, up to one
		for i := range pick + 1 {
			c[i] = last(i)
		}
	case 3: // from one on
		for i := pick; i < len(c); i++ {
			c[i] = last(i)
		}
	case 4: // all but one
		for i := range c {
			c[i] = last(i)
		}
		c[pick] = 0
	case 5: // one alone
		c[pick] = last(pick)
	default:
		chance := 1 + rng.IntN(9)
		for i := range c {
			if rng.IntN(10) < chance {
				c[i] = uint8(rng.IntN(slots[i].states))
			}
		}
	}
}

// decision is a choice, worked out.
type decision struct {
	p      *platter
	edits  map[int][]set  // of directories
	images map[int][]slot // of files
	chosen map[*sector]uint8
}

func (p *platter) decide(slots []slot, c choice) *decision {
	kept := map[*change]bool{}
	d := &decision{p: p, edits: map[int][]set{}, images: map[int][]slot{}, chosen: map[*sector]uint8{}}
	for i, s := range slots {
		switch {
		case c[i] == 0:
		case s.change != nil:
			kept[s.change] = true
		default:
			d.images[s.file] = append(d.images[s.file], s)
			d.chosen[s.sector] = c[i]
		}
	}
	for _, ch := range p.changes { // what it needs stands before it
		ok := kept[ch]
		for _, n := range ch.needs {
			ok = ok && kept[n]
		}
		if kept[ch] = ok; ok {
			d.edits[ch.dir] = append(d.edits[ch.dir], ch.sets...)
		}
	}
	return d
}

// names of a directory after the crash.
func (d *decision) names(num int) map[string]int {
	names, edits := d.p.nodes[num].names, d.edits[num]
	if edits == nil {
		return names
	}
	with := stored{names: make(map[string]int, len(names)+len(edits))}
	for name, child := range names {
		with.names[name] = child
	}
	with.set(edits)
	return with.names
}

// disk is what the crash leaves.
func (d *decision) disk() *Disk {
	out := New()
	out.last = d.p.last
	out.root = d.node(d.p.root, map[int]*node{})
	return out
}

func (d *decision) node(num int, made map[int]*node) *node {
	s, n := d.p.nodes[num], made[num]
	switch {
	case n != nil: // a second name of a file
		return n
	case s.names == nil:
		n = &node{num: num, data: s.data, borrowed: true}
		if d.images[num] != nil {
			n.data = d.content(num)
		}
		made[num] = n
		return n
	}
	names := d.names(num)
	n = &node{num: num, names: make(map[string]*node, len(names))}
	for name, child := range names {
		n.names[name] = d.node(child, made)
	}
	return n
}

// size of a file after the crash.
func (d *decision) size(num int) int64 {
	size := int64(len(d.p.nodes[num].data))
	for _, sl := range d.images[num] {
		size = max(size, sl.sector.at+int64(len(sl.sector.images[d.chosen[sl.sector]-1])))
	}
	return size
}

// content is a file with the chosen sectors.
func (d *decision) content(num int) []byte {
	data := make([]byte, d.size(num))
	copy(data, d.p.nodes[num].data)
	for _, sl := range d.images[num] {
		copy(data[sl.sector.at:], sl.sector.images[d.chosen[sl.sector]-1])
	}
	return data
}
