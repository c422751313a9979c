package milter

import (
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/stagecoach-mta/stagecoach/plugins/milter/protocol"
	"github.com/stagecoach-mta/stagecoach/sdk/filter"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// link is a connection to the milter and what was told on it. It is for one
// question at a time.
//
// The envelope of the question is the truth, and a link is brought up to it: what
// the milter was not told yet it is told now, what is no longer so is taken back.
// So a question may come to any link, a new one too: after the milter, or this
// plugin, was restarted in the middle of a mail, and behind the queue.
type link struct {
	conn  *protocol.Conn
	kept  bool // it was there before this question
	timer *time.Timer

	connected bool
	client    client
	greeting  string // what Helo was told last; "" is nothing
	// settled is the milter's last word on this client; nil: it wants to hear of
	// the client's messages.
	settled *protocol.Answer
	byHelo  bool // settled was said to the greeting
	tx      *transaction
}

// transaction is a message that the milter is being told of.
type transaction struct {
	id, sender string
	args       []string
	told       []told
	settled    *protocol.Answer // its last word on the message
}

// told is a recipient that the milter knows of.
type told struct {
	index   int32
	address string
	answer  protocol.Answer
}

// client is what makes a connection the same one.
type client struct {
	ip, rdns, listener string
	port               int32
}

func clientOf(e *v1.Envelope) client {
	c := e.GetClient()
	return client{c.GetIp(), c.GetRdns(), c.GetListener(), c.GetPort()}
}

// transactionOf names the message; "" before there is one. A delivery's attempts
// are messages of their own.
func transactionOf(ev *filter.Event) string {
	switch ev.Kind {
	case v1.FilterEvent_CONNECT, v1.FilterEvent_HELLO:
		return ""
	case v1.FilterEvent_ROUTE, v1.FilterEvent_PRE_DELIVERY:
		return ev.Kind.String() + " " + ev.Envelope.GetQueueId()
	}
	return ev.Envelope.GetTransaction()
}

func withMessage(kind v1.FilterEvent) bool {
	return kind == v1.FilterEvent_MESSAGE || kind == v1.FilterEvent_ROUTE || kind == v1.FilterEvent_PRE_DELIVERY
}

// quit says goodbye.
func (l *link) quit() { _ = l.conn.Quit() }

// answer brings the milter up to the event and makes a verdict of what it says.
func (l *link) answer(f *Filter, ev *filter.Event) (*filter.Verdict, error) {
	facts := f.facts(ev)
	if err := l.meet(ev, facts); err != nil {
		return nil, err
	}
	if l.settled != nil || ev.Kind == v1.FilterEvent_CONNECT || ev.Kind == v1.FilterEvent_HELLO {
		return settle(l.settled, ev), nil
	}
	if err := l.begin(ev, facts); err != nil {
		return nil, err
	}
	switch {
	case ev.Kind == v1.FilterEvent_MAIL:
		return settle(l.tx.settled, ev), nil
	case ev.Kind == v1.FilterEvent_RCPT_REJECTED:
		return filter.Accept(), l.rejected(f, ev)
	}
	for _, r := range ev.Envelope.GetRecipients() {
		if err := l.recipient(f, r, facts); err != nil {
			return nil, err
		}
	}
	if ev.Kind == v1.FilterEvent_RCPT {
		if a := l.answered(ev.Recipient); l.tx.settled == nil && a != nil {
			return verdict(*a), nil
		}
		return settle(l.tx.settled, ev), nil
	}
	if !withMessage(ev.Kind) {
		return filter.Accept(), nil // of a later contract
	}
	return l.message(f, ev, facts)
}

// meet tells the client and its greeting.
func (l *link) meet(ev *filter.Event, facts protocol.Macros) error {
	who := clientOf(ev.Envelope)
	if l.connected && l.client != who {
		if err := l.abort(); err != nil {
			return err
		}
		if err := l.conn.NextClient(); err != nil {
			return err
		}
		l.connected, l.greeting, l.settled, l.byHelo = false, "", nil, false
	}
	if !l.connected {
		host, family, port, address := where(ev.Envelope.GetClient())
		a, err := l.conn.Connect(host, family, port, address, facts)
		if err != nil {
			return err
		}
		l.connected, l.client, l.settled = true, who, final(a)
	}
	greeting := greetingOf(ev.Envelope.GetClient())
	if ev.Kind == v1.FilterEvent_CONNECT || greeting == l.greeting || l.settled != nil && !l.byHelo {
		return nil
	}
	// A client may greet anew, after STARTTLS above all.
	if err := l.abort(); err != nil {
		return err
	}
	a, err := l.conn.Helo(ev.Envelope.GetClient().GetHello(), facts)
	if err != nil {
		return err
	}
	l.greeting, l.settled = greeting, final(a)
	l.byHelo = l.settled != nil
	return nil
}

// greetingOf has all that the macros of the greeting tell.
func greetingOf(c *v1.Client) string {
	if c.GetHello() == "" {
		return ""
	}
	return c.GetHello() + " " + c.GetTlsVersion() + " " + c.GetTlsCipher()
}

// final is an answer that leaves nothing to ask.
func final(a protocol.Answer) *protocol.Answer {
	if a.Code == protocol.Continue {
		return nil
	}
	return &a
}

// begin tells the sender, unless the milter is in this very message already.
func (l *link) begin(ev *filter.Event, facts protocol.Macros) error {
	e := ev.Envelope
	id, args := transactionOf(ev), mailArgs(e)
	if t := l.tx; t != nil && t.id == id && t.sender == e.GetSender() && slices.Equal(t.args, args) && !(withMessage(ev.Kind) && t.toldOther(e)) {
		return nil
	}
	if err := l.abort(); err != nil {
		return err
	}
	a, err := l.conn.Mail(e.GetSender(), args, facts)
	if err != nil {
		return err
	}
	l.tx = &transaction{id: id, sender: e.GetSender(), args: args, settled: final(a)}
	return nil
}

// toldOther: the milter took a recipient that somebody else then refused or
// replaced.
func (t *transaction) toldOther(e *v1.Envelope) bool {
	return slices.ContainsFunc(t.told, func(r told) bool {
		return r.answer.Code == protocol.Continue && !slices.ContainsFunc(e.GetRecipients(), func(x *v1.Recipient) bool {
			return x.GetIndex() == r.index && x.GetAddress() == r.address
		})
	})
}

// recipient tells one that the milter does not know of yet.
func (l *link) recipient(f *Filter, r *v1.Recipient, facts protocol.Macros) error {
	if l.tx.settled != nil || l.answered(r) != nil {
		return nil
	}
	own := maps.Clone(facts)
	maps.Copy(own, recipientFacts(r))
	maps.Copy(own, f.Macros)
	a, err := l.conn.Rcpt(r.GetAddress(), rcptArgs(r), own)
	if err != nil {
		return err
	}
	if a.Code == protocol.Accept || a.Code == protocol.Discard || verdict(a).Reply().GetVerdict().GetAction() == v1.Verdict_DISCONNECT {
		settled := a // of the whole message, though it came with a recipient
		l.tx.settled, a = &settled, protocol.Answer{Code: protocol.Continue}
	}
	l.tx.told = append(l.tx.told, told{r.GetIndex(), r.GetAddress(), a})
	return nil
}

func (l *link) answered(r *v1.Recipient) *protocol.Answer {
	for i := range l.tx.told {
		if t := &l.tx.told[i]; t.index == r.GetIndex() && t.address == r.GetAddress() {
			return &t.answer
		}
	}
	return nil
}

// rejected tells of a recipient that the server refused, if the milter wants to
// hear of those.
func (l *link) rejected(f *Filter, ev *filter.Event) error {
	if l.tx.settled != nil || l.conn.Options.Steps&protocol.WantsRejectedTo == 0 || ev.Recipient == nil {
		return nil
	}
	facts := f.facts(ev)
	var said *v1.SMTPReply
	for _, r := range ev.Results {
		said = r.GetReply()
	}
	maps.Copy(facts, protocol.Macros{
		"{rcpt_mailer}": "error", "{rcpt_host}": said.GetEnhanced(), "{rcpt_addr}": said.GetText(),
	})
	_, err := l.conn.Rcpt(ev.Recipient.GetAddress(), rcptArgs(ev.Recipient), facts)
	return err
}

// abort has the milter forget the message that it is in.
func (l *link) abort() error {
	if l.tx == nil {
		return nil
	}
	l.tx = nil
	return l.conn.Abort()
}

// message tells header and body and asks for the verdict. After it the milter is
// in no message any more.
func (l *link) message(f *Filter, ev *filter.Event, facts protocol.Macros) (*filter.Verdict, error) {
	wanted := 0
	for _, r := range ev.Envelope.GetRecipients() {
		if a := l.answered(r); a != nil && a.Code == protocol.Continue {
			wanted++
		}
	}
	refusals := l.refusals(ev.Envelope)
	if l.tx.settled == nil && wanted == 0 && len(refusals) > 0 {
		v := filter.Accept()
		for index, refused := range refusals {
			v.For(index, refused)
		}
		return v, l.abort()
	}
	changes, a, err := l.content(f, ev, facts)
	if err != nil {
		return nil, err
	}
	v := settle(a, ev)
	if a == nil || a.Code == protocol.Accept {
		if v, err = f.change(ev, changes); err != nil {
			return nil, err
		}
	}
	for index, refused := range refusals {
		v.For(index, refused)
	}
	return v, nil
}

// refusals are the recipients that the milter does not want.
func (l *link) refusals(e *v1.Envelope) map[int32]*filter.Verdict {
	out := map[int32]*filter.Verdict{}
	for _, r := range e.GetRecipients() {
		if a := l.answered(r); a != nil && a.Code != protocol.Continue {
			out[r.GetIndex()] = verdict(*a)
		}
	}
	return out
}

// content tells the message; a is nil if the milter went on to its end and has
// nothing against it.
func (l *link) content(f *Filter, ev *filter.Event, facts protocol.Macros) (changes []protocol.Change, a *protocol.Answer, err error) {
	if a = l.tx.settled; a != nil {
		return nil, a, l.abort()
	}
	said, err := l.tell(f, ev, facts)
	if err != nil {
		return nil, nil, err
	}
	if a = final(said); a != nil {
		return nil, a, l.abort()
	}
	said, changes, err = l.conn.EndOfMessage(facts, int64(f.MaxChange))
	l.tx = nil
	return changes, final(said), err
}

// tell tells the message up to its end, or until the milter has seen enough.
func (l *link) tell(f *Filter, ev *filter.Event, facts protocol.Macros) (protocol.Answer, error) {
	a, err := l.conn.Data(facts)
	if err != nil || a.Code != protocol.Continue {
		return a, err
	}
	hidden := f.ownReceived(ev)
	for i, h := range ev.Header {
		if i == hidden {
			continue
		}
		if a, err = l.conn.Header(h.GetName(), h.GetValue()); err != nil || a.Code != protocol.Continue {
			return a, err
		}
	}
	if a, err = l.conn.EOH(facts); err != nil || a.Code != protocol.Continue {
		return a, err
	}
	if l.conn.Options.Steps&protocol.NoBody != 0 {
		return a, nil
	}
	m, err := ev.Message.Open()
	if err != nil {
		return a, err
	}
	defer m.Close()
	body, err := bodyOf(m, len(ev.Header))
	if err != nil {
		return a, err
	}
	return l.conn.Body(body)
}

// ownReceived is the place of this server's own trace field, which a milter does
// not see: Sendmail adds it later, and Postfix hides it. -1: it is not there.
func (f *Filter) ownReceived(ev *filter.Event) int {
	for i, h := range ev.Header {
		if strings.EqualFold(h.GetName(), "Received") {
			if strings.Contains(strings.ToLower(string(h.GetValue())), "by "+strings.ToLower(f.hostname)) {
				return i
			}
			return -1
		}
	}
	return -1
}
