package script

import (
	"bytes"
	"fmt"
	"math"
	"math/bits"
	"strings"
)

type tokenKind uint8

const (
	tokenEnd tokenKind = iota
	tokenIdentifier
	tokenTag
	tokenNumber
	tokenString
	tokenSemicolon
	tokenComma
	tokenOpenBlock
	tokenCloseBlock
	tokenOpenTests
	tokenCloseTests
	tokenOpenList
	tokenCloseList
	tokenGarbage
)

var punctuation = map[byte]tokenKind{
	';': tokenSemicolon, ',': tokenComma, '{': tokenOpenBlock, '}': tokenCloseBlock,
	'(': tokenOpenTests, ')': tokenCloseTests, '[': tokenOpenList, ']': tokenCloseList,
}

// lexer makes tokens (RFC 5228 section 8.1). The current one is in its fields.
type lexer struct {
	text        []byte
	at          int
	line, begin int // the line, and where it begins
	diagnostics []Diagnostic

	kind   tokenKind
	pos    Position
	word   string
	number uint64
}

func (l *lexer) report(pos Position, format string, args ...any) {
	if len(l.diagnostics) < MaxDiagnostics {
		l.diagnostics = append(l.diagnostics, Diagnostic{Position: pos, Message: fmt.Sprintf(format, args...)})
	}
}

func (l *lexer) here() Position { return Position{l.line, l.at - l.begin + 1} }

// next is the octet at an offset, 0 behind the end.
func (l *lexer) next(offset int) byte {
	if l.at+offset < len(l.text) {
		return l.text[l.at+offset]
	}
	return 0
}

// take goes over an octet and counts lines.
func (l *lexer) take() byte {
	c := l.text[l.at]
	l.at++
	if c == '\n' {
		l.line, l.begin = l.line+1, l.at
	}
	return c
}

// advance reads the next token.
func (l *lexer) advance() {
	l.blank()
	l.pos, l.word, l.number = l.here(), "", 0
	if l.at >= len(l.text) {
		l.kind = tokenEnd
		return
	}
	c := l.text[l.at]
	if kind, ok := punctuation[c]; ok {
		l.at++
		l.kind = kind
		return
	}
	switch {
	case c == '"':
		l.quoted()
	case c >= '0' && c <= '9':
		l.digits()
	case letter(c):
		if l.identifier(); l.word == "text" && l.next(0) == ':' {
			l.at++
			l.multiline()
		}
	case c == ':' && letter(l.next(1)):
		l.at++
		l.identifier()
		l.kind = tokenTag
	default:
		l.garbage()
	}
}

func letter(c byte) bool { return c == '_' || c|0x20 >= 'a' && c|0x20 <= 'z' }

// blank goes over white space and comments.
func (l *lexer) blank() {
	for l.at < len(l.text) {
		switch c := l.text[l.at]; {
		case c == ' ' || c == '\t' || c == '\r' || c == '\n':
			l.take()
		case c == '#':
			for l.at < len(l.text) && l.text[l.at] != '\n' {
				l.at++
			}
		case c == '/' && l.next(1) == '*':
			begin := l.here()
			end := bytes.Index(l.text[l.at+2:], []byte("*/"))
			if end < 0 {
				l.report(begin, "this comment is never closed: write */ behind it")
				end = len(l.text) - l.at - 4
			}
			for stop := l.at + 4 + end; l.at < min(stop, len(l.text)); {
				l.take()
			}
		default:
			return
		}
	}
}

func (l *lexer) identifier() {
	l.kind = tokenIdentifier
	begin := l.at
	for l.at < len(l.text) && (letter(l.text[l.at]) || l.text[l.at] >= '0' && l.text[l.at] <= '9') {
		l.at++
	}
	l.word = strings.ToLower(string(l.text[begin:l.at]))
	if len(l.word) > MaxIdentifier {
		l.report(l.pos, "the identifier '%s...' is too long: at most %d characters", l.word[:MaxIdentifier], MaxIdentifier)
		l.word = l.word[:MaxIdentifier]
	}
}

// digits reads a number with its quantifier.
func (l *lexer) digits() {
	l.kind = tokenNumber
	over := false
	for l.at < len(l.text) && l.text[l.at] >= '0' && l.text[l.at] <= '9' {
		high, low := bits.Mul64(l.number, 10)
		sum, carry := bits.Add64(low, uint64(l.text[l.at]-'0'), 0)
		over = over || high != 0 || carry != 0
		l.number = sum
		l.at++
	}
	shift := 0
	switch l.next(0) | 0x20 {
	case 'k':
		shift = 10
	case 'm':
		shift = 20
	case 'g':
		shift = 30
	}
	if shift > 0 {
		l.at++
		over = over || l.number > math.MaxUint64>>shift
		l.number <<= shift
	}
	if over {
		l.report(l.pos, "this number is too large")
		l.number = math.MaxUint64
	}
	if letter(l.next(0)) {
		l.report(l.here(), "a number may end with K, M or G, and not with '%c'", l.next(0))
		for l.at < len(l.text) && letter(l.text[l.at]) {
			l.at++
		}
	}
}

// quoted reads a quoted string. A line end within it counts as CRLF, whatever the
// script's are.
func (l *lexer) quoted() {
	l.kind = tokenString
	l.at++
	var b strings.Builder
	for l.at < len(l.text) {
		c := l.take()
		switch c {
		case '"':
			l.word = b.String()
			return
		case '\\':
			if l.at < len(l.text) {
				l.octet(&b, l.take())
			}
		default:
			l.octet(&b, c)
		}
	}
	l.word = b.String()
	l.report(l.pos, "this string is never closed: write \" behind it")
}

func (l *lexer) octet(b *strings.Builder, c byte) {
	switch {
	case c == 0:
		l.report(l.here(), "a string has no NUL octet")
	case c == '\n' && !strings.HasSuffix(b.String(), "\r"):
		b.WriteString("\r\n")
	default:
		b.WriteByte(c)
	}
}

// multiline reads what follows "text:" (RFC 5228 section 2.4.2).
func (l *lexer) multiline() {
	l.kind, l.word = tokenString, ""
	for l.next(0) == ' ' || l.next(0) == '\t' {
		l.at++
	}
	if l.next(0) == '#' {
		for l.at < len(l.text) && l.text[l.at] != '\n' {
			l.at++
		}
	}
	if l.next(0) == '\r' {
		l.at++
	}
	if l.at >= len(l.text) || l.text[l.at] != '\n' {
		l.report(l.here(), "text: is followed by a line end")
		return
	}
	l.take()
	var b strings.Builder
	for l.at < len(l.text) {
		line := l.text[l.at:]
		if i := bytes.IndexByte(line, '\n'); i >= 0 {
			line = line[:i+1]
		}
		for range line {
			l.take()
		}
		line = bytes.TrimSuffix(bytes.TrimSuffix(line, []byte("\n")), []byte("\r"))
		if len(line) == 1 && line[0] == '.' {
			l.word = b.String()
			return
		}
		if bytes.IndexByte(line, 0) >= 0 {
			l.report(l.pos, "a string has no NUL octet")
		}
		// Before a line that begins with a dot another one was put; who forgot to is
		// understood all the same.
		if bytes.HasPrefix(line, []byte("..")) {
			line = line[1:]
		}
		b.Write(line)
		b.WriteString("\r\n")
	}
	l.word = b.String()
	l.report(l.pos, "this text is never closed: write a line with a single dot behind it")
}

func (l *lexer) garbage() {
	l.kind = tokenGarbage
	first := l.text[l.at]
	for l.at < len(l.text) {
		c := l.text[l.at]
		if _, known := punctuation[c]; known || c == '"' || c == ' ' || c == '\t' || c == '\r' || c == '\n' || c == '#' || letter(c) {
			break
		}
		l.at++
	}
	l.report(l.pos, "unexpected character(s), starting with %q", first)
}
