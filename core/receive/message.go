package receive

import (
	"context"
	"fmt"
	"time"

	"github.com/emersion/go-smtp"

	"github.com/stagecoach-mta/stagecoach/core/dispatch"
	"github.com/stagecoach-mta/stagecoach/core/filter"
	"github.com/stagecoach-mta/stagecoach/core/message"
	"github.com/stagecoach-mta/stagecoach/core/queue"
	"github.com/stagecoach-mta/stagecoach/core/smtp/server"
	"github.com/stagecoach-mta/stagecoach/core/spool"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// Done filters the whole message and hands it to the queue. Each recipient's
// answer is decided before any is sent.
func (s *Session) Done(ctx context.Context) []server.Reply {
	defer s.Reset()
	replies := make([]server.Reply, len(s.accepted))
	one := func(r server.Reply) []server.Reply {
		for i := range replies {
			replies[i] = r
		}
		return replies
	}
	body, err := s.writer.Finish()
	s.writer = nil
	if err != nil {
		return one(server.ReplyOf(s.broken(err)))
	}
	// The queue takes the body's file over; what it did not take goes here.
	defer func() { body.Discard() }()
	s.env.Size = body.Size()
	summary, err := s.inspect(&body)
	if err != nil {
		return one(server.ReplyOf(err))
	}
	out, err := s.ask(ctx, question{Question: filter.Question{Event: v1.FilterEvent_MESSAGE, Recipient: -1, Body: body}})
	if err != nil {
		s.log.Info().Str("transaction", s.env.GetTransaction()).Str("from", s.env.GetSender()).AnErr("reply", err).Msg("message refused")
		return one(server.ReplyOf(err))
	}
	if out.Body != body {
		body.Discard()
		body = out.Body
	}
	if discarded := s.said.discard; discarded != "" {
		s.log.Info().Str("transaction", s.env.GetTransaction()).Str("from", s.env.GetSender()).Str("filter", discarded).Msg("discarded")
		return one(server.OK("Accepted"))
	}
	refused := s.perRecipient(replies)
	if s.lmtp() && refused != nil && s.noneLeft(refused) {
		return replies
	}
	if !s.lmtp() {
		if r, all := s.refusal(refused, replies); all {
			return one(r)
		}
	}
	id, err := s.enqueue(ctx, body, summary, refused)
	if err != nil {
		return one(server.ReplyOf(s.broken(err)))
	}
	queued := server.NewReply(250, smtp.EnhancedCode{2, 6, 0}, "Queued as "+id)
	if !s.lmtp() {
		return one(queued)
	}
	for i := range replies {
		if replies[i].Code == 0 {
			replies[i] = queued
		}
	}
	return replies
}

// perRecipient fills in the replies of recipients that a filter refused, and
// returns those verdicts.
func (s *Session) perRecipient(replies []server.Reply) map[int32]error {
	var refused map[int32]error
	for i, index := range s.accepted {
		err := verdictError(s.said.recipients[index])
		if err == nil {
			continue
		}
		s.refused(s.env, index, err, s.said.by[index])
		if refused == nil {
			refused = make(map[int32]error)
		}
		refused[index] = err
		replies[i] = server.ReplyOf(err)
	}
	return refused
}

// refusal is the one reply that SMTP has for all recipients, if the message is
// not taken for any: a deferral of one defers them all (nothing is queued, nobody
// gets it twice). Otherwise those refused get a DSN, see enqueue.
func (s *Session) refusal(refused map[int32]error, replies []server.Reply) (server.Reply, bool) {
	for _, r := range replies {
		if r.Code/100 == 4 {
			return r, true
		}
	}
	if refused == nil || !s.noneLeft(refused) {
		return server.Reply{}, false
	}
	for _, r := range replies {
		if r.Code != 0 {
			return r, true
		}
	}
	return server.Reply{}, false
}

// noneLeft tells whether every recipient was refused.
func (s *Session) noneLeft(refused map[int32]error) bool {
	for _, r := range s.env.GetRecipients() {
		if refused[r.GetIndex()] == nil {
			return false
		}
	}
	return true
}

func (s *Session) lmtp() bool { return s.conn.Hello().Verb == "LHLO" }

// summary is what the envelope keeps of the header.
type summary struct{ messageID, from, subject string }

// inspect looks at the header once: loops are refused, and a submitted message
// gets the fields that it must have (RFC 6409 section 8).
func (s *Session) inspect(body *spool.Body) (summary, error) {
	h, err := message.ReadHeader(*body)
	if err != nil {
		return summary{}, refuse(554, "5.6.0", err.Error())
	}
	// RFC 5321 section 6.3: our own field is one of them.
	if s.MaxHops > 0 && h.Count("Received") > s.MaxHops {
		return summary{}, refuse(554, "5.4.6", fmt.Sprintf("Mail loop: more than %d Received fields", s.MaxHops))
	}
	sum := summary{messageID: h.Get("Message-Id"), from: h.Get("From"), subject: h.Get("Subject")}
	var edits []*v1.Edit
	// A message without a header: an empty line keeps its text from being taken for
	// one that begins with our field.
	bare := h.Len() == 1 && !h.Separated() && int64(h.Size()) < (*body).Size()
	if s.conn.AuthUser() != "" {
		edits = s.missing(h, &sum)
	}
	if edits == nil && !bare {
		return sum, nil
	}
	edited, err := s.Editing.Apply(*body, edits)
	if err != nil {
		return summary{}, s.broken(err)
	}
	(*body).Discard()
	*body = edited
	return sum, nil
}

// missing adds the fields that a submitted message must have.
func (s *Session) missing(h *message.Header, sum *summary) (edits []*v1.Edit) {
	add := func(name, value string) {
		edits = append(edits, &v1.Edit{Edit: &v1.Edit_InsertHeader_{InsertHeader: &v1.Edit_InsertHeader{
			Position: 1, Field: &v1.HeaderField{Name: name, Value: []byte(" " + value)},
		}}})
	}
	if !h.Has("Message-ID") {
		sum.messageID = message.NewMessageID(s.Hostname)
		add("Message-ID", sum.messageID)
	}
	if !h.Has("Date") {
		add("Date", message.FormatDate(s.backend.Clock()))
	}
	return edits
}

// received is our trace field (RFC 5321 section 4.4).
func (s *Session) received() []byte {
	c := s.env.GetClient()
	r := message.Received{
		Helo: c.GetHello(), RDNS: c.GetRdns(), IP: s.conn.RemoteIP(), By: s.Hostname,
		With: c.GetProtocol(), ID: s.env.GetTransaction(), TLSVersion: c.GetTlsVersion(), TLSCipher: c.GetTlsCipher(),
		Priority: int(s.env.GetParameters().GetPriority()), Date: s.backend.Clock(),
	}
	// With more than one recipient, "for" would tell each of the others.
	if rs := s.env.GetRecipients(); len(rs) == 1 {
		r.For = rs[0].GetAddress()
	}
	return r.Field()
}

// enqueue gives the message to the queue: when it returns, the mail is ours.
// Recipients that a filter refused while others were accepted get a DSN in
// their sender's mailbox: SMTP has no other way to say it.
func (s *Session) enqueue(ctx context.Context, body spool.Body, sum summary, refused map[int32]error) (string, error) {
	hints := s.said.hints
	env := &queue.Envelope{
		Received: time.UnixMilli(s.env.GetReceivedMs()), Sender: s.env.GetSender(), Parameters: s.env.GetParameters(),
		Client: s.env.GetClient(), Tags: s.env.GetTags(), Hints: hints, Origin: s.Ref, Size: body.Size(),
		MessageID: sum.messageID, From: sum.from, Subject: sum.subject, Transaction: s.env.GetTransaction(),
		Notes:    append(asked(s.env.GetParameters()), s.notes...),
		Priority: int(s.env.GetParameters().GetPriority()),
	}
	if at := s.env.GetParameters().GetHoldUntilMs(); at > 0 {
		env.NotBefore = time.UnixMilli(at)
	}
	if h := hints; h != nil {
		if at := time.UnixMilli(h.NotBeforeMs); h.NotBeforeMs > 0 && at.After(env.NotBefore) {
			env.NotBefore = at
		}
		if h.ExpiresMs > 0 {
			env.Expires = time.UnixMilli(h.ExpiresMs)
		}
		if h.Priority != nil {
			env.Priority = int(h.GetPriority())
		}
	}
	wait := ""
	if env.Parameters.GetHoldUntilMs() > s.env.GetReceivedMs() {
		wait = "not before, says the sender"
	}
	held := s.said.hold
	var bounced []dispatch.Reported
	for _, r := range s.env.GetRecipients() {
		q := &queue.Recipient{
			Index: r.GetIndex(), Address: r.GetAddress(), Original: r.GetOriginalRecipient(), Notify: r.GetNotify(),
			Account: r.GetAccount(), Detail: r.GetDetail(), Parent: -1, Next: env.NotBefore, Reason: wait,
		}
		if err, ok := refused[r.GetIndex()]; ok {
			said := server.ReplyOf(err)
			if !s.lmtp() {
				bounced = append(bounced, dispatch.Reported{Recipient: q, State: queue.Failed, Attempt: &queue.Attempt{
					At: env.Received, Code: said.Code, Enhanced: enhancedText(said.Enhanced), Text: said.Lines[0],
				}})
			}
			continue
		}
		if own := s.said.recipients[r.GetIndex()]; own.GetAction() == v1.Verdict_DISCARD {
			continue
		} else if own.GetAction() == v1.Verdict_HOLD && held == "" {
			q.State, q.Reason = queue.Held, own.GetReason()
		}
		if held != "" {
			q.State, q.Reason = queue.Held, held
		}
		env.Recipients = append(env.Recipients, q)
	}
	if len(bounced) > 0 {
		if err := s.bounce(ctx, env, body, bounced); err != nil {
			return "", err
		}
	}
	// Before the mail itself: if that fails, the client comes again and a filter's
	// message may be there twice. The other way round it could be lost.
	if err := s.inject(ctx); err != nil {
		return "", err
	}
	if len(env.Recipients) == 0 {
		return s.env.GetTransaction(), nil
	}
	if b := s.backend; b.AtOnce == nil || !b.AtOnce(ctx, env, body) {
		if err := b.Queue.Put(ctx, env, body); err != nil {
			return "", err
		}
	}
	s.log.Info().Str("queue_id", env.ID).Str("transaction", s.env.GetTransaction()).Str("from", env.Sender).
		Strs("to", addresses(env)).Int64("size", env.Size).Str("message_id", env.MessageID).
		Str("client", s.env.GetClient().GetIp()).Str("user", s.env.GetClient().GetUser()).Str("listener", s.Ref).Msg("queued")
	return env.ID, nil
}

func (s *Session) bounce(ctx context.Context, env *queue.Envelope, body spool.Body, about []dispatch.Reported) error {
	notice, err := s.Reports.Report(env, body, about)
	if err != nil || notice == nil {
		return err
	}
	notice.Envelope.Transaction = env.Transaction
	return s.backend.Queue.Put(ctx, notice.Envelope, notice.Body)
}

// inject queues the messages that filters made.
func (s *Session) inject(ctx context.Context) error {
	for _, in := range s.said.inject {
		env := &queue.Envelope{
			Received: s.backend.Clock(), Sender: in.Sender, Origin: in.By, Size: in.Body.Size(),
			Client: s.env.GetClient(), Parameters: &v1.MailParameters{}, Transaction: s.env.GetTransaction(),
		}
		for i, r := range in.Recipients {
			env.Recipients = append(env.Recipients, &queue.Recipient{Index: int32(i), Address: r.GetAddress(), Notify: r.GetNotify(), Parent: -1})
		}
		if err := s.backend.Queue.Put(ctx, env, in.Body); err != nil {
			return fmt.Errorf("queue a filter's message: %w", err)
		}
		s.log.Info().Str("queue_id", env.ID).Str("transaction", s.env.GetTransaction()).Str("from", env.Sender).
			Strs("to", addresses(env)).Msg("a filter's message is queued")
	}
	return nil
}

func addresses(env *queue.Envelope) []string {
	out := make([]string, 0, min(len(env.Recipients), 20))
	for _, r := range env.Recipients[:min(len(env.Recipients), 20)] {
		out = append(out, r.Address)
	}
	return out
}

func enhancedText(e smtp.EnhancedCode) string { return fmt.Sprintf("%d.%d.%d", e[0], e[1], e[2]) }
