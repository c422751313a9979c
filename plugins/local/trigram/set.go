// Package trigram tells which of some messages cannot contain a text: those that
// lack one of its trigrams, three octets that follow each other. It is an index of
// candidates and not a search: who asks looks into what is left.
package trigram

import "slices"

// MaxSet is how many trigrams of one message are told apart: a book has as many. A
// message with more is in every answer.
const MaxSet = 8192

// Set collects the trigrams of one message at a time. It is large (2 MiB): use it
// again.
type Set struct {
	seen [1 << 24 / 64]uint64
	list []uint32
	last uint32 // the last two octets of the text
	have int    // octets of the text so far, up to 2
	full bool
}

// Reset begins another message.
func (s *Set) Reset() {
	for _, t := range s.list {
		s.seen[t/64] = 0
	}
	s.list, s.full, s.have = s.list[:0], false, 0
}

// Piece adds a piece of a text; first: it begins another text. full: the message
// has more than MaxSet, and the rest of it does not matter.
func (s *Set) Piece(b []byte, first bool) (full bool) {
	if first {
		s.have, s.last = 0, 0
	}
	if s.full {
		return true
	}
	for s.have < 2 && len(b) > 0 {
		s.last = s.last<<8 | uint32(b[0])
		s.have++
		b = b[1:]
	}
	last := s.last
	for _, c := range b {
		t := (last<<8 | uint32(c)) & 0xffffff
		last = t
		if word, bit := &s.seen[t/64], uint64(1)<<(t%64); *word&bit == 0 {
			if len(s.list) == MaxSet {
				s.full = true
				return true
			}
			*word |= bit
			s.list = append(s.list, t)
		}
	}
	s.last = last & 0xffff
	return false
}

// maxOf is how many trigrams of a text that is looked for are looked up.
const maxOf = 32

// of returns the first distinct trigrams of a text.
func of(text string) []uint32 {
	var out []uint32
	for i := 0; i+2 < len(text) && len(out) < maxOf; i++ {
		t := uint32(text[i])<<16 | uint32(text[i+1])<<8 | uint32(text[i+2])
		if !slices.Contains(out, t) {
			out = append(out, t)
		}
	}
	return out
}
