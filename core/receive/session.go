package receive

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/emersion/go-smtp"
	"github.com/rs/zerolog"

	"github.com/stagecoach-mta/stagecoach/core/filter"
	"github.com/stagecoach-mta/stagecoach/core/smtp/server"
	"github.com/stagecoach-mta/stagecoach/core/spool"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// maxDelay bounds what a filter may make a client wait.
const maxDelay = time.Minute

// Session is one connection. The engine calls it from one goroutine.
type Session struct {
	*Policy
	backend  *Backend
	conn     *server.Conn
	identity *v1.AuthenticateResponse
	log      zerolog.Logger

	// The transaction.
	env      *v1.Envelope
	accepted []int32 // indexes, in the order of RCPT
	serial   int
	out      *filter.Outcome // of ENVELOPE, for its hold and hints
	writer   *spool.Writer
}

var (
	_ server.Session       = (*Session)(nil)
	_ server.Authenticator = (*Session)(nil)
)

// client is who is there, as the contract shows it.
func (s *Session) client() *v1.Client {
	c := &v1.Client{
		Ip: s.conn.RemoteIP().String(), Hello: s.conn.Hello().Name, User: s.conn.AuthUser(),
		Listener: s.Ref, Protocol: s.conn.Protocol(),
	}
	if !s.conn.RemoteIP().IsValid() {
		c.Ip = ""
	}
	if t := s.conn.TLS(); t != nil {
		c.Tls, c.TlsVersion, c.TlsCipher = true, tlsVersion(t), tlsCipher(t)
	}
	return c
}

// Hello is EHLO, HELO or LHLO.
func (s *Session) Hello(ctx context.Context, h server.Hello) error {
	return s.early(ctx, v1.FilterEvent_HELLO, -1)
}

// Mail begins a transaction under the policy that holds now.
func (s *Session) Mail(ctx context.Context, from server.Path, opts *smtp.MailOptions) error {
	s.Policy = s.backend.policy.Load()
	sender := from.String()
	if sender != "" && s.SenderCheck && s.conn.AuthUser() != "" {
		own, err := s.ownAddress(ctx, sender)
		if err != nil {
			s.log.Error().Err(err).Str("from", sender).Msg("sender not checked")
			return refuse(451, "4.3.0", "Sender can't be checked now, try again later")
		}
		if !own {
			return refuse(553, "5.7.1", fmt.Sprintf("%s may not send as <%s>", s.conn.AuthUser(), sender))
		}
	}
	s.serial++
	s.env = &v1.Envelope{
		Transaction: fmt.Sprintf("%s.%d", s.conn.ID(), s.serial),
		Sender:      sender,
		Client:      s.client(),
		ReceivedMs:  s.backend.Clock().UnixMilli(),
		Parameters:  parameters(opts),
	}
	if err := s.early(ctx, v1.FilterEvent_MAIL, -1); err != nil {
		s.env = nil
		return err
	}
	return nil
}

func parameters(o *smtp.MailOptions) *v1.MailParameters {
	p := &v1.MailParameters{
		Body: string(o.Body), Smtputf8: o.UTF8, RequireTls: o.RequireTLS,
		DsnReturn: string(o.Return), EnvelopeId: o.EnvelopeID, DeclaredSize: o.Size,
	}
	if o.Auth != nil {
		p.Auth = *o.Auth
	}
	return p
}

// Rcpt checks one recipient: it exists, or the client may send anywhere.
func (s *Session) Rcpt(ctx context.Context, to server.Path, opts *smtp.RcptOptions) error {
	addr, domain := to.String(), to.Domain
	if domain == "" { // <postmaster> (RFC 5321 section 4.5.1)
		domain = s.Hostname
		addr = to.Local + "@" + domain
		if mine, err := s.postmaster(ctx); err == nil && mine != "" {
			addr, domain = to.Local+"@"+mine, mine
		}
	}
	r, err := s.accepts(ctx, addr, domain)
	if err != nil {
		s.log.Info().Str("from", s.env.GetSender()).Str("to", addr).Stringer("client", s.conn.RemoteAddr()).AnErr("reply", err).Msg("recipient refused")
		return err
	}
	r.Index = int32(len(s.env.Recipients))
	for _, n := range opts.Notify {
		r.Notify = append(r.Notify, string(n))
	}
	if opts.OriginalRecipient != "" {
		r.OriginalRecipient = strings.ToLower(string(opts.OriginalRecipientType)) + ";" + opts.OriginalRecipient
	}
	s.env.Recipients = append(s.env.Recipients, r)
	if err := s.early(ctx, v1.FilterEvent_RCPT, r.Index); err != nil {
		s.env.Recipients = s.env.Recipients[:r.Index]
		return err
	}
	s.accepted = append(s.accepted, r.Index)
	return nil
}

// postmaster finds a domain whose postmaster takes <postmaster>'s mail: the
// domain of the host name, when a directory answers for it.
func (s *Session) postmaster(ctx context.Context) (string, error) {
	for d := s.Hostname; strings.Contains(d, "."); _, d, _ = strings.Cut(d, ".") {
		mine, err := s.Recipients.Mine(ctx, d)
		if err != nil || mine {
			return d, err
		}
	}
	return "", nil
}

// Body asks the envelope filters and gives the engine a place to write to,
// which begins with our Received field.
func (s *Session) Body(ctx context.Context) (io.Writer, error) {
	out, err := s.ask(ctx, filter.Question{Event: v1.FilterEvent_ENVELOPE, Recipient: -1})
	if err != nil {
		return nil, err
	}
	s.out = out
	s.writer = s.backend.Spool.NewWriter(s.env.GetParameters().GetDeclaredSize())
	if err := s.writer.Prefix(s.received()); err != nil {
		return nil, s.broken(err)
	}
	return spoolWriter{s}, nil
}

// spoolWriter answers a full disk in SMTP's words.
type spoolWriter struct{ s *Session }

func (w spoolWriter) Write(p []byte) (int, error) {
	n, err := w.s.writer.Write(p)
	if err != nil {
		err = w.s.broken(err)
	}
	return n, err
}

// Reset drops the transaction.
func (s *Session) Reset() {
	if s.writer != nil {
		s.writer.Abort()
	}
	s.env, s.accepted, s.out, s.writer = nil, nil, nil, nil
}

// Close is the end of the connection.
func (s *Session) Close() { s.log.Debug().Msg("disconnected") }

// early asks the filters that want to be heard before the envelope is complete.
func (s *Session) early(ctx context.Context, event v1.FilterEvent, recipient int32) error {
	_, err := s.ask(ctx, filter.Question{Event: event, Recipient: recipient})
	return err
}

// ask runs the listener's filters for one event and turns a verdict other than
// accept, hold or discard into the reply.
func (s *Session) ask(ctx context.Context, q filter.Question) (*filter.Outcome, error) {
	if q.Envelope = s.env; q.Envelope == nil {
		q.Envelope = &v1.Envelope{Transaction: s.conn.ID(), Client: s.client()}
	}
	if !s.Filters.Wants(q.Event) {
		return &filter.Outcome{Verdict: &v1.Verdict{}, Envelope: q.Envelope, Body: q.Body}, nil
	}
	q.Key = q.Envelope.GetTransaction()
	out, err := s.Filters.Run(ctx, s.Editing, q)
	if err != nil {
		return nil, s.broken(err)
	}
	for _, step := range out.Trace {
		e := s.log.Info()
		if step.Failed != "" {
			e = s.log.Warn().Str("failed", step.Failed)
		}
		e.Str("transaction", q.Envelope.GetTransaction()).Str("filter", step.Filter).Stringer("event", q.Event).
			Stringer("verdict", step.Verdict).Int("edits", step.Edits).Dur("took", step.Took).Str("note", step.Note).Msg("filtered")
	}
	if s.env != nil {
		s.env = out.Envelope
	}
	if d := time.Duration(out.Verdict.GetDelayMs()) * time.Millisecond; d > 0 {
		wait(ctx, min(d, maxDelay))
	}
	return out, verdictError(out.Verdict)
}

func wait(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// verdictError is what the client hears of a verdict; nil if the mail goes on.
func verdictError(v *v1.Verdict) error {
	r := v.GetReply()
	code, enhanced, text := int(r.GetCode()), r.GetEnhanced(), r.GetText()
	switch v.GetAction() {
	case v1.Verdict_REJECT:
		code, enhanced, text = orElse(code, 500, 599, 550), either(enhanced, "5.7.1"), either(text, "Refused by local policy")
	case v1.Verdict_DEFER:
		code, enhanced, text = orElse(code, 400, 499, 451), either(enhanced, "4.7.1"), either(text, "Try again later")
	case v1.Verdict_DISCONNECT:
		// The engine ends the connection after a 421.
		code, enhanced, text = 421, either(enhanced, "4.7.0"), either(text, "Closing the connection")
		if enhanced[0] != '4' {
			enhanced = "4.7.0"
		}
	default:
		return nil
	}
	return refuse(code, enhanced, text)
}

func orElse(code, low, high, otherwise int) int {
	if code < low || code > high {
		return otherwise
	}
	return code
}

func either(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

// broken logs a fault of our own and hides its text from the client.
func (s *Session) broken(err error) error {
	s.log.Error().Err(err).Msg("receive")
	return asReply(err)
}
