package pop3

import (
	"encoding/base64"
	"errors"
	"strings"

	"github.com/stagecoach-mta/stagecoach/plugins/imap/admission"
	"github.com/stagecoach-mta/stagecoach/plugins/imap/login"
)

// mechanisms of SASL that are offered now.
func (ss *session) mechanisms() []string {
	list := []string{"PLAIN"}
	if ss.s.bearer.Offered(ss.s.ctx) {
		list = append(list, login.Mechanisms...)
	}
	return list
}

// auth is SASL (RFC 5034); without a mechanism it lists them, as old clients ask.
func (ss *session) auth(args []string) {
	if len(args) == 0 {
		ss.ok("Mechanisms follow")
		if ss.mayLogIn() {
			for _, m := range ss.mechanisms() {
				ss.out.WriteString(m + "\r\n")
			}
		}
		ss.out.WriteString(".\r\n")
		return
	}
	if !ss.needTLS() {
		return
	}
	mechanism := strings.ToUpper(args[0])
	bearer := ss.s.bearer.Is(mechanism) && ss.s.bearer.Offered(ss.s.ctx)
	if mechanism != "PLAIN" && !bearer || len(args) > 2 {
		ss.wrong("Unknown mechanism")
		return
	}
	var response string
	var err error
	if len(args) == 2 {
		response, err = decode(args[1])
	} else {
		response, err = ss.ask("")
	}
	switch {
	case err == errCancelled:
		ss.wrong("Authentication cancelled")
	case err != nil:
		if !ss.ended {
			ss.wrong("Malformed response")
		}
	case bearer:
		ss.bearer(mechanism, response)
	default:
		ss.plain(response)
	}
}

var errCancelled = errors.New("cancelled")

// ask sends a challenge and reads the response; after a connection that broke the
// session has ended.
func (ss *session) ask(challenge string) (string, error) {
	ss.out.WriteString("+ " + base64.StdEncoding.EncodeToString([]byte(challenge)) + "\r\n")
	line, err := ss.readLine()
	if err != nil {
		ss.farewell(err)
		ss.ended = true
		return "", err
	}
	return decode(line)
}

func decode(response string) (string, error) {
	switch response {
	case "*":
		return "", errCancelled
	case "=":
		return "", nil
	}
	b, err := base64.StdEncoding.DecodeString(response)
	return string(b), err
}

// plain is RFC 4616: authorization identity, NUL, authentication identity, NUL,
// password.
func (ss *session) plain(response string) {
	parts := strings.Split(response, "\x00")
	if len(parts) != 3 || parts[1] == "" {
		ss.wrong("Malformed response")
		return
	}
	ss.login(parts[0], parts[1], parts[2])
}

// bearer is OAUTHBEARER (RFC 7628) and XOAUTH2.
func (ss *session) bearer(mechanism, response string) {
	ctx, cancel := ss.call()
	defer cancel()
	user, account, challenge, err := ss.s.bearer.Verify(ctx, mechanism, response, admission.Host(ss.raw.RemoteAddr()), "pop3")
	if challenge != "" {
		// Whatever the client says to that, it has failed.
		if _, said := ss.ask(challenge); said != nil && ss.ended {
			return
		}
	}
	ss.enter(user, account, err)
}
