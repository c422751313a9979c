package mime

import (
	"bytes"

	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// addressParser reads an address list (RFC 5322 section 3.4, with the obsolete
// syntax of section 4.4). Whatever is wrong, it goes on at the next comma.
type addressParser struct {
	s       []byte
	i       int
	comment []byte // the last one passed
	group   bool
	max     int
	out     []*v1.MailAddress
}

// Addresses reads the value of an address field (From, To, Reply-To …), folded or
// not: at most max addresses, with the beginnings and ends of groups among them.
// Names are as they are written, not decoded. What cannot be read is passed over;
// a Domain is nil where the address has none.
func Addresses(value []byte, max int) []*v1.MailAddress { return parseAddresses(value, max) }

func parseAddresses(field []byte, max int) []*v1.MailAddress {
	p := &addressParser{s: field, max: max}
	for p.address() && len(p.out) < p.max {
	}
	if p.group && len(p.out) < p.max {
		p.out = append(p.out, &v1.MailAddress{Group: v1.MailAddress_END})
	}
	return p.out
}

func (p *addressParser) emit(a *v1.MailAddress) { p.out = append(p.out, a) }

// address reads one mailbox, or a group's beginning or end; false at the end.
func (p *addressParser) address() bool {
	p.comment = nil
	words := p.words()
	if p.i >= len(p.s) {
		if len(words) > 0 {
			p.bare(words)
		}
		return false
	}
	c := p.s[p.i]
	p.i++
	switch c {
	case ':':
		if p.group {
			p.emit(&v1.MailAddress{Group: v1.MailAddress_END})
		}
		p.group = true
		p.emit(&v1.MailAddress{LocalPart: phrase(words), Group: v1.MailAddress_START})
	case '<':
		p.angle(phrase(words))
	case '@':
		local := bytes.Join(words, nil)
		domain := bytes.Join(p.words(), nil)
		name := p.comment
		p.emit(&v1.MailAddress{Name: name, LocalPart: local, Domain: domain})
		p.separator()
	case ',', ';':
		if len(words) > 0 {
			p.bare(words)
		}
		if c == ';' && p.group {
			p.group = false
			p.emit(&v1.MailAddress{Group: v1.MailAddress_END})
		}
	}
	return true
}

// bare is a local-part without a domain.
func (p *addressParser) bare(words [][]byte) {
	p.emit(&v1.MailAddress{Name: p.comment, LocalPart: phrase(words)})
}

// angle reads an angle-addr after its "<", with a route (RFC 5322 section 4.4).
func (p *addressParser) angle(name []byte) {
	words := p.words()
	var domain, route, hops []byte
loop:
	for p.i < len(p.s) {
		c := p.s[p.i]
		switch c {
		case '@':
			p.i++
			domain = bytes.Join(p.words(), nil)
			if len(words) == 0 && len(hops) < maxRoute {
				if len(hops) > 0 {
					hops = append(hops, ',')
				}
				hops = append(append(hops, '@'), domain...)
			}
			continue
		case ':':
			// What came before was a route.
			p.i++
			domain, route, hops = nil, hops, nil
			words = p.words()
			continue
		case ',':
			if len(words) > 0 {
				break loop // the ">" is missing
			}
		case '>':
			p.i++
			break loop
		}
		p.i++
		p.words()
	}
	if len(words) > 0 || domain != nil || len(name) > 0 {
		if len(name) == 0 {
			p.words()
			name = p.comment
		}
		p.emit(&v1.MailAddress{Name: name, LocalPart: bytes.Join(words, nil), Domain: domain, Route: route})
	}
	p.separator()
}

// maxRoute is how much of a route is kept, up to a whole domain more.
const maxRoute = 1000

// separator passes everything up to the comma or semicolon after a mailbox.
func (p *addressParser) separator() {
	for p.i < len(p.s) {
		switch p.s[p.i] {
		case ',':
			p.i++
			return
		case ';':
			return // address() ends the group
		}
		p.i++
		p.words()
	}
}

// words reads atoms, quoted strings and domain literals up to a special.
func (p *addressParser) words() [][]byte {
	var out [][]byte
	for p.i < len(p.s) {
		switch c := p.s[p.i]; c {
		case ' ', '\t', '\r', '\n':
			p.i++
		case '(':
			text, n := comment(p.s[p.i:])
			p.comment = text
			p.i += n
		case '"':
			text, n := quoted(p.s[p.i:])
			out = append(out, text)
			p.i += n
		case '<', '>', '@', ',', ';', ':':
			return out
		case '[':
			n := bytes.IndexByte(p.s[p.i:], ']')
			if n < 0 {
				n = len(p.s) - p.i - 1
			}
			out = append(out, p.s[p.i:p.i+n+1])
			p.i += n + 1
		default:
			j := p.i
			for j < len(p.s) && bytes.IndexByte([]byte(" \t\r\n(\"<>@,;:["), p.s[j]) < 0 {
				j++
			}
			out = append(out, p.s[p.i:j])
			p.i = j
		}
	}
	return out
}

func phrase(words [][]byte) []byte {
	if len(words) == 0 {
		return nil
	}
	return bytes.Join(words, []byte(" "))
}
