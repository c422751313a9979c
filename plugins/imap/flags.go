package imap

import (
	"strings"

	"github.com/emersion/go-imap/v2"

	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// systemFlags in the order in which they are listed.
var systemFlags = []struct {
	bit  uint8
	flag imap.Flag
}{
	{uint8(v1.Flag_FLAG_ANSWERED), imap.FlagAnswered},
	{uint8(v1.Flag_FLAG_FLAGGED), imap.FlagFlagged},
	{uint8(v1.Flag_FLAG_DELETED), imap.FlagDeleted},
	{uint8(v1.Flag_FLAG_SEEN), imap.FlagSeen},
	{uint8(v1.Flag_FLAG_DRAFT), imap.FlagDraft},
}

// appendFlags writes the column's bits and the keywords as a list.
func appendFlags(b []byte, bits uint8, keywords []string, recent bool) []byte {
	b = append(b, '(')
	start := len(b)
	add := func(f string) {
		if len(b) > start {
			b = append(b, ' ')
		}
		b = append(b, f...)
	}
	for _, f := range systemFlags {
		if bits&f.bit != 0 {
			add(string(f.flag))
		}
	}
	for _, k := range keywords {
		add(k)
	}
	if recent {
		add(flagRecent)
	}
	return append(b, ')')
}

const flagRecent = `\Recent`

// storageFlags is what the storage is asked to set. \Recent belongs to the
// server (RFC 3501 section 2.3.2) and is dropped; any other flag with a
// backslash is none that a client may make up.
func storageFlags(flags []string) ([]string, error) {
	var out []string
	for _, f := range flags {
		if strings.HasPrefix(f, `\`) {
			if strings.EqualFold(f, flagRecent) {
				continue
			}
			if !isSystemFlag(f) {
				return nil, bad("Unknown system flag " + f)
			}
		}
		out = append(out, f)
	}
	return out, nil
}

func isSystemFlag(f string) bool {
	for _, s := range systemFlags {
		if strings.EqualFold(string(s.flag), f) {
			return true
		}
	}
	return false
}
