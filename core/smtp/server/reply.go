package server

import (
	"errors"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/emersion/go-smtp"
)

// Reply is an SMTP reply. Enhanced may be zero: then it is Code's class with
// ".0.0". Use [smtp.NoEnhancedCode] for a reply that has none.
type Reply struct {
	Code     int
	Enhanced smtp.EnhancedCode
	Lines    []string // no CR or LF; no line at all is one empty line
}

// NewReply makes a Reply of one line, or more where text holds LF.
func NewReply(code int, enhanced smtp.EnhancedCode, text string) Reply {
	return Reply{code, enhanced, strings.Split(text, "\n")}
}

// OK is 250 2.0.0 with text.
func OK(text string) Reply { return NewReply(250, smtp.EnhancedCode{2, 0, 0}, text) }

// ReplyOf is the reply for an error of a Session: the *smtp.SMTPError in it, or
// 451 4.3.0 without its text, which is nobody else's business.
func ReplyOf(err error) Reply {
	var se *smtp.SMTPError
	if errors.As(err, &se) && (se.Code/100 == 2 || se.Code/100 == 4 || se.Code/100 == 5) {
		return NewReply(se.Code, se.EnhancedCode, se.Message)
	}
	return NewReply(451, smtp.EnhancedCode{4, 3, 0}, "Temporary trouble of this server, try again later")
}

// Err is r as an error for a Session to return.
func (r Reply) Err() error {
	return &smtp.SMTPError{Code: r.Code, EnhancedCode: r.Enhanced, Message: strings.Join(r.Lines, "\n")}
}

// refused reports whether r is not a success.
func (r Reply) refused() bool { return r.Code >= 400 }

// maxReplyText keeps a reply line within 512 octets (RFC 5321 section 4.5.3.1.5).
const maxReplyText = 512 - len("250-5.999.999 \r\n")

// appendReply writes r as the wire has it. The enhanced code stands on every
// line (RFC 2034 section 4). Text can end neither its line nor the reply: controls
// become spaces, and UTF-8 goes only to a client that may get it (RFC 6531 section 3.7.4.2).
func appendReply(b []byte, r Reply, utf8ok bool) []byte {
	lines := r.Lines
	if len(lines) == 0 {
		lines = []string{""}
	}
	for i, line := range lines {
		for {
			cut := len(line)
			if cut > maxReplyText {
				cut = maxReplyText
				for cut > maxReplyText-utf8.UTFMax && !utf8.RuneStart(line[cut]) {
					cut--
				}
			}
			last := i == len(lines)-1 && cut == len(line)
			b = appendReplyLine(b, r.Code, r.Enhanced, line[:cut], last, utf8ok)
			line = line[cut:]
			if line == "" {
				break
			}
		}
	}
	return b
}

func appendReplyLine(b []byte, code int, e smtp.EnhancedCode, text string, last, utf8ok bool) []byte {
	b = strconv.AppendInt(b, int64(code), 10)
	if last {
		b = append(b, ' ')
	} else {
		b = append(b, '-')
	}
	if e == (smtp.EnhancedCode{}) {
		e = smtp.EnhancedCode{code / 100, 0, 0}
	}
	// RFC 2034 section 4: only 2xx, 4xx and 5xx have one.
	if e != smtp.NoEnhancedCode && code/100 != 3 {
		b = strconv.AppendInt(b, int64(e[0]), 10)
		b = append(b, '.')
		b = strconv.AppendInt(b, int64(e[1]), 10)
		b = append(b, '.')
		b = strconv.AppendInt(b, int64(e[2]), 10)
		b = append(b, ' ')
	}
	start := len(b)
	b = append(b, text...)
	for i := start; i < len(b); i++ {
		if b[i] < ' ' || b[i] == 0x7f {
			b[i] = ' '
		} else if b[i] >= utf8.RuneSelf && !utf8ok {
			b[i] = '?'
		}
	}
	return append(b, "\r\n"...)
}
