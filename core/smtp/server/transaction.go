package server

import (
	"errors"
	"strings"

	"github.com/emersion/go-smtp"

	"github.com/stagecoach-mta/stagecoach/sdk/address"
)

// mail is the MAIL command.
func (c *Conn) mail(arg string) {
	switch {
	case c.hello.Verb == "":
		c.fail(503, smtp.EnhancedCode{5, 5, 1}, "EHLO first")
		return
	case c.tx.open:
		c.fail(503, smtp.EnhancedCode{5, 5, 1}, "A transaction is open; RSET first")
		return
	case c.srv.RequireAuth && c.authUser == "":
		c.fail(needAuth.Code, needAuth.Enhanced, needAuth.Lines[0])
		return
	case c.srv.draining.Load():
		c.readFailed(errDraining)
		return
	case c.srv.MaxTransactionsPerConn > 0 && c.transactions >= c.srv.MaxTransactionsPerConn:
		c.write(c.hostReply(421, smtp.EnhancedCode{4, 7, 0}, "Enough messages for one connection, make another"))
		c.closing, c.cutOff = true, true
		return
	}
	from, params, err := parsePath(arg, "FROM:")
	if err != nil {
		c.failPath(err, smtp.EnhancedCode{5, 1, 7})
		return
	}
	opts := &c.mailOpts
	*opts = MailOptions{}
	if params != "" {
		if err := c.mailParams(params, opts); err != nil {
			c.fail(err.Code, err.EnhancedCode, err.Message)
			return
		}
	}
	if !opts.UTF8 && !isASCII(arg) {
		c.failPath(address.ErrNonASCII, smtp.EnhancedCode{})
		return
	}
	if c.srv.MaxSize > 0 && opts.Size > c.srv.MaxSize {
		c.write(tooBig(c.srv.MaxSize))
		return
	}
	if err := c.session.Mail(c.ctx, from, opts); err != nil && ReplyOf(err).refused() {
		c.writeError(err)
		return
	} else if err != nil {
		c.write(ReplyOf(err))
	} else {
		c.write(replyMail)
	}
	c.transactions++
	c.utf8 = opts.UTF8
	c.tx = transaction{open: true, binary: opts.Body == smtp.BodyBinaryMIME}
}

// rcpt is the RCPT command.
func (c *Conn) rcpt(arg string) {
	switch {
	case !c.tx.open:
		c.fail(503, smtp.EnhancedCode{5, 5, 1}, "MAIL first")
		return
	case c.tx.chunked:
		c.fail(503, smtp.EnhancedCode{5, 5, 1}, "RCPT cannot follow BDAT")
		return
	}
	to, params, err := parsePath(arg, "TO:")
	if err == nil && to.IsNull() {
		err = address.ErrSyntax
	}
	if err != nil {
		c.failPath(err, smtp.EnhancedCode{5, 1, 3})
		return
	}
	if !c.utf8 && !isASCII(arg) {
		c.failPath(address.ErrNonASCII, smtp.EnhancedCode{})
		return
	}
	opts := &c.rcptOpts
	*opts = smtp.RcptOptions{}
	if params != "" {
		if err := c.rcptParams(params, opts); err != nil {
			c.fail(err.Code, err.EnhancedCode, err.Message)
			return
		}
	}
	if c.srv.MaxRecipients > 0 && c.tx.rcpts >= c.srv.MaxRecipients {
		// RFC 5321 section 4.5.3.1.10
		c.write(NewReply(452, smtp.EnhancedCode{4, 5, 3}, "Too many recipients, send the rest in another message"))
		return
	}
	if err := c.session.Rcpt(c.ctx, to, opts); err != nil && ReplyOf(err).refused() {
		c.writeError(err)
		if ReplyOf(err).Code >= 500 {
			c.refused++
		}
		if c.srv.MaxRefused > 0 && c.refused >= c.srv.MaxRefused {
			c.tooMany("refused recipients")
		}
		return
	} else if err != nil {
		c.write(ReplyOf(err))
	} else {
		c.write(replyRcpt)
	}
	c.tx.rcpts++
	c.refused = max(0, c.refused-1)
}

var errKeyword = errors.New("keyword missing")

// parsePath reads "FROM:<path> parameters". UTF-8 is taken here: whether it may be
// there only the parameters tell.
func parsePath(arg, keyword string) (p Path, params string, err error) {
	if len(arg) < len(keyword) || !strings.EqualFold(arg[:len(keyword)], keyword) {
		return Path{}, "", errKeyword
	}
	// A space before the path is wrong, common and harmless.
	arg = strings.TrimLeft(arg[len(keyword):], " ")
	a, n, err := address.ParsePath(arg, true)
	if err != nil {
		return Path{}, "", err
	}
	params = arg[n:]
	if params != "" && params[0] != ' ' {
		return Path{}, "", address.ErrSyntax
	}
	return Path{Raw: arg[1 : n-1], Address: a}, strings.TrimLeft(params, " "), nil
}

// failPath answers for a path that is none; e is the enhanced code for bad syntax.
func (c *Conn) failPath(err error, e smtp.EnhancedCode) {
	switch {
	case err == errKeyword:
		c.fail(501, smtp.EnhancedCode{5, 5, 4}, "Syntax: MAIL FROM:<address> or RCPT TO:<address>")
	case errors.Is(err, address.ErrNonASCII):
		// RFC 6531 section 3.5
		c.fail(553, smtp.EnhancedCode{5, 6, 7}, "UTF-8 needs the SMTPUTF8 parameter of MAIL")
	default:
		text := err.Error()
		c.fail(501, e, strings.ToUpper(text[:1])+text[1:])
	}
}
