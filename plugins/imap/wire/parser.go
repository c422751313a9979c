// Package wire is IMAP's grammar (RFC 9051 section 9): it takes one command apart
// and puts replies together. It knows no command, no connection and no storage.
package wire

import (
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Blob is a literal that was not kept in the command, because it is a message.
type Blob interface {
	Size() int64
	// Bytes reads it into memory, if it has no more octets than that.
	Bytes(limit int64) ([]byte, error)
}

// Parser takes one whole command apart. The first mistake stays in Err; after it
// everything is empty and every loop over More ends, so that a caller looks once,
// at the end.
//
// A literal stands in the text as "{n}", CR LF and its octets; one that was put
// aside as a Blob has no octets there.
type Parser struct {
	text  string
	at    int
	blobs map[int]Blob
	err   error
	depth int
}

// maxDepth bounds what nests: search keys, body structures of a client.
const maxDepth = 60

// longestString is the longest string that is taken from a Blob.
const longestString = 16 << 10

// NewParser of a command's text; blobs are by the offset of their "{".
func NewParser(text string, blobs map[int]Blob) *Parser {
	return &Parser{text: text, blobs: blobs}
}

// SyntaxError is what a client did wrong, in a line.
type SyntaxError string

// Error implements error.
func (e SyntaxError) Error() string { return string(e) }

// Err is the first mistake.
func (p *Parser) Err() error { return p.err }

// Fail notes a mistake, if it is the first.
func (p *Parser) Fail(format string, args ...any) {
	if p.err == nil {
		p.err = SyntaxError(fmt.Sprintf(format, args...))
		p.at = len(p.text)
	}
}

func (p *Parser) expected(what string) {
	if p.at >= len(p.text) {
		p.Fail("Expected %s at the end of the command", what)
		return
	}
	p.Fail("Expected %s before %s", what, strconv.QuoteToASCII(p.text[p.at:min(len(p.text), p.at+16)]))
}

// Peek is the next octet; 0 at the end.
func (p *Parser) Peek() byte {
	if p.at < len(p.text) {
		return p.text[p.at]
	}
	return 0
}

// Rest is what has not been taken yet.
func (p *Parser) Rest() string { return p.text[p.at:] }

// Mark and Return look ahead: Return goes back to a Mark.
func (p *Parser) Mark() int { return p.at }

// Return goes back to where Mark was.
func (p *Parser) Return(mark int) {
	if p.err == nil {
		p.at = mark
	}
}

// Try takes c if it is next.
func (p *Parser) Try(c byte) bool {
	if p.at < len(p.text) && p.text[p.at] == c {
		p.at++
		return true
	}
	return false
}

// Expect takes c.
func (p *Parser) Expect(c byte) {
	if !p.Try(c) {
		p.expected(strconv.QuoteToASCII(string(rune(c))))
	}
}

// SP takes the one blank between two arguments.
func (p *Parser) SP() {
	if !p.Try(' ') {
		p.expected("a blank")
	}
}

// End says that the command is over. Blanks at the end are forgiven.
func (p *Parser) End() {
	for p.Try(' ') {
	}
	if p.at < len(p.text) {
		p.expected("the end of the command")
	}
}

// AtEnd tells whether nothing is left.
func (p *Parser) AtEnd() bool { return p.at >= len(p.text) }

// Enter guards a level of nesting; Leave ends it.
func (p *Parser) Enter() {
	if p.depth++; p.depth > maxDepth {
		p.Fail("Nested more than %d deep", maxDepth)
	}
}

// Leave a level of nesting.
func (p *Parser) Leave() { p.depth-- }

// List takes a parenthesised list, item by item; it may be empty.
func (p *Parser) List(item func()) {
	p.Expect('(')
	if p.Try(')') {
		return
	}
	p.Enter()
	defer p.Leave()
	for p.err == nil {
		item()
		if p.Try(')') {
			return
		}
		p.SP()
	}
}

func isAtomChar(c byte) bool {
	return c > ' ' && c < 0x7f && !strings.ContainsRune(`(){%*"\]`, rune(c))
}

func (p *Parser) while(is func(byte) bool) string {
	from := p.at
	for p.at < len(p.text) && is(p.text[p.at]) {
		p.at++
	}
	return p.text[from:p.at]
}

// Atom takes an atom.
func (p *Parser) Atom() string {
	s := p.while(isAtomChar)
	if s == "" {
		p.expected("an atom")
	}
	return s
}

// Word takes an atom that is compared without case, and returns it in capitals.
func (p *Parser) Word() string { return strings.ToUpper(p.Atom()) }

// Letters takes a word that ends before the first octet that is no letter, digit,
// dot or hyphen, as the names of FETCH items do.
func (p *Parser) Letters() string {
	s := p.while(func(c byte) bool {
		return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '.' || c == '-' || c == '_' || c == '='
	})
	if s == "" {
		p.expected("a name")
	}
	return strings.ToUpper(s)
}

// Digits takes a number of any size as it stands.
func (p *Parser) digits() string {
	return p.while(func(c byte) bool { return c >= '0' && c <= '9' })
}

// Number takes a number of 32 bits.
func (p *Parser) Number() uint32 { return uint32(p.number(32)) }

// Number63 takes a number of 63 bits: a MODSEQ, a size.
func (p *Parser) Number63() uint64 { return p.number(63) }

// NonZero takes a number of 32 bits that is not 0.
func (p *Parser) NonZero() uint32 {
	n := p.Number()
	if n == 0 {
		p.Fail("A number must not be 0 here")
	}
	return n
}

func (p *Parser) number(bits int) uint64 {
	d := p.digits()
	if d == "" {
		p.expected("a number")
		return 0
	}
	n, err := strconv.ParseUint(d, 10, bits)
	if err != nil {
		p.Fail("The number %.30s is too large", d)
	}
	return n
}

// AString takes an atom (in which "]" is allowed) or a string.
func (p *Parser) AString() string {
	switch p.Peek() {
	case '"', '{':
		return p.String()
	}
	s := p.while(func(c byte) bool { return isAtomChar(c) || c == ']' })
	if s == "" {
		p.expected("an atom or a string")
	}
	return s
}

// IsString tells whether a string comes next, and not an atom.
func (p *Parser) IsString() bool { c := p.Peek(); return c == '"' || c == '{' }

// String takes a quoted string or a literal.
func (p *Parser) String() string {
	switch p.Peek() {
	case '"':
		return p.quoted()
	case '{':
		text, blob := p.Literal()
		if blob == nil {
			return text
		}
		b, err := blob.Bytes(longestString)
		if err != nil {
			p.Fail("The literal is too long for a string")
		}
		return string(b)
	}
	p.expected("a string")
	return ""
}

// NString takes a string or NIL.
func (p *Parser) NString() (s string, is bool) {
	if len(p.Rest()) >= 3 && strings.EqualFold(p.Rest()[:3], "NIL") {
		p.at += 3
		return "", false
	}
	return p.String(), true
}

func (p *Parser) quoted() string {
	p.Expect('"')
	from := p.at
	for i := from; i < len(p.text); i++ {
		switch p.text[i] {
		case '"':
			p.at = i + 1
			return p.utf8(p.text[from:i])
		case '\\':
			return p.escaped(from, i)
		case '\r', '\n', 0:
			p.openQuote()
			return ""
		}
	}
	p.openQuote()
	return ""
}

// OpenQuote is the mistake of a quoted string that its line does not end: what
// comes next may be its rest, so nobody should go on reading commands there.
const OpenQuote SyntaxError = "A quoted string has no end"

func (p *Parser) openQuote() {
	if p.err == nil {
		p.err, p.at = OpenQuote, len(p.text)
	}
}

// escaped goes on with a quoted string at its first backslash.
func (p *Parser) escaped(from, at int) string {
	out := []byte(p.text[from:at])
	for i := at; i < len(p.text); i++ {
		c := p.text[i]
		switch c {
		case '"':
			p.at = i + 1
			return p.utf8(string(out))
		case '\\':
			if i++; i == len(p.text) || p.text[i] != '"' && p.text[i] != '\\' {
				p.Fail("A backslash in a quoted string stands before a quote or a backslash")
				return ""
			}
			c = p.text[i]
		case '\r', '\n', 0:
			p.openQuote()
			return ""
		}
		out = append(out, c)
	}
	p.openQuote()
	return ""
}

func (p *Parser) utf8(s string) string {
	if !utf8.ValidString(s) {
		p.Fail("A quoted string is ASCII or UTF-8")
		return ""
	}
	return s
}

// Literal takes a literal: its octets, or the Blob it was put aside as.
func (p *Parser) Literal() (string, Blob) {
	start := p.at
	p.Expect('{')
	d := p.digits()
	p.Try('+')
	if !strings.HasPrefix(p.Rest(), "}\r\n") {
		p.expected("a literal")
		return "", nil
	}
	p.at += 3
	if b := p.blobs[start]; b != nil {
		return "", b
	}
	n, err := strconv.ParseUint(d, 10, 31)
	if err != nil || int(n) > len(p.text)-p.at {
		p.Fail("The literal is not complete")
		return "", nil
	}
	s := p.text[p.at : p.at+int(n)]
	p.at += int(n)
	if strings.IndexByte(s, 0) >= 0 {
		p.Fail("NUL is not allowed in this literal")
		return "", nil
	}
	return s, nil
}

// Pattern takes LIST's mailbox pattern: an atom with wildcards, or a string.
func (p *Parser) Pattern() string {
	if p.IsString() {
		return p.String()
	}
	s := p.while(func(c byte) bool { return isAtomChar(c) || c == '%' || c == '*' || c == ']' })
	if s == "" {
		p.expected("a mailbox pattern")
	}
	return s
}

// Flag takes a flag: an atom, maybe with a backslash before it.
func (p *Parser) Flag() string {
	if p.Try('\\') {
		return `\` + p.Atom()
	}
	return p.Atom()
}
