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

// eachText calls piece with the texts of an entity and with the headers of the
// messages within it, folded, a piece at a time, until it returns true. first: the
// piece begins another text.
func eachText(part *v1.Part, r io.ReaderAt, piece func(b []byte, first bool) (done bool)) (done bool, err error) {
	if part.GetType() == "text" {
		return foldedText(Decode(part, io.NewSectionReader(r, part.GetBodyOffset(), part.GetSize())), piece)
	}
	if part.GetMessage() != nil && len(part.GetChildren()) == 1 {
		child := part.GetChildren()[0]
		head := make([]byte, min(child.GetBodyOffset()-child.GetHeaderOffset(), maxEmbedded))
		if _, err := r.ReadAt(head, child.GetHeaderOffset()); err != nil && !errors.Is(err, io.EOF) {
			return false, err
		}
		for _, f := range foldHeader(string(head)) {
			if piece([]byte(f.text()), true) {
				return true, nil
			}
		}
	}
	for _, c := range part.GetChildren() {
		if done, err := eachText(c, r, piece); done || err != nil {
			return done, err
		}
	}
	return false, nil
}

// text is a field as a search for text sees it.
func (f *field) text() string { return f.name + ": " + f.value }

// searchPart looks for needle, which is folded, in what eachText gives.
func searchPart(part *v1.Part, r io.ReaderAt, needle []byte) (bool, error) {
	return eachText(part, r, (&finder{needle: needle}).piece)
}

// finder looks for needle in texts that come a piece at a time.
type finder struct {
	needle []byte
	tail   []byte // of the text so far, shorter than needle
}

func (f *finder) piece(b []byte, first bool) (found bool) {
	if first {
		f.tail = f.tail[:0]
	}
	if bytes.Contains(b, f.needle) {
		return true
	}
	keep := len(f.needle) - 1
	if len(b) >= keep {
		found = len(f.tail) > 0 && bytes.Contains(append(f.tail, b[:keep]...), f.needle)
		f.tail = append(f.tail[:0], b[len(b)-keep:]...)
		return found
	}
	f.tail = append(f.tail, b...)
	found = bytes.Contains(f.tail, f.needle)
	f.tail = f.tail[:copy(f.tail, f.tail[max(0, len(f.tail)-keep):])]
	return found
}

// foldedText calls piece with the folded text of r until it returns true. The
// piece is the callee's again when it returns.
func foldedText(r io.Reader, piece func(b []byte, first bool) (done bool)) (done bool, err error) {
	raw := make([]byte, 32<<10)
	have := 0 // octets of raw that are not folded yet: a broken rune
	var text []byte
	for first := true; ; first = false {
		n, err := r.Read(raw[have:])
		n += have
		whole := n
		if err == nil {
			whole -= brokenRune(raw[:n])
		}
		text = appendFold(text[:0], raw[:whole])
		if piece(text, first) {
			return true, nil
		}
		if err == io.EOF {
			return false, nil
		}
		if err != nil {
			return false, err
		}
		have = copy(raw, raw[whole:n])
	}
}

// Texts calls piece with every text that a search for text looks at, in the form in
// which it is compared (Fold), a piece at a time: the header's fields, the text
// parts and the headers of the messages within. first: the piece begins another
// text; no match goes from one text to the next. A piece may be empty, and is the
// caller's again when piece returns; true ends it. The error is the candidate's. It
// is for who keeps an index, see Excluder.
func Texts(c Candidate, piece func(b []byte, first bool) (done bool)) error {
	l := &look{Candidate: c}
	fields, err := l.header()
	if err != nil {
		return err
	}
	for _, f := range fields {
		piece([]byte(f.text()), true)
		f.eachAddress(func(said string) bool {
			piece([]byte(said), true)
			return false
		})
	}
	part, err := l.Structure()
	if err != nil {
		return err
	}
	r, err := l.Open()
	if err != nil {
		return err
	}
	defer r.Close()
	_, err = eachText(part, r, piece)
	return err
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
