package mime

import (
	"bytes"
	"errors"
	"io"
	"unicode"
	"unicode/utf8"

	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// maxEmbedded is how much of an embedded message's header is searched.
const maxEmbedded = 256 << 10

// Fold maps text to the form in which it is compared without case: the simple
// case folding of Unicode. It may change the length.
func Fold(s string) string { return string(appendFold(nil, []byte(s))) }

func appendFold(dst, s []byte) []byte {
	for i := 0; i < len(s); {
		c := s[i]
		if c < utf8.RuneSelf {
			if 'A' <= c && c <= 'Z' {
				c += 'a' - 'A'
			}
			dst = append(dst, c)
			i++
			continue
		}
		r, n := utf8.DecodeRune(s[i:])
		if r == utf8.RuneError {
			dst = append(dst, s[i:i+n]...)
		} else {
			dst = utf8.AppendRune(dst, foldRune(r))
		}
		i += n
	}
	return dst
}

// foldRune returns one rune for all that differ in case only: the lower case of
// the smallest one of them.
func foldRune(r rune) rune {
	low := r
	for f := unicode.SimpleFold(r); f != r; f = unicode.SimpleFold(f) {
		low = min(low, f)
	}
	return unicode.ToLower(low)
}

// searchPart looks for needle, which is folded, in the texts of an entity and in
// the headers of the messages within it.
func searchPart(part *v1.Part, r io.ReaderAt, needle []byte) (bool, error) {
	if part.GetType() == "text" {
		return contains(Decode(part, io.NewSectionReader(r, part.GetBodyOffset(), part.GetSize())), needle)
	}
	if part.GetMessage() != nil && len(part.GetChildren()) == 1 {
		child := part.GetChildren()[0]
		head := make([]byte, min(child.GetBodyOffset()-child.GetHeaderOffset(), maxEmbedded))
		if _, err := r.ReadAt(head, child.GetHeaderOffset()); err != nil && !errors.Is(err, io.EOF) {
			return false, err
		}
		for _, f := range foldHeader(string(head)) {
			if bytes.Contains([]byte(f.name+": "+f.value), needle) {
				return true, nil
			}
		}
	}
	for _, c := range part.GetChildren() {
		if ok, err := searchPart(c, r, needle); ok || err != nil {
			return ok, err
		}
	}
	return false, nil
}

// contains looks for needle in the folded text of r, a piece at a time.
func contains(r io.Reader, needle []byte) (bool, error) {
	raw := make([]byte, 32<<10)
	have := 0 // octets of raw that are not folded yet: a broken rune
	var text []byte
	for {
		n, err := r.Read(raw[have:])
		n += have
		whole := n
		if err == nil {
			whole -= brokenRune(raw[:n])
		}
		text = appendFold(text, raw[:whole])
		if bytes.Contains(text, needle) {
			return true, nil
		}
		if err == io.EOF {
			return false, nil
		}
		if err != nil {
			return false, err
		}
		if keep := len(needle) - 1; len(text) > keep {
			text = text[:copy(text, text[len(text)-keep:])]
		}
		have = copy(raw, raw[whole:n])
	}
}

// brokenRune returns how many octets at the end of b begin a rune that goes on.
func brokenRune(b []byte) int {
	for n := 1; n < utf8.UTFMax && n <= len(b); n++ {
		if c := b[len(b)-n]; utf8.RuneStart(c) {
			if c >= utf8.RuneSelf && !utf8.FullRune(b[len(b)-n:]) {
				return n
			}
			return 0
		}
	}
	return 0
}
