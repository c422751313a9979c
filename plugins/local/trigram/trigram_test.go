package trigram

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
)

// texts are messages of two texts each; short alphabets have many trigrams in
// common.
func texts(rng *rand.Rand, n, alphabet int) [][2]string {
	out := make([][2]string, n)
	for i := range out {
		for k := range out[i] {
			b := make([]byte, rng.IntN(200))
			for j := range b {
				b[j] = byte('a' + rng.IntN(alphabet))
			}
			out[i][k] = string(b)
		}
	}
	return out
}

func encode(list [][2]string, limit int64) []byte {
	s, b := &Set{}, &Builder{}
	for slot, m := range list {
		s.Reset()
		for _, t := range m {
			cut := len(t) / 3
			s.Piece([]byte(t[:cut]), true)
			s.Piece(nil, false)
			s.Piece([]byte(t[cut:]), false)
		}
		b.Add(slot, s)
	}
	return b.Encode(7, 9, limit)
}

// TestFind: nobody who has the text is missed, whatever is left out for the room;
// who lacks a trigram of it is, unless it was.
func TestFind(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for round := range 20 {
		list := texts(rng, 1+rng.IntN(Slots), 2+rng.IntN(20))
		limit := int64(0)
		if round%2 == 1 {
			limit = headerLen + int64(rng.IntN(8000))
		}
		data := encode(list, limit)
		b, err := Load(bytes.NewReader(data), 7, 9)
		if err != nil {
			t.Fatal(err)
		}
		for range 50 {
			from := list[rng.IntN(len(list))][rng.IntN(2)]
			i := rng.IntN(len(from) + 1)
			text := from[i : i+rng.IntN(len(from)-i+1)]
			if rng.IntN(2) == 0 {
				text += string(byte('a' + rng.IntN(20)))
			}
			got, err := b.Find(text)
			if err != nil {
				t.Fatal(err)
			}
			for slot, m := range list {
				lacks := false
				for _, tri := range of(text) {
					s := string([]byte{byte(tri >> 16), byte(tri >> 8), byte(tri)})
					lacks = lacks || !strings.Contains(m[0], s) && !strings.Contains(m[1], s)
				}
				if !lacks && !got.Has(slot) {
					t.Fatalf("round %d: slot %d has all of %q and is not found", round, slot, text)
				}
				if lacks && limit == 0 && got.Has(slot) {
					t.Fatalf("round %d: slot %d lacks a part of %q and is found", round, slot, text)
				}
			}
		}
	}
}

// TestRoom: the limit holds, down to what every trigram takes at least.
func TestRoom(t *testing.T) {
	list := texts(rand.New(rand.NewPCG(1, 2)), Slots, 3)
	whole := len(encode(list, 0))
	for _, limit := range []int{whole, whole - 1, whole - 200, headerLen + 200} {
		if n := len(encode(list, int64(limit))); n > limit {
			t.Errorf("%d octets where %d are allowed", n, limit)
		}
	}
	if n := len(encode(list, 1)); n > headerLen+27*3 {
		t.Errorf("with no room %d octets", n)
	}
}

// TestDamage: a block with an octet that is not as it was says so or answers as
// before, and so does one that is cut off.
func TestDamage(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	list := texts(rng, 6, 8)
	data := encode(list, 0)
	good, err := Load(bytes.NewReader(data), 7, 9)
	if err != nil {
		t.Fatal(err)
	}
	same := func(what string, r []byte) {
		t.Helper()
		b, err := Load(bytes.NewReader(r), 7, 9)
		for i := 0; err == nil && i < 4; i++ {
			text := list[i][0][:min(8, len(list[i][0]))]
			want, _ := good.Find(text)
			var got Mask
			if got, err = b.Find(text); err == nil && got != want {
				t.Fatalf("%s: another answer, and no error", what)
			}
		}
		if err != nil && !errors.Is(err, ErrDamaged) {
			t.Fatalf("%s: %v", what, err)
		}
	}
	for at := 0; at < len(data); at += 1 + at/1000 {
		broken := bytes.Clone(data)
		broken[at] ^= 1 << rng.IntN(8)
		same(fmt.Sprintf("octet %d", at), broken)
	}
	for n := 0; n < len(data); n += 97 {
		same(fmt.Sprintf("%d octets", n), data[:n])
	}
	if _, err := Load(bytes.NewReader(data), 7, 8); !errors.Is(err, ErrDamaged) {
		t.Errorf("another's block: %v", err)
	}
}

// TestOpen: a message with too many trigrams, or of which nothing is known, is in
// every answer.
func TestOpen(t *testing.T) {
	s, b := &Set{}, &Builder{}
	rng := rand.New(rand.NewPCG(5, 6))
	long := make([]byte, 10*MaxSet)
	for i := range long {
		long[i] = byte(rng.IntN(256))
	}
	s.Piece(long, true)
	b.Add(3, s)
	s.Reset()
	s.Piece([]byte("hello"), true)
	b.Add(4, s)
	b.Open(200)
	block, err := Load(bytes.NewReader(b.Encode(1, 1, 0)), 1, 1)
	if err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string][]int{"hello": {3, 4, 200}, "nowhere": {3, 200}} {
		m, err := block.Find(text)
		for slot := range Slots {
			if is := slot == want[0] || slot == want[len(want)-1] || len(want) == 3 && slot == want[1]; m.Has(slot) != is || err != nil {
				t.Errorf("%q: slot %d %v, %v", text, slot, m.Has(slot), err)
			}
		}
	}
	if m, _ := block.Find("he"); m != All {
		t.Error("two octets have no trigram, and exclude somebody")
	}
}

func BenchmarkBlock(b *testing.B) {
	rng := rand.New(rand.NewPCG(1, 2))
	list := make([][2]string, Slots)
	for i := range list {
		var w strings.Builder
		for w.Len() < 10<<10 {
			fmt.Fprintf(&w, "word%d and some %d text ", rng.IntN(3000), rng.IntN(100))
		}
		list[i][1] = w.String()
	}
	b.SetBytes(Slots * 10 << 10)
	for b.Loop() {
		b.ReportMetric(float64(len(encode(list, 0)))/Slots, "octets/message")
	}
}
