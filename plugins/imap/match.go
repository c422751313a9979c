package imap

import "strings"

// separator of mailbox levels, the storage contract's.
const separator = "/"

// matchName tells whether a mailbox name matches a LIST pattern: "*" stands for
// anything, "%" for anything without a separator (RFC 9051 section 6.3.9). It
// walks the pattern once with the set of positions reached, so that no pattern
// costs more than len(name)*len(pattern).
func matchName(name, pattern string) bool {
	reached := make([]bool, len(name)+1)
	reached[0] = true
	for i := 0; i < len(pattern); i++ {
		c := pattern[i]
		if c == '*' || c == '%' {
			for j := 0; j < len(name); j++ {
				if reached[j] && (c == '*' || name[j] != separator[0]) {
					reached[j+1] = true
				}
			}
			continue
		}
		for j := len(name); j > 0; j-- {
			reached[j] = reached[j-1] && name[j-1] == c
		}
		reached[0] = false
	}
	return reached[len(name)]
}

// listPattern joins LIST's reference and pattern; INBOX is known in any case.
func listPattern(reference, pattern string) string {
	p := pattern
	if !strings.HasPrefix(pattern, separator) && reference != "" {
		p = strings.TrimSuffix(reference, separator) + separator + pattern
	}
	p = strings.TrimPrefix(p, separator)
	if len(p) >= 5 && strings.EqualFold(p[:5], inbox) && (len(p) == 5 || p[5] == separator[0]) {
		p = inbox + p[5:]
	}
	return p
}
