package client

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/emersion/go-smtp"
)

// DeliverBy is when a mail is to be delivered by (RFC 2852).
type DeliverBy struct {
	At time.Time
	// Return it then; else its sender is told that it is late.
	Return bool
	// Trace: the sender wants to hear of each relay.
	Trace bool
}

// the by-time has nine digits (RFC 2852 section 4).
const mostSeconds = 999999999

// deliverBy is the BY parameter for this server, "" if it goes without one. If ok
// is false, the mail must not go there at all.
func (c *Conn) deliverBy(by *DeliverBy, now time.Time) (param string, refused RcptResult, ok bool) {
	if by == nil {
		return "", RcptResult{}, true
	}
	left := int(max(-mostSeconds, min(by.At.Sub(now)/time.Second, mostSeconds)))
	if by.Return && left <= 0 {
		return "", localResult(550, smtp.EnhancedCode{5, 4, 7}, "", "The time by which the sender wanted the message delivered is over"), false
	}
	params, offered := c.ext["DELIVERBY"]
	if !offered {
		// Who speaks LMTP delivers at once. Another relay would take its time, and
		// knows of no limit to it (section 4.1.4).
		if by.Return && !c.cfg.LMTP {
			return "", localResult(550, smtp.EnhancedCode{5, 3, 3}, "DELIVERBY",
				"The sender wants the message back if it is late (DELIVERBY), which the server does not offer"), false
		}
		return "", RcptResult{}, true
	}
	minimum, _, _ := strings.Cut(params, ",")
	if least, err := strconv.Atoi(strings.TrimSpace(minimum)); by.Return && err == nil && left < least {
		return "", localResult(550, smtp.EnhancedCode{5, 4, 7}, "DELIVERBY",
			fmt.Sprintf("The message is to be delivered within %d seconds, and the server needs %d", left, least)), false
	}
	mode := "N"
	if by.Return {
		mode = "R"
	}
	if by.Trace {
		mode += "T"
	}
	return fmt.Sprintf(" BY=%d;%s", left, mode), RcptResult{}, true
}
