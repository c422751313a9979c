package imap

import "strings"

// baseSubject takes off what replies and forwards add (RFC 5256 section 2.1), and
// tells whether there was any of it.
func baseSubject(subject string) (base string, reply bool) {
	s := strings.Join(strings.Fields(subject), " ")
	for {
		for {
			cut, ok := cutSuffixFold(strings.TrimRight(s, " "), "(fwd)")
			s = cut
			if !ok {
				break
			}
			reply = true
		}
		for {
			before := s
			s = strings.TrimLeft(s, " ")
			if rest, ok := cutLeader(s); ok {
				s, reply = rest, true
			}
			if rest, ok := cutBlob(s); ok && strings.TrimSpace(rest) != "" {
				s = strings.TrimLeft(rest, " ")
			}
			if s == before {
				break
			}
		}
		inner, ok := cutForward(s)
		if !ok {
			return strings.TrimSpace(s), reply
		}
		s, reply = inner, true
	}
}

func cutSuffixFold(s, suffix string) (string, bool) {
	if n := len(s) - len(suffix); n >= 0 && strings.EqualFold(s[n:], suffix) {
		return strings.TrimRight(s[:n], " "), true
	}
	return s, false
}

// cutLeader takes "Re:", "Fw:", "Fwd:" off, with blobs before it and one behind
// the word: subj-leader.
func cutLeader(s string) (string, bool) {
	rest := s
	for {
		r, ok := cutBlob(rest)
		if !ok {
			break
		}
		rest = strings.TrimLeft(r, " ")
	}
	for _, word := range []string{"fwd", "re", "fw"} {
		if len(rest) < len(word) || !strings.EqualFold(rest[:len(word)], word) {
			continue
		}
		r := strings.TrimLeft(rest[len(word):], " ")
		if b, ok := cutBlob(r); ok {
			r = strings.TrimLeft(b, " ")
		}
		if after, ok := strings.CutPrefix(r, ":"); ok {
			return strings.TrimLeft(after, " "), true
		}
	}
	return s, false
}

// cutBlob takes "[list]" off.
func cutBlob(s string) (string, bool) {
	if !strings.HasPrefix(s, "[") {
		return s, false
	}
	end := strings.IndexAny(s[1:], "[]")
	if end < 0 || s[1+end] != ']' {
		return s, false
	}
	return s[end+2:], true
}

// cutForward takes "[Fwd: …]" off.
func cutForward(s string) (string, bool) {
	if len(s) > 5 && strings.EqualFold(s[:5], "[fwd:") && strings.HasSuffix(s, "]") {
		return strings.TrimSpace(s[5 : len(s)-1]), true
	}
	return s, false
}
