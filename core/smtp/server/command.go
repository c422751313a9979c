package server

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/emersion/go-smtp"
)

var (
	replyOK      = OK("OK")
	replyMail    = NewReply(250, smtp.EnhancedCode{2, 1, 0}, "Sender OK")
	replyRcpt    = NewReply(250, smtp.EnhancedCode{2, 1, 5}, "Recipient OK")
	replyVrfy    = NewReply(252, smtp.EnhancedCode{2, 5, 0}, "Cannot say; send the message and see")
	replyHelp    = NewReply(214, smtp.EnhancedCode{2, 0, 0}, "EHLO MAIL RCPT DATA BDAT RSET NOOP QUIT VRFY STARTTLS AUTH; see RFC 5321")
	needStartTLS = NewReply(530, smtp.EnhancedCode{5, 7, 0}, "STARTTLS first")
	needAuth     = NewReply(530, smtp.EnhancedCode{5, 7, 0}, "Authentication required")
)

// command runs one command line.
func (c *Conn) command(line []byte) {
	if !isCleanLine(line) {
		c.fail(500, smtp.EnhancedCode{5, 5, 2}, "Command has a control character or invalid UTF-8")
		return
	}
	word, rest, _ := bytes.Cut(line, []byte{' '})
	// RFC 5321 section 4.1.1: white space at the end is ignored.
	arg := string(bytes.Trim(rest, " "))
	var buf [8]byte
	verb := buf[:copyUpper(buf[:], word)]
	if c.srv.RequireTLS && c.tls == nil && needsTLS(verb) {
		c.fail(needStartTLS.Code, needStartTLS.Enhanced, needStartTLS.Lines[0])
		return
	}
	switch string(verb) {
	case "MAIL":
		c.mail(arg)
	case "RCPT":
		c.rcpt(arg)
	case "DATA":
		c.data(arg)
	case "BDAT":
		c.bdat(arg)
	case "EHLO", "HELO", "LHLO":
		c.helo(string(verb), arg)
	case "RSET":
		if arg != "" {
			c.fail(501, smtp.EnhancedCode{5, 5, 4}, "RSET takes no argument")
			return
		}
		c.reset()
		c.write(replyOK)
	case "NOOP":
		c.write(replyOK)
	case "QUIT":
		if arg != "" {
			c.fail(501, smtp.EnhancedCode{5, 5, 4}, "QUIT takes no argument")
			return
		}
		c.write(c.hostReply(221, smtp.EnhancedCode{2, 0, 0}, "Bye"))
		c.closing = true
	case "STARTTLS":
		c.starttls(arg)
	case "AUTH":
		c.auth(arg)
	case "XCLIENT":
		c.xclientCommand(arg)
	case "HELP":
		c.write(replyHelp)
	case "VRFY":
		if arg == "" {
			c.fail(501, smtp.EnhancedCode{5, 5, 4}, "VRFY needs a name or an address")
			return
		}
		c.write(replyVrfy) // RFC 5321 section 7.3
	case "EXPN", "ETRN", "TURN", "ATRN", "SEND", "SOML", "SAML", "BURL":
		c.fail(502, smtp.EnhancedCode{5, 5, 1}, "Command not implemented")
	case "GET", "POST", "PUT", "CONNECT":
		// A browser was talked into posting here: its body must not run as commands.
		c.write(c.hostReply(421, smtp.EnhancedCode{4, 7, 0}, "This is not an HTTP server"))
		c.closing, c.cutOff = true, true
	default:
		c.fail(500, smtp.EnhancedCode{5, 5, 1}, "Unknown command")
	}
}

func needsTLS(verb []byte) bool {
	switch string(verb) {
	case "MAIL", "RCPT", "DATA", "AUTH", "VRFY": // not BDAT, which reads its chunk before it refuses
		return true
	}
	return false
}

// copyUpper returns 0 for a word that is too long to be a verb.
func copyUpper(dst, word []byte) int {
	if len(word) > len(dst) {
		return 0
	}
	for i, b := range word {
		if 'a' <= b && b <= 'z' {
			b -= 'a' - 'A'
		}
		dst[i] = b
	}
	return len(word)
}

// isCleanLine refuses what no command may hold, quoted or not: controls (CR and
// NUL among them) and invalid UTF-8.
func isCleanLine(line []byte) bool {
	ascii := true
	for _, b := range line {
		if b < ' ' || b == 0x7f {
			return false
		}
		if b >= utf8.RuneSelf {
			ascii = false
		}
	}
	return ascii || utf8.Valid(line)
}

// helo is EHLO, HELO and LHLO.
func (c *Conn) helo(verb, arg string) {
	if c.srv.LMTP != (verb == "LHLO") {
		// RFC 2033 section 4.1
		c.fail(500, smtp.EnhancedCode{5, 5, 1}, "Unknown command")
		return
	}
	// Neither verified nor held against anybody (RFC 5321 section 4.1.4); it only must fit the reply.
	if arg == "" || len(arg) > 255 || strings.Contains(arg, " ") || !isASCII(arg) {
		c.fail(501, smtp.EnhancedCode{5, 5, 4}, verb+" needs one domain or address literal")
		return
	}
	c.reset() // RFC 5321 section 4.1.4
	c.early = c.early || c.in.r < c.in.w
	before := c.hello
	c.hello = Hello{Verb: verb, Name: arg}
	if err := c.session.Hello(c.ctx, c.hello); err != nil {
		c.hello = before
		c.writeError(err)
		return
	}
	c.takeOut()
	if verb == "HELO" {
		c.out = fmt.Appendf(c.out, "250 %s greets %s\r\n", c.srv.Hostname, arg)
	} else {
		c.out = c.appendEhlo(c.out)
	}
	c.flushFull()
}

// appendEhlo writes the reply to EHLO: no enhanced codes (RFC 2034 section 4).
func (c *Conn) appendEhlo(b []byte) []byte {
	var last int
	add := func(words ...string) {
		last = len(b)
		b = append(b, "250-"...)
		for i, w := range words {
			if i > 0 {
				b = append(b, ' ')
			}
			b = append(b, w...)
		}
		b = append(b, "\r\n"...)
	}
	s := c.srv
	add(s.Hostname, "greets", c.hello.Name)
	add("PIPELINING")
	if s.MaxSize > 0 {
		add("SIZE", strconv.FormatInt(s.MaxSize, 10))
	} else {
		add("SIZE")
	}
	if s.TLS != nil && c.tls == nil {
		add("STARTTLS")
	}
	if c.authOffered() {
		add(append([]string{"AUTH"}, c.mechanisms()...)...)
	}
	add("8BITMIME")
	add("ENHANCEDSTATUSCODES")
	add("CHUNKING")
	if s.EnableBinaryMIME {
		add("BINARYMIME")
	}
	if s.EnableDSN {
		add("DSN")
	}
	if s.EnableSMTPUTF8 {
		add("SMTPUTF8")
	}
	if s.EnableRequireTLS && c.tls != nil {
		add("REQUIRETLS") // RFC 8689 section 2: not without TLS
	}
	if s.EnableLimits && (s.MaxRecipients > 0 || s.MaxTransactionsPerConn > 0) {
		words := []string{"LIMITS"}
		if s.MaxTransactionsPerConn > 0 {
			words = append(words, "MAILMAX="+strconv.Itoa(s.MaxTransactionsPerConn))
		}
		if s.MaxRecipients > 0 {
			words = append(words, "RCPTMAX="+strconv.Itoa(s.MaxRecipients))
		}
		add(words...)
	}
	if s.EnablePriority {
		add("MT-PRIORITY")
	}
	if s.EnableDeliverBy && s.MinDeliverBy > 0 {
		add("DELIVERBY", strconv.Itoa(int(s.MinDeliverBy/time.Second)))
	} else if s.EnableDeliverBy {
		add("DELIVERBY")
	}
	if s.MaxHold > 0 {
		// RFC 4865 section 4: both limits, of which ours is one.
		add("FUTURERELEASE", strconv.Itoa(int(s.MaxHold/time.Second)), time.Now().Add(s.MaxHold).UTC().Format(time.RFC3339))
	}
	if c.xclientOK {
		add("XCLIENT NAME ADDR PORT PROTO HELO LOGIN DESTADDR DESTPORT")
	}
	add("HELP")
	b[last+3] = ' '
	return b
}

func isASCII(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}
