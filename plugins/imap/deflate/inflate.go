// Package deflate is RFC 1951 for a connection that both sides keep talking over
// (COMPRESS=DEFLATE, RFC 4978). It is no general compressor.
//
// compress/flate reads on until a block ends, and so gives nothing of a message
// that a client ended with a partial flush; the Reader here gives everything that
// the octets received so far say, and survives a read that timed out.
package deflate

import (
	"encoding/binary"
	"errors"
	"io"
)

const (
	window = 32 << 10
	// ahead is how much is decoded before it is handed out.
	ahead = 4 << 10
)

// errNeed: the octets end in the midst of something.
var errNeed = errors.New("more input is needed")

// ErrCorrupt: the stream is not what RFC 1951 says.
var ErrCorrupt = errors.New("the compressed stream is corrupt")

type blockState int

const (
	header blockState = iota
	stored
	coded
	ended
)

// Reader decompresses.
//
// Invariant: every step is whole or not done: one that lacks input leaves the
// position where it was, so that an error of the source loses nothing.
type Reader struct {
	from io.Reader
	// in is what was received; bit is the next bit of it.
	in  []byte
	bit int
	// history is the window and what was decoded; out is the next octet of it to
	// hand out.
	history []byte
	out     int

	state  blockState
	final  bool
	rest   int
	lit    *codes
	dist   *codes
	broken error
}

// NewReader of a stream.
func NewReader(from io.Reader) *Reader { return &Reader{from: from} }

// Read gives what there is; only without anything it waits for the source, whose
// errors it passes on.
func (r *Reader) Read(p []byte) (int, error) {
	for r.out == len(r.history) {
		if r.broken != nil {
			return 0, r.broken
		}
		if len(r.history) > 2*window {
			r.history = append(r.history[:0], r.history[len(r.history)-window:]...)
			r.out = len(r.history)
		}
		err := r.decode()
		switch {
		case r.out < len(r.history):
		case err == errNeed:
			if err := r.receive(); err != nil {
				return 0, err
			}
		}
		if err != nil && err != errNeed {
			r.broken = err
		}
	}
	n := copy(p, r.history[r.out:])
	r.out += n
	return n, nil
}

// receive reads from the source.
func (r *Reader) receive() error {
	done := r.bit / 8
	r.in = append(r.in[:0], r.in[done:]...)
	r.bit -= 8 * done
	if len(r.in)+512 > cap(r.in) {
		r.in = append(make([]byte, 0, max(1024, 2*cap(r.in))), r.in...)
	}
	n, err := r.from.Read(r.in[len(r.in):cap(r.in)])
	r.in = r.in[:len(r.in)+n]
	if n > 0 {
		return nil
	}
	return err
}

// decode goes on until there is enough, or the input ends.
func (r *Reader) decode() error {
	for len(r.history)-r.out < ahead {
		var err error
		switch r.state {
		case header:
			at := r.bit
			if err = r.block(); err != nil {
				r.bit = at
			}
		case stored:
			err = r.copyStored()
		case coded:
			err = r.symbol()
		case ended:
			err = io.EOF
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// peek is the next bits, at least 57 or all that there are.
func (r *Reader) peek() (bits uint64, have int) {
	at := r.bit / 8
	if at+8 <= len(r.in) {
		return binary.LittleEndian.Uint64(r.in[at:]) >> (r.bit % 8), 64 - r.bit%8
	}
	for i := len(r.in) - 1; i >= at; i-- {
		bits = bits<<8 | uint64(r.in[i])
	}
	return bits >> (r.bit % 8), 8*len(r.in) - r.bit
}

// take n bits, at most 16.
func (r *Reader) take(n int) (int, error) {
	bits, have := r.peek()
	if have < n {
		return 0, errNeed
	}
	r.bit += n
	return int(bits & (1<<n - 1)), nil
}

// block takes a block's header.
func (r *Reader) block() error {
	if r.final {
		r.state = ended
		return nil
	}
	h, err := r.take(3)
	if err != nil {
		return err
	}
	switch h >> 1 {
	case 0:
		r.bit = (r.bit + 7) / 8 * 8
		size, err := r.take(16)
		if err != nil {
			return err
		}
		check, err := r.take(16)
		if err != nil {
			return err
		}
		if size != check^0xffff {
			return ErrCorrupt
		}
		r.rest, r.state = size, stored
	case 1:
		r.lit, r.dist, r.state = fixedLiterals, fixedDistances, coded
	case 2:
		if r.lit, r.dist, err = r.dynamic(); err != nil {
			return err
		}
		r.state = coded
	default:
		return ErrCorrupt
	}
	r.final = h&1 == 1
	return nil
}

func (r *Reader) copyStored() error {
	if r.rest == 0 {
		r.state = header
		return nil
	}
	have := r.in[r.bit/8:]
	if len(have) == 0 {
		return errNeed
	}
	n := min(len(have), r.rest, ahead)
	r.history = append(r.history, have[:n]...)
	r.bit += 8 * n
	r.rest -= n
	return nil
}

var (
	lengthBase  = [29]int{3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 15, 17, 19, 23, 27, 31, 35, 43, 51, 59, 67, 83, 99, 115, 131, 163, 195, 227, 258}
	lengthExtra = [29]int{0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0}
	distBase    = [30]int{
		1, 2, 3, 4, 5, 7, 9, 13, 17, 25, 33, 49, 65, 97, 129, 193, 257, 385, 513, 769, 1025, 1537, 2049, 3073, 4097, 6145,
		8193, 12289, 16385, 24577,
	}
	distExtra = [30]int{0, 0, 0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 8, 9, 9, 10, 10, 11, 11, 12, 12, 13, 13}
)

// symbol takes a literal, or a copy of what came before: 48 bits at most.
func (r *Reader) symbol() error {
	bits, have := r.peek()
	total := have
	use := func(n int) int {
		v := int(bits & (1<<n - 1))
		bits >>= n
		have -= n
		return v
	}
	sym, n, err := r.lit.decode(bits, have)
	if err != nil {
		return err
	}
	use(n)
	switch {
	case sym < 256:
		r.history = append(r.history, byte(sym))
		r.bit += total - have
		return nil
	case sym == 256:
		r.state = header
		r.bit += total - have
		return nil
	case sym > 285:
		return ErrCorrupt
	}
	length := lengthBase[sym-257] + use(lengthExtra[sym-257])
	if have < 0 {
		return errNeed
	}
	sym, n, err = r.dist.decode(bits, have)
	if err != nil {
		return err
	}
	use(n)
	if sym > 29 {
		return ErrCorrupt
	}
	distance := distBase[sym] + use(distExtra[sym])
	if have < 0 {
		return errNeed
	}
	if distance > len(r.history) || distance > window {
		return ErrCorrupt
	}
	for ; length > 0; length-- {
		r.history = append(r.history, r.history[len(r.history)-distance])
	}
	r.bit += total - have
	return nil
}

// codes is a Huffman code: how many codes there are of each length, and their
// symbols in order.
type codes struct {
	count   [16]int
	symbols []int
}

func newCodes(lengths []int) (*codes, error) {
	c := &codes{symbols: make([]int, len(lengths))}
	for _, l := range lengths {
		c.count[l]++
	}
	left := 1
	var next [16]int
	for l := 1; l <= 15; l++ {
		if left = 2*left - c.count[l]; left < 0 {
			return nil, ErrCorrupt
		}
		if l > 1 {
			next[l] = next[l-1] + c.count[l-1]
		}
	}
	for sym, l := range lengths {
		if l > 0 {
			c.symbols[next[l]] = sym
			next[l]++
		}
	}
	return c, nil
}

// decode finds the symbol that the bits begin with.
func (c *codes) decode(bits uint64, have int) (sym, length int, err error) {
	code, first, index := 0, 0, 0
	for l := 1; l <= 15; l++ {
		if l > have {
			return 0, 0, errNeed
		}
		code |= int(bits & 1)
		bits >>= 1
		n := c.count[l]
		if code-n < first {
			return c.symbols[index+code-first], l, nil
		}
		index += n
		first = (first + n) << 1
		code <<= 1
	}
	return 0, 0, ErrCorrupt
}

var fixedLiterals, fixedDistances = fixed()

func fixed() (lit, dist *codes) {
	lengths := make([]int, 288)
	for i := range lengths {
		switch {
		case i < 144:
			lengths[i] = 8
		case i < 256:
			lengths[i] = 9
		case i < 280:
			lengths[i] = 7
		default:
			lengths[i] = 8
		}
	}
	lit, _ = newCodes(lengths)
	thirty := make([]int, 30)
	for i := range thirty {
		thirty[i] = 5
	}
	dist, _ = newCodes(thirty)
	return lit, dist
}

var order = [19]int{16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15}

// dynamic takes a block's own codes (RFC 1951 section 3.2.7).
func (r *Reader) dynamic() (lit, dist *codes, err error) {
	h, err := r.take(14)
	if err != nil {
		return nil, nil, err
	}
	literals, distances, n := h&31+257, h>>5&31+1, h>>10+4
	if literals > 286 || distances > 30 {
		return nil, nil, ErrCorrupt
	}
	var small [19]int
	for i := range n {
		if small[order[i]], err = r.take(3); err != nil {
			return nil, nil, err
		}
	}
	c, err := newCodes(small[:])
	if err != nil {
		return nil, nil, err
	}
	lengths := make([]int, 0, 316)
	for len(lengths) < literals+distances {
		bits, have := r.peek()
		sym, used, err := c.decode(bits, have)
		if err != nil {
			return nil, nil, err
		}
		r.bit += used
		value, times := sym, 1
		switch sym {
		case 16:
			if len(lengths) == 0 {
				return nil, nil, ErrCorrupt
			}
			value = lengths[len(lengths)-1]
			times, err = r.take(2)
			times += 3
		case 17:
			value = 0
			times, err = r.take(3)
			times += 3
		case 18:
			value = 0
			times, err = r.take(7)
			times += 11
		}
		if err != nil {
			return nil, nil, err
		}
		if len(lengths)+times > literals+distances {
			return nil, nil, ErrCorrupt
		}
		for range times {
			lengths = append(lengths, value)
		}
	}
	if lengths[256] == 0 {
		return nil, nil, ErrCorrupt
	}
	if lit, err = newCodes(lengths[:literals]); err != nil {
		return nil, nil, err
	}
	dist, err = newCodes(lengths[literals:])
	return lit, dist, err
}
