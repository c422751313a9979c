package deflate

import (
	"bytes"
	"compress/flate"
	"errors"
	"io"
	"math/rand"
	"os"
	"strings"
	"testing"
)

// pieces gives a stream in pieces, with an error after each that is no end.
type pieces struct {
	data []byte
	size int
	late bool
}

func (p *pieces) Read(b []byte) (int, error) {
	if p.late = !p.late; p.late {
		return 0, os.ErrDeadlineExceeded
	}
	if len(p.data) == 0 {
		return 0, io.EOF
	}
	n := copy(b, p.data[:min(p.size, len(p.data))])
	p.data = p.data[n:]
	return n, nil
}

// all reads through the errors of pieces.
func all(r *Reader) ([]byte, error) {
	var out []byte
	b := make([]byte, 1000)
	for {
		n, err := r.Read(b)
		out = append(out, b[:n]...)
		if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			return out, err
		}
	}
}

func TestRoundTrip(t *testing.T) {
	random := rand.New(rand.NewSource(1))
	noise := make([]byte, 100_000)
	random.Read(noise)
	for name, text := range map[string][]byte{
		"command": []byte("a1 NOOP\r\n"), "long": []byte(strings.Repeat("a UID FETCH 1:* (FLAGS)\r\n", 20000)), "noise": noise, "nothing": nil,
	} {
		for level := flate.HuffmanOnly; level <= flate.BestCompression; level++ {
			for _, size := range []int{1, 7, 100_000} {
				var b bytes.Buffer
				w, err := flate.NewWriter(&b, level)
				if err != nil {
					t.Fatal(err)
				}
				for rest := text; len(rest) > 0; {
					n := min(len(rest), 10_000)
					w.Write(rest[:n])
					w.Flush()
					rest = rest[n:]
				}
				got, err := all(NewReader(&pieces{data: b.Bytes(), size: size}))
				if !bytes.Equal(got, text) || err != io.EOF {
					t.Fatalf("%s, level %d, pieces of %d: %d octets of %d, %v", name, level, size, len(got), len(text), err)
				}
				if size == 1 && len(text) > 1000 {
					break
				}
			}
		}
	}
}

// TestPartialFlush: what zlib's partial flush ends is given at once. The octets
// are "a1 NOOP" CR LF in a block of the fixed code, without the block's end, as
// far as whole octets hold it, and then the empty block of the flush.
func TestPartialFlush(t *testing.T) {
	text := "a1 NOOP\r\n"
	b := &bits{}
	b.put(0b010, 3)
	for i := range len(text) {
		b.code(0x30+int(text[i]), 8)
	}
	b.code(0, 7)
	b.put(0b010, 3)
	b.code(0, 7)
	ours, its := io.Pipe()
	defer its.Close()
	go its.Write(b.bytes[:len(b.bytes)-1])
	got := make([]byte, len(text))
	if _, err := io.ReadFull(NewReader(ours), got); err != nil || string(got) != text {
		t.Errorf("%q %v", got, err)
	}
}

type bits struct {
	bytes []byte
	n     int
}

func (b *bits) put(v, n int) {
	for range n {
		if b.n%8 == 0 {
			b.bytes = append(b.bytes, 0)
		}
		b.bytes[len(b.bytes)-1] |= byte(v&1) << (b.n % 8)
		v >>= 1
		b.n++
	}
}

// code puts a Huffman code, its highest bit first.
func (b *bits) code(v, n int) {
	for i := n - 1; i >= 0; i-- {
		b.put(v>>i&1, 1)
	}
}

// FuzzReader: what compress/flate reads, the Reader reads too, and nothing else
// makes it loop or panic.
func FuzzReader(f *testing.F) {
	for _, text := range []string{"", "a1 NOOP\r\n", strings.Repeat("abc", 100)} {
		for _, level := range []int{0, 1, 9} {
			var b bytes.Buffer
			w, _ := flate.NewWriter(&b, level)
			w.Write([]byte(text))
			w.Close()
			f.Add(b.Bytes())
		}
	}
	f.Fuzz(func(t *testing.T, stream []byte) {
		want, wrong := io.ReadAll(io.LimitReader(flate.NewReader(bytes.NewReader(stream)), 1<<20))
		r := NewReader(&pieces{data: bytes.Clone(stream), size: 3})
		var got []byte
		b := make([]byte, 4096)
		for len(got) < 1<<20 {
			n, err := r.Read(b)
			got = append(got, b[:n]...)
			if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
				break
			}
		}
		got = got[:min(len(got), 1<<20)]
		if wrong == nil && !bytes.Equal(got, want) {
			t.Errorf("%d octets, want %d", len(got), len(want))
		}
	})
}
