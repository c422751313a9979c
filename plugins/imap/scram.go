package imap

import "github.com/stagecoach-mta/stagecoach/plugins/imap/login"

// binding of what is talked over; nil under a compression too.
func (ss *session) binding() *login.Binding { return login.Bind(ss.stream) }

// scram is RFC 7677.
func (x *exchange) scram(plus bool) error {
	e, err := x.ss.s.scram.Begin(x.ss.call, x.ss.binding(), plus)
	if err != nil {
		return err
	}
	challenge := ""
	for {
		response, err := x.ask(challenge)
		if err != nil {
			return err
		}
		if e.Done() {
			// The client's answer to the server's proof is empty.
			return x.ss.authenticated(e.Username(), e.Account(), nil)
		}
		if challenge, err = e.Step(response); err != nil {
			return x.ss.authenticated(e.Username(), "", err)
		}
	}
}
