package server

import (
	"encoding/base64"
	"errors"
	"slices"
	"strings"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"
)

// authOffered reports whether EHLO names AUTH now.
func (c *Conn) authOffered() bool {
	return len(c.srv.Auth) > 0 && (c.tls != nil || c.srv.AllowInsecureAuth)
}

// mechanisms that are offered to this client.
func (c *Conn) mechanisms() []string {
	o, ok := c.session.(Offerer)
	if !ok {
		return c.srv.Auth
	}
	var list []string
	for _, mech := range c.srv.Auth {
		if o.Offers(c.ctx, mech) {
			list = append(list, mech)
		}
	}
	return list
}

// auth is the AUTH command (RFC 4954).
func (c *Conn) auth(arg string) {
	mech, initial, hasInitial := strings.Cut(arg, " ")
	mech = strings.ToUpper(mech)
	authenticator, ok := c.session.(Authenticator)
	switch {
	case len(c.srv.Auth) == 0 || !ok:
		c.fail(502, smtp.EnhancedCode{5, 5, 1}, "AUTH is not offered")
	case c.hello.Verb == "" || c.hello.Verb == "HELO":
		c.fail(503, smtp.EnhancedCode{5, 5, 1}, "EHLO first")
	case c.authUser != "":
		c.fail(503, smtp.EnhancedCode{5, 5, 1}, "Authenticated already")
	case c.tx.open:
		c.fail(503, smtp.EnhancedCode{5, 5, 1}, "AUTH comes before MAIL")
	case !c.authOffered():
		c.fail(538, smtp.EnhancedCode{5, 7, 11}, "AUTH needs encryption: STARTTLS first")
	case mech == "":
		c.fail(501, smtp.EnhancedCode{5, 5, 4}, "AUTH needs a mechanism")
	case !slices.Contains(c.mechanisms(), mech):
		c.fail(504, smtp.EnhancedCode{5, 5, 4}, "Mechanism not offered")
	default:
		c.authenticate(authenticator, mech, initial, hasInitial)
	}
}

// authenticate runs the exchange.
func (c *Conn) authenticate(a Authenticator, mech, initial string, hasInitial bool) {
	var response []byte // nil: none was sent
	if hasInitial {
		var ok bool
		if initial == "=" { // RFC 4954 section 4: an empty one
			response = []byte{}
		} else if response, ok = c.decodeSASL(initial); !ok {
			return
		}
	}
	user := ""
	check := func(identity, username, password string) error {
		user = username
		if identity != "" {
			user = identity
		}
		return a.AuthPlain(c.ctx, mech, identity, username, password)
	}
	var server sasl.Server
	switch mech {
	case sasl.Plain:
		server = sasl.NewPlainServer(check)
	case sasl.Login:
		server = &loginServer{check: check}
	default:
		var err error
		if server, err = a.AuthSASL(c.ctx, mech); err != nil {
			c.authFailed(mech, "", err)
			return
		}
	}
	for {
		challenge, done, err := server.Next(response)
		if err != nil {
			c.authFailed(mech, user, err)
			return
		}
		if done && len(challenge) == 0 {
			break
		}
		// Data that comes with the success has no place in SMTP's reply: it is one more
		// challenge, answered by an empty response (RFC 4954 section 4).
		c.write(Reply{334, smtp.NoEnhancedCode, []string{base64.StdEncoding.EncodeToString(challenge)}})
		var ok bool
		if response, ok = c.readSASL(); !ok {
			return
		}
		if done {
			if len(response) > 0 {
				c.authFailed(mech, user, sasl.ErrUnexpectedClientResponse)
				return
			}
			break
		}
	}
	if named, ok := server.(interface{ AuthUser() string }); ok {
		user = named.AuthUser()
	}
	if c.authUser == "" { // the Session may have set it
		c.authUser = user
	}
	c.write(NewReply(235, smtp.EnhancedCode{2, 7, 0}, "Authenticated"))
}

// authFailed answers for wrong credentials.
func (c *Conn) authFailed(mech, user string, err error) {
	c.authUser = ""
	c.srv.Log.Info().Str("conn", c.id).Stringer("client", c.remote).Str("mechanism", mech).Str("user", user).Err(err).Msg("authentication failed")
	r := NewReply(535, smtp.EnhancedCode{5, 7, 8}, "Authentication failed")
	var se *smtp.SMTPError
	if errors.As(err, &se) {
		r = ReplyOf(err)
	}
	c.fail(r.Code, r.Enhanced, strings.Join(r.Lines, "\n"))
	if r.Code == 421 {
		c.closing = true
	}
}

// readSASL reads a response. When it answers itself it returns false.
func (c *Conn) readSASL() ([]byte, bool) {
	line, err := c.readLine(true)
	switch {
	case err == errLineTooLong:
		c.fail(500, smtp.EnhancedCode{5, 5, 6}, "Authentication exchange line is too long") // RFC 4954 section 4
		return nil, false
	case err == errBareLF:
		c.fail(500, smtp.EnhancedCode{5, 5, 2}, "Bare LF: end lines with CRLF")
		return nil, false
	case err != nil:
		c.readFailed(err)
		return nil, false
	case string(line) == "*":
		c.fail(501, smtp.EnhancedCode{5, 7, 0}, "Authentication cancelled")
		return nil, false
	}
	return c.decodeSASL(string(line))
}

func (c *Conn) decodeSASL(s string) ([]byte, bool) {
	b, err := base64.StdEncoding.DecodeString(s)
	if err != nil || strings.ContainsAny(s, "\r\n") {
		c.fail(501, smtp.EnhancedCode{5, 5, 2}, "That is not base64")
		return nil, false
	}
	return b, true
}

// loginServer is LOGIN, obsolete and still what some clients know
// (draft-murchison-sasl-login).
type loginServer struct {
	check    sasl.PlainAuthenticator
	username *string
}

var _ sasl.Server = (*loginServer)(nil)

func (l *loginServer) Next(response []byte) ([]byte, bool, error) {
	switch {
	case response == nil:
		return []byte("Username:"), false, nil
	case l.username == nil:
		name := string(response)
		l.username = &name
		return []byte("Password:"), false, nil
	default:
		return nil, true, l.check("", *l.username, string(response))
	}
}
