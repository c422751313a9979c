package wire

import (
	"slices"
	"strconv"
)

// Range of numbers, both ends included; 0 stands for "*".
type Range struct{ First, Last uint32 }

// Set is a sequence set: ranges, or with Saved the result of the last search.
type Set struct {
	Ranges []Range
	Saved  bool
}

// Set takes a sequence set or "$".
func (p *Parser) Set() Set {
	if p.Try('$') {
		return Set{Saved: true}
	}
	return Set{Ranges: p.ranges()}
}

// Ranges takes a sequence set without "$"; with numbers only, there is no "*".
func (p *Parser) Ranges(numbersOnly bool) []Range {
	mark := p.at
	r := p.ranges()
	if numbersOnly && slices.ContainsFunc(r, func(r Range) bool { return r.First == 0 || r.Last == 0 }) {
		p.Return(mark)
		p.Fail("\"*\" is not allowed in this set")
	}
	return r
}

func (p *Parser) ranges() []Range {
	var out []Range
	for p.err == nil {
		r := Range{First: p.setNumber()}
		r.Last = r.First
		if p.Try(':') {
			r.Last = p.setNumber()
		}
		out = append(out, r)
		if !p.Try(',') {
			break
		}
	}
	return out
}

func (p *Parser) setNumber() uint32 {
	if p.Try('*') {
		return 0
	}
	if c := p.Peek(); c < '0' || c > '9' {
		p.expected("a set of numbers")
		return 0
	}
	return p.NonZero()
}

// AppendSet writes growing numbers as a set: "1:3,5".
func AppendSet(b []byte, numbers []uint32) []byte {
	for i := 0; i < len(numbers); {
		j := i
		for j+1 < len(numbers) && numbers[j+1] == numbers[j]+1 {
			j++
		}
		if i > 0 {
			b = append(b, ',')
		}
		b = strconv.AppendUint(b, uint64(numbers[i]), 10)
		if j > i {
			b = append(b, ':')
			b = strconv.AppendUint(b, uint64(numbers[j]), 10)
		}
		i = j + 1
	}
	return b
}
