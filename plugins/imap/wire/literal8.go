package wire

import (
	"strconv"
	"strings"
)

// NValue takes a string, a binary literal ("~{n}") in which NUL is allowed, or NIL.
func (p *Parser) NValue() (value string, is bool) {
	if !p.Try('~') {
		return p.NString()
	}
	p.Expect('{')
	d := p.digits()
	p.Try('+')
	if !strings.HasPrefix(p.Rest(), "}\r\n") {
		p.expected("a literal")
		return "", false
	}
	p.at += 3
	n, err := strconv.ParseUint(d, 10, 31)
	if err != nil || int(n) > len(p.text)-p.at {
		p.Fail("The literal is not complete")
		return "", false
	}
	p.at += int(n)
	return p.text[p.at-int(n) : p.at], true
}

// AppendValue writes octets: a string, or a binary literal where there is a NUL.
func AppendValue(b, value []byte, takesUTF8 bool) []byte {
	for _, c := range value {
		if c == 0 {
			b = AppendLiteral(append(b, '~'), int64(len(value)))
			return append(b, value...)
		}
	}
	return AppendString(b, value, takesUTF8)
}
