package mime

import (
	"bytes"
	"strings"

	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// fields of a header by lower-case name, unfolded and trimmed. Of a field that
// stands more than once the first counts, but lists of addresses are joined.
type fields map[string][]byte

func (f fields) bytes(name string) []byte { return f[name] }

// wanted fields; true: a list of addresses.
var wanted = map[string]bool{
	"date": false, "subject": false, "in-reply-to": false, "message-id": false, "references": false,
	"from": true, "sender": true, "reply-to": true, "to": true, "cc": true, "bcc": true,
	"content-type": false, "content-transfer-encoding": false, "content-id": false,
	"content-description": false, "content-disposition": false, "content-md5": false,
	"content-language": false, "content-location": false,
}

// header reads header fields to the empty line. ended: a delimiter or the end of
// the input came first. A line that is no field is passed over.
func (p *parser) header() (fields, stop, bool) {
	f := fields{}
	var name string // of the field being read, if wanted
	var value []byte
	flush := func() {
		if name == "" {
			return
		}
		value = bytes.TrimSpace(value)
		if old, ok := f[name]; !ok {
			f[name] = bytes.Clone(value)
		} else if wanted[name] && len(value) > 0 {
			f[name] = append(append(old, ", "...), value...)
		}
		name, value = "", value[:0]
	}
	for {
		l, ok := p.s.next()
		if !ok {
			flush()
			return f, p.s.end(), true
		}
		if st, ok := p.delimiter(l); ok {
			flush()
			return f, st, true
		}
		if !l.cont {
			if len(l.text) == 0 {
				flush()
				return f, stop{}, false
			}
			if l.text[0] != ' ' && l.text[0] != '\t' {
				flush()
				key, rest, ok := fieldName(l.text)
				if !ok {
					continue
				}
				if _, ok := wanted[key]; !ok {
					continue
				}
				name, value = key, p.keep(value[:0], rest)
				continue
			}
		}
		if name != "" {
			// Unfolding removes the line end and keeps the white space (RFC 5322
			// section 2.2.3).
			value = p.keep(value, l.text)
		}
	}
}

// keep appends text within the limits.
func (p *parser) keep(value, text []byte) []byte {
	n := min(len(text), maxField-len(value), maxKept-p.kept)
	if n <= 0 {
		return value
	}
	p.kept += n
	return append(value, text[:n]...)
}

// fieldName splits a field line; white space before the colon is obsolete syntax
// (RFC 5322 section 4.5).
func fieldName(text []byte) (name string, value []byte, ok bool) {
	i := bytes.IndexByte(text, ':')
	if i <= 0 || i > 128 {
		return "", nil, false
	}
	key := bytes.TrimRight(text[:i], " \t")
	for _, c := range key {
		if c <= ' ' || c >= 0x7f {
			return "", nil, false
		}
	}
	return strings.ToLower(string(key)), text[i+1:], len(key) > 0
}

// token tells whether s is a token (RFC 2045 section 5.1).
func token(s string) bool {
	if s == "" || len(s) > 256 {
		return false
	}
	for i := range len(s) {
		if s[i] <= ' ' || s[i] >= 0x7f || strings.IndexByte("()<>@,;:\\\"/[]?=", s[i]) >= 0 {
			return false
		}
	}
	return true
}

// param returns the value of the parameter name.
func param(params []*v1.Param, name string) string {
	for _, p := range params {
		if p.Name == name {
			return string(p.Value)
		}
	}
	return ""
}

// parseParams reads `value; name=value; …` (RFC 2045 section 5.1, RFC 2183). The
// value and the names come in lower case. RFC 2231 forms are left as they stand.
func parseParams(field []byte) (string, []*v1.Param) {
	if field == nil {
		return "", nil
	}
	s := stripComments(field)
	i := bytes.IndexByte(s, ';')
	if i < 0 {
		i = len(s)
	}
	value := strings.ToLower(string(bytes.TrimSpace(s[:i])))
	var params []*v1.Param
	for i < len(s) && len(params) < 100 {
		s = s[i+1:]
		name, rest, ok := bytes.Cut(s, []byte("="))
		if !ok {
			break
		}
		if j := bytes.LastIndexByte(name, ';'); j >= 0 {
			name = name[j+1:]
		}
		key := strings.ToLower(string(bytes.TrimSpace(name)))
		s = bytes.TrimLeft(rest, " \t")
		var v []byte
		if len(s) > 0 && s[0] == '"' {
			var n int
			v, n = quoted(s)
			s = s[n:]
			if i = bytes.IndexByte(s, ';'); i < 0 {
				i = len(s)
			}
		} else {
			if i = bytes.IndexByte(s, ';'); i < 0 {
				i = len(s)
			}
			v = bytes.Clone(bytes.TrimSpace(s[:i]))
		}
		if token(key) {
			params = append(params, &v1.Param{Name: key, Value: v})
		}
	}
	return value, params
}

// quoted reads a quoted-string at the start of s: its content, and its length
// within s. A missing quote at the end is forgiven.
func quoted(s []byte) ([]byte, int) {
	out := make([]byte, 0, 16)
	for i := 1; i < len(s); i++ {
		switch {
		case s[i] == '"':
			return out, i + 1
		case s[i] == '\\' && i+1 < len(s):
			i++
			out = append(out, s[i])
		default:
			out = append(out, s[i])
		}
	}
	return out, len(s)
}

// comment reads a comment at the start of s (RFC 5322 section 3.2.2).
func comment(s []byte) ([]byte, int) {
	var out []byte
	depth := 0
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case c == '\\' && i+1 < len(s):
			i++
			out = append(out, s[i])
			continue
		case c == '(':
			depth++
			if depth == 1 {
				continue
			}
		case c == ')':
			depth--
			if depth == 0 {
				return out, i + 1
			}
		}
		out = append(out, c)
	}
	return out, len(s)
}

// stripComments puts a space in the place of each comment outside of quotes.
func stripComments(s []byte) []byte {
	if bytes.IndexByte(s, '(') < 0 {
		return s
	}
	out := make([]byte, 0, len(s))
	for i := 0; i < len(s); {
		switch s[i] {
		case '(':
			_, n := comment(s[i:])
			i += n
			out = append(out, ' ')
		case '"':
			_, n := quoted(s[i:])
			out = append(out, s[i:i+n]...)
			i += n
		default:
			out = append(out, s[i])
			i++
		}
	}
	return out
}
