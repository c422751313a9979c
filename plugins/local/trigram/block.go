package trigram

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"slices"
)

// Slots is how many messages a block has room for.
const Slots = 256

// Mask is a set of slots.
type Mask [Slots / 64]uint64

// All is the mask of all slots.
var All = Mask{^uint64(0), ^uint64(0), ^uint64(0), ^uint64(0)}

// Has tells whether the slot is in the mask.
func (m *Mask) Has(slot int) bool { return m[slot/64]&(1<<(slot%64)) != 0 }

func (m *Mask) set(slot int) { m[slot/64] |= 1 << (slot % 64) }

func (m *Mask) and(n *Mask) {
	for i := range m {
		m[i] &= n[i]
	}
}

func (m *Mask) or(n *Mask) {
	for i := range m {
		m[i] |= n[i]
	}
}

// The encoding of a block, little-endian:
//
//	magic, 8 octets
//	owner and number of the block, 8 octets each
//	open mask: slots that are in every answer
//	1024 buckets: offset of its data and the data's CRC-32C, 4 octets each
//	offset of the end, 4 octets
//	CRC-32C of all of the above, 4 octets
//	data of the buckets
//
// A bucket has the trigrams of the same upper 10 bits, growing: the lower 14 bits
// in 2 octets, a kind and its slots. Whatever is torn, cut off or turned is noticed
// where it is read, so nothing of it needs a sync.
const (
	magic      = "SCtri\x00\x00\x01"
	buckets    = 1024
	bucketBits = 14
	atOpen     = 8 + 8 + 8
	atBuckets  = atOpen + Slots/8
	atEnd      = atBuckets + buckets*8
	headerLen  = atEnd + 4 + 4

	// Kinds of a trigram: up to maxList so many slots follow, one octet each.
	maxList   = Slots/8 - 1
	kindMask  = 0xfe // a mask follows
	kindEvery = 0xff // nothing follows: it is left out for the room, and excludes nobody
)

var (
	le         = binary.LittleEndian
	castagnoli = crc32.MakeTable(crc32.Castagnoli)

	// ErrDamaged: the block is not what was written.
	ErrDamaged = errors.New("the block is damaged")
)

// Builder makes a block.
type Builder struct {
	pairs []uint32 // trigram<<8 | slot, the slots growing
	open  Mask
	spare []uint32
}

// Reset begins another block.
func (b *Builder) Reset() { b.pairs, b.open = b.pairs[:0], Mask{} }

// Add puts a message into the block, by growing slot.
func (b *Builder) Add(slot int, s *Set) {
	if s.full {
		b.Open(slot)
		return
	}
	for _, t := range s.list {
		b.pairs = append(b.pairs, t<<8|uint32(slot))
	}
}

// Open has the slot in every answer.
func (b *Builder) Open(slot int) { b.open.set(slot) }

// term is a trigram's place in the sorted pairs.
type term struct{ from, to int }

func (t term) size() int {
	if n := t.to - t.from; n <= maxList {
		return 3 + n
	}
	return 3 + Slots/8
}

// Encode returns the block. Of what is longer than limit octets the commonest
// trigrams are left out, which exclude the fewest; 0: no limit.
func (b *Builder) Encode(owner, number uint64, limit int64) []byte {
	b.sort()
	var terms []term
	total := 0
	for i := 0; i < len(b.pairs); {
		j := i + 1
		for j < len(b.pairs) && b.pairs[j]>>8 == b.pairs[i]>>8 {
			j++
		}
		terms = append(terms, term{i, j})
		total += terms[len(terms)-1].size()
		i = j
	}
	most := Slots // slots of a trigram that is kept
	if limit > 0 && int64(headerLen+total) > limit {
		most = fit(terms, int(max(0, limit-headerLen)))
	}
	out := make([]byte, headerLen, headerLen+total)
	copy(out, magic)
	le.PutUint64(out[8:], owner)
	le.PutUint64(out[16:], number)
	for i, w := range b.open {
		le.PutUint64(out[atOpen+8*i:], w)
	}
	next := 0
	for bucket := range buckets {
		start := len(out)
		le.PutUint32(out[atBuckets+8*bucket:], uint32(start))
		for ; next < len(terms) && b.pairs[terms[next].from]>>(8+bucketBits) == uint32(bucket); next++ {
			out = b.appendTerm(out, terms[next], most)
		}
		le.PutUint32(out[atBuckets+8*bucket+4:], crc32.Checksum(out[start:], castagnoli))
	}
	le.PutUint32(out[atEnd:], uint32(len(out)))
	le.PutUint32(out[atEnd+4:], crc32.Checksum(out[:atEnd+4], castagnoli))
	return out
}

// fit returns how many slots a trigram may have so that the terms take room octets,
// as far as leaving out can do that.
func fit(terms []term, room int) (most int) {
	var bySlots [Slots + 1]int
	total := 0
	for _, t := range terms {
		bySlots[t.to-t.from] += t.size() - 3
		total += t.size()
	}
	for most = Slots; most > 0 && total > room; most-- {
		total -= bySlots[most]
	}
	return most
}

func (b *Builder) appendTerm(out []byte, t term, most int) []byte {
	pairs := b.pairs[t.from:t.to]
	out = le.AppendUint16(out, uint16(pairs[0]>>8&(1<<bucketBits-1)))
	switch n := len(pairs); {
	case n > most:
		return append(out, kindEvery)
	case n <= maxList:
		out = append(out, byte(n))
		for _, p := range pairs {
			out = append(out, byte(p))
		}
		return out
	}
	var m Mask
	for _, p := range pairs {
		m.set(int(p & 0xff))
	}
	out = append(out, kindMask)
	for _, w := range m {
		out = le.AppendUint64(out, w)
	}
	return out
}

// sort orders the pairs by trigram: by its lower and then its upper 12 bits, each
// time keeping the order there is.
func (b *Builder) sort() {
	b.spare = slices.Grow(b.spare[:0], len(b.pairs))[:len(b.pairs)]
	for _, shift := range []int{8, 20} {
		var at [1 << 12]int
		for _, p := range b.pairs {
			at[p>>shift&0xfff]++
		}
		sum := 0
		for i, n := range at {
			at[i] = sum
			sum += n
		}
		for _, p := range b.pairs {
			k := p >> shift & 0xfff
			b.spare[at[k]] = p
			at[k]++
		}
		b.pairs, b.spare = b.spare, b.pairs
	}
}

// Block looks up what Encode has written.
type Block struct {
	r      io.ReaderAt
	header []byte
}

// Load reads the head of a block; ErrDamaged if it is not whole, or another's.
func Load(r io.ReaderAt, owner, number uint64) (*Block, error) {
	h := make([]byte, headerLen)
	if _, err := r.ReadAt(h, 0); err != nil {
		if errors.Is(err, io.EOF) {
			err = ErrDamaged
		}
		return nil, err
	}
	if string(h[:8]) != magic || le.Uint32(h[atEnd+4:]) != crc32.Checksum(h[:atEnd+4], castagnoli) {
		return nil, ErrDamaged
	}
	if le.Uint64(h[8:]) != owner || le.Uint64(h[16:]) != number {
		return nil, fmt.Errorf("%w: it belongs elsewhere", ErrDamaged)
	}
	return &Block{r, h}, nil
}

// Find returns the slots whose messages may contain the text; ErrDamaged or an
// error of the reader: nobody knows.
func (b *Block) Find(text string) (Mask, error) {
	var open Mask
	for i := range open {
		open[i] = le.Uint64(b.header[atOpen+8*i:])
	}
	found := All
	for _, t := range of(text) {
		m, err := b.slots(t)
		if err != nil {
			return All, err
		}
		if found.and(&m); found == (Mask{}) {
			break
		}
	}
	found.or(&open)
	return found, nil
}

// slots of one trigram.
func (b *Block) slots(t uint32) (m Mask, err error) {
	at := atBuckets + 8*int(t>>bucketBits)
	// The next bucket's offset, or the end's, stands behind this one's.
	from, sum, to := le.Uint32(b.header[at:]), le.Uint32(b.header[at+4:]), le.Uint32(b.header[at+8:])
	if to <= from {
		if to < from {
			err = ErrDamaged
		}
		return m, err
	}
	data := make([]byte, to-from)
	if _, err := b.r.ReadAt(data, int64(from)); err != nil {
		if errors.Is(err, io.EOF) {
			err = ErrDamaged
		}
		return m, err
	}
	if crc32.Checksum(data, castagnoli) != sum {
		return m, ErrDamaged
	}
	low := uint16(t & (1<<bucketBits - 1))
	for len(data) >= 3 {
		key, kind := le.Uint16(data), data[2]
		data = data[3:]
		n := 0
		switch {
		case kind == kindMask:
			n = Slots / 8
		case kind != kindEvery:
			n = int(kind)
		}
		if len(data) < n {
			return m, ErrDamaged
		}
		if key == low {
			return slotsOf(kind, data[:n]), nil
		}
		if key > low {
			break
		}
		data = data[n:]
	}
	return m, nil
}

func slotsOf(kind byte, data []byte) (m Mask) {
	switch kind {
	case kindEvery:
		return All
	case kindMask:
		for i := range m {
			m[i] = le.Uint64(data[8*i:])
		}
	default:
		for _, slot := range data {
			m.set(int(slot))
		}
	}
	return m
}
