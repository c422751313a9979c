package server

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/emersion/go-smtp"
)

// MailOptions are the parameters of MAIL, those included that go-smtp has no
// place for.
type MailOptions struct {
	smtp.MailOptions
	// Priority from -9 to 9 (MT-PRIORITY, RFC 6710); 0 is that of mail without one.
	Priority int
	// DeliverBy is BY (RFC 2852); its Mode is empty if there is none.
	DeliverBy smtp.DeliverByOptions
	// HoldUntil is the time of HOLDFOR or HOLDUNTIL (RFC 4865); zero: none.
	HoldUntil time.Time
}

// parsePriority: RFC 6710 section 5.
func parsePriority(s string) (int, *smtp.SMTPError) {
	digits := strings.TrimPrefix(s, "-")
	if len(digits) != 1 || digits[0] < '0' || digits[0] > '9' || s == "-0" {
		return 0, badParam("MT-PRIORITY is a number from -9 to 9")
	}
	n, _ := strconv.Atoi(s)
	return n, nil
}

// parseBy: RFC 2852 section 4, "by-time;by-mode" and perhaps T.
func (c *Conn) parseBy(s string) (by smtp.DeliverByOptions, err *smtp.SMTPError) {
	wrong := badParam("BY is seconds;R or seconds;N, perhaps with T behind it")
	seconds, mode, _ := strings.Cut(s, ";")
	digits := seconds
	if digits != "" && (digits[0] == '-' || digits[0] == '+') {
		digits = digits[1:]
	}
	if !isNumber(digits, 9) {
		return by, wrong
	}
	n, _ := strconv.Atoi(seconds)
	by.Time = time.Duration(n) * time.Second
	switch strings.ToUpper(mode) {
	case "N", "NT":
		by.Mode = smtp.DeliverByNotify
	case "R", "RT":
		by.Mode = smtp.DeliverByReturn
	default:
		return by, wrong
	}
	by.Trace = len(mode) == 2
	if by.Mode != smtp.DeliverByReturn {
		return by, nil
	}
	if n <= 0 {
		return by, badParam("BY with R needs a time that is still to come")
	}
	if by.Time < c.srv.MinDeliverBy {
		return by, &smtp.SMTPError{Code: 555, EnhancedCode: smtp.EnhancedCode{5, 5, 4},
			Message: fmt.Sprintf("BY with R is too soon, at least %d seconds are needed here", int(c.srv.MinDeliverBy/time.Second))}
	}
	return by, nil
}

// parseHold reads HOLDFOR and HOLDUNTIL: RFC 4865 section 4.
func (c *Conn) parseHold(key, value string) (time.Time, *smtp.SMTPError) {
	now := time.Now()
	var at time.Time
	if key == "HOLDFOR" {
		if !isNumber(value, 9) || strings.Trim(value, "0") == "" {
			return at, badParam("HOLDFOR is a number of seconds")
		}
		n, _ := strconv.Atoi(value)
		at = now.Add(time.Duration(n) * time.Second)
	} else {
		var err error
		if at, err = time.Parse(time.RFC3339, strings.ToUpper(value)); err != nil {
			return at, badParam("HOLDUNTIL is a time as in 2030-01-31T08:00:00Z")
		}
	}
	if at.After(now.Add(c.srv.MaxHold)) {
		return at, badParam(fmt.Sprintf("Mail is held here for at most %d seconds", int(c.srv.MaxHold/time.Second)))
	}
	// A time that is over is as good as none: the sender's clock may be late.
	return at, nil
}

// checkTimes looks at what only the parameters together tell.
func checkTimes(o *MailOptions) *smtp.SMTPError {
	if o.DeliverBy.Mode == smtp.DeliverByReturn && !o.HoldUntil.IsZero() && !time.Now().Add(o.DeliverBy.Time).After(o.HoldUntil) {
		return badParam("The mail would be returned (BY) before it is released (HOLDFOR, HOLDUNTIL)")
	}
	return nil
}

// isNumber: one to max digits.
func isNumber(s string, max int) bool {
	return s != "" && len(s) <= max && strings.Trim(s, "0123456789") == ""
}
