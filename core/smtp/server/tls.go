package server

import (
	"crypto/tls"
	"time"

	"github.com/emersion/go-smtp"
)

// starttls is the STARTTLS command (RFC 3207).
func (c *Conn) starttls(arg string) {
	switch {
	case c.tls != nil:
		c.fail(503, smtp.EnhancedCode{5, 5, 1}, "TLS is active already")
	case c.srv.TLS == nil:
		c.fail(502, smtp.EnhancedCode{5, 5, 1}, "STARTTLS is not offered")
	case arg != "":
		c.fail(501, smtp.EnhancedCode{5, 5, 4}, "STARTTLS takes no argument")
	case c.authUser != "":
		c.fail(503, smtp.EnhancedCode{5, 5, 1}, "STARTTLS comes before AUTH")
	default:
		c.write(NewReply(220, smtp.EnhancedCode{2, 0, 0}, "Go ahead"))
		// RFC 3207 section 6: what came in plain text behind the command may be an
		// attacker's, and must not run as the client's own under TLS.
		c.in.discard()
		if c.flush() != nil {
			c.closing = true
			return
		}
		if err := c.startTLS(); err != nil {
			c.log("TLS handshake failed", err)
			c.closing = true
			return
		}
		// RFC 3207 section 4.2: everything learnt before is forgotten.
		c.reset()
		c.hello = Hello{}
	}
}

// startTLS makes the handshake.
func (c *Conn) startTLS() error {
	t := tls.Server(c.nc, c.srv.TLS)
	c.raw.SetDeadline(time.Now().Add(c.srv.HandshakeTimeout))
	if err := t.HandshakeContext(c.ctx); err != nil {
		return err
	}
	c.raw.SetDeadline(time.Time{})
	c.readBy, c.writeBy = time.Time{}, time.Time{}
	c.nc, c.wait = t, nil
	state := t.ConnectionState()
	c.tls = &state
	return nil
}
