package receive

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/emersion/go-smtp"
	"github.com/rs/zerolog"

	"github.com/stagecoach-mta/stagecoach/core/filter"
	"github.com/stagecoach-mta/stagecoach/core/queue"
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
	// mechanism by which it was told.
	mechanism string
	log       zerolog.Logger
	// tags and standing are what filters said of the connection: they hold for
	// each of its transactions.
	tags     map[string]*v1.Tag
	standing said
	known    []queue.Note // what they said then, for the mail journal
	serial   int

	// The transaction.
	env      *v1.Envelope
	accepted []int32 // indexes, in the order of RCPT
	next     int32   // index of the next recipient
	said     said
	notes    []queue.Note
	writer   *spool.Writer
	begun    bool // the message's first octets were seen
	name     *lookedUp
}

var (
	_ server.Session       = (*Session)(nil)
	_ server.Authenticator = (*Session)(nil)
)

// client is who is there, as the contract shows it.
func (s *Session) client() *v1.Client {
	c := &v1.Client{
		Ip: s.conn.RemoteIP().String(), Hello: s.conn.Hello().Name, User: s.conn.AuthUser(),
		Listener: s.Ref, Protocol: s.conn.Protocol(), Rdns: s.name.known(), Early: s.conn.Early(),
	}
	if c.User != "" {
		c.AuthMechanism = s.mechanism
	}
	if a, ok := s.conn.RemoteAddr().(*net.TCPAddr); ok {
		c.Port = int32(a.Port)
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
func (s *Session) Mail(ctx context.Context, from server.Path, opts *server.MailOptions) error {
	s.Policy = s.backend.policy.Load()
	sender := from.String()
	if sender != "" && s.SenderCheck && s.conn.AuthUser() != "" {
		own, err := s.ownAddress(ctx, sender)
		if err != nil {
			s.log.Error().Err(err).Str("from", sender).Msg("sender not checked")
			return refuse(451, "4.3.0", "Sender can't be checked now, try again later")
		}
		if !own {
			err := refuse(553, "5.7.1", fmt.Sprintf("%s may not send as <%s>", s.conn.AuthUser(), sender))
			s.refused(&v1.Envelope{Transaction: s.conn.ID(), Sender: sender, Client: s.client()}, -1, err, s.Ref)
			return err
		}
	}
	s.name.wait(ctx)
	s.serial++
	s.next, s.said, s.notes = 0, s.standing.clone(), slices.Clone(s.known)
	s.env = &v1.Envelope{
		Transaction: fmt.Sprintf("%s.%d", s.conn.ID(), s.serial),
		Sender:      sender,
		Client:      s.client(),
		ReceivedMs:  s.backend.Clock().UnixMilli(),
		Tags:        maps.Clone(s.tags),
	}
	s.env.Parameters = s.parameters(opts)
	if err := s.early(ctx, v1.FilterEvent_MAIL, -1); err != nil {
		s.env = nil
		return err
	}
	if s.env.GetParameters().GetPriority() < int32(opts.Priority) {
		return refuse(250, "2.3.6", "Sender OK, but the priority is 0: authenticate for a higher one") // RFC 6710 section 7
	}
	return nil
}

// parameters of a transaction that begins now.
func (s *Session) parameters(o *server.MailOptions) *v1.MailParameters {
	p := &v1.MailParameters{
		Body: string(o.Body), Smtputf8: o.UTF8, RequireTls: o.RequireTLS,
		DsnReturn: string(o.Return), EnvelopeId: o.EnvelopeID, DeclaredSize: o.Size,
	}
	if o.Auth != nil {
		p.Auth = *o.Auth
	}
	p.Priority = int32(o.Priority)
	if o.Priority > 0 && !s.AnyPriority && !s.mayRelay(s.conn.AuthUser(), s.conn.RemoteIP()) {
		p.Priority = 0
	}
	if by := o.DeliverBy; by.Mode != "" {
		p.DeliverByMs, p.DeliverByMode, p.DeliverByTrace = s.env.ReceivedMs+by.Time.Milliseconds(), string(by.Mode), by.Trace
	}
	if at := o.HoldUntil; !at.IsZero() {
		p.HoldUntilMs = at.UnixMilli()
	}
	return p
}

// Rcpt checks one recipient: it exists, or the client may send anywhere.
func (s *Session) Rcpt(ctx context.Context, to server.Path, opts *smtp.RcptOptions) error {
	addr := to.String()
	if strings.EqualFold(to.Local, "postmaster") && (to.Domain == "" || strings.EqualFold(to.Domain, s.Hostname)) {
		// RFC 5321 section 4.5.1
		addr = to.Local + "@" + s.Hostname
		if mine, err := s.postmaster(ctx); err == nil && mine != "" {
			addr = to.Local + "@" + mine
		}
	}
	r, err := s.accepts(ctx, s.log, s.conn.AuthUser(), s.conn.RemoteIP(), addr)
	if r == nil {
		r = &v1.Recipient{Address: addr}
	}
	// A filter may have added recipients of its own.
	s.next = max(s.next, filter.NextIndex(s.env.GetRecipients()))
	r.Index = s.next
	for _, n := range opts.Notify {
		r.Notify = append(r.Notify, string(n))
	}
	if opts.OriginalRecipient != "" {
		r.OriginalRecipient = strings.ToLower(string(opts.OriginalRecipientType)) + ";" + opts.OriginalRecipient
	}
	if err != nil {
		s.log.Info().Str("from", s.env.GetSender()).Str("to", addr).Stringer("client", s.conn.RemoteAddr()).AnErr("reply", err).Msg("recipient refused")
		s.rejected(ctx, r, err)
		return err
	}
	if twin, ok := s.twin(r); ok {
		s.accepted = append(s.accepted, twin)
		return nil
	}
	s.env.Recipients = append(s.env.Recipients, r)
	if err := s.early(ctx, v1.FilterEvent_RCPT, r.Index); err != nil {
		s.env.Recipients = slices.DeleteFunc(s.env.Recipients, func(have *v1.Recipient) bool { return have.GetIndex() == r.GetIndex() })
		return err
	}
	s.next++
	s.accepted = append(s.accepted, r.Index)
	return nil
}

// twin finds a recipient that r says again: the mail goes there once, or one
// message would fill a mailbox with as many copies as a client cares to ask for.
func (s *Session) twin(r *v1.Recipient) (int32, bool) {
	for _, o := range s.env.GetRecipients() {
		// Who owns a mailbox folds the case of its name; of others it is not ours to say.
		same := o.GetAddress() == r.GetAddress() ||
			r.GetAccount() != "" && o.GetAccount() == r.GetAccount() && strings.EqualFold(o.GetAddress(), r.GetAddress())
		if same && slices.Equal(o.GetNotify(), r.GetNotify()) && o.GetOriginalRecipient() == r.GetOriginalRecipient() {
			return o.GetIndex(), true
		}
	}
	return 0, false
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
	if err := s.early(ctx, v1.FilterEvent_ENVELOPE, -1); err != nil {
		return nil, err
	}
	s.writer = s.backend.Spool.NewWriter(s.env.GetParameters().GetDeclaredSize())
	if err := s.writer.Prefix(s.received()); err != nil {
		return nil, s.broken(err)
	}
	s.begun = false
	return (*spoolWriter)(s), nil
}

// spoolWriter answers a full disk in SMTP's words.
type spoolWriter Session

func (w *spoolWriter) Write(p []byte) (int, error) {
	s := (*Session)(w)
	if !s.begun && len(p) > 0 {
		s.begun = true
		if p[0] == ' ' || p[0] == '\t' {
			// The first line would continue our Received field: it is text, no header.
			if _, err := s.writer.Write([]byte("\r\n")); err != nil {
				return 0, s.broken(err)
			}
		}
	}
	n, err := s.writer.Write(p)
	if err != nil {
		err = s.broken(err)
	}
	return n, err
}

// Reset drops the transaction.
func (s *Session) Reset() {
	if s.writer != nil {
		s.writer.Abort()
	}
	filter.Discard(s.said.inject) // no-op for what the queue has taken
	s.env, s.accepted, s.said, s.notes, s.writer = nil, nil, said{}, nil, nil
}

// Close is the end of the connection.
func (s *Session) Close() { s.log.Debug().Msg("disconnected") }

// broken logs a fault of our own and hides its text from the client.
func (s *Session) broken(err error) error {
	s.log.Error().Err(err).Msg("receive")
	return asReply(err)
}
