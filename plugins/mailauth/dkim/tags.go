package dkim

import (
	"errors"
	"fmt"
	"strings"
)

// Tags is a tag-list (RFC 6376 section 3.2), as signatures, keys and the policies
// of DMARC have them.
type Tags []Tag

// Tag is one name=value.
type Tag struct {
	Name, Value string
	// start and end of the value in the list, with the blanks around it.
	start, end int
}

// ParseTags reads a tag-list. No name may stand there twice.
func ParseTags(s string) (Tags, error) {
	var out Tags
	for at := 0; at <= len(s); {
		end := strings.IndexByte(s[at:], ';')
		if end < 0 {
			end = len(s)
		} else {
			end += at
		}
		spec := s[at:end]
		if strings.Trim(spec, blanks) == "" {
			if end < len(s) && strings.Trim(s[end+1:], blanks) != "" || end == len(s) && len(out) == 0 {
				return nil, errors.New("a tag is empty")
			}
			at = end + 1
			continue
		}
		eq := strings.IndexByte(spec, '=')
		if eq < 0 {
			return nil, fmt.Errorf("%q has no =", shortened(spec))
		}
		t := Tag{Name: strings.Trim(spec[:eq], blanks), Value: strings.Trim(spec[eq+1:], blanks), start: at + eq + 1, end: end}
		if !tagName(t.Name) {
			return nil, fmt.Errorf("%q is no tag's name", shortened(t.Name))
		}
		if _, twice := out.Get(t.Name); twice {
			return nil, fmt.Errorf("the tag %s= stands there twice", t.Name)
		}
		if len(out) == maxTags {
			return nil, fmt.Errorf("more than %d tags", maxTags)
		}
		for i := range len(t.Value) {
			if c := t.Value[i]; c < ' ' && strings.IndexByte(blanks, c) < 0 || c == 0x7f {
				return nil, fmt.Errorf("the value of %s= has the octet %#02x", t.Name, c)
			}
		}
		out = append(out, t)
		at = end + 1
	}
	return out, nil
}

const (
	// blanks of folding white space.
	blanks = " \t\r\n"
	// No signature, key or policy has a use for as many.
	maxTags = 64
)

// tagName is ALPHA *ALNUMPUNC.
func tagName(s string) bool {
	for i := range len(s) {
		c := s[i]
		letter := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
		if !letter && (i == 0 || c != '_' && (c < '0' || c > '9')) {
			return false
		}
	}
	return s != ""
}

// Get returns a tag's value.
func (t Tags) Get(name string) (string, bool) {
	for i := range t {
		if t[i].Name == name {
			return t[i].Value, true
		}
	}
	return "", false
}

// Has tells whether there is a tag of that name.
func (t Tags) Has(name string) bool {
	_, ok := t.Get(name)
	return ok
}

// unblanked is a value without its folding: base64, or a list.
func unblanked(s string) string {
	if !strings.ContainsAny(s, blanks) {
		return s
	}
	return strings.Map(func(r rune) rune {
		if strings.ContainsRune(blanks, r) {
			return -1
		}
		return r
	}, s)
}

// colonList splits a colon-separated list.
func colonList(s string) []string { return strings.Split(unblanked(s), ":") }

func shortened(s string) string {
	if len(s) > 40 {
		return s[:40] + "…"
	}
	return s
}
