package client

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/emersion/go-smtp"
)

// Transaction is one mail for one or more recipients of one server.
type Transaction struct {
	// From is the reverse-path as it goes on the wire, without brackets;
	// empty for the null reverse-path.
	From string
	// Options are passed on as far as the server offers the extension. Body
	// is the declared type; Size is taken from the Transaction.
	Options smtp.MailOptions
	// Priority is passed on as MT-PRIORITY (RFC 6710); 0 is that of mail without one.
	Priority int
	// DeliverBy is passed on with the time that is left; nil: none.
	DeliverBy  *DeliverBy
	Recipients []Rcpt
	// Body opens the message, lines ended by CRLF. It may be opened twice: a
	// server with few extensions makes us look at the content first.
	Body func() (io.ReadCloser, error)
	// Size of the message in octets; 0 if not known, which rules BDAT out.
	Size int64
}

// Rcpt is one recipient: the forward-path as it goes on the wire, without
// brackets.
type Rcpt struct {
	Addr    string
	Options smtp.RcptOptions
}

// Result is what is known of each recipient, in the order of the Transaction.
type Result struct {
	Recipients []RcptResult
	// EndOfData: the end of the message was handed to the network. For a
	// recipient without a reply the mail may then have been delivered; without
	// it, it was not.
	EndOfData bool
}

// RcptResult is the reply that decided about a recipient.
type RcptResult struct {
	// Phase in which the reply came; PhaseLocal if it was made here.
	Phase Phase
	// Reply is the server's; Code 0: the connection broke before it came.
	Reply Reply
	// Missing is the extension for the lack of which the reply was made here
	// (SMTPUTF8, REQUIRETLS, 8BITMIME, BINARYMIME, DELIVERBY): another server may do.
	Missing string
}

// Delivered: the server took the responsibility for this recipient.
func (r RcptResult) Delivered() bool { return r.Phase == PhaseDone && r.Reply.Class() == 2 }

func localResult(code int, ec smtp.EnhancedCode, missing, text string) RcptResult {
	return RcptResult{Phase: PhaseLocal, Missing: missing, Reply: Reply{Code: code, Enhanced: ec, Text: text}}
}

// plan is a transaction as this server can take it.
type plan struct {
	mail  string
	rcpts []string // "" where the recipient is refused here
	bdat  bool
	// binary: bare CR and LF are content.
	binary bool
}

// prepare decides what can be sent. Recipients refused here have their result
// set; a false return means none is left.
func (c *Conn) prepare(t *Transaction, res *Result) (plan, bool, error) {
	refuseAll := func(r RcptResult) (plan, bool, error) {
		for i := range res.Recipients {
			res.Recipients[i] = r
		}
		return plan{}, false, nil
	}
	var p plan
	if t.From != "" {
		if err := checkAddress(t.From); err != nil {
			return refuseAll(localResult(553, smtp.EnhancedCode{5, 1, 7}, "", "The sender's address cannot be sent: "+err.Error()))
		}
	}
	need8, needUTF8, err := c.needs(t)
	if err != nil {
		return plan{}, false, err
	}
	p.binary = t.Options.Body == smtp.BodyBinaryMIME

	has := func(ext string) bool { _, ok := c.ext[ext]; return ok }
	switch {
	case needUTF8 && !has("SMTPUTF8"):
		return refuseAll(localResult(550, smtp.EnhancedCode{5, 6, 7}, "SMTPUTF8",
			"The message needs SMTPUTF8, which the server does not offer"))
	case t.Options.RequireTLS && !c.canRequireTLS():
		return refuseAll(localResult(550, smtp.EnhancedCode{5, 7, 30}, "REQUIRETLS",
			"The sender requires TLS all the way (REQUIRETLS), which the server does not offer"))
	case p.binary && !(has("BINARYMIME") && has("CHUNKING") && t.Size > 0):
		return refuseAll(localResult(550, smtp.EnhancedCode{5, 6, 3}, "BINARYMIME",
			"The message is binary (BINARYMIME), which the server does not offer"))
	case need8 && !has("8BITMIME"):
		return refuseAll(localResult(550, smtp.EnhancedCode{5, 6, 3}, "8BITMIME",
			"The message has 8-bit content, and the server does not offer 8BITMIME"))
	}
	// RFC 1870 section 3: a limit of 0 is none.
	if max, err := strconv.ParseInt(c.ext["SIZE"], 10, 64); err == nil && max > 0 && t.Size > max {
		return refuseAll(localResult(552, smtp.EnhancedCode{5, 3, 4}, "",
			fmt.Sprintf("The message of %d octets is larger than the server's limit of %d", t.Size, max)))
	}

	by, late, ok := c.deliverBy(t.DeliverBy, time.Now())
	if !ok {
		return refuseAll(late)
	}

	var b strings.Builder
	from := t.From
	if !has("SMTPUTF8") {
		from, _ = asciiAddress(from) // needs has seen that it can
	}
	fmt.Fprintf(&b, "MAIL FROM:<%s>", from)
	if has("SIZE") && t.Size > 0 {
		fmt.Fprintf(&b, " SIZE=%d", t.Size)
	}
	switch {
	case p.binary:
		b.WriteString(" BODY=BINARYMIME")
	case t.Options.Body == smtp.Body8BitMIME && has("8BITMIME"):
		b.WriteString(" BODY=8BITMIME")
	}
	// Said too if only the sender asked for it: its MIME parts may need it.
	if has("SMTPUTF8") && (needUTF8 || t.Options.UTF8) {
		b.WriteString(" SMTPUTF8")
	}
	if t.Options.RequireTLS {
		b.WriteString(" REQUIRETLS")
	}
	if t.Priority != 0 && has("MT-PRIORITY") {
		fmt.Fprintf(&b, " MT-PRIORITY=%d", t.Priority)
	}
	b.WriteString(by)
	dsn := has("DSN")
	if dsn {
		switch t.Options.Return {
		case smtp.DSNReturnFull, smtp.DSNReturnHeaders:
			b.WriteString(" RET=" + string(t.Options.Return))
		}
		if id := t.Options.EnvelopeID; id != "" {
			b.WriteString(" ENVID=" + xtext(id))
		}
	}
	p.mail = b.String()

	p.rcpts = make([]string, len(t.Recipients))
	left := false
	for i, r := range t.Recipients {
		if err := checkAddress(r.Addr); err != nil {
			res.Recipients[i] = localResult(553, smtp.EnhancedCode{5, 1, 3}, "", "The recipient's address cannot be sent: "+err.Error())
			continue
		}
		if !has("SMTPUTF8") {
			ascii, ok := asciiAddress(r.Addr)
			if !ok {
				res.Recipients[i] = localResult(550, smtp.EnhancedCode{5, 6, 7}, "SMTPUTF8",
					"The recipient's address needs SMTPUTF8, which the server does not offer")
				continue
			}
			r.Addr = ascii
		}
		p.rcpts[i] = rcptCommand(r, dsn)
		left = true
	}
	p.bdat = p.binary || has("CHUNKING") && !c.cfg.NoChunking && t.Size > 0
	return p, left, nil
}

func (c *Conn) canRequireTLS() bool {
	_, offered := c.ext["REQUIRETLS"]
	_, encrypted := c.TLS()
	return offered && encrypted // RFC 8689 section 4.2.1
}

func rcptCommand(r Rcpt, dsn bool) string {
	var b strings.Builder
	fmt.Fprintf(&b, "RCPT TO:<%s>", r.Addr)
	if !dsn {
		return b.String()
	}
	sep := " NOTIFY="
	for _, n := range r.Options.Notify {
		switch n {
		case smtp.DSNNotifyNever, smtp.DSNNotifyDelayed, smtp.DSNNotifyFailure, smtp.DSNNotifySuccess:
			b.WriteString(sep + string(n))
			sep = ","
		}
	}
	if orcpt := r.Options.OriginalRecipient; orcpt != "" {
		if r.Options.OriginalRecipientType == smtp.DSNAddressTypeUTF8 || !isASCII(orcpt) {
			b.WriteString(" ORCPT=utf-8;" + utf8xtext(orcpt))
		} else {
			b.WriteString(" ORCPT=rfc822;" + xtext(orcpt))
		}
	}
	return b.String()
}

// needs tells what the message asks of the server, its recipients aside if the
// server has no SMTPUTF8: that is about each of them. The content is only read
// when the server lacks what the sender declared.
func (c *Conn) needs(t *Transaction) (eightBit, utf8 bool, err error) {
	_, has8 := c.ext["8BITMIME"]
	_, hasUTF8 := c.ext["SMTPUTF8"]
	if hasUTF8 {
		utf8 = !isASCII(t.From)
		for _, r := range t.Recipients {
			utf8 = utf8 || !isASCII(r.Addr)
		}
	} else {
		_, ascii := asciiAddress(t.From)
		utf8 = !ascii
	}
	binary := t.Options.Body == smtp.BodyBinaryMIME
	lookFor8 := !has8 && !binary
	lookForUTF8 := !hasUTF8 && t.Options.UTF8 && !utf8
	if !lookFor8 && !lookForUTF8 {
		return false, utf8, nil
	}
	header8, body8, err := survey(t.Body)
	if err != nil {
		return false, false, &Error{Phase: PhaseLocal, Err: fmt.Errorf("cannot read the message: %w", err)}
	}
	// Many clients declare SMTPUTF8 for every mail: what is plain ASCII in
	// envelope and header passes any server.
	utf8 = utf8 || lookForUTF8 && header8
	return lookFor8 && (header8 || body8), utf8, nil
}
