// Package authres writes Authentication-Results fields (RFC 8601) and tells whose
// name one bears that came with a mail. It reads no property of such a field.
package authres

import (
	"slices"
	"strings"
	"unicode/utf8"
)

// Result is what one method found out.
type Result struct {
	// Method is "spf", "dkim", "dmarc", "arc", "iprev" …; Value its result.
	Method, Value string
	// Comment is for people; Reason says why, in a sentence. Both may be empty.
	Comment, Reason string
	Properties      []Property
}

// Property is what was looked at: Type "smtp", "header", "policy", "polrec".
type Property struct{ Type, Name, Value string }

// Format makes the value of a field, folded: the results in their order, or
// "none" if there are none. Whatever a stranger put into a value, it cannot end
// its result or its field.
func Format(id string, results []Result) string {
	var b strings.Builder
	b.WriteByte(' ')
	writeValue(&b, id)
	if len(results) == 0 {
		b.WriteString("; none")
	}
	for _, r := range results {
		b.WriteString(";\r\n\t")
		b.WriteString(r.Method + "=" + r.Value)
		if r.Comment != "" {
			b.WriteString(" (" + comment(r.Comment) + ")")
		}
		if r.Reason != "" {
			b.WriteString("\r\n\t reason=")
			writeQuoted(&b, cut(r.Reason, 200))
		}
		for _, p := range r.Properties {
			if p.Value == "" {
				continue
			}
			b.WriteString("\r\n\t " + p.Type + "." + p.Name + "=")
			writeValue(&b, cut(p.Value, 600))
		}
	}
	return b.String()
}

func cut(s string, n int) string {
	if len(s) > n {
		return s[:n]
	}
	return s
}

// writeValue writes a pvalue: an address or a token as it is, else quoted.
func writeValue(b *strings.Builder, s string) {
	at := 0
	for i := range len(s) {
		c := s[i]
		if c == '@' && i < len(s)-1 {
			at++
			continue
		}
		if c <= ' ' || c >= 0x7f || strings.IndexByte(`()<>,;:\"/[]?=`, c) >= 0 {
			writeQuoted(b, s)
			return
		}
	}
	if s == "" || at > 1 {
		writeQuoted(b, s)
		return
	}
	b.WriteString(s)
}

// writeQuoted writes a quoted-string. What is no UTF-8, and what no line of a
// header has, becomes a question mark.
func writeQuoted(b *strings.Builder, s string) {
	b.WriteByte('"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r < ' ' || r == 0x7f || r == utf8.RuneError:
			b.WriteByte('?')
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
}

func comment(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f || strings.ContainsRune(`()\`, r) {
			return '_'
		}
		return r
	}, cut(s, 200))
}

// Name reads the authserv-id of a field's value: whose results they claim to be,
// in lower case. False: it cannot be told.
func Name(value string) (string, bool) {
	s := skipCFWS(value)
	var id string
	if strings.HasPrefix(s, `"`) {
		var b strings.Builder
		i := 1
		for ; i < len(s) && s[i] != '"'; i++ {
			if s[i] == '\\' && i+1 < len(s) {
				i++
			}
			b.WriteByte(s[i])
		}
		if i >= len(s) {
			return "", false
		}
		id = b.String()
	} else {
		n := strings.IndexAny(s, " \t\r\n(;\"")
		if n < 0 {
			n = len(s)
		}
		id = s[:n]
	}
	return strings.ToLower(strings.TrimSuffix(id, ".")), id != ""
}

// skipCFWS passes white space and comments, which nest.
func skipCFWS(s string) string {
	for {
		s = strings.TrimLeft(s, " \t\r\n")
		if !strings.HasPrefix(s, "(") {
			return s
		}
		depth, i := 0, 0
		for ; i < len(s); i++ {
			switch s[i] {
			case '\\':
				i++
			case '(':
				depth++
			case ')':
				depth--
			}
			if depth == 0 {
				break
			}
		}
		if depth != 0 {
			return ""
		}
		s = s[i+1:]
	}
}

// Results are the results of a field's value as they are written, without the
// authserv-id, comments kept, unfolded: "spf=pass smtp.mailfrom=hanks.example".
// "none" alone is none.
func Results(value string) []string {
	var out []string
	start, depth, quoted := 0, 0, false
	cut := func(end int) {
		out = append(out, strings.Join(strings.Fields(value[start:end]), " "))
		start = end + 1
	}
	for i := 0; i < len(value); i++ {
		switch c := value[i]; {
		case c == '\\':
			i++
		case c == '"' && depth == 0:
			quoted = !quoted
		case quoted:
		case c == '(':
			depth++
		case c == ')' && depth > 0:
			depth--
		case c == ';' && depth == 0:
			cut(i)
		}
	}
	if start < len(value) {
		cut(len(value))
	}
	if len(out) == 0 {
		return nil
	}
	return slices.DeleteFunc(out[1:], func(r string) bool { return r == "" || strings.EqualFold(r, "none") })
}

// Method is the method and the result of one of Results, in lower case: "spf",
// "pass". Two empty strings: it has none.
func Method(result string) (method, value string) {
	name, rest, ok := strings.Cut(skipCFWS(result), "=")
	if !ok {
		return "", ""
	}
	name, _, _ = strings.Cut(name, "/") // a version of the method
	rest = skipCFWS(rest)
	if n := strings.IndexAny(rest, " \t;("); n >= 0 {
		rest = rest[:n]
	}
	return strings.ToLower(strings.TrimSpace(name)), strings.ToLower(rest)
}
