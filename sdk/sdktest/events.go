package sdktest

import (
	"testing"

	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

const (
	tom = "tom@hanks.example"
	meg = "meg@ryan.example"
)

// call is a question with what is known at that moment, as filter.proto's table
// has it. A test changes what it is about.
func call(event v1.FilterEvent, env *v1.Envelope) *v1.FilterCall {
	return &v1.FilterCall{Event: event, Envelope: env, Recipient: -1, IdempotencyKey: "test/" + event.String()}
}

func client() *v1.Client {
	return &v1.Client{Ip: "192.0.2.1", Port: 50124, Listener: "receive.smtp.mx", Protocol: "SMTP"}
}

func greeted() *v1.Client {
	c := client()
	c.Hello, c.Protocol = "mx.hanks.example", "ESMTP"
	return c
}

// before is a question about a transaction, before the queue.
func before(event v1.FilterEvent, recipients ...string) *v1.FilterCall {
	return call(event, &v1.Envelope{
		Transaction: "test.1", Sender: tom, Parameters: &v1.MailParameters{}, Client: greeted(), Recipients: people(recipients),
		ReceivedMs: now(),
	})
}

// after is a question about a mail that was queued.
func after(event v1.FilterEvent, recipients ...string) *v1.FilterCall {
	c := before(event, recipients...)
	c.Envelope.Transaction, c.Envelope.QueueId = "", "test"
	return c
}

func people(addresses []string) []*v1.Recipient {
	var out []*v1.Recipient
	for i, a := range addresses {
		out = append(out, &v1.Recipient{Address: a, Index: int32(i)})
	}
	return out
}

// Connect makes a CONNECT event of a client at 192.0.2.1.
func Connect() *v1.FilterCall {
	return call(v1.FilterEvent_CONNECT, &v1.Envelope{Transaction: "test", Client: client()})
}

// Hello makes a HELLO event: the client said EHLO mx.hanks.example.
func Hello() *v1.FilterCall {
	return call(v1.FilterEvent_HELLO, &v1.Envelope{Transaction: "test", Client: greeted()})
}

// Auth makes an AUTH event: somebody tried to log in as user, with that success.
func Auth(user string, authenticated bool) *v1.FilterCall {
	c := call(v1.FilterEvent_AUTH, &v1.Envelope{Transaction: "test", Client: greeted()})
	c.Envelope.Client.User, c.Authenticated = user, authenticated
	return c
}

// Mail makes a MAIL event: a mail from Tom begins.
func Mail() *v1.FilterCall { return before(v1.FilterEvent_MAIL) }

// Rcpt makes a RCPT event; the last of the addresses is the one asked about, the
// others were accepted before it.
func Rcpt(addresses ...string) *v1.FilterCall {
	c := before(v1.FilterEvent_RCPT, addresses...)
	c.Recipient = int32(len(addresses) - 1)
	return c
}

// RcptRejected makes a RCPT_REJECTED event: the core answered code to address.
func RcptRejected(address string, code int, enhanced, text string) *v1.FilterCall {
	c := before(v1.FilterEvent_RCPT_REJECTED, address)
	c.Recipient = 0
	c.Results = []*v1.RecipientResult{{State: "rejected", Reply: &v1.SMTPReply{Code: int32(code), Enhanced: enhanced, Text: text}}}
	return c
}

// Envelope makes an ENVELOPE event, with all recipients.
func Envelope(addresses ...string) *v1.FilterCall {
	return before(v1.FilterEvent_ENVELOPE, addresses...)
}

// Route makes a ROUTE event of a text, as Message does.
func Route(t testing.TB, text string) *v1.FilterCall {
	t.Helper()
	return queued(v1.FilterEvent_ROUTE, Message(t, text))
}

// PreDelivery makes a PRE_DELIVERY event of a text, as Message does.
func PreDelivery(t testing.TB, text string) *v1.FilterCall {
	t.Helper()
	return queued(v1.FilterEvent_PRE_DELIVERY, Message(t, text))
}

func queued(event v1.FilterEvent, m *v1.FilterCall) *v1.FilterCall {
	c := after(event, meg)
	c.Message, c.Header, c.Envelope.Size = m.Message, m.Header, m.Envelope.Size
	return c
}

// Result makes a RESULT event: what became of a mail to address. state is
// "delivered", "deferred" or "failed".
func Result(address, state string, code int, enhanced, text string) *v1.FilterCall {
	c := after(v1.FilterEvent_RESULT, address)
	c.Results = []*v1.RecipientResult{{State: state, Reply: &v1.SMTPReply{Code: int32(code), Enhanced: enhanced, Text: text}}}
	return c
}

// Delivery makes the call to a deliver plugin for a text, as Message does:
// deliver.NewClient(in.Caller).Deliver(ctx, sdktest.Delivery(t, text, "meg@ryan.example")).
func Delivery(t testing.TB, text string, recipients ...string) *v1.DeliverCall {
	t.Helper()
	m := Message(t, text)
	env := after(v1.FilterEvent_PRE_DELIVERY, recipients...).Envelope
	env.Size = m.Envelope.Size
	return &v1.DeliverCall{Envelope: env, Message: m.Message, IdempotencyKey: "test/deliver.test.test"}
}

// Observe makes an OBSERVE event of what happened, in that order. It numbers
// those without a sequence, from 1, and gives those without one the envelope of a
// mail from Tom to Meg.
func Observe(what ...*v1.Observation) *v1.FilterCall {
	for i, o := range what {
		if o.Sequence == 0 {
			o.Sequence = uint64(i + 1)
		}
		if o.AtMs == 0 {
			o.AtMs = now()
		}
		if o.Envelope == nil {
			o.Envelope = after(v1.FilterEvent_OBSERVE, meg).Envelope
		}
	}
	return &v1.FilterCall{Event: v1.FilterEvent_OBSERVE, Recipient: -1, Observations: what}
}
