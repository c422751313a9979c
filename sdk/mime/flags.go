package mime

import (
	"slices"
	"strings"

	"github.com/stagecoach-mta/stagecoach/sdk/fail"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// maxKeyword is the longest keyword, in octets; maxKeywords the most that one
// message carries.
const (
	maxKeyword  = 255
	maxKeywords = 128
)

var systemFlags = []struct {
	name string
	bit  v1.Flag
}{
	{`\Seen`, v1.Flag_FLAG_SEEN},
	{`\Answered`, v1.Flag_FLAG_ANSWERED},
	{`\Flagged`, v1.Flag_FLAG_FLAGGED},
	{`\Deleted`, v1.Flag_FLAG_DELETED},
	{`\Draft`, v1.Flag_FLAG_DRAFT},
}

// ParseFlags splits flags into the bit set of the columns and keywords (each
// once, in the case first written). INVALID for an unknown system flag and for
// a keyword that is no atom (RFC 9051 section 9).
func ParseFlags(flags []string) (bits uint32, keywords []string, err error) {
next:
	for _, f := range flags {
		for _, s := range systemFlags {
			if strings.EqualFold(f, s.name) {
				bits |= uint32(s.bit)
				continue next
			}
		}
		if !atom(f) {
			return 0, nil, fail.New(fail.Invalid, "%q is neither a system flag nor a keyword", f)
		}
		if !HasKeyword(keywords, f) {
			keywords = append(keywords, f)
		}
	}
	if len(keywords) > maxKeywords {
		return 0, nil, fail.New(fail.Invalid, "more than %d keywords on one message", maxKeywords)
	}
	return bits, keywords, nil
}

// HasKeyword tells whether keyword is among keywords, compared without case.
func HasKeyword(keywords []string, keyword string) bool {
	return slices.ContainsFunc(keywords, func(k string) bool { return strings.EqualFold(k, keyword) })
}

// ApplyFlags does a SetFlags operation on one message's flags and tells whether
// they changed. It never writes into keywords.
func ApplyFlags(op v1.SetFlagsRequest_Op, bits uint32, keywords []string, opBits uint32, opKeywords []string) (uint32, []string, bool) {
	newBits, newKeywords := bits, keywords
	switch op {
	case v1.SetFlagsRequest_ADD:
		newBits |= opBits
		for _, k := range opKeywords {
			if !HasKeyword(newKeywords, k) {
				newKeywords = append(slices.Clip(newKeywords), k)
			}
		}
	case v1.SetFlagsRequest_REMOVE:
		newBits &^= opBits
		if len(opKeywords) > 0 {
			newKeywords = slices.DeleteFunc(slices.Clone(keywords), func(k string) bool { return HasKeyword(opKeywords, k) })
		}
	case v1.SetFlagsRequest_REPLACE:
		newBits = opBits
		same := len(keywords) == len(opKeywords)
		for _, k := range opKeywords {
			same = same && HasKeyword(keywords, k)
		}
		if !same {
			newKeywords = opKeywords
		}
	}
	changed := newBits != bits || len(newKeywords) != len(keywords)
	for i := 0; !changed && i < len(keywords); i++ {
		changed = keywords[i] != newKeywords[i]
	}
	return newBits, newKeywords, changed
}

func atom(s string) bool {
	if s == "" || len(s) > maxKeyword {
		return false
	}
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c >= 0x7f || strings.IndexByte(`(){%*"\]`, c) >= 0 {
			return false
		}
	}
	return true
}
