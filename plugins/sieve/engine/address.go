package engine

import (
	"strings"
	"unicode/utf8"
)

// address of a header or an envelope. One that is not valid has only raw.
type address struct {
	name, local, domain, raw string
	valid                    bool
}

// String is "local@domain", as the address test compares it.
func (a *address) String() string {
	switch {
	case !a.valid:
		return a.raw
	case a.domain == "":
		return a.local
	}
	return quotedLocal(a.local) + "@" + a.domain
}

// quotedLocal writes a local part as SMTP has it: quoted only where it must be.
func quotedLocal(s string) string {
	if plainLocal(s) {
		return s
	}
	var b strings.Builder
	b.WriteByte('"')
	for _, c := range []byte(s) {
		if c == '"' || c == '\\' {
			b.WriteByte('\\')
		}
		b.WriteByte(c)
	}
	b.WriteByte('"')
	return b.String()
}

func plainLocal(s string) bool {
	for _, c := range []byte(s) {
		if !atext(c) && c != '.' {
			return false
		}
	}
	return s != ""
}

func atext(c byte) bool {
	return c > ' ' && c != 0x7f && strings.IndexByte("()<>[]:;@\\,.\"", c) < 0
}

// maxAddresses of one field.
const maxAddresses = 1000

// scanner of an address field (RFC 5322 section 3.4).
type scanner struct {
	s  string
	at int
	// comment that was passed last: a name in the old style.
	comment string
}

func (p *scanner) peek() byte {
	if p.at < len(p.s) {
		return p.s[p.at]
	}
	return 0
}

// blank goes over white space and comments.
func (p *scanner) blank() {
	for p.at < len(p.s) {
		switch c := p.s[p.at]; c {
		case ' ', '\t', '\r', '\n':
			p.at++
		case '(':
			begin, depth := p.at+1, 0
			for p.at < len(p.s) {
				switch p.s[p.at] {
				case '\\':
					p.at++
				case '(':
					depth++
				case ')':
					depth--
				}
				if p.at++; depth == 0 {
					break
				}
			}
			p.at = min(p.at, len(p.s))
			p.comment = strings.TrimSpace(strings.TrimSuffix(p.s[min(begin, p.at):p.at], ")"))
		default:
			return
		}
	}
}

// word is an atom (with dots, if dots) or a quoted string.
func (p *scanner) word(dots bool) (text string, quoted, ok bool) {
	if p.peek() == '"' {
		var b strings.Builder
		for p.at++; p.at < len(p.s); p.at++ {
			switch c := p.s[p.at]; c {
			case '"':
				p.at++
				return b.String(), true, true
			case '\\':
				if p.at++; p.at < len(p.s) {
					b.WriteByte(p.s[p.at])
				}
			default:
				b.WriteByte(c)
			}
		}
		return "", true, false
	}
	begin := p.at
	for p.at < len(p.s) && (atext(p.s[p.at]) || dots && p.s[p.at] == '.') {
		p.at++
	}
	return p.s[begin:p.at], false, p.at > begin
}

// spec reads an addr-spec. White space may stand around its parts.
func (p *scanner) spec() (local, domain string, ok bool) {
	p.blank()
	local, _, ok = p.word(true)
	if !ok {
		return "", "", false
	}
	p.blank()
	if p.peek() != '@' {
		return "", "", false
	}
	p.at++
	domain, ok = p.domain()
	return local, domain, ok
}

func (p *scanner) domain() (string, bool) {
	p.blank()
	if p.peek() == '[' {
		end := strings.IndexByte(p.s[p.at:], ']')
		if end < 0 {
			return "", false
		}
		d := p.s[p.at : p.at+end+1]
		p.at += end + 1
		p.blank()
		return d, true
	}
	d, _, ok := p.word(true)
	p.blank()
	return d, ok && isDomain(d)
}

// isDomain asks for labels that are not empty, of ASCII.
func isDomain(d string) bool {
	for _, label := range strings.Split(d, ".") {
		if label == "" {
			return false
		}
	}
	return isASCII(d)
}

func isASCII(s string) bool {
	for _, c := range []byte(s) {
		if c >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

// one reads a mailbox or the members of a group.
func (p *scanner) one(out []address) ([]address, bool) {
	p.blank()
	begin := p.at
	p.comment = ""
	if local, domain, ok := p.spec(); ok && isASCII(local) && (p.at == len(p.s) || p.peek() == ',' || p.peek() == ';') {
		return append(out, address{name: p.comment, local: local, domain: domain, valid: true}), true
	}
	p.at = begin
	var words []string
	for {
		p.blank()
		w, _, ok := p.word(true)
		if !ok {
			break
		}
		words = append(words, w)
	}
	switch p.peek() {
	case ':':
		if len(words) == 0 {
			return out, false
		}
		p.at++
		for {
			if p.blank(); p.peek() == ';' {
				p.at++
				p.blank()
				return out, true
			}
			var ok bool
			if out, ok = p.one(out); !ok {
				return out, false
			}
			if p.blank(); p.peek() == ',' {
				p.at++
			} else if p.peek() != ';' {
				return out, false
			}
		}
	case '<':
		a, ok := p.angle()
		if !ok {
			return out, false
		}
		a.name = strings.Join(words, " ")
		return append(out, a), true
	}
	return out, false
}

// angle reads an address in brackets, with the route that it may have.
func (p *scanner) angle() (address, bool) {
	p.at++
	if p.blank(); p.peek() == '@' {
		for {
			if p.peek() != '@' {
				return address{}, false
			}
			p.at++
			if _, ok := p.domain(); !ok {
				return address{}, false
			}
			if p.peek() == ':' {
				p.at++
				break
			}
			if p.peek() != ',' {
				return address{}, false
			}
			p.at++
			p.blank()
		}
	}
	local, domain, ok := p.spec()
	if !ok || p.peek() != '>' || !isASCII(local) {
		return address{}, false
	}
	p.at++
	p.blank()
	return address{local: local, domain: domain, valid: true}, true
}

// parseAddresses reads an address field. One that is not valid comes out as it
// stands there, and ends the list.
func parseAddresses(value string) []address {
	p := &scanner{s: value}
	var out []address
	if p.blank(); p.at == len(p.s) {
		return []address{{raw: strings.TrimSpace(value)}}
	}
	for len(out) < maxAddresses {
		for p.blank(); p.peek() == ','; p.blank() {
			p.at++
		}
		if p.at == len(p.s) {
			return out
		}
		begin := p.at
		var ok bool
		got, ok := p.one(out)
		if p.blank(); !ok || p.at < len(p.s) && p.peek() != ',' {
			return append(out, address{raw: strings.TrimSpace(value[begin:])})
		}
		out = got
	}
	return out
}

// parsePath reads an envelope's address, in brackets or not (RFC 5321 section
// 4.1.2): "" is the null path, one without a domain is allowed.
func parsePath(s string) (address, bool) {
	if s == "" || s == "<>" {
		return address{valid: true}, true
	}
	p := &scanner{s: s}
	bracket := s[0] == '<'
	if bracket {
		if a, ok := p.angle(); ok && p.at == len(s) {
			return a, true
		}
		p.at = 1
	} else if local, domain, ok := p.spec(); ok && p.at == len(s) && isASCII(local) {
		return address{local: local, domain: domain, valid: true}, true
	}
	p.at = 0
	if bracket {
		p.at = 1
	}
	local, _, ok := p.word(true)
	if bracket && ok {
		ok = p.peek() == '>'
		p.at++
	}
	if ok && p.at == len(s) && isASCII(local) {
		return address{local: local, valid: true}, true
	}
	return address{}, false
}

// outgoingMailbox reads the one address, with or without a name, that a script
// sends to or from.
func outgoingMailbox(s string) (*mailbox, string) {
	p := &scanner{s: s}
	got, ok := p.one(nil)
	if p.blank(); !ok || p.at < len(s) || len(got) != 1 {
		switch {
		case ok && p.at < len(s) && p.peek() == ',':
			return nil, "it is more than one address"
		default:
			return nil, "it is not an address as in user@example.com"
		}
	}
	if !got[0].valid || got[0].local == "" {
		return nil, "it is not an address as in user@example.com"
	}
	return &mailbox{Name: got[0].name, Address: got[0].String()}, ""
}
