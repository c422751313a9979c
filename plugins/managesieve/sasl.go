package managesieve

import (
	"context"
	"encoding/base64"
	"errors"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/stagecoach-mta/stagecoach/plugins/imap/admission"
	"github.com/stagecoach-mta/stagecoach/plugins/imap/login"
	"github.com/stagecoach-mta/stagecoach/sdk/fail"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// mechanisms that are offered now: none in the clear, so that no client sends its
// password there.
func (ss *session) mechanisms() []string {
	if !ss.mayLogIn() {
		return nil
	}
	var out []string
	if ss.s.scram.Offered(ss.s.ctx) {
		if login.Bind(ss.conn) != nil {
			out = append(out, login.Mechanism+"-PLUS")
		}
		out = append(out, login.Mechanism)
	}
	return append(out, "PLAIN")
}

var errCancelled = errors.New("cancelled")

// authenticate is RFC 5804 section 2.1.
func (ss *session) authenticate(cmd *command) {
	name := strings.ToUpper(cmd.args[0].text)
	switch {
	case ss.account != nil:
		ss.no("", "You are logged in already")
		return
	case !ss.mayLogIn():
		ss.no("ENCRYPT-NEEDED", "Use TLS before you log in: STARTTLS")
		return
	}
	x := &exchange{ss: ss}
	if len(cmd.args) > 1 {
		first, err := base64.StdEncoding.DecodeString(cmd.args[1].text)
		if err != nil {
			ss.no("", "A SASL response is written in base64")
			return
		}
		s := string(first)
		x.initial = &s
	}
	offered := " " + strings.Join(ss.mechanisms(), " ") + " "
	var err error
	switch {
	case !strings.Contains(offered, " "+name+" "):
		ss.no("", "That mechanism is not offered")
		return
	case name == "PLAIN":
		err = x.plain()
	default:
		err = x.scram(strings.HasSuffix(name, "-PLUS"))
	}
	switch {
	case errors.Is(err, errCancelled):
		ss.no("", "Authentication cancelled")
	case err != nil:
		ss.farewell(err)
		ss.ended = true
	}
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
	x.ss.out.WriteString(quote(base64.StdEncoding.EncodeToString([]byte(challenge))) + "\r\n")
	if err := x.ss.wait(); err != nil {
		return "", err
	}
	x.ss.in.left, x.ss.in.limit = maxLine, maxPlainArg
	a, end, err := x.ss.in.argument()
	switch {
	case err != nil:
		return "", err
	case a == nil || end != '\n':
		if end != '\n' {
			if err := x.ss.in.rest(); err != nil && !errors.Is(err, errSyntax) {
				return "", err
			}
		}
		return "", errCancelled
	}
	b, err := base64.StdEncoding.DecodeString(a.text)
	if err != nil {
		return "", errCancelled // "*", or what is no base64
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
	if len(parts) != 3 || !utf8.ValidString(response) {
		return errCancelled
	}
	ctx, cancel := x.ss.call()
	defer cancel()
	answer, err := x.ss.s.host.Directory.Authenticate(ctx, &v1.AuthenticateRequest{
		Username: parts[1], Password: parts[2], AuthorizationIdentity: parts[0],
		ClientIp: admission.Host(x.ss.raw.RemoteAddr()), Service: "managesieve",
	})
	x.ss.authenticated(parts[1], answer.GetAccount(), "", err)
	return nil
}

// scram is RFC 7677.
func (x *exchange) scram(plus bool) error {
	e, err := x.ss.s.scram.Begin(x.ss.call, login.Bind(x.ss.conn), plus)
	if err != nil {
		return err
	}
	challenge := ""
	for {
		response, err := x.ask(challenge)
		if err != nil {
			return err
		}
		if challenge, err = e.Step(response); err != nil || e.Done() {
			// The server's proof goes with the reply (RFC 5804 section 2.1).
			x.ss.authenticated(e.Username(), e.Account(), challenge, err)
			return nil
		}
	}
}

func (ss *session) call() (context.Context, context.CancelFunc) {
	return context.WithTimeout(ss.s.ctx, time.Minute)
}

// authenticated ends an exchange, well or not.
func (ss *session) authenticated(username, account, proof string, err error) {
	log := ss.s.host.Log.With().Str("user", username).Stringer("client", ss.raw.RemoteAddr()).Logger()
	switch {
	case fail.Is(err, fail.Denied), fail.Is(err, fail.NotFound), fail.Is(err, fail.Invalid), fail.Is(err, fail.Unsupported):
		wait := ss.s.gate.Failed(ss.source)
		ss.s.meters.denied.Add(1)
		log.Info().Dur("delay", wait).Msg("login refused")
		admission.Wait(ss.s.ctx, wait)
		ss.no("", "Authentication failed")
		if ss.attempts++; ss.attempts >= ss.s.config.MaxLoginAttempts {
			ss.reply("BYE", "", "Too many wrong passwords")
			ss.ended = true
		}
		return
	case err != nil:
		log.Error().Err(err).Msg("cannot check a login")
		ss.no("TRYLATER", "Cannot check the login now, try again later")
		return
	}
	ss.user, ss.account = account, ss.s.scripts.Account(account)
	ss.s.meters.logins.Add(1)
	log.Info().Str("account", account).Bool("tls", ss.secure).Msg("login")
	code := ""
	if proof != "" {
		code = "SASL " + quote(base64.StdEncoding.EncodeToString([]byte(proof)))
	}
	ss.ok(code, "Logged in")
}
