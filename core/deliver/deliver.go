// Package deliver hands queued mail over: to a storage, to a next hop, to a
// delivery plugin. It decides neither where mail goes (route) nor when it is
// tried again (the queue).
package deliver

import (
	"context"
	"time"

	"github.com/stagecoach-mta/stagecoach/core/filter"
	"github.com/stagecoach-mta/stagecoach/core/queue"
	"github.com/stagecoach-mta/stagecoach/core/spool"
	"github.com/stagecoach-mta/stagecoach/sdk/fail"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// Transport is one deliver block at work.
type Transport interface {
	// Deliver tries the job's recipients once and answers with an outcome for
	// each. Delivered means that the other side has it for good. It may be
	// called concurrently; it never retries by itself.
	Deliver(ctx context.Context, job *Job) []Outcome
	// Destination names what an address shares its fate and its limits with: a
	// domain for MX delivery, "" where all go one way.
	Destination(address string) string
	// Close waits for nothing: what is under way was given its context.
	Close() error
}

// Job is one message and those of its recipients that go this way.
type Job struct {
	Envelope   *queue.Envelope
	Recipients []*queue.Recipient
	Body       spool.Body
	// Key is stable for message and block over repetitions.
	Key string
	// Placements say where a storage keeps single recipients' copies, by index.
	Placements map[int32][]filter.Placed
}

// Release drops what the job's placements hold, when it is over.
func (j *Job) Release() { filter.Unplace(j.Placements) }

// Outcome is what became of one recipient.
type Outcome struct {
	Index   int32
	Attempt queue.Attempt
	// RetryAfter: not before, if the other side asked for it.
	RetryAfter time.Duration
	// NotTried: the destination was known to be dead; this is no attempt.
	NotTried bool
	// Unreachable: nobody at the destination answered at all.
	Unreachable bool
	// Hand is how a delivered mail left us.
	Hand Hand
}

// Hand is into whose hands a delivery went, which decides who reports it
// (RFC 3461 section 5.2).
type Hand uint8

// A mailbox; a host that does not know DSNs; a host that reports in our stead; a
// host whose taking the mail the sender of a DELIVERBY hears of, because of its
// trace or because that host minds no time (RFC 2852 section 4.1.4).
const (
	Final Hand = iota
	Relayed
	DutyPassed
	Traced
)

// Unreachable tells why nobody at a destination answered: the text of the first
// outcome, if all of them say so; else "".
func Unreachable(outcomes []Outcome) string {
	for _, o := range outcomes {
		if !o.Unreachable {
			return ""
		}
	}
	if len(outcomes) == 0 {
		return ""
	}
	return outcomes[0].Attempt.Text
}

// State of the recipient after this outcome: by the class of the reply's code
// (RFC 5321 section 4.2.1).
func (o Outcome) State() queue.State {
	switch o.Attempt.Code / 100 {
	case 2:
		return queue.Delivered
	case 5:
		return queue.Failed
	}
	return queue.Waiting
}

// replied makes an outcome of a reply.
func replied(index int32, r *v1.SMTPReply, remote string) Outcome {
	code, enhanced := int(r.GetCode()), r.GetEnhanced()
	if code < 200 || code > 599 || code/100 == 3 {
		code, enhanced = 451, "4.3.0" // not an answer: try again
	}
	if enhanced == "" {
		enhanced = map[int]string{2: "2.0.0", 4: "4.0.0", 5: "5.0.0"}[code/100]
	}
	return Outcome{Index: index, Attempt: queue.Attempt{
		At: time.Now(), Code: code, Enhanced: enhanced, Text: r.GetText(), RemoteMTA: remote,
	}}
}

// failed makes an outcome of an error: temporary unless its kind says otherwise.
func failed(index int32, err error, remote string) Outcome {
	r := fail.Reply(err)
	out := replied(index, r, remote)
	if out.Attempt.Text == "" || fail.KindOf(err) == fail.Internal {
		out.Attempt.Text = err.Error()
	}
	return out
}

// all gives every recipient of the job the same outcome.
func (j *Job) all(each func(index int32) Outcome) []Outcome {
	out := make([]Outcome, 0, len(j.Recipients))
	for _, r := range j.Recipients {
		out = append(out, each(r.Index))
	}
	return out
}

// Contract is the job as the contract shows it.
func (j *Job) Contract() *v1.Envelope {
	env := &v1.Envelope{
		QueueId:    j.Envelope.ID,
		Sender:     j.Envelope.Sender,
		Parameters: j.Envelope.Parameters,
		Client:     j.Envelope.Client,
		Tags:       j.Envelope.Tags,
		ReceivedMs: j.Envelope.Received.UnixMilli(),
		Size:       j.Envelope.Size,
	}
	for _, r := range j.Recipients {
		env.Recipients = append(env.Recipients, &v1.Recipient{
			Address: r.Address, Index: r.Index, Notify: r.Notify,
			OriginalRecipient: r.Original, Account: r.Account, Detail: r.Detail,
		})
	}
	return env
}
