package wire

import (
	"strings"
	"time"
)

// Date takes a day without time, "1-Feb-2025", quoted or not.
func (p *Parser) Date() time.Time {
	text := p.AString()
	t, err := time.Parse("2-Jan-2006", text)
	if err != nil {
		p.Fail("A date is written as 1-Feb-2025")
	}
	return t
}

// DateTime takes a quoted point in time, " 1-Feb-2025 10:00:00 +0100".
func (p *Parser) DateTime() time.Time {
	text := strings.TrimLeft(p.quoted(), " ")
	t, err := time.Parse("2-Jan-2006 15:04:05 -0700", text)
	if err != nil {
		p.Fail("A time is written as \"01-Feb-2025 10:00:00 +0100\"")
	}
	return t
}

// AppendDateTime writes a point in time as IMAP has it.
func AppendDateTime(b []byte, t time.Time) []byte {
	return t.AppendFormat(b, `"02-Jan-2006 15:04:05 -0700"`)
}
