// Package maildir is how a Maildir++ says things in the names of its files and
// folders: mailboxes, flags and keywords. Dovecot, Courier and mutt write and read the
// same. It is not a storage: it opens no file.
package maildir

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// Inbox is the mailbox that the Maildir itself is.
const Inbox = "INBOX"

// Folder is the directory of a mailbox: Maildir++ has ".A.B" for A/B and the
// Maildir itself, "", for INBOX. What is beyond ASCII stands in modified UTF-7, what
// would be misread as %XX. The name must be UTF-8.
func Folder(name string) string {
	if name == Inbox {
		return ""
	}
	var b strings.Builder
	b.WriteByte('.')
	name = toUTF7(name)
	for i := range len(name) {
		switch c := name[i]; c {
		case '/':
			b.WriteByte('.')
		case '.', '%', '\\', '~':
			fmt.Fprintf(&b, "%%%02X", c)
		default:
			b.WriteByte(c)
		}
	}
	return b.String()
}

// Name undoes Folder; ok is false for what cannot be read. It does not verify that
// the name may be a mailbox's.
func Name(dir string) (name string, ok bool) {
	if dir == "" {
		return Inbox, true
	}
	var b strings.Builder
	for i := 1; i < len(dir); i++ {
		switch {
		case dir[i] == '.':
			b.WriteByte('/')
		case dir[i] == '%' && i+2 < len(dir):
			c, err := strconv.ParseUint(dir[i+1:i+3], 16, 8)
			if err != nil {
				return "", false
			}
			b.WriteByte(byte(c))
			i += 2
		default:
			b.WriteByte(dir[i])
		}
	}
	return fromUTF7(b.String())
}

var letters = []struct {
	letter byte
	flag   v1.Flag
}{
	{'D', v1.Flag_FLAG_DRAFT}, {'F', v1.Flag_FLAG_FLAGGED}, {'R', v1.Flag_FLAG_ANSWERED},
	{'S', v1.Flag_FLAG_SEEN}, {'T', v1.Flag_FLAG_DELETED},
}

// Base is the part of a file's name that stays when its flags change.
func Base(file string) string {
	b, _, _ := strings.Cut(file, ":2,")
	return b
}

// Info is what a file's name says of its message: the flags, and the numbers of its
// keywords, the letters a to z, growing and each once. Other letters are passed over.
func Info(file string) (flags uint32, keywords []int) {
	_, info, _ := strings.Cut(file, ":2,")
	for _, l := range letters {
		if strings.IndexByte(info, l.letter) >= 0 {
			flags |= uint32(l.flag)
		}
	}
	for n := range 26 {
		if strings.IndexByte(info, byte('a'+n)) >= 0 {
			keywords = append(keywords, n)
		}
	}
	return flags, keywords
}

// WithFlags is a file's name with these flags; letters that are none of them (P, and
// Dovecot's keywords a to z) stay.
func WithFlags(file string, flags uint32) string {
	name, info, _ := strings.Cut(file, ":2,")
	out := []byte{}
	for i := range len(info) {
		if strings.IndexByte("DFRST", info[i]) < 0 {
			out = append(out, info[i])
		}
	}
	for _, l := range letters {
		if flags&uint32(l.flag) != 0 {
			out = append(out, l.letter)
		}
	}
	slices.Sort(out)
	return name + ":2," + string(out)
}
