package imap

import (
	"strings"

	"github.com/emersion/go-imap/v2"

	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// systemFlags in the order in which they are listed.
var systemFlags = []struct {
	bit  uint32
	flag imap.Flag
}{
	{uint32(v1.Flag_FLAG_ANSWERED), imap.FlagAnswered},
	{uint32(v1.Flag_FLAG_FLAGGED), imap.FlagFlagged},
	{uint32(v1.Flag_FLAG_DELETED), imap.FlagDeleted},
	{uint32(v1.Flag_FLAG_SEEN), imap.FlagSeen},
	{uint32(v1.Flag_FLAG_DRAFT), imap.FlagDraft},
}

// flagList is the column's bits and the keywords as IMAP names them.
func flagList(bits uint32, keywords []string) []imap.Flag {
	out := make([]imap.Flag, 0, 5+len(keywords))
	for _, f := range systemFlags {
		if bits&f.bit != 0 {
			out = append(out, f.flag)
		}
	}
	for _, k := range keywords {
		out = append(out, imap.Flag(k))
	}
	return out
}

// storageFlags is what the storage is asked to set. \Recent belongs to the
// server (RFC 3501 section 2.3.2) and is dropped; any other flag with a
// backslash is none that a client may make up.
func storageFlags(flags []imap.Flag) ([]string, error) {
	var out []string
	for _, f := range flags {
		if strings.HasPrefix(string(f), `\`) {
			if strings.EqualFold(string(f), `\Recent`) {
				continue
			}
			if !isSystemFlag(f) {
				return nil, &imap.Error{Type: imap.StatusResponseTypeBad, Text: "Unknown system flag " + string(f)}
			}
		}
		out = append(out, string(f))
	}
	return out, nil
}

func isSystemFlag(f imap.Flag) bool {
	for _, s := range systemFlags {
		if strings.EqualFold(string(s.flag), string(f)) {
			return true
		}
	}
	return false
}
