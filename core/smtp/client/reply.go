package client

import (
	"bufio"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/emersion/go-smtp"
)

// Bounds of a reply. RFC 5321 section 4.5.3.1.5 allows 512 octets a line; real
// servers exceed that, and a hostile one would send without end.
const (
	maxReplyLine  = 4096
	maxReplyLines = 256
	maxReplyText  = 64 << 10
)

// Reply is what a server answered to one command.
type Reply struct {
	Code     int               // 200–599; 0: no reply
	Enhanced smtp.EnhancedCode // RFC 2034; zero if the server gave none
	Text     string            // lines joined by \n, without codes; valid UTF-8, no controls
}

// Class is the first digit of the code.
func (r Reply) Class() int { return r.Code / 100 }

// String is the reply on one line, as RFC 3464 section 2.3.6 wants it behind
// "Diagnostic-Code: smtp;".
func (r Reply) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%03d", r.Code)
	if r.Enhanced != (smtp.EnhancedCode{}) {
		fmt.Fprintf(&b, " %d.%d.%d", r.Enhanced[0], r.Enhanced[1], r.Enhanced[2])
	}
	if r.Text != "" {
		b.WriteByte(' ')
		b.WriteString(strings.ReplaceAll(r.Text, "\n", " "))
	}
	return b.String()
}

// SMTPError is the reply in go-smtp's form.
func (r Reply) SMTPError() *smtp.SMTPError {
	e := &smtp.SMTPError{Code: r.Code, EnhancedCode: r.Enhanced, Message: r.Text}
	if e.EnhancedCode == (smtp.EnhancedCode{}) {
		e.EnhancedCode = smtp.EnhancedCodeNotSet
	}
	return e
}

// errGarbage: the peer does not speak SMTP, or is out of step.
type errGarbage struct{ what string }

func (e errGarbage) Error() string { return "the server's reply is not SMTP: " + e.what }

// readReply reads one reply of any number of lines (RFC 5321 section 4.2.1).
func readReply(br *bufio.Reader) (Reply, error) {
	var r Reply
	var text strings.Builder
	for n := 0; ; n++ {
		if n == maxReplyLines {
			return Reply{}, errGarbage{fmt.Sprintf("more than %d lines", maxReplyLines)}
		}
		line, err := readLine(br)
		if err != nil {
			return Reply{}, err
		}
		code, more, rest, err := splitReplyLine(line)
		if err != nil {
			return Reply{}, err
		}
		if n > 0 && code != r.Code {
			return Reply{}, errGarbage{fmt.Sprintf("code %d, then %d in one reply", r.Code, code)}
		}
		r.Code = code
		if ec, after, ok := splitEnhanced(rest); ok && ec[0] == code/100 {
			r.Enhanced, rest = ec, after
		}
		if text.Len()+len(rest) > maxReplyText {
			return Reply{}, errGarbage{fmt.Sprintf("more than %d octets", maxReplyText)}
		}
		if n > 0 {
			text.WriteByte('\n')
		}
		text.WriteString(clean(rest))
		if !more {
			r.Text = text.String()
			return r, nil
		}
	}
}

// readLine returns a line without its end; the bytes hold until the next read.
// A bare LF ends a line too: there is nothing to be smuggled in a reply.
func readLine(br *bufio.Reader) ([]byte, error) {
	line, err := br.ReadSlice('\n')
	if errors.Is(err, bufio.ErrBufferFull) || len(line) > maxReplyLine {
		return nil, errGarbage{fmt.Sprintf("a line of more than %d octets", maxReplyLine)}
	}
	if err != nil {
		return nil, err
	}
	line = line[:len(line)-1]
	if n := len(line); n > 0 && line[n-1] == '\r' {
		line = line[:n-1]
	}
	return line, nil
}

func splitReplyLine(line []byte) (code int, more bool, rest string, err error) {
	bad := func() (int, bool, string, error) {
		return 0, false, "", errGarbage{fmt.Sprintf("%.80q", line)}
	}
	if len(line) < 3 || line[0] < '2' || line[0] > '5' || !digit(line[1]) || !digit(line[2]) {
		return bad()
	}
	code = int(line[0]-'0')*100 + int(line[1]-'0')*10 + int(line[2]-'0')
	if len(line) == 3 {
		return code, false, "", nil // section 4.2: be ready for a code alone
	}
	switch line[3] {
	case '-':
		more = true
	case ' ':
	default:
		return bad()
	}
	return code, more, string(line[4:]), nil
}

// splitEnhanced takes "5.1.1 text" apart (RFC 2034 section 4).
func splitEnhanced(s string) (smtp.EnhancedCode, string, bool) {
	code, rest, _ := strings.Cut(s, " ")
	var ec smtp.EnhancedCode
	for i := range ec {
		part := code
		if i < 2 {
			var ok bool
			if part, code, ok = strings.Cut(code, "."); !ok {
				return ec, s, false
			}
		}
		if len(part) == 0 || len(part) > 3 {
			return ec, s, false
		}
		for j := 0; j < len(part); j++ {
			if !digit(part[j]) {
				return ec, s, false
			}
			ec[i] = ec[i]*10 + int(part[j]-'0')
		}
	}
	return ec, rest, ec[0] == 2 || ec[0] == 4 || ec[0] == 5
}

// clean makes a stranger's text fit for logs and DSNs.
func clean(s string) string {
	ok := utf8.ValidString(s)
	for i := 0; ok && i < len(s); i++ {
		ok = s[i] >= ' ' && s[i] != 0x7f
	}
	if ok {
		return s
	}
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\t':
			return ' '
		case r < ' ', r == 0x7f, r == utf8.RuneError:
			return '?'
		}
		return r
	}, s)
}

func digit(c byte) bool { return '0' <= c && c <= '9' }
