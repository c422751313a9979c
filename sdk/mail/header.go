package mail

import (
	"strings"

	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// Header is a list of fields in the message's order, values as they stand there
// (folded, not decoded).
type Header []*v1.HeaderField

// Get returns the first field of that name, unfolded and trimmed; "" if none.
func (h Header) Get(name string) string {
	for _, f := range h {
		if strings.EqualFold(f.GetName(), name) {
			return Unfold(f.GetValue())
		}
	}
	return ""
}

// Values returns all fields of that name, unfolded and trimmed.
func (h Header) Values(name string) []string {
	var out []string
	for _, f := range h {
		if strings.EqualFold(f.GetName(), name) {
			out = append(out, Unfold(f.GetValue()))
		}
	}
	return out
}

// Has tells whether there is a field of that name.
func (h Header) Has(name string) bool {
	for _, f := range h {
		if strings.EqualFold(f.GetName(), name) {
			return true
		}
	}
	return false
}

// Unfold removes the line ends of a folded value (RFC 5322 section 2.2.3) and
// the white space around it.
func Unfold(value []byte) string {
	s := strings.ReplaceAll(string(value), "\r\n", "")
	return strings.Trim(strings.ReplaceAll(s, "\n", ""), " \t")
}
