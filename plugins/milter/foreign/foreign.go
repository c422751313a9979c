// Package foreign makes what another program says fit for a mail: for a header
// field, for a reply, for a tag. It judges nothing.
package foreign

import "strings"

const (
	// longestLine of a folded value, within the 998 octets of RFC 5322 section 2.1.1.
	longestLine = 900
	// longestText keeps a reply within an SMTP line (RFC 5321 section 4.5.3.1.5).
	longestText = 450
)

// FieldName tells whether s is a name that a header field may have (RFC 5322
// section 2.2), of at most 100 octets.
func FieldName(s string) bool {
	for _, c := range []byte(s) {
		if c <= ' ' || c >= 0x7f || c == ':' {
			return false
		}
	}
	return s != "" && len(s) <= 100
}

// FieldValue folds with CRLF and lets no line become a field of its own or the end
// of the header.
func FieldValue(s string) string {
	s = strings.ReplaceAll(strings.ReplaceAll(s, "\r\n", "\n"), "\r", "\n")
	var out []string
	for line := range strings.SplitSeq(s, "\n") {
		line = strings.Map(func(r rune) rune {
			if r < ' ' && r != '\t' || r == 0x7f || r == '\ufffd' {
				return '?'
			}
			return r
		}, strings.TrimRight(line, " \t"))
		if strings.Trim(line, " \t") == "" {
			continue
		}
		if len(out) > 0 && line[0] != ' ' && line[0] != '\t' {
			line = "\t" + line
		}
		out = append(out, folded(line)...)
	}
	return strings.Join(out, "\r\n")
}

// folded breaks a line that is too long at its spaces, and where it has none.
func folded(line string) (out []string) {
	for len(line) > longestLine {
		at := strings.LastIndexAny(line[1:longestLine], " \t") + 1
		if strings.Trim(line[:at], " \t") == "" {
			at = longestLine
			for line[at]&0xc0 == 0x80 { // within a character of UTF-8
				at--
			}
		}
		out = append(out, line[:at])
		line = "\t" + strings.TrimLeft(line[at:], " \t")
	}
	return append(out, line)
}

// Text is one line of printable ASCII, short enough for a reply.
func Text(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, s)
	return s[:min(len(s), longestText)]
}
