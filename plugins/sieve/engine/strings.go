package engine

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/stagecoach-mta/stagecoach/plugins/sieve/script"
)

func sprintf(format string, args ...any) string { return fmt.Sprintf(format, args...) }

// str is a string as it is evaluated: parts of text and variables.
type str struct {
	pos   script.Position
	parts []part
}

// part is text, a variable (namespace "" or "global" or "env"), or a match value.
type part struct {
	text      string
	namespace string
	name      string
	number    int
	kind      partKind
}

type partKind uint8

const (
	partText partKind = iota
	partVariable
	partMatch
)

func (s *str) constant() (string, bool) {
	switch {
	case len(s.parts) == 0:
		return "", true
	case len(s.parts) == 1 && s.parts[0].kind == partText:
		return s.parts[0].text, true
	}
	return "", false
}

func (s *str) eval(m *machine) string {
	if c, ok := s.constant(); ok {
		return c
	}
	var b strings.Builder
	for i := range s.parts {
		p := &s.parts[i]
		switch p.kind {
		case partText:
			b.WriteString(p.text)
		case partVariable:
			b.WriteString(m.variable(p.namespace, p.name))
		case partMatch:
			if p.number < len(m.matched) {
				b.WriteString(m.matched[p.number])
			}
		}
		if b.Len() > m.c.MaxVariable+maxLiteral {
			break
		}
	}
	m.spend(int64(b.Len()))
	return b.String()
}

// maxLiteral is what a string may have beside its variables.
const maxLiteral = 1 << 20

// compile makes a str of a script's string.
func (v *validator) compile(s script.String) (str, bool) {
	text := s.Text
	if v.script.requires["encoded-character"] {
		decoded, err := encodedCharacters(text)
		if err != "" {
			v.errorf(s.Position, "%s", err)
			if decoded == "" {
				return str{pos: s.Position}, false
			}
		}
		text = decoded
	}
	out := str{pos: s.Position}
	if !v.script.requires["variables"] {
		if text != "" {
			out.parts = []part{{text: text}}
		}
		return out, true
	}
	for {
		i := strings.Index(text, "${")
		if i < 0 {
			break
		}
		p, rest, ok := reference(text[i+2:])
		if !ok {
			// No variable after all: it stays as it is (RFC 5229 section 3).
			out.add(text[:i+2])
			text = text[i+2:]
			continue
		}
		out.add(text[:i])
		if !v.mayRefer(s.Position, &p) {
			return out, false
		}
		out.parts = append(out.parts, p)
		text = rest
	}
	out.add(text)
	return out, true
}

func (s *str) add(text string) {
	if text == "" {
		return
	}
	if n := len(s.parts); n > 0 && s.parts[n-1].kind == partText {
		s.parts[n-1].text += text
		return
	}
	s.parts = append(s.parts, part{text: text})
}

// reference reads what follows "${" (RFC 5229 section 3).
func reference(s string) (p part, rest string, ok bool) {
	end := strings.IndexByte(s, '}')
	if end <= 0 {
		return p, "", false
	}
	name, rest := s[:end], s[end+1:]
	if isDigits(name) {
		n, err := strconv.Atoi(name)
		if err != nil || n > maxReference {
			n = maxReference
		}
		return part{kind: partMatch, number: n}, rest, true
	}
	levels := strings.Split(name, ".")
	for i, l := range levels {
		if !isIdentifier(l) && (i == 0 || !isDigits(l)) {
			return p, "", false
		}
	}
	last := len(levels) - 1
	return part{kind: partVariable, namespace: strings.ToLower(strings.Join(levels[:last], ".")), name: strings.ToLower(levels[last])}, rest, true
}

const maxReference = 1 << 16

func isDigits(s string) bool {
	for _, c := range []byte(s) {
		if c < '0' || c > '9' {
			return false
		}
	}
	return s != ""
}

func isIdentifier(s string) bool {
	for i, c := range []byte(s) {
		if c != '_' && (c|0x20 < 'a' || c|0x20 > 'z') && (i == 0 || c < '0' || c > '9') {
			return false
		}
	}
	return s != ""
}

// encodedCharacters is RFC 5228 section 2.4.2.4. What is not well-formed stays;
// a character that there is not is a mistake.
func encodedCharacters(s string) (out, mistake string) {
	if !strings.Contains(s, "${") {
		return s, ""
	}
	var b strings.Builder
	nul := ""
	for {
		i := strings.Index(s, "${")
		if i < 0 {
			b.WriteString(s)
			return b.String(), nul
		}
		b.WriteString(s[:i])
		kind, after, ok := strings.Cut(s[i+2:], ":")
		end := strings.IndexByte(after, '}')
		kind = strings.ToLower(kind)
		if !ok || end < 0 || kind != "hex" && kind != "unicode" {
			b.WriteString("${")
			s = s[i+2:]
			continue
		}
		words := strings.FieldsFunc(after[:end], func(r rune) bool { return r == ' ' || r == '\t' || r == '\r' || r == '\n' })
		var decoded []byte
		good := len(words) > 0
		for _, w := range words {
			if !good || !isHex(w) {
				good = false
				break
			}
			if kind == "hex" {
				n, err := strconv.ParseUint(w, 16, 64)
				if good = err == nil && len(w) <= 2; good {
					decoded = append(decoded, byte(n))
				}
				continue
			}
			n, err := strconv.ParseUint(w, 16, 64)
			if err != nil || n > 0x10ffff || n >= 0xd800 && n <= 0xdfff {
				return "", fmt.Sprintf("invalid unicode character 0x%s in encoded character substitution", clip(w, 20))
			}
			decoded = utf8.AppendRune(decoded, rune(n))
		}
		if !good {
			b.WriteString("${")
			s = s[i+2:]
			continue
		}
		if bytes.IndexByte(decoded, 0) >= 0 {
			nul = "an encoded character is NUL, which a string cannot have"
		}
		b.Write(decoded)
		s = after[end+1:]
	}
}

func isHex(s string) bool {
	for _, c := range []byte(s) {
		if (c < '0' || c > '9') && (c|0x20 < 'a' || c|0x20 > 'f') {
			return false
		}
	}
	return s != ""
}

// clip shortens what is shown, between two characters.
func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}
