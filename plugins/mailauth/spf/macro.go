package spf

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// domainSpec is a macro-string that makes a domain name (RFC 7208 section 7.1).
type domainSpec []macro

// macro is literal text, or a letter with its transformers.
type macro struct {
	text       string
	letter     byte // lower case; 0: text
	escape     bool // an upper-case letter: the value is URL-escaped
	parts      int  // how many right-hand parts to keep; 0: all
	reverse    bool
	delimiters string
}

// parseDomainSpec reads a domain-spec: it ends in a macro or in a top label
// behind a dot, as far as that can be seen before it is expanded.
func parseDomainSpec(s string) (domainSpec, error) {
	spec, err := parseMacros(s, false)
	if err != nil {
		return nil, err
	}
	if len(spec) == 0 {
		return nil, errors.New("the domain is empty")
	}
	last := spec[len(spec)-1]
	if last.letter != 0 || strings.HasSuffix(s, "%%") || strings.HasSuffix(s, "%_") || strings.HasSuffix(s, "%-") {
		return spec, nil
	}
	// The literal text behind the last macro.
	end := s
	if i := strings.LastIndexByte(s, '}'); i >= 0 && strings.Contains(s[:i], "%{") {
		end = s[i+1:]
	}
	end = strings.TrimSuffix(end, ".")
	if i := strings.LastIndexByte(end, '.'); i < 0 || !topLabel(end[i+1:]) {
		return nil, fmt.Errorf("%q does not end in a domain's top label", s)
	}
	return spec, nil
}

// parseMacros reads a macro-string; in an explanation's text spaces stand too,
// and the letters c, r and t.
func parseMacros(s string, explanation bool) (domainSpec, error) {
	var (
		out  domainSpec
		text strings.Builder
	)
	flush := func() {
		if text.Len() > 0 {
			out = append(out, macro{text: text.String()})
			text.Reset()
		}
	}
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c != '%' {
			if c <= ' ' && (!explanation || c != ' ') || c >= 0x7f {
				return nil, fmt.Errorf("the octet %#02x does not belong there", c)
			}
			text.WriteByte(c)
			continue
		}
		if i++; i == len(s) {
			return nil, errors.New("a % ends it")
		}
		switch s[i] {
		case '%':
			text.WriteByte('%')
		case '_':
			text.WriteByte(' ')
		case '-':
			text.WriteString("%20")
		case '{':
			n := strings.IndexByte(s[i:], '}')
			if n < 0 {
				return nil, errors.New("%{ has no }")
			}
			m, err := parseMacro(s[i+1:i+n], explanation)
			if err != nil {
				return nil, err
			}
			flush()
			out = append(out, m)
			i += n
		default:
			return nil, fmt.Errorf("%%%c is no macro", s[i])
		}
	}
	flush()
	return out, nil
}

// parseMacro reads what stands between the braces.
func parseMacro(s string, explanation bool) (macro, error) {
	letters := "slodiphv"
	if explanation {
		letters += "crt"
	}
	m := macro{delimiters: "."}
	if s == "" || strings.IndexByte(letters, s[0]|0x20) < 0 || !alphabetic(s[0]) {
		return m, fmt.Errorf("%%{%s} is no macro", s)
	}
	m.letter, m.escape = s[0]|0x20, s[0]&0x20 == 0
	s = s[1:]
	n := 0
	for n < len(s) && '0' <= s[n] && s[n] <= '9' {
		n++
	}
	if n > 0 {
		// No name has more than 128 parts: a larger number keeps all of them.
		v, err := strconv.Atoi(s[:min(n, 9)])
		if err != nil || v == 0 {
			return m, errors.New("a macro keeps one part at least")
		}
		m.parts, s = v, s[n:]
	}
	if s != "" && s[0]|0x20 == 'r' {
		m.reverse, s = true, s[1:]
	}
	for i := range len(s) {
		if strings.IndexByte(".-+,/_=", s[i]) < 0 {
			return m, fmt.Errorf("%q is no delimiter of a macro", s[i])
		}
	}
	if s != "" {
		m.delimiters = s
	}
	return m, nil
}

// expand makes the text of a macro-string for the current domain (section 7.3).
func (r *run) expand(spec domainSpec, domain string) (string, error) {
	if len(spec) == 1 && spec[0].letter == 0 {
		return spec[0].text, nil
	}
	var b strings.Builder
	for _, m := range spec {
		if m.letter == 0 {
			b.WriteString(m.text)
			continue
		}
		v, err := r.value(m.letter, domain)
		if err != nil {
			return "", err
		}
		if m.parts > 0 || m.reverse || m.delimiters != "." {
			v = m.transform(v)
		}
		if m.escape {
			v = urlEscape(v)
		}
		b.WriteString(v)
		// A name of 253 octets is the most that is ever used, and its end is what
		// counts; a text is cut elsewhere. This bounds what a record of macros
		// makes of a long local part.
		if b.Len() > 64<<10 {
			return "", errors.New("its macros make too much text")
		}
	}
	return b.String(), nil
}

func (m *macro) transform(v string) string {
	parts := splitAny(v, m.delimiters)
	if m.reverse {
		slices.Reverse(parts)
	}
	if m.parts > 0 && m.parts < len(parts) {
		parts = parts[len(parts)-m.parts:]
	}
	return strings.Join(parts, ".")
}

func splitAny(s, delimiters string) []string {
	var out []string
	for {
		i := strings.IndexAny(s, delimiters)
		if i < 0 {
			return append(out, s)
		}
		out, s = append(out, s[:i]), s[i+1:]
	}
}

// value of a macro letter (section 7.2).
func (r *run) value(letter byte, domain string) (string, error) {
	switch letter {
	case 's':
		return r.local + "@" + r.origin, nil
	case 'l':
		return r.local, nil
	case 'o':
		return r.origin, nil
	case 'd':
		return domain, nil
	case 'i':
		return r.dotted(), nil
	case 'p':
		return r.validatedName(domain)
	case 'v':
		if r.ip.Is4() {
			return "in-addr", nil
		}
		return "ip6", nil
	case 'h':
		return r.hello, nil
	case 'c':
		return r.ip.String(), nil
	case 'r':
		if r.Receiver == "" {
			return "unknown", nil
		}
		return r.Receiver, nil
	default: // 't'
		now := time.Now
		if r.Now != nil {
			now = r.Now
		}
		return strconv.FormatInt(now().Unix(), 10), nil
	}
}

// dotted is the address in parts, an IPv6 one in nibbles.
func (r *run) dotted() string {
	if r.ip.Is4() {
		return r.ip.String()
	}
	const hex = "0123456789ABCDEF"
	b := make([]byte, 0, 63)
	for i, octet := range r.ip.As16() {
		if i > 0 {
			b = append(b, '.')
		}
		b = append(b, hex[octet>>4], '.', hex[octet&15])
	}
	return string(b)
}

// validatedName is the best of the client's names that lead back to it: the
// domain itself, one below it, any other, or "unknown" (section 7.3).
func (r *run) validatedName(domain string) (string, error) {
	best := "unknown"
	for _, n := range r.validated() {
		switch {
		case n == domain:
			return n, nil
		case strings.HasSuffix(n, "."+domain):
			if !strings.HasSuffix(best, "."+domain) {
				best = n
			}
		case best == "unknown":
			best = n
		}
	}
	return best, r.ctx.Err()
}

// target is the name that a domain-spec makes: cut on the left until it fits a
// query (section 7.3).
func (r *run) target(spec domainSpec, domain string) (string, error) {
	if spec == nil {
		return domain, nil
	}
	name, err := r.expand(spec, domain)
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	for len(name) > 253 {
		_, rest, ok := strings.Cut(name, ".")
		if !ok {
			break
		}
		name = rest
	}
	return name, err
}

// urlEscape leaves RFC 3986's unreserved characters.
func urlEscape(s string) string {
	var b strings.Builder
	for i := range len(s) {
		if c := s[i]; alphanumeric(c) || strings.IndexByte("-._~", c) >= 0 {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}

// explain makes the explanation's text; anything wrong with it leaves it empty
// (section 6.2).
func (r *run) explain(spec domainSpec, domain string) string {
	name, err := r.target(spec, domain)
	if err != nil {
		return ""
	}
	txt, err := r.Resolver.TXT(r.ctx, name)
	if err != nil || len(txt) != 1 {
		return ""
	}
	text, err := parseMacros(txt[0], true)
	if err != nil {
		return ""
	}
	out, err := r.expand(text, domain)
	if err != nil || len(out) > 1024 {
		return ""
	}
	// A local part or a greeting has its way into the text through macros.
	for i := range len(out) {
		if out[i] < ' ' || out[i] >= 0x7f {
			return ""
		}
	}
	return out
}
