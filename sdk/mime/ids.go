package mime

import (
	"bytes"
	"strings"
)

// MessageIDs returns the ids of a Message-ID, In-Reply-To or References value,
// without brackets and comments; what stands outside of brackets is passed over.
func MessageIDs(value []byte) []string {
	var out []string
	for {
		i := bytes.IndexByte(value, '<')
		if i < 0 {
			return out
		}
		value = value[i+1:]
		j := bytes.IndexByte(value, '>')
		if j < 0 {
			return out
		}
		if id := strings.Join(strings.Fields(string(value[:j])), ""); id != "" {
			out = append(out, id)
		}
		value = value[j+1:]
	}
}
