package imap

import (
	"slices"
	"strconv"
	"strings"

	"github.com/emersion/go-imap/v2"

	"github.com/stagecoach-mta/stagecoach/plugins/imap/wire"
)

// fetchItems is what one FETCH asks for.
type fetchItems struct {
	uid, flags, modseq, received, size   bool
	envelope, body, structure            bool
	emailID, threadID, saveDate, preview bool
	sections                             []section
	changedSince                         uint64
	changed, vanished                    bool
	// partial of the messages (RFC 9394); last 0: none.
	partial partialRange
}

// sectionKind is which of the items that have octets a section is.
type sectionKind int

const (
	bodySection sectionKind = iota
	binarySection
	binarySize
)

// section is BODY[…], BINARY[…], BINARY.SIZE[…] or RFC822….
type section struct {
	kind sectionKind
	// rfc822 is the name of one of the three old items, else empty.
	rfc822 string
	peek   bool
	path   []int
	want   string
	// fields of HEADER.FIELDS, or with not of HEADER.FIELDS.NOT.
	fields []string
	not    bool
	// partial: size 0 with partial set does not come from a client.
	partial      bool
	offset, size int64
}

// maxSections of one FETCH.
const maxSections = 500

// fetchItems takes FETCH's items and modifiers.
func (ss *session) fetchItems(p *wire.Parser) *fetchItems {
	f := &fetchItems{}
	if p.Peek() == '(' {
		p.List(func() { f.item(p) })
	} else {
		f.macro(p)
	}
	if p.Try(' ') {
		p.List(func() {
			switch word := p.Word(); word {
			case "CHANGEDSINCE":
				p.SP()
				f.changedSince, f.changed, f.modseq = p.Number63(), true, true
			case "VANISHED":
				f.vanished = true
			case "PARTIAL":
				p.SP()
				f.partial = takePartial(p)
			default:
				p.Fail("FETCH does not know the modifier %s", word)
			}
		})
	}
	return f
}

func (f *fetchItems) macro(p *wire.Parser) {
	mark := p.Mark()
	switch name := p.Letters(); name {
	case "ALL":
		f.flags, f.received, f.size, f.envelope = true, true, true, true
	case "FAST":
		f.flags, f.received, f.size = true, true, true
	case "FULL":
		f.flags, f.received, f.size, f.envelope, f.body = true, true, true, true, true
	default:
		p.Return(mark)
		f.item(p)
	}
}

func (f *fetchItems) item(p *wire.Parser) {
	switch name := p.Letters(); name {
	case "UID":
		f.uid = true
	case "FLAGS":
		f.flags = true
	case "MODSEQ":
		f.modseq = true
	case "INTERNALDATE":
		f.received = true
	case "RFC822.SIZE":
		f.size = true
	case "ENVELOPE":
		f.envelope = true
	case "BODYSTRUCTURE":
		f.structure = true
	case "EMAILID":
		f.emailID = true
	case "THREADID":
		f.threadID = true
	case "SAVEDATE":
		f.saveDate = true
	case "PREVIEW":
		f.preview = true
		mark := p.Mark()
		if p.Try(' ') && p.Peek() == '(' {
			p.List(func() {
				if word := p.Word(); word != "LAZY" {
					p.Fail("PREVIEW does not know %s", word)
				}
			})
		} else {
			p.Return(mark)
		}
	case "RFC822":
		f.add(p, section{rfc822: name})
	case "RFC822.HEADER":
		f.add(p, section{rfc822: name, peek: true, want: wantHeader})
	case "RFC822.TEXT":
		f.add(p, section{rfc822: name, want: wantText})
	case "BODY":
		if p.Peek() != '[' {
			f.body = true
			return
		}
		f.section(p, bodySection, false)
	case "BODY.PEEK":
		f.section(p, bodySection, true)
	case "BINARY":
		f.section(p, binarySection, false)
	case "BINARY.PEEK":
		f.section(p, binarySection, true)
	case "BINARY.SIZE":
		f.section(p, binarySize, true)
	default:
		p.Fail("FETCH does not know %s", name)
	}
}

func (f *fetchItems) add(p *wire.Parser, s section) {
	if len(f.sections) >= maxSections {
		p.Fail("FETCH takes %d sections at once", maxSections)
		return
	}
	f.sections = append(f.sections, s)
}

// section takes "[" … "]" and maybe a partial range.
func (f *fetchItems) section(p *wire.Parser, kind sectionKind, peek bool) {
	s := section{kind: kind, peek: peek}
	p.Expect('[')
	s.spec(p)
	p.Expect(']')
	if kind != bodySection && s.want != wantAll {
		p.Fail("BINARY has part numbers only")
	}
	if kind != binarySize && p.Try('<') {
		s.partial = true
		s.offset = int64(p.Number63())
		p.Expect('.')
		if s.size = int64(p.Number63()); s.size == 0 {
			p.Fail("A partial range has at least one octet")
		}
		p.Expect('>')
	}
	f.add(p, s)
}

// spec takes a section's part numbers and what is wanted of the part.
func (s *section) spec(p *wire.Parser) {
	for c := p.Peek(); c >= '0' && c <= '9'; c = p.Peek() {
		n := p.NonZero()
		if len(s.path) >= 100 {
			p.Fail("A part number has at most 100 levels")
		}
		s.path = append(s.path, int(n))
		if !p.Try('.') {
			return
		}
		if c := p.Peek(); !(c >= '0' && c <= '9') {
			break
		}
	}
	if p.Peek() == ']' {
		if len(s.path) > 0 {
			p.Fail("A part number does not end with a dot")
		}
		return
	}
	switch word := p.Letters(); word {
	case "HEADER", "TEXT":
		s.want = word
	case "MIME":
		if len(s.path) == 0 {
			p.Fail("MIME goes with a part number")
		}
		s.want = word
	case "HEADER.FIELDS", "HEADER.FIELDS.NOT":
		s.want, s.not = wantHeader, word == "HEADER.FIELDS.NOT"
		p.SP()
		p.List(func() { s.fields = append(s.fields, p.AString()) })
		if len(s.fields) == 0 {
			p.Fail("%s names at least one field", word)
		}
	default:
		p.Fail("There is no section %s", word)
	}
}

// appendName writes the item's name as the reply has it.
func (s *section) appendName(b []byte, takesUTF8 bool) []byte {
	switch {
	case s.rfc822 != "":
		return append(b, s.rfc822...)
	case s.kind == binarySize:
		b = append(b, "BINARY.SIZE["...)
	case s.kind == binarySection:
		b = append(b, "BINARY["...)
	default:
		b = append(b, "BODY["...)
	}
	for i, n := range s.path {
		if i > 0 {
			b = append(b, '.')
		}
		b = strconv.AppendInt(b, int64(n), 10)
	}
	if s.want != wantAll {
		if len(s.path) > 0 {
			b = append(b, '.')
		}
		b = append(b, s.want...)
	}
	if len(s.fields) > 0 {
		b = append(b, ".FIELDS"...)
		if s.not {
			b = append(b, ".NOT"...)
		}
		b = append(b, " ("...)
		for i, name := range s.fields {
			if i > 0 {
				b = append(b, ' ')
			}
			b = wire.AppendAString(b, name, takesUTF8)
		}
		b = append(b, ')')
	}
	b = append(b, ']')
	if s.partial {
		b = append(b, '<')
		b = strconv.AppendInt(b, s.offset, 10)
		b = append(b, '>')
	}
	return b
}

// reads: the items set \Seen (RFC 9051 section 6.4.5).
func (f *fetchItems) reads() bool {
	return slices.ContainsFunc(f.sections, func(s section) bool { return !s.peek })
}

// partialRange is RFC 9394's and RFC 5267's "1:100" or "-1:-100".
type partialRange struct {
	first, last int64
	text        string
}

func (r partialRange) set() bool { return r.last != 0 }

func takePartial(p *wire.Parser) partialRange {
	one := func() int64 {
		negative := p.Try('-')
		n := int64(p.NonZero())
		if negative {
			return -n
		}
		return n
	}
	r := partialRange{first: one()}
	p.Expect(':')
	r.last = one()
	if (r.first < 0) != (r.last < 0) {
		p.Fail("Both ends of a partial range count from the same side")
	}
	if abs(r.first) > abs(r.last) {
		r.first, r.last = r.last, r.first
	}
	r.text = strconv.FormatInt(r.first, 10) + ":" + strconv.FormatInt(r.last, 10)
	return r
}

func abs(n int64) int64 { return max(n, -n) }

// of cuts the range out of a list; negative ranges count from its end.
func (r partialRange) of(list []uint32) []uint32 {
	n := int64(len(list))
	first, last := r.first, r.last
	if r.first < 0 {
		first, last = n+r.last+1, n+r.first+1
	}
	first, last = max(first, 1), min(last, n)
	if first > last {
		return nil
	}
	return list[first-1 : last]
}

var errUnknownCTE = no(imap.ResponseCodeUnknownCTE, "The part's encoding is not known")

// structured: what is wanted needs the parts' places.
func (s *section) structured() bool {
	return len(s.path) > 0 || s.want == wantText || s.kind != bodySection || strings.HasPrefix(s.want, wantMIME)
}
