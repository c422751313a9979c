package server

import (
	"errors"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/emersion/go-smtp"

	"github.com/stagecoach-mta/stagecoach/sdk/address"
)

func badParam(text string) *smtp.SMTPError {
	return &smtp.SMTPError{Code: 501, EnhancedCode: smtp.EnhancedCode{5, 5, 4}, Message: text}
}

// unknownParam: RFC 5321 section 4.1.1.11.
func unknownParam(key string) *smtp.SMTPError {
	return &smtp.SMTPError{Code: 555, EnhancedCode: smtp.EnhancedCode{5, 5, 4}, Message: "Parameter " + key + " is not known here"}
}

// nextParam takes "KEY=value" or "KEY" off s. It is liberal in one thing: a value
// may hold "=", as those of clients that forget xtext do.
func nextParam(s string, seen []string) (key, value string, hasValue bool, rest string, err *smtp.SMTPError) {
	word, rest, _ := strings.Cut(s, " ")
	key, value, hasValue = strings.Cut(word, "=")
	key = strings.ToUpper(key)
	if key == "" || hasValue && value == "" {
		return "", "", false, "", badParam("Bad parameter")
	}
	if slices.Contains(seen, key) {
		return "", "", false, "", badParam("Parameter " + key + " given twice")
	}
	return key, value, hasValue, strings.TrimLeft(rest, " "), nil
}

// mailParams reads the parameters of MAIL.
func (c *Conn) mailParams(s string, o *MailOptions) *smtp.SMTPError {
	var buf [8]string
	seen := buf[:0]
	for s != "" {
		key, value, hasValue, rest, err := nextParam(s, seen)
		if err != nil {
			return err
		}
		s, seen = rest, append(seen, key)
		if wantsValue := key != "SMTPUTF8" && key != "REQUIRETLS"; wantsValue != hasValue && c.knowsMailParam(key) {
			return badParam("Parameter " + key + " has a value where none belongs, or lacks one")
		}
		switch {
		case !c.knowsMailParam(key):
			return unknownParam(key)
		case key == "SIZE":
			o.Size, err = parseSize(value)
		case key == "BODY":
			o.Body = smtp.BodyType(strings.ToUpper(value))
			switch {
			case o.Body == smtp.Body7Bit, o.Body == smtp.Body8BitMIME:
			case o.Body == smtp.BodyBinaryMIME && c.srv.EnableBinaryMIME:
			default:
				err = badParam("BODY is 7BIT, 8BITMIME or, where offered, BINARYMIME")
			}
		case key == "SMTPUTF8":
			o.UTF8 = true
		case key == "REQUIRETLS":
			o.RequireTLS = true
		case key == "RET":
			o.Return = smtp.DSNReturn(strings.ToUpper(value))
			if o.Return != smtp.DSNReturnFull && o.Return != smtp.DSNReturnHeaders {
				err = badParam("RET is FULL or HDRS")
			}
		case key == "ENVID":
			id, bad := decodeXtext(value)
			if bad != nil || len(value) > 100 || !isPrintable(id) || !isASCII(id) { // RFC 3461 section 4.4
				err = badParam("ENVID is xtext of at most 100 octets")
			}
			o.EnvelopeID = id
		case key == "AUTH":
			o.Auth, err = c.parseAuthParam(value)
		case key == "MT-PRIORITY":
			o.Priority, err = parsePriority(value)
		case key == "BY":
			o.DeliverBy, err = c.parseBy(value)
		case key == "HOLDFOR", key == "HOLDUNTIL":
			switch {
			case c.authUser == "":
				err = &smtp.SMTPError{Code: needAuth.Code, EnhancedCode: needAuth.Enhanced, Message: needAuth.Lines[0]}
			case !o.HoldUntil.IsZero(): // RFC 4865 section 4
				err = badParam("HOLDFOR and HOLDUNTIL exclude each other")
			default:
				o.HoldUntil, err = c.parseHold(key, value)
			}
		}
		if err != nil {
			return err
		}
	}
	return checkTimes(o)
}

// knowsMailParam reports whether the keyword's extension is offered.
func (c *Conn) knowsMailParam(key string) bool {
	switch key {
	case "SIZE", "BODY":
		return true
	case "SMTPUTF8":
		return c.srv.EnableSMTPUTF8
	case "REQUIRETLS":
		return c.srv.EnableRequireTLS && c.tls != nil
	case "RET", "ENVID":
		return c.srv.EnableDSN
	case "AUTH":
		return len(c.srv.Auth) > 0
	case "MT-PRIORITY":
		return c.srv.EnablePriority
	case "BY":
		return c.srv.EnableDeliverBy
	case "HOLDFOR", "HOLDUNTIL":
		return c.srv.MaxHold > 0
	}
	return false
}

// parseSize: 1*20DIGIT (RFC 1870 section 3), more than an int64 holds is as large as that.
func parseSize(s string) (int64, *smtp.SMTPError) {
	n, err := strconv.ParseUint(s, 10, 64)
	if errors.Is(err, strconv.ErrRange) && len(s) <= 20 {
		return math.MaxInt64, nil
	}
	if err != nil || len(s) > 20 {
		return 0, badParam("SIZE is a number of octets")
	}
	return int64(min(n, math.MaxInt64)), nil
}

// parseAuthParam: RFC 4954 section 5. Of a client that has not authenticated it
// is no better than <>.
func (c *Conn) parseAuthParam(value string) (*string, *smtp.SMTPError) {
	who, err := decodeXtext(value)
	if err != nil || !isPrintable(who) {
		return nil, badParam("AUTH is an address as xtext, or <>")
	}
	if who == "<>" || c.authUser == "" {
		who = ""
	} else if _, err := address.Parse(who, true); err != nil {
		return nil, badParam("AUTH is an address as xtext, or <>")
	}
	return &who, nil
}

// rcptParams reads the parameters of RCPT.
func (c *Conn) rcptParams(s string, o *smtp.RcptOptions) *smtp.SMTPError {
	var buf [4]string
	seen := buf[:0]
	for s != "" {
		key, value, _, rest, err := nextParam(s, seen)
		if err != nil {
			return err
		}
		s, seen = rest, append(seen, key)
		switch {
		case !c.srv.EnableDSN:
			return unknownParam(key)
		case key == "NOTIFY":
			o.Notify, err = parseNotify(value)
		case key == "ORCPT":
			o.OriginalRecipientType, o.OriginalRecipient, err = c.parseORCPT(value)
		default:
			return unknownParam(key)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// parseNotify: RFC 3461 section 4.1.
func parseNotify(s string) ([]smtp.DSNNotify, *smtp.SMTPError) {
	var list []smtp.DSNNotify
	for word := range strings.SplitSeq(s, ",") {
		n := smtp.DSNNotify(strings.ToUpper(word))
		switch n {
		case smtp.DSNNotifyNever, smtp.DSNNotifySuccess, smtp.DSNNotifyFailure, smtp.DSNNotifyDelayed:
		default:
			return nil, badParam("NOTIFY is NEVER, or of SUCCESS, FAILURE, DELAY")
		}
		for _, other := range list {
			if other == n || other == smtp.DSNNotifyNever || n == smtp.DSNNotifyNever {
				return nil, badParam("NOTIFY is NEVER, or of SUCCESS, FAILURE, DELAY")
			}
		}
		list = append(list, n)
	}
	return list, nil
}

// parseORCPT: RFC 3461 section 4.2 and RFC 6533 section 3. The type may be any
// atom; the engine only knows which encoding UTF-8 has.
func (c *Conn) parseORCPT(s string) (smtp.DSNAddressType, string, *smtp.SMTPError) {
	kind, value, ok := strings.Cut(s, ";")
	if !ok || kind == "" || value == "" || len(s) > 500 || !isAtom(kind) {
		return "", "", badParam("ORCPT is type;address, at most 500 octets")
	}
	t := smtp.DSNAddressType(strings.ToUpper(kind))
	decode := decodeXtext
	if t == smtp.DSNAddressTypeUTF8 {
		decode = decodeUnitext
	}
	value, err := decode(value)
	// It will stand in a header field of a DSN: controls would break out of it.
	if err != nil || !isPrintable(value) || t != smtp.DSNAddressTypeUTF8 && !isASCII(value) {
		return "", "", badParam("ORCPT's address is not well encoded")
	}
	return t, value, nil
}

func isAtom(s string) bool {
	for i := 0; i < len(s); i++ {
		b := s[i]
		if !('a' <= b && b <= 'z' || 'A' <= b && b <= 'Z' || '0' <= b && b <= '9' || b == '-') {
			return false
		}
	}
	return s != ""
}

func isPrintable(s string) bool {
	for _, r := range s {
		if r == utf8.RuneError || unicode.IsControl(r) || r == '\u2028' || r == '\u2029' {
			return false
		}
	}
	return true
}

var errEncoding = errors.New("bad encoding")

// decodeXtext: RFC 3461 section 4. "=" is taken too, as many forget to encode it.
func decodeXtext(s string) (string, error) {
	if !strings.Contains(s, "+") {
		return s, nil
	}
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] != '+' {
			b = append(b, s[i])
			continue
		}
		if i+2 >= len(s) || !isUpperHex(s[i+1:i+3]) {
			return "", errEncoding
		}
		n, _ := strconv.ParseUint(s[i+1:i+3], 16, 8)
		b = append(b, byte(n))
		i += 2
	}
	return string(b), nil
}

// decodeUnitext reads both forms of RFC 6533 section 3: raw UTF-8 and \x{HEX}.
func decodeUnitext(s string) (string, error) {
	if !strings.Contains(s, `\`) {
		return s, nil
	}
	var b strings.Builder
	for s != "" {
		raw, rest, found := strings.Cut(s, `\`)
		b.WriteString(raw)
		if !found {
			break
		}
		hex, after, closed := strings.Cut(rest, "}")
		hex, opened := strings.CutPrefix(hex, "x{")
		if !closed || !opened || len(hex) < 2 || len(hex) > 6 || !isUpperHex(hex) {
			return "", errEncoding
		}
		n, _ := strconv.ParseUint(hex, 16, 32)
		if !utf8.ValidRune(rune(n)) {
			return "", errEncoding
		}
		b.WriteRune(rune(n))
		s = after
	}
	return b.String(), nil
}

func isUpperHex(s string) bool {
	return strings.Trim(s, "0123456789ABCDEF") == ""
}
