package imap

import (
	"bytes"
	"crypto/tls"
	"encoding/base64"
	"strings"
	"unicode/utf8"

	"github.com/emersion/go-imap/v2"

	"github.com/stagecoach-mta/stagecoach/plugins/imap/admission"
	"github.com/stagecoach-mta/stagecoach/plugins/imap/login"
	"github.com/stagecoach-mta/stagecoach/sdk/fail"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// canUpgrade: STARTTLS is possible.
func (ss *session) canUpgrade() bool {
	return !ss.secure && ss.account == "" && ss.s.host.TLS != nil
}

// mayLogIn: a password only goes over TLS, or where the operator allowed it.
func (ss *session) mayLogIn() bool { return ss.secure || ss.s.host.InsecureAuth }

// mechanisms of SASL that are offered now.
func (ss *session) mechanisms() []string {
	list := []string{"PLAIN", "LOGIN"}
	if ss.s.scram.Offered(ss.ctx) {
		list = append([]string{"SCRAM-SHA-256"}, list...)
		if ss.binding() != nil {
			list = append([]string{"SCRAM-SHA-256-PLUS"}, list...)
		}
	}
	if ss.s.bearer.Offered(ss.ctx) {
		list = append(list, login.Mechanisms...)
	}
	return list
}

// startTLS is RFC 9051 section 6.2.1.
func (ss *session) startTLS(cmd *command) error {
	if err := cmd.end(); err != nil {
		return err
	}
	if !ss.canUpgrade() {
		return bad("STARTTLS is not possible here")
	}
	if ss.in.Buffered() > 0 {
		// What came in the clear must not count after the handshake.
		ss.bye("Nothing may follow STARTTLS before the handshake")
		return nil
	}
	ss.out.line("%s OK Begin TLS negotiation now", cmd.tag)
	if ss.out.flush() != nil || ss.handshake() != nil {
		ss.ended = true
	}
	return nil
}

// handshake begins TLS.
func (ss *session) handshake() error {
	ctx, cancel := ss.handshakeContext()
	defer cancel()
	_ = ss.raw.SetDeadline(ss.begun.Add(ss.s.config.LoginTimeout))
	under := tls.Server(ss.raw, ss.s.host.TLS)
	if err := under.HandshakeContext(ctx); err != nil {
		ss.log.Debug().Err(err).Msg("no TLS")
		return err
	}
	ss.use(under)
	ss.secure = true
	return nil
}

// loginCommand is LOGIN.
func (ss *session) loginCommand(cmd *command) error {
	p := cmd.p
	p.SP()
	username := p.AString()
	p.SP()
	password := p.AString()
	if err := cmd.end(); err != nil {
		return err
	}
	if !ss.mayLogIn() {
		return errPrivacy
	}
	return ss.login("", username, password)
}

var (
	errPrivacy      = no(imap.ResponseCodePrivacyRequired, "Use TLS before you log in: STARTTLS")
	errWrongLogin   = no(imap.ResponseCodeAuthenticationFailed, "Wrong user name or password")
	errNoSuchScheme = no("", "That mechanism is not offered")
)

// login checks a password.
func (ss *session) login(identity, username, password string) error {
	if !utf8.ValidString(identity + username + password) {
		return errWrongLogin
	}
	ctx, cancel := ss.call()
	defer cancel()
	answer, err := ss.s.host.Directory.Authenticate(ctx, &v1.AuthenticateRequest{
		Username: username, Password: password, AuthorizationIdentity: identity,
		ClientIp: admission.Host(ss.raw.RemoteAddr()), Service: "imap",
	})
	return ss.authenticated(username, answer.GetAccount(), err)
}

// authenticated ends an exchange, well or not.
func (ss *session) authenticated(username, account string, err error) error {
	log := ss.log.With().Str("user", username).Logger()
	switch {
	case fail.Is(err, fail.Denied), fail.Is(err, fail.NotFound), fail.Is(err, fail.Invalid), fail.Is(err, fail.Unsupported):
		wait := ss.s.gate.Failed(ss.source)
		log.Info().Dur("delay", wait).Msg("login refused")
		admission.Wait(ss.ctx, wait)
		if ss.attempts++; ss.attempts >= ss.s.config.MaxLoginAttempts {
			ss.lastWords = "Too many wrong passwords"
		}
		return errWrongLogin
	case err != nil:
		log.Error().Err(err).Msg("cannot check a login")
		return ss.refusal(err)
	}
	if !ss.s.gate.Join(account) {
		log.Warn().Msg("too many sessions")
		return no(imap.ResponseCodeLimit, "Too many sessions of this account: close one")
	}
	ctx, cancel := ss.call()
	defer cancel()
	store, err := ss.s.host.Storage.Open(ctx, account)
	if err != nil {
		ss.s.gate.Part(account)
		log.Error().Err(err).Msg("cannot open the account")
		return ss.refusal(err)
	}
	ss.account, ss.store, ss.loggedIn = account, store, true
	log.Info().Str("account", account).Bool("tls", ss.secure).Msg("login")
	ss.code = "CAPABILITY " + ss.capabilities()
	return nil
}

// authenticate is AUTHENTICATE (RFC 9051 section 6.2.2), with an initial response
// (RFC 4959).
func (ss *session) authenticate(cmd *command) error {
	p := cmd.p
	p.SP()
	name := p.Word()
	initial, has := "", p.Try(' ')
	if has {
		initial = p.Rest()
		p.Return(p.Mark() + len(initial))
	}
	if err := cmd.end(); err != nil {
		return err
	}
	if !ss.mayLogIn() {
		return errPrivacy
	}
	x := &exchange{ss: ss}
	if has {
		first, err := decodeResponse(initial)
		if err != nil {
			return err
		}
		x.initial = &first
	}
	switch {
	case name == "PLAIN":
		return x.plain()
	case name == "LOGIN":
		return x.login()
	case name == "SCRAM-SHA-256" && ss.s.scram.Offered(ss.ctx):
		return x.scram(false)
	case name == "SCRAM-SHA-256-PLUS" && ss.s.scram.Offered(ss.ctx) && ss.binding() != nil:
		return x.scram(true)
	case ss.s.bearer.Is(name) && ss.s.bearer.Offered(ss.ctx):
		return x.bearer(name)
	}
	return errNoSuchScheme
}

// exchange is one AUTHENTICATE.
type exchange struct {
	ss      *session
	initial *string
}

// ask sends a challenge and reads the response; an initial response answers an
// empty challenge.
func (x *exchange) ask(challenge string) (string, error) {
	if x.initial != nil && challenge == "" {
		first := *x.initial
		x.initial = nil
		return first, nil
	}
	x.ss.out.raw("+ " + base64.StdEncoding.EncodeToString([]byte(challenge)) + "\r\n")
	line, err := x.ss.readLine(nil, maxContinuation)
	if err != nil {
		x.ss.farewell(err)
		return "", errTorn
	}
	if bytes.Equal(line, []byte("*")) {
		return "", bad("AUTHENTICATE cancelled")
	}
	return decodeResponse(string(line))
}

func decodeResponse(line string) (string, error) {
	if line == "=" {
		return "", nil
	}
	b, err := base64.StdEncoding.DecodeString(line)
	if err != nil {
		return "", bad("A SASL response is written in base64")
	}
	return string(b), nil
}

// plain is RFC 4616.
func (x *exchange) plain() error {
	response, err := x.ask("")
	if err != nil {
		return err
	}
	parts := strings.Split(response, "\x00")
	if len(parts) != 3 {
		return bad("SASL PLAIN has an identity, a user name and a password")
	}
	return x.ss.login(parts[0], parts[1], parts[2])
}

// login is SASL LOGIN as old clients speak it (draft-murchison-sasl-login).
func (x *exchange) login() error {
	username := ""
	var err error
	if x.initial != nil {
		username, err = x.ask("")
	} else {
		username, err = x.ask("Username:")
	}
	if err != nil {
		return err
	}
	password, err := x.ask("Password:")
	if err != nil {
		return err
	}
	return x.ss.login("", username, password)
}

// unauthenticate is RFC 8437: the connection is as new, but for its TLS.
func (ss *session) unauthenticate(cmd *command) error {
	if err := cmd.end(); err != nil {
		return err
	}
	ss.forget()
	// A client that never logs in again goes as one that never did.
	ss.restart()
	return nil
}

// logout says BYE and replies.
func (ss *session) logout(cmd *command) error {
	if err := cmd.end(); err != nil {
		return err
	}
	ss.out.line("* BYE Logging out")
	ss.out.line("%s OK LOGOUT completed", cmd.tag)
	ss.ended = true
	return nil
}

// capability is CAPABILITY.
func (ss *session) capability(cmd *command) error {
	if err := cmd.end(); err != nil {
		return err
	}
	ss.out.line("* CAPABILITY %s", ss.capabilities())
	return nil
}

// id is RFC 2971. What the client says goes into the log, where it helps to
// find out whose client does something odd.
func (ss *session) id(cmd *command) error {
	p := cmd.p
	p.SP()
	var said []string
	if p.Peek() == '(' {
		p.List(func() {
			name := p.String()
			p.SP()
			value, _ := p.NString()
			if len(said) < 60 {
				said = append(said, name[:min(len(name), 30)], value[:min(len(value), 100)])
			}
		})
	} else if _, is := p.NString(); is {
		p.Fail("ID has a list or NIL")
	}
	if err := cmd.end(); err != nil {
		return err
	}
	ss.log.Debug().Strs("id", said).Msg("client")
	ss.out.line(`* ID ("name" "Stagecoach")`)
	return nil
}

// enable is RFC 5161.
func (ss *session) enable(cmd *command) error {
	var names []string
	for cmd.p.Try(' ') {
		names = append(names, cmd.p.Word())
	}
	if len(names) == 0 {
		cmd.p.SP()
	}
	if err := cmd.end(); err != nil {
		return err
	}
	ss.out.raw("* ENABLED")
	done := map[string]bool{}
	for _, name := range names {
		if done[name] {
			continue
		}
		done[name] = true
		switch name {
		case "CONDSTORE", "QRESYNC":
			if ss.box != nil && ss.box.modseqs == nil {
				// Its MODSEQs are learnt after this line.
				defer func() { _ = ss.useCondstore() }()
			} else {
				ss.condstore = true
			}
			ss.qresync = ss.qresync || name == "QRESYNC"
		case "IMAP4REV2":
			ss.rev2, ss.out.utf8 = true, true
			name = "IMAP4rev2"
		case "UIDONLY":
			ss.uidOnly = true
		case "UTF8=ACCEPT":
			ss.out.utf8 = true
		case "METADATA":
			if !ss.annotates() || ss.watchAnnotations() != nil {
				continue
			}
			ss.metadata = true
		default:
			continue
		}
		ss.out.raw(" " + name)
	}
	ss.out.end()
	return nil
}
