package mime

import (
	"net/url"
	"strconv"
	"strings"
	"unicode"

	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// FileNames are all that a mail client could take for the part's file name: the
// filename of Content-Disposition (RFC 2183 section 2.3), the older name of
// Content-Type, each in plain form and in the forms of RFC 2231, which a sender
// may give beside each other.
func FileNames(p *v1.Part) []string {
	return append(parameter(p.GetDispositionParams(), "filename"), parameter(p.GetParams(), "name")...)
}

// parameter returns every value that params hold for name: as it stands, as
// name*=charset'language'percent-encoded, and put together from name*0, name*1*
// and so on (RFC 2231 sections 3 and 4).
func parameter(params []*v1.Param, name string) []string {
	var out []string
	pieces := map[int]string{}
	for _, p := range params {
		rest, ok := strings.CutPrefix(p.GetName(), name)
		value := string(p.GetValue())
		switch {
		case !ok:
		case rest == "":
			// Encoded words do not belong here (RFC 2047 section 5) and clients
			// decode them all the same.
			out = append(out, DecodeHeader(value))
		case rest == "*":
			out = append(out, percent(charsetless(value)))
		case rest[0] == '*':
			number, encoded := strings.CutSuffix(rest[1:], "*")
			i, err := strconv.Atoi(number)
			if err != nil {
				continue
			}
			if encoded && i == 0 {
				value = charsetless(value)
			}
			if encoded {
				value = percent(value)
			}
			pieces[i] = value
		}
	}
	whole := ""
	for i := 0; ; i++ {
		piece, ok := pieces[i]
		if !ok {
			break
		}
		whole += piece
	}
	if whole != "" {
		out = append(out, whole)
	}
	return out
}

// charsetless is what follows charset'language'. An ending is ASCII in every
// charset that mail uses, so the charset does not matter here.
func charsetless(value string) string {
	if parts := strings.SplitN(value, "'", 3); len(parts) == 3 {
		return parts[2]
	}
	return value
}

func percent(value string) string {
	if s, err := url.PathUnescape(value); err == nil {
		return s
	}
	return value
}

// PlainName is a name as the file system will have it: without the characters that
// nobody sees (a right-to-left override shows exe.doc for cod.exe), without the
// dots and blanks at the end that Windows drops, in lower case.
func PlainName(name string) string {
	name = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || unicode.Is(unicode.Cf, r) {
			return -1
		}
		return unicode.ToLower(r)
	}, name)
	return strings.TrimRightFunc(name, func(r rune) bool { return r == '.' || unicode.IsSpace(r) })
}
