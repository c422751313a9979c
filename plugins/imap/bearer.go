package imap

import (
	"errors"

	"github.com/stagecoach-mta/stagecoach/plugins/imap/admission"
)

// bearer is OAUTHBEARER (RFC 7628) and XOAUTH2.
func (x *exchange) bearer(mechanism string) error {
	response, err := x.ask("")
	if err != nil {
		return err
	}
	ctx, cancel := x.ss.call()
	defer cancel()
	username, account, challenge, err := x.ss.s.bearer.Verify(ctx, mechanism, response, admission.Host(x.ss.raw.RemoteAddr()), "imap")
	if challenge != "" {
		// Whatever the client says to that, it has failed.
		if _, torn := x.ask(challenge); errors.Is(torn, errTorn) {
			return torn
		}
	}
	return x.ss.authenticated(username, account, err)
}
