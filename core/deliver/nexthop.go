package deliver

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/emersion/go-smtp"

	"github.com/stagecoach-mta/stagecoach/core/deliver/nexthop"
	"github.com/stagecoach-mta/stagecoach/core/queue"
	"github.com/stagecoach-mta/stagecoach/core/smtp/client"
	"github.com/stagecoach-mta/stagecoach/sdk/address"
)

// NextHop delivers to other servers by SMTP or LMTP.
type NextHop struct {
	*nexthop.Transport
	// ByDomain: each recipient domain is a destination of its own (MX); else
	// all go to the same smarthosts.
	ByDomain bool
	Clock    func() time.Time
}

var _ Transport = (*NextHop)(nil)

// Destination is the recipient's domain, or one for all.
func (n *NextHop) Destination(addr string) string {
	if !n.ByDomain {
		return "smarthost"
	}
	a, err := address.Parse(addr, true)
	if err != nil {
		return addr // its delivery will say what is wrong with it
	}
	return strings.ToLower(a.Domain)
}

// Deliver makes one attempt at the job's one destination.
func (n *NextHop) Deliver(ctx context.Context, job *Job) []Outcome {
	m := nexthop.Message{
		QueueID: job.Envelope.ID, From: job.Envelope.Sender, Options: mailOptions(job.Envelope), Size: job.Body.Size(),
		Body:     func() (io.ReadCloser, error) { return job.Body.Open() },
		Priority: job.Envelope.Priority, DeliverBy: deliverBy(job.Envelope),
		NextHop: job.Envelope.Hints.GetNextHop(), TLSLevel: job.Envelope.Hints.GetTlsLevel(),
	}
	if n.ByDomain && len(job.Recipients) > 0 {
		m.Domain = n.Destination(job.Recipients[0].Address)
	}
	for _, r := range job.Recipients {
		m.Recipients = append(m.Recipients, client.Rcpt{Addr: r.Address, Options: rcptOptions(r)})
	}
	got := n.Transport.Deliver(ctx, m)
	return job.pair(got, n.Clock)
}

// pair pairs the answers with the recipients: they stand in the same order.
func (j *Job) pair(got []nexthop.Outcome, clock func() time.Time) []Outcome {
	out := make([]Outcome, 0, len(j.Recipients))
	for i, r := range j.Recipients {
		if i >= len(got) {
			break
		}
		g := got[i]
		remote := g.RemoteMTA
		if remote == "" {
			remote = g.RemoteAddr
		}
		text := g.Text
		if remote != "" && decidedHere(&g) {
			// These are not the peer's words: a notice must not say so.
			if !strings.Contains(text, remote) {
				text = remote + ": " + text
			}
			remote = ""
		}
		hand := Relayed
		switch by := deliverBy(j.Envelope); {
		case by != nil && (by.Trace || !g.KnowsDeliverBy):
			hand = Traced
		case g.DSN:
			hand = DutyPassed
		}
		out = append(out, Outcome{
			Index: r.Index, Hand: hand,
			Attempt: queue.Attempt{
				At: clock(), Code: g.Code, Enhanced: fmt.Sprintf("%d.%d.%d", g.Enhanced[0], g.Enhanced[1], g.Enhanced[2]),
				Text: text, RemoteMTA: remote, TLS: g.TLS,
			},
			Unreachable: g.Status == nexthop.Deferred && g.Diagnostic == "" && !g.Ambiguous,
		})
	}
	return out
}

// decidedHere tells an outcome that no peer had a part in. A connection that
// broke in the midst of a mail had one.
func decidedHere(g *nexthop.Outcome) bool {
	return g.Status != nexthop.Delivered && g.Diagnostic == "" && !g.Ambiguous && !strings.HasPrefix(g.Text, "The connection broke")
}

func mailOptions(e *queue.Envelope) smtp.MailOptions {
	p := e.Parameters
	o := smtp.MailOptions{
		Body: smtp.BodyType(p.GetBody()), UTF8: p.GetSmtputf8(), RequireTLS: p.GetRequireTls(),
		Return: smtp.DSNReturn(p.GetDsnReturn()), EnvelopeID: p.GetEnvelopeId(),
	}
	return o
}

// deliverBy is what the sender asked for with BY (RFC 2852); nil: nothing.
func deliverBy(e *queue.Envelope) *client.DeliverBy {
	p := e.Parameters
	if p.GetDeliverByMode() == "" {
		return nil
	}
	return &client.DeliverBy{At: time.UnixMilli(p.GetDeliverByMs()), Return: p.GetDeliverByMode() == "R", Trace: p.GetDeliverByTrace()}
}

func rcptOptions(r *queue.Recipient) smtp.RcptOptions {
	var o smtp.RcptOptions
	for _, n := range r.Notify {
		o.Notify = append(o.Notify, smtp.DSNNotify(n))
	}
	if kind, addr, ok := strings.Cut(r.Original, ";"); ok && addr != "" {
		o.OriginalRecipientType = smtp.DSNAddressType(strings.ToUpper(kind))
		o.OriginalRecipient = addr
	}
	return o
}

// Close ends the connections that wait for the next mail.
func (n *NextHop) Close() error {
	n.Transport.Close()
	return nil
}
