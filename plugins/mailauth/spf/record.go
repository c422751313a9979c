package spf

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// Record is a domain's policy, syntax checked (RFC 7208 section 4.6.1).
type Record struct {
	mechanisms    []mechanism
	redirect, exp domainSpec // nil: there is none
}

// mechanism with its qualifier.
type mechanism struct {
	text   string
	result Result
	name   string     // all, include, a, mx, ptr, ip4, ip6, exists
	spec   domainSpec // nil: the current domain
	prefix netip.Prefix
	bits4  int // of a and mx
	bits6  int
}

var qualifiers = map[byte]Result{'+': Pass, '-': Fail, '~': SoftFail, '?': Neutral}

// IsRecord tells whether a TXT record is an SPF record (section 4.5).
func IsRecord(txt string) bool {
	return len(txt) >= 6 && strings.EqualFold(txt[:6], "v=spf1") && (len(txt) == 6 || txt[6] == ' ')
}

// Parse reads a record; its error says which term is wrong.
func Parse(txt string) (*Record, error) {
	if !IsRecord(txt) {
		return nil, fmt.Errorf("%q does not begin with v=spf1", txt)
	}
	rec := &Record{}
	for term := range strings.SplitSeq(txt[6:], " ") {
		if term == "" {
			continue
		}
		if err := rec.term(term); err != nil {
			return nil, fmt.Errorf("%q: %w", term, err)
		}
	}
	return rec, nil
}

func (rec *Record) term(term string) error {
	if name, value, ok := strings.Cut(term, "="); ok && modifierName(name) {
		return rec.modifier(strings.ToLower(name), value)
	}
	m := mechanism{text: term, result: Pass, bits4: 32, bits6: 128}
	rest := term
	if q, ok := qualifiers[rest[0]]; ok {
		m.result, rest = q, rest[1:]
	}
	n := 0
	for n < len(rest) && alphanumeric(rest[n]) {
		n++
	}
	m.name, rest = strings.ToLower(rest[:n]), rest[n:]
	if err := m.arguments(rest); err != nil {
		return err
	}
	rec.mechanisms = append(rec.mechanisms, m)
	return nil
}

// modifier reads redirect= and exp=, once each, and looks at the syntax of others
// (section 6).
func (rec *Record) modifier(name, value string) error {
	var dest *domainSpec
	switch name {
	case "redirect":
		dest = &rec.redirect
	case "exp":
		dest = &rec.exp
	default:
		_, err := parseMacros(value, false)
		return err
	}
	if *dest != nil {
		return fmt.Errorf("%s= stands there twice", name)
	}
	spec, err := parseDomainSpec(value)
	*dest = spec
	return err
}

// arguments reads what follows a mechanism's name (section 5).
func (m *mechanism) arguments(rest string) (err error) {
	value, hasValue := strings.CutPrefix(rest, ":")
	switch m.name {
	case "all":
		if rest != "" {
			return fmt.Errorf("all has no argument")
		}
	case "include", "exists":
		if !hasValue {
			return fmt.Errorf("%s needs a domain", m.name)
		}
		m.spec, err = parseDomainSpec(value)
	case "ptr":
		if rest == "" {
			return nil
		}
		if !hasValue {
			return fmt.Errorf("%q does not belong behind ptr", rest)
		}
		m.spec, err = parseDomainSpec(value)
	case "a", "mx":
		if rest, err = m.dualCIDR(rest); err != nil || rest == "" {
			return err
		}
		if value, hasValue = strings.CutPrefix(rest, ":"); !hasValue {
			return fmt.Errorf("%q does not belong behind %s", rest, m.name)
		}
		m.spec, err = parseDomainSpec(value)
	case "ip4", "ip6":
		if !hasValue {
			return fmt.Errorf("%s needs an address", m.name)
		}
		m.prefix, err = parseNetwork(value, m.name == "ip4")
	default:
		return fmt.Errorf("there is no such mechanism")
	}
	return err
}

// dualCIDR takes "/24", "//64" or "/24//64" off the end. A domain may have
// slashes itself: what is no number belongs to it.
func (m *mechanism) dualCIDR(s string) (rest string, err error) {
	if i := strings.LastIndex(s, "//"); i >= 0 && digits(s[i+2:]) {
		if m.bits6, err = cidrLength(s[i+2:], 128); err != nil {
			return "", err
		}
		s = s[:i]
	}
	if i := strings.LastIndexByte(s, '/'); i >= 0 && digits(s[i+1:]) {
		if m.bits4, err = cidrLength(s[i+1:], 32); err != nil {
			return "", err
		}
		s = s[:i]
	}
	return s, nil
}

func digits(s string) bool {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return s != ""
}

func cidrLength(s string, most int) (int, error) {
	n, err := strconv.Atoi(s)
	if err != nil || n > most || len(s) > 1 && s[0] == '0' || !digits(s) {
		return 0, fmt.Errorf("/%s is no prefix length up to %d", s, most)
	}
	return n, nil
}

func parseNetwork(s string, v4 bool) (netip.Prefix, error) {
	text, length, hasLength := strings.Cut(s, "/")
	a, err := netip.ParseAddr(text)
	if err != nil || a.Is4() != v4 || a.Zone() != "" {
		return netip.Prefix{}, fmt.Errorf("%q is no address of that family", text)
	}
	bits := a.BitLen()
	if hasLength {
		if bits, err = cidrLength(length, a.BitLen()); err != nil {
			return netip.Prefix{}, err
		}
	}
	return netip.PrefixFrom(a, bits), nil
}

// modifierName is ALPHA *( ALPHA / DIGIT / "-" / "_" / "." ).
func modifierName(s string) bool {
	for i := range len(s) {
		c := s[i]
		if !alphabetic(c) && (i == 0 || !alphanumeric(c) && c != '-' && c != '_' && c != '.') {
			return false
		}
	}
	return s != ""
}

func alphabetic(c byte) bool { return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' }

func alphanumeric(c byte) bool { return alphabetic(c) || '0' <= c && c <= '9' }

// topLabel is section 7.1's: letters, digits and inner hyphens, not all digits.
func topLabel(s string) bool {
	numeric := true
	for i := range len(s) {
		c := s[i]
		if !alphanumeric(c) && (c != '-' || i == 0 || i == len(s)-1) {
			return false
		}
		numeric = numeric && '0' <= c && c <= '9'
	}
	return s != "" && !numeric
}
