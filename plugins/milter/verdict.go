package milter

import (
	"strconv"
	"strings"

	"github.com/stagecoach-mta/stagecoach/plugins/milter/protocol"
	"github.com/stagecoach-mta/stagecoach/sdk/filter"
)

// longestReply keeps a reply within an SMTP line (RFC 5321 section 4.5.3.1.5),
// whatever stands in front of the text.
const longestReply = 450

// settle is the verdict of a last word, or of none. What shall be discarded is so
// with the whole message: at RCPT it would be the recipient alone.
func settle(a *protocol.Answer, ev *filter.Event) *filter.Verdict {
	switch {
	case a == nil:
		return filter.Accept()
	case a.Code == protocol.Discard && !withMessage(ev.Kind):
		return filter.Accept().Note("the milter discards the message")
	}
	return verdict(*a)
}

// verdict with the milter's words, or the ones that Sendmail and Postfix use.
func verdict(a protocol.Answer) *filter.Verdict {
	switch a.Code {
	case protocol.Reject:
		return filter.Reject(550, "5.7.1", "Command rejected")
	case protocol.TempFail:
		return filter.Defer(451, "4.7.1", "Service unavailable - try again later")
	case protocol.Shutdown:
		return filter.Disconnect(421, "4.7.0", "Server closing connection")
	case protocol.Discard:
		return filter.Discard().Reason("the milter discards the message")
	case protocol.ReplyCode:
		return words(a.Text)
	}
	return filter.Accept()
}

// words reads "550 5.7.1 text", several lines of it too. What is no reply of a
// refusal counts as a temporary failure.
func words(said string) *filter.Verdict {
	code, enhanced, text := 0, "", []string{}
	for line := range strings.SplitSeq(strings.ReplaceAll(said, "\r\n", "\n"), "\n") {
		if len(line) < 3 {
			continue
		}
		n, err := strconv.Atoi(line[:3])
		if err != nil {
			continue
		}
		code, line = n, strings.TrimLeft(line[3:], "- ")
		if word, rest, _ := strings.Cut(line, " "); enhancedCode(word) {
			enhanced, line = word, rest
		}
		text = append(text, line)
	}
	reply := printable(strings.Join(text, " "))
	if enhanced != "" && int(enhanced[0]-'0') != code/100 {
		enhanced = ""
	}
	switch {
	case code == 421:
		return filter.Disconnect(421, enhanced, reply)
	case code/100 == 5 && code < 560:
		return filter.Reject(code, enhanced, reply)
	case code/100 == 4 && code < 460:
		return filter.Defer(code, enhanced, reply)
	}
	return filter.Defer(451, "4.7.1", "Service unavailable - try again later").Note("the milter's reply is none: " + printable(said))
}

// enhancedCode is RFC 3463's form.
func enhancedCode(s string) bool {
	parts := strings.Split(s, ".")
	if len(parts) != 3 || parts[0] != "4" && parts[0] != "5" {
		return false
	}
	for _, p := range parts[1:] {
		if n, err := strconv.Atoi(p); err != nil || n < 0 || len(p) > 3 || p[0] == '+' {
			return false
		}
	}
	return true
}

func printable(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, strings.TrimSpace(s))
	return s[:min(len(s), longestReply)]
}
