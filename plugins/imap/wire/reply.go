package wire

import (
	"strconv"
	"unicode/utf8"
)

// longestQuoted is the longest text that goes out as a quoted string.
const longestQuoted = 1000

// CanQuote tells whether text can be a quoted string; text that is not ASCII only
// where the client takes UTF-8.
func CanQuote[T string | []byte](text T, takesUTF8 bool) bool {
	if len(text) > longestQuoted {
		return false
	}
	ascii := true
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case c == 0 || c == '\r' || c == '\n':
			return false
		case c >= 0x80:
			ascii = false
		}
	}
	return ascii || takesUTF8 && utf8.ValidString(string(text))
}

// AppendString writes text as a quoted string, or as a literal if it cannot be one.
func AppendString[T string | []byte](b []byte, text T, takesUTF8 bool) []byte {
	if !CanQuote(text, takesUTF8) {
		b = AppendLiteral(b, int64(len(text)))
		return append(b, text...)
	}
	b = append(b, '"')
	for i := 0; i < len(text); i++ {
		if c := text[i]; c == '"' || c == '\\' {
			b = append(b, '\\')
		}
		b = append(b, text[i])
	}
	return append(b, '"')
}

// AppendNString is AppendString, with NIL for what is empty.
func AppendNString[T string | []byte](b []byte, text T, takesUTF8 bool) []byte {
	if len(text) == 0 {
		return append(b, "NIL"...)
	}
	return AppendString(b, text, takesUTF8)
}

// AppendAString writes an atom where text can be one.
func AppendAString(b []byte, text string, takesUTF8 bool) []byte {
	for i := 0; i < len(text); i++ {
		if !isAtomChar(text[i]) {
			return AppendString(b, text, takesUTF8)
		}
	}
	if text == "" || len(text) == 3 && (text[0]|32) == 'n' && (text[1]|32) == 'i' && (text[2]|32) == 'l' {
		return AppendString(b, text, takesUTF8)
	}
	return append(b, text...)
}

// AppendLiteral announces a literal of that size.
func AppendLiteral(b []byte, size int64) []byte {
	b = append(b, '{')
	b = strconv.AppendInt(b, max(0, size), 10)
	return append(b, "}\r\n"...)
}
