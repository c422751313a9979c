package wire

import (
	"encoding/base64"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// Modified UTF-7 is how a mailbox name that is not ASCII goes to and from a client
// that did not say it takes UTF-8 (RFC 3501 section 5.1.3).
var utf7 = base64.NewEncoding("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+,").WithPadding(base64.NoPadding)

// EncodeUTF7 writes a name in modified UTF-7.
func EncodeUTF7(name string) string {
	plain := func(r rune) bool { return r >= ' ' && r <= '~' }
	if !strings.ContainsFunc(name, func(r rune) bool { return r == '&' || !plain(r) }) {
		return name
	}
	var out strings.Builder
	runes := []rune(name)
	for i := 0; i < len(runes); {
		if plain(runes[i]) {
			out.WriteRune(runes[i])
			if runes[i] == '&' {
				out.WriteByte('-')
			}
			i++
			continue
		}
		j := i
		for j < len(runes) && !plain(runes[j]) {
			j++
		}
		var units []byte
		for _, u := range utf16.Encode(runes[i:j]) {
			units = append(units, byte(u>>8), byte(u))
		}
		out.WriteString("&" + utf7.EncodeToString(units) + "-")
		i = j
	}
	return out.String()
}

// DecodeUTF7 reads a name in modified UTF-7; false if it is none.
func DecodeUTF7(name string) (string, bool) {
	var out strings.Builder
	for i := 0; i < len(name); i++ {
		c := name[i]
		if c < ' ' || c > '~' {
			return "", false
		}
		if c != '&' {
			out.WriteByte(c)
			continue
		}
		end := strings.IndexByte(name[i:], '-')
		if end < 0 {
			return "", false
		}
		inside := name[i+1 : i+end]
		i += end
		if inside == "" {
			out.WriteByte('&')
			continue
		}
		b, err := utf7.DecodeString(inside)
		if err != nil || len(b)%2 != 0 {
			return "", false
		}
		units := make([]uint16, len(b)/2)
		for k := range units {
			units[k] = uint16(b[2*k])<<8 | uint16(b[2*k+1])
		}
		for _, r := range utf16.Decode(units) {
			if r == utf8.RuneError || r >= ' ' && r <= '~' {
				return "", false
			}
			out.WriteRune(r)
		}
	}
	return out.String(), true
}
