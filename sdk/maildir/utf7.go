package maildir

import (
	"encoding/base64"
	"strings"
	"unicode/utf16"
)

// The names of folders on the disk are in the modified UTF-7 of RFC 3501 section
// 5.1.3, as Dovecot and Courier write and read them.

var utf7 = base64.NewEncoding("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+,").WithPadding(base64.NoPadding)

// toUTF7 encodes valid UTF-8.
func toUTF7(s string) string {
	var b strings.Builder
	var wide []rune
	flush := func() {
		if len(wide) == 0 {
			return
		}
		octets := make([]byte, 0, 2*len(wide))
		for _, u := range utf16.Encode(wide) {
			octets = append(octets, byte(u>>8), byte(u))
		}
		b.WriteString("&" + utf7.EncodeToString(octets) + "-")
		wide = wide[:0]
	}
	for _, r := range s {
		switch {
		case r < ' ' || r > '~':
			wide = append(wide, r)
			continue
		case r == '&':
			flush()
			b.WriteString("&-")
		default:
			flush()
			b.WriteByte(byte(r))
		}
	}
	flush()
	return b.String()
}

// fromUTF7 undoes toUTF7; ok is false for what it would not have written.
func fromUTF7(s string) (text string, ok bool) {
	var b strings.Builder
	for s != "" {
		plain, rest, shifted := strings.Cut(s, "&")
		b.WriteString(plain)
		if !shifted {
			break
		}
		code, after, ended := strings.Cut(rest, "-")
		if !ended {
			return "", false
		}
		s = after
		if code == "" {
			b.WriteByte('&')
			continue
		}
		octets, err := utf7.DecodeString(code)
		if err != nil || len(octets)%2 != 0 {
			return "", false
		}
		units := make([]uint16, len(octets)/2)
		for i := range units {
			units[i] = uint16(octets[2*i])<<8 | uint16(octets[2*i+1])
		}
		b.WriteString(string(utf16.Decode(units)))
	}
	return b.String(), true
}
