// Package address is the mailbox address of an SMTP envelope: parsed, compared
// and written back by the rules of RFC 5321 section 4.1.2 and RFC 6531.
//
// It is not a parser for message header fields (display names, groups and
// comments of RFC 5322), and it looks nothing up in the DNS.
package address

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Limits in octets of the form on the wire, RFC 5321 section 4.5.3.1.
//
// The 64 octets of a local-part (section 4.5.3.1.1) are not among them: they are
// what every server must take, not the most it may take, and senders that encode
// another address in theirs (VERP, SRS) go past them every day. MaxPath bounds it.
const (
	MaxDomain = 255 // section 4.5.3.1.2
	MaxPath   = 256 // section 4.5.3.1.3, with the angle brackets
	maxLabel  = 63  // RFC 1035 section 2.3.4
)

// Errors of [Parse] and [ParsePath]; compare with [errors.Is].
var (
	// ErrSyntax: the text is no address. The error's text says what is wrong with it.
	ErrSyntax = errors.New("bad address syntax")
	// ErrTooLong: a domain is longer than MaxDomain or the whole than MaxPath.
	ErrTooLong = errors.New("address too long")
	// ErrNonASCII: the address holds UTF-8 and the caller did not allow it
	// (RFC 6531: the SMTPUTF8 parameter is missing).
	ErrNonASCII = errors.New("address is not ASCII")
)

// Address is a mailbox in its meaning, not its spelling: two spellings of one
// mailbox parse to equal values, as far as the standard makes them equal.
// The zero value is the null reverse-path <>.
type Address struct {
	// Local is the local-part without quotes and backslashes: `"a b"@x` has Local
	// `a b`. Its case is kept; only the host that owns the domain may fold it.
	Local string
	// Domain has its ASCII letters in lower case. A U-label stays UTF-8. An address
	// literal keeps its brackets: [192.0.2.1], [IPv6:2001:db8::1].
	// It is empty for the null path and for <postmaster> (RFC 5321 section 4.1.1.3).
	Domain string
}

// Parse reads a Mailbox: local-part, "@", domain or address literal, nothing
// before or after. smtputf8 allows UTF-8 on both sides (RFC 6531 section 3.3).
// Control characters and invalid UTF-8 are always refused, quoted or not.
func Parse(s string, smtputf8 bool) (Address, error) {
	if len(s) > MaxPath-len("<>") {
		return Address{}, ErrTooLong
	}
	a, n, err := mailbox(s, smtputf8)
	switch {
	case err != nil:
	case n < len(s):
		err = syntax("%q after the address", s[n:])
	case a.Domain == "":
		err = syntax("no domain")
	default:
		return a, nil
	}
	return Address{}, err
}

// ParsePath reads the path that s begins with, angle brackets included, and
// returns how many octets it took; what follows (ESMTP parameters) is the caller's.
// Beyond mailboxes it takes the null path <>, <postmaster> in any case, and a
// source route <@a,@b:local@domain>, which is ignored (RFC 5321 appendix C).
func ParsePath(s string, smtputf8 bool) (a Address, n int, err error) {
	if s == "" || s[0] != '<' {
		return Address{}, 0, syntax("write it in angle brackets")
	}
	if strings.HasPrefix(s, "<>") {
		return Address{}, 2, nil
	}
	n = 1
	if strings.HasPrefix(s[n:], "@") {
		if n, err = skipRoute(s, n, smtputf8); err != nil {
			return Address{}, 0, err
		}
	}
	a, m, err := mailbox(s[n:], smtputf8)
	n += m
	switch {
	case err != nil:
	case n == len(s) || s[n] != '>':
		err = syntax("no closing angle bracket after the address")
	case n+1 > MaxPath:
		err = ErrTooLong
	case a.Domain == "" && !strings.EqualFold(a.Local, "postmaster"):
		err = syntax("no domain")
	default:
		return a, n + 1, nil
	}
	return Address{}, 0, err
}

// IsNull reports whether a is the null reverse-path <> of bounces and DSNs.
func (a Address) IsNull() bool { return a == Address{} }

// IsASCII reports whether a can be sent to a peer without SMTPUTF8.
func (a Address) IsASCII() bool { return isASCII(a.Local) && isASCII(a.Domain) }

// Detail returns what follows the first sep in the local-part: "list" for
// meg+list@ryan.example and sep "+"; empty when there is none.
// A separator at the very start separates nothing.
func (a Address) Detail(sep string) string {
	_, detail := a.split(sep)
	return detail
}

// Base returns a without its separator and [Address.Detail].
func (a Address) Base(sep string) Address {
	a.Local, _ = a.split(sep)
	return a
}

func (a Address) split(sep string) (base, detail string) {
	base, detail, _ = strings.Cut(a.Local, sep)
	if base == "" {
		return a.Local, ""
	}
	return base, detail
}

// String returns the spelling for the wire, without angle brackets. The local-part
// is quoted where it must be, and [Parse] gives a back. The null address gives "".
//
// It is safe to put between angle brackets for any value, also one that no parser
// made: octets that no address may hold (controls, and in the domain anything that
// could end the path) come out as "?", so no second command or parameter can hide
// in it.
func (a Address) String() string {
	if a.IsNull() {
		return ""
	}
	local := a.Local
	if !isDotString(local) {
		local = quote(local)
	}
	if a.Domain == "" {
		return local
	}
	return local + "@" + cleanDomain(a.Domain)
}

func syntax(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrSyntax}, args...)...)
}

// mailbox reads local-part "@" domain at the start of s. A local-part that ends
// at ">" or the end of s comes back without a domain: the caller knows whether
// that is allowed.
func mailbox(s string, smtputf8 bool) (Address, int, error) {
	var a Address
	var n int
	var err error
	if strings.HasPrefix(s, `"`) {
		a.Local, n, err = quotedString(s, smtputf8)
	} else {
		n, err = dotString(s, smtputf8)
		a.Local = s[:n]
	}
	if err != nil {
		return Address{}, 0, err
	}
	if n == len(s) || s[n] == '>' {
		return a, n, nil
	}
	if s[n] != '@' {
		return Address{}, 0, syntax("%q in the local-part; quote it", s[n])
	}
	n++
	end, err := domain(s, n, smtputf8)
	if err != nil {
		return Address{}, 0, err
	}
	a.Domain = s[n:end]
	if a.Domain[0] != '[' {
		a.Domain = strings.Map(lowerASCII, a.Domain)
	}
	return a, end, nil
}

// dotString returns the length of the Dot-string at the start of s.
func dotString(s string, smtputf8 bool) (i int, err error) {
	for i < len(s) {
		n := 1
		if s[i] >= utf8.RuneSelf {
			if n, err = runeAt(s[i:], smtputf8); err != nil {
				return 0, err
			}
		} else if s[i] == '.' && i > 0 && s[i-1] == '.' {
			return 0, syntax("two dots in a row in the local-part")
		} else if s[i] != '.' && !isAtext(s[i]) {
			break
		}
		i += n
	}
	if i == 0 || s[0] == '.' || s[i-1] == '.' {
		return 0, syntax("local-part is empty or has a dot at its edge")
	}
	return i, nil
}

// quotedString returns the meaning and the length of the Quoted-string at the
// start of s.
func quotedString(s string, smtputf8 bool) (string, int, error) {
	var b []byte
	start := 1 // of the octets not yet in b
	for i := 1; i < len(s); i++ {
		switch c := s[i]; {
		case c == '"' && start == 1: // no backslash: no copy
			return s[1:i], i + 1, nil
		case c == '"':
			return string(append(b, s[start:i]...)), i + 1, nil
		case c == '\\':
			b = append(b, s[start:i]...)
			i++
			if i == len(s) || s[i] < ' ' || s[i] > '~' {
				return "", 0, syntax("backslash before what may not follow it")
			}
			start = i
		case c < ' ' || c == 0x7f:
			return "", 0, syntax("control character in the local-part")
		case c >= utf8.RuneSelf:
			n, err := runeAt(s[i:], smtputf8)
			if err != nil {
				return "", 0, err
			}
			i += n - 1
		}
	}
	return "", 0, syntax("no closing quote")
}

// runeAt returns the length of the non-ASCII character at the start of s.
func runeAt(s string, smtputf8 bool) (int, error) {
	r, n := utf8.DecodeRuneInString(s)
	if isForbidden(r) {
		return 0, syntax("control character or invalid UTF-8")
	}
	if !smtputf8 {
		return 0, ErrNonASCII
	}
	return n, nil
}

// domain returns the end of the Domain or address-literal that begins at s[i].
func domain(s string, i int, smtputf8 bool) (int, error) {
	if i < len(s) && s[i] == '[' {
		return literal(s, i)
	}
	start, label := i, i
	for i < len(s) {
		n := 1
		if s[i] >= utf8.RuneSelf {
			var err error
			if n, err = runeAt(s[i:], smtputf8); err != nil {
				return 0, err
			}
			if r, _ := utf8.DecodeRuneInString(s[i:]); !isLabelRune(r) {
				return 0, syntax("%q in the domain", r)
			}
		} else if s[i] == '.' {
			if err := checkLabel(s[label:i]); err != nil {
				return 0, err
			}
			label = i + 1
		} else if !isLabelByte(s[i]) {
			break
		}
		i += n
	}
	if i-start > MaxDomain {
		return 0, ErrTooLong
	}
	return i, checkLabel(s[label:i])
}

func checkLabel(l string) error {
	switch {
	case l == "":
		return syntax("empty label in the domain")
	case len(l) > maxLabel && isASCII(l):
		return syntax("label of more than 63 octets in the domain")
	case l[0] == '-' || l[len(l)-1] == '-':
		return syntax("hyphen at the edge of a label in the domain")
	}
	return nil
}

// literal returns the end of the address literal that begins at s[i]. Of the
// forms of RFC 5321 section 4.1.3 only the two with a meaning are taken.
func literal(s string, i int) (int, error) {
	n := strings.IndexByte(s[i:], ']')
	if n < 0 {
		return 0, syntax("no closing bracket after the address literal")
	}
	text := s[i+1 : i+n]
	tagged := len(text) > 5 && strings.EqualFold(text[:5], "IPv6:")
	if tagged {
		text = text[5:]
	}
	ip, err := netip.ParseAddr(text)
	if err != nil || ip.Is4() == tagged || ip.Zone() != "" {
		return 0, syntax("address literal is neither [192.0.2.1] nor [IPv6:2001:db8::1]")
	}
	return i + n + 1, nil
}

// skipRoute returns the index after the source route "@a,@b:" that begins at s[i].
func skipRoute(s string, i int, smtputf8 bool) (int, error) {
	for strings.HasPrefix(s[i:], "@") {
		end, err := domain(s, i+1, smtputf8)
		if err != nil {
			return 0, err
		}
		if strings.HasPrefix(s[end:], ":") {
			return end + 1, nil
		}
		if !strings.HasPrefix(s[end:], ",") {
			break
		}
		i = end + 1
	}
	return 0, syntax("unfinished source route")
}

// isAtext: RFC 5322 section 3.2.3.
func isAtext(c byte) bool {
	return isAlnum(c) || strings.IndexByte("!#$%&'*+-/=?^_`{|}~", c) >= 0
}

// isLabelByte takes the underscore beyond the grammar: hosts that send mail under
// such names exist, and a peer that resolves them gains nothing from a refusal.
func isLabelByte(c byte) bool { return isAlnum(c) || c == '-' || c == '_' }

func isAlnum(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
}

// isLabelRune takes what a U-label may hold (RFC 5892): letters, marks, digits and
// the characters allowed in context. Other dots (U+3002 …) are thereby refused:
// IDNA would map them to a label boundary that a policy had not seen.
func isLabelRune(r rune) bool {
	return unicode.IsLetter(r) || unicode.IsMark(r) || unicode.IsDigit(r) ||
		strings.ContainsRune("\u00b7\u0375\u05f3\u05f4\u30fb\u200c\u200d", r)
}

func isASCII(s string) bool {
	return strings.IndexFunc(s, func(r rune) bool { return r >= utf8.RuneSelf }) < 0
}

func lowerASCII(r rune) rune {
	if 'A' <= r && r <= 'Z' {
		r += 'a' - 'A'
	}
	return r
}

func isDotString(s string) bool {
	n, err := dotString(s, true)
	return err == nil && n == len(s)
}

// quote writes a Quoted-string: only the quote and the backslash need a backslash.
func quote(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range s {
		if r == '"' || r == '\\' {
			b.WriteByte('\\')
		}
		if isForbidden(r) {
			r = '?'
		}
		b.WriteRune(r)
	}
	b.WriteByte('"')
	return b.String()
}

// isForbidden holds for what no local-part may hold. Invalid UTF-8 decodes to U+FFFD.
func isForbidden(r rune) bool {
	return r == utf8.RuneError || unicode.IsControl(r) || r == '\u2028' || r == '\u2029'
}

func cleanDomain(s string) string {
	if n, err := domain(s, 0, true); err == nil && n == len(s) {
		return s
	}
	return strings.Map(func(r rune) rune {
		if r < utf8.RuneSelf && isLabelByte(byte(r)) || strings.ContainsRune(".[]:", r) || isLabelRune(r) {
			return r
		}
		return '?'
	}, s)
}
