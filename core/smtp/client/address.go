package client

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"golang.org/x/net/idna"
)

// RFC 5321 section 4.5.3.1.3 allows 256 octets with the angle brackets; UTF-8
// (RFC 6531) makes longer ones of the same length to the eye.
const maxAddress = 1000

// checkAddress makes sure that an address, put between < and >, ends where it
// should: no control, no bracket or space outside of quotes. It is no full
// syntax check; the server has the last word.
func checkAddress(s string) error {
	switch {
	case s == "":
		return errors.New("the address is empty")
	case len(s) > maxAddress:
		return fmt.Errorf("the address is longer than %d octets", maxAddress)
	case !utf8.ValidString(s):
		return errors.New("the address is not valid UTF-8")
	}
	for i := 0; i < len(s); i++ {
		if s[i] < ' ' || s[i] == 0x7f {
			return fmt.Errorf("the address has the control character %q", s[i])
		}
	}
	rest := s
	if s[0] == '"' {
		end := -1
		for i := 1; i < len(s); i++ {
			if s[i] == '\\' {
				i++ // quoted-pair
			} else if s[i] == '"' {
				end = i
				break
			}
		}
		if end < 0 {
			return errors.New("the address has a quote that is not closed")
		}
		rest = s[end+1:]
		if rest == "" || rest[0] != '@' {
			return errors.New("the address has no @ behind the quotes")
		}
	} else if i := strings.IndexByte(s, '@'); i >= 0 {
		if i == 0 {
			return errors.New("the address has no local-part")
		}
		if err := checkChars(s[:i], " <>()[]:;,\\\""); err != nil {
			return err
		}
		rest = s[i:]
	} else {
		// <postmaster> without a domain (RFC 5321 section 4.1.1.3).
		return checkChars(s, " <>()[]:;,\\\"")
	}
	domain := rest[1:]
	if domain == "" {
		return errors.New("the address has no domain")
	}
	if domain[0] == '[' && domain[len(domain)-1] == ']' {
		return checkChars(domain[1:len(domain)-1], " <>()[];,\\\"@")
	}
	return checkChars(domain, " <>()[]:;,\\\"@")
}

func checkChars(s, bad string) error {
	if i := strings.IndexAny(s, bad); i >= 0 {
		return fmt.Errorf("the address has %q where it is not allowed", s[i])
	}
	return nil
}

// toASCII is what domains have in the DNS (RFC 5891).
var toASCII = idna.New(idna.MapForLookup(), idna.BidiRule(), idna.StrictDomainName(false))

// asciiAddress is an address for a server without SMTPUTF8: of a domain in U-labels
// the A-labels say the same (RFC 6531 section 3.2). A local-part has no other form.
func asciiAddress(a string) (string, bool) {
	if isASCII(a) {
		return a, true
	}
	at := strings.LastIndexByte(a, '@')
	if at < 0 || !isASCII(a[:at]) || a[at+1] == '[' {
		return "", false
	}
	domain, err := toASCII.ToASCII(a[at+1:])
	out := a[:at+1] + domain
	// Of a full-width > the mapping makes one that ends the path.
	return out, err == nil && isASCII(domain) && checkAddress(out) == nil
}

func isASCII(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] >= 0x80 {
			return false
		}
	}
	return true
}

const hexDigits = "0123456789ABCDEF"

// xtext encodes as RFC 3461 section 4 wants it for ENVID and ORCPT.
func xtext(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if c := s[i]; c <= ' ' || c >= 0x7f || c == '+' || c == '=' {
			b.WriteByte('+')
			b.WriteByte(hexDigits[c>>4])
			b.WriteByte(hexDigits[c&15])
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}

// utf8xtext encodes a utf-8-addr-xtext, which passes servers with and without
// SMTPUTF8 (RFC 6533 section 3).
func utf8xtext(s string) string {
	var b strings.Builder
	for _, r := range s {
		if r <= ' ' || r >= 0x7f || r == '+' || r == '=' || r == '\\' {
			fmt.Fprintf(&b, `\x{%X}`, r)
		} else {
			b.WriteRune(r)
		}
	}
	return b.String()
}
