// Package receive is what happens between a connection and the queue's promise:
// who may send what to whom, the filters, the trace fields, and the 250 that is
// given when the queue has the mail. The wire itself is core/smtp/server.
package receive

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/emersion/go-smtp"
	"github.com/rs/zerolog"

	"github.com/stagecoach-mta/stagecoach/core/directory"
	"github.com/stagecoach-mta/stagecoach/core/dispatch"
	"github.com/stagecoach-mta/stagecoach/core/filter"
	"github.com/stagecoach-mta/stagecoach/core/queue"
	"github.com/stagecoach-mta/stagecoach/core/smtp/server"
	"github.com/stagecoach-mta/stagecoach/core/spool"
	sdkdirectory "github.com/stagecoach-mta/stagecoach/sdk/directory"
	"github.com/stagecoach-mta/stagecoach/sdk/fail"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// Policy is one receive block at work. It is never changed: a reload makes a new
// one, which holds for transactions that begin after it.
type Policy struct {
	// Ref is the block: "receive.smtp.mx".
	Ref      string
	Hostname string
	Filters  filter.Chain
	Editing  filter.Editing
	// Recipients are the directories asked at RCPT.
	Recipients *directory.Set
	// Auth checks passwords; nil: AUTH is not offered.
	Auth         sdkdirectory.Directory
	SenderCheck  bool
	RelayDomains []string
	RelayFrom    []netip.Prefix
	// AnyPriority takes a higher MT-PRIORITY from clients that may not relay, too.
	AnyPriority bool
	MaxHops     int
	// Names looks clients' names up; nil: nobody does.
	Names   Names
	Reports dispatch.Reporter
	Log     zerolog.Logger
}

// Backend makes the sessions of one listener. The zero value needs SetPolicy.
type Backend struct {
	Spool *spool.Dir
	Queue queue.Queue
	// AtOnce brings a mail to its mailboxes without the queue, if it can: Dispatcher's.
	// nil: nobody does.
	AtOnce func(ctx context.Context, env *queue.Envelope, body spool.Body) bool
	Clock  func() time.Time
	// Feed hears of refusals; nil: nobody does.
	Feed queue.Feed
	// Journal keeps refusals for the mail journal; nil: nobody does.
	Journal interface{ Refused(queue.Refusal) }
	policy  atomic.Pointer[Policy]
	tokens  tokens
}

// SetPolicy lets p hold from the next transaction on.
func (b *Backend) SetPolicy(p *Policy) { b.policy.Store(p) }

// NewSession asks the filters that want to hear of connections.
func (b *Backend) NewSession(ctx context.Context, c *server.Conn) (server.Session, error) {
	p := b.policy.Load()
	s := &Session{backend: b, conn: c, Policy: p, log: p.Log.With().Str("session", c.ID()).Logger()}
	s.log.Debug().Stringer("client", c.RemoteAddr()).Msg("connected")
	s.name = lookUp(ctx, p.Names, c)
	if err := s.early(ctx, v1.FilterEvent_CONNECT, -1); err != nil {
		return nil, err
	}
	return s, nil
}

var _ server.Backend = (*Backend)(nil)

// mayRelay tells whether this client may send to any address.
func (p *Policy) mayRelay(user string, ip netip.Addr) bool {
	if user != "" {
		return true
	}
	for _, n := range p.RelayFrom {
		if n.Contains(ip) {
			return true
		}
	}
	return false
}

// relayed tells whether a domain is one that we accept for others.
func (p *Policy) relayed(domain string) bool {
	for _, d := range p.RelayDomains {
		if strings.EqualFold(d, domain) {
			return true
		}
		if strings.HasPrefix(d, ".") && len(domain) > len(d) && strings.EqualFold(domain[len(domain)-len(d):], d) {
			return true
		}
	}
	return false
}

// Accepts decides on one recipient for a client, by its user ("" for none) and
// address: ours and known, ours and unknown, or not ours and then only for who may
// relay. The error is the reply.
func (p *Policy) Accepts(ctx context.Context, user string, ip netip.Addr, to string) (*v1.Recipient, error) {
	return p.accepts(ctx, p.Log, user, ip, to)
}

func (p *Policy) accepts(ctx context.Context, log zerolog.Logger, user string, ip netip.Addr, to string) (*v1.Recipient, error) {
	_, first, err := p.Recipients.Expand(ctx, to)
	if fail.Is(err, fail.Invalid) {
		return nil, refuse(550, "5.1.1", err.Error())
	}
	if err != nil {
		log.Error().Err(err).Str("to", to).Msg("recipient not checked")
		return nil, refuse(451, "4.3.0", "Recipient can't be checked now, try again later")
	}
	r := &v1.Recipient{Address: to}
	switch first.GetResult() {
	case v1.ResolveResponse_MAILBOX:
		r.Account, r.Detail = first.GetAccount(), first.GetDetail()
		return r, nil
	case v1.ResolveResponse_ALIAS:
		return r, nil // followed after the queue, where the journal is
	case v1.ResolveResponse_NO_SUCH_USER:
		return nil, refuse(550, "5.1.1", "No such user here")
	case v1.ResolveResponse_DISABLED:
		if said := first.GetReply(); said != nil {
			return nil, smtpError(said)
		}
		return nil, refuse(550, "5.2.1", "Mailbox disabled")
	}
	if p.mayRelay(user, ip) || p.relayed(to[strings.LastIndexByte(to, '@')+1:]) {
		return r, nil
	}
	return nil, refuse(554, "5.7.1", "Relay access denied")
}

// ownAddress tells whether an authenticated user may send as that address.
func (s *Session) ownAddress(ctx context.Context, from string) (bool, error) {
	account := s.conn.AuthUser()
	if strings.EqualFold(from, account) {
		return true, nil
	}
	for _, a := range s.identity.GetAddresses() {
		if strings.EqualFold(a, from) {
			return true, nil
		}
	}
	targets, _, err := s.Recipients.Expand(ctx, from)
	if fail.Is(err, fail.Invalid) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	for _, t := range targets {
		if strings.EqualFold(t.Account, account) {
			return true, nil
		}
	}
	return false, nil
}

// refuse makes the engine's error of a reply.
func refuse(code int, enhanced, text string) error {
	return &smtp.SMTPError{Code: code, EnhancedCode: parseEnhanced(enhanced), Message: text}
}

func smtpError(r *v1.SMTPReply) error {
	return refuse(int(r.GetCode()), r.GetEnhanced(), r.GetText())
}

// parseEnhanced reads "5.1.1"; the zero code (derived by the engine) if it is not one.
func parseEnhanced(s string) (e smtp.EnhancedCode) {
	parts := strings.Split(s, ".")
	if len(parts) != 3 {
		return e
	}
	for i, p := range parts {
		for _, c := range p {
			if c < '0' || c > '9' || e[i] > 99 {
				return smtp.EnhancedCode{}
			}
			e[i] = e[i]*10 + int(c-'0')
		}
	}
	return e
}

// asReply turns an error that a plugin or the queue gave into a reply.
func asReply(err error) error {
	switch {
	case errors.Is(err, queue.ErrFull), errors.Is(err, spool.ErrFull), errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		// Also when the queue has stopped for that: the client may hear the reason.
		return refuse(452, "4.3.1", "Insufficient system storage, try again later")
	case errors.Is(err, queue.ErrStopped):
		return refuse(451, "4.3.0", "Local error, try again later")
	}
	return smtpError(fail.Reply(err))
}
