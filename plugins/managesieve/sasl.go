package managesieve

import (
	"context"
	"encoding/base64"
	"errors"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/xdg-go/scram"

	"github.com/stagecoach-mta/stagecoach/plugins/imap/admission"
	"github.com/stagecoach-mta/stagecoach/sdk/directory"
	"github.com/stagecoach-mta/stagecoach/sdk/fail"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

const scramSHA256 = "SCRAM-SHA-256"

// verifiers knows whether the directory has SCRAM verifiers at all: a mechanism
// that nobody could use must not be offered, because clients choose it first.
type verifiers struct {
	directory directory.Directory

	mu    sync.Mutex
	has   bool
	asked time.Time
}

// verifiersFresh is how long an answer is believed.
const verifiersFresh = time.Minute

func (v *verifiers) known(ctx context.Context) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	if !v.asked.IsZero() && time.Since(v.asked) < verifiersFresh {
		return v.has
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	_, err := v.directory.Credentials(ctx, &v1.CredentialsRequest{Username: "nobody", Mechanism: scramSHA256})
	v.has, v.asked = err == nil || fail.Is(err, fail.NotFound) || fail.Is(err, fail.Denied), time.Now()
	return v.has
}

// mechanisms that are offered now: none in the clear, so that no client sends its
// password there.
func (ss *session) mechanisms() []string {
	if !ss.mayLogIn() {
		return nil
	}
	var out []string
	if ss.s.verifiers.known(ss.s.ctx) {
		if ss.tls() != nil {
			out = append(out, scramSHA256+"-PLUS")
		}
		out = append(out, scramSHA256)
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

// scram is RFC 7677: the directory has the verifier, the exchange runs here.
func (x *exchange) scram(plus bool) error {
	var got *v1.CredentialsResponse
	var fault error
	server, err := scram.SHA256.NewServer(func(username string) (scram.StoredCredentials, error) {
		ctx, cancel := x.ss.call()
		defer cancel()
		got, fault = x.ss.s.host.Directory.Credentials(ctx, &v1.CredentialsRequest{Username: username, Mechanism: scramSHA256})
		return scram.StoredCredentials{
			KeyFactors: scram.KeyFactors{Salt: string(got.GetSalt()), Iters: int(got.GetIterations())},
			StoredKey:  got.GetStoredKey(), ServerKey: got.GetServerKey(),
		}, fault
	})
	if err != nil {
		return err
	}
	conversation := server.NewConversation()
	if state := x.ss.tls(); state != nil {
		binding, err := scram.NewTLSExporterBinding(state)
		switch {
		case err != nil:
		case plus:
			conversation = server.NewConversationWithChannelBindingRequired(binding)
		default:
			// A client that could, and was told by somebody that we cannot, notices.
			conversation = server.NewConversationWithChannelBinding(binding)
		}
	}
	challenge := ""
	for {
		response, err := x.ask(challenge)
		if err != nil {
			return err
		}
		if challenge, err = conversation.Step(response); err != nil || conversation.Done() && !conversation.Valid() {
			if fault == nil || fail.Is(fault, fail.Denied) || fail.Is(fault, fail.Unsupported) {
				fault = fail.New(fail.Denied, "wrong credentials")
			}
			x.ss.authenticated(conversation.Username(), "", "", fault)
			return nil
		}
		if conversation.Done() {
			// The server's proof goes with the reply (RFC 5804 section 2.1).
			x.ss.authenticated(conversation.Username(), got.GetAccount(), challenge, nil)
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
	ss.user, ss.account = account, ss.s.folder.Account(account)
	ss.s.meters.logins.Add(1)
	log.Info().Str("account", account).Bool("tls", ss.secure).Msg("login")
	code := ""
	if proof != "" {
		code = "SASL " + quote(base64.StdEncoding.EncodeToString([]byte(proof)))
	}
	ss.ok(code, "Logged in")
}
