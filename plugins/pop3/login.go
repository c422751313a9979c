package pop3

import (
	"sync"
	"time"

	"github.com/stagecoach-mta/stagecoach/plugins/imap/admission"
	"github.com/stagecoach-mta/stagecoach/sdk/fail"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// login checks a password.
func (ss *session) login(identity, user, password string) {
	ctx, cancel := ss.call()
	defer cancel()
	answer, err := ss.s.host.Directory.Authenticate(ctx, &v1.AuthenticateRequest{
		Username: user, Password: password, AuthorizationIdentity: identity,
		ClientIp: admission.Host(ss.raw.RemoteAddr()), Service: "pop3",
	})
	ss.enter(user, answer.GetAccount(), err)
}

// enter ends an exchange: if it went well it takes the maildrop and looks into it.
func (ss *session) enter(user, account string, err error) {
	ctx, cancel := ss.call()
	defer cancel()
	log := ss.s.host.Log.With().Str("user", user).Stringer("client", ss.raw.RemoteAddr()).Logger()
	switch {
	case fail.Is(err, fail.Denied), fail.Is(err, fail.NotFound), fail.Is(err, fail.Invalid):
		wait := ss.s.gate.Failed(ss.source)
		ss.s.meters.denied.Add(1)
		log.Info().Dur("delay", wait).Msg("login refused")
		admission.Wait(ss.s.ctx, wait)
		ss.fail("[AUTH] Authentication failed")
		if ss.attempts++; ss.attempts >= ss.s.config.MaxLoginAttempts {
			ss.ended = true
		}
		return
	case err != nil:
		ss.problem(err, user, "check the password")
		return
	}
	if !ss.s.gate.Join(account) {
		log.Info().Msg("maildrop in use")
		ss.fail("[IN-USE] Another session has the maildrop, try again later")
		return
	}
	ss.account = account
	// RFC 2449 section 8.1.1.
	if wait := ss.s.logins.begin(account, time.Now()); wait > 0 {
		ss.release()
		ss.fail("[LOGIN-DELAY] The last login was a moment ago, wait %d seconds", int((wait+time.Second-1)/time.Second))
		return
	}
	store, err := ss.s.host.Storage.Open(ctx, account)
	if err == nil {
		ss.drop, err = openMaildrop(ctx, store)
	}
	if err != nil {
		ss.s.logins.forget(account)
		ss.release()
		ss.problem(err, user, "open the maildrop")
		return
	}
	ss.s.meters.logins.Add(1)
	count, size := ss.drop.total()
	log.Info().Str("account", account).Bool("tls", ss.secure).Int("messages", count).Msg("login")
	ss.ok("%d messages (%d octets)", count, size)
}

// release lets the next session have the maildrop.
func (ss *session) release() {
	if ss.account != "" {
		ss.s.gate.Part(ss.account)
		ss.account = ""
	}
}

// interval keeps the logins of an account apart: RFC 2449's LOGIN-DELAY.
type interval struct {
	least time.Duration

	mu    sync.Mutex
	last  map[string]time.Time
	swept time.Time
}

func newInterval(least time.Duration) *interval {
	return &interval{least: least, last: map[string]time.Time{}}
}

// begin notes a login, or tells how long it is too early.
func (i *interval) begin(account string, now time.Time) time.Duration {
	if i.least <= 0 {
		return 0
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	if wait := i.least - now.Sub(i.last[account]); wait > 0 {
		return wait
	}
	if now.Sub(i.swept) > i.least {
		for a, t := range i.last {
			if now.Sub(t) > i.least {
				delete(i.last, a)
			}
		}
		i.swept = now
	}
	i.last[account] = now
	return 0
}

// forget undoes begin for a login that came to nothing.
func (i *interval) forget(account string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	delete(i.last, account)
}
