package dispatch

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/stagecoach-mta/stagecoach/core/deliver"
	"github.com/stagecoach-mta/stagecoach/core/queue"
	"github.com/stagecoach-mta/stagecoach/core/schedule"
	"github.com/stagecoach-mta/stagecoach/core/spool"
	"github.com/stagecoach-mta/stagecoach/sdk/fail"
	"github.com/stagecoach-mta/stagecoach/sdk/mail"
)

// Reporter makes the notices that go back to a sender (RFC 3464).
type Reporter interface {
	// Report returns nil when nobody is to be told: the null reverse-path,
	// NOTIFY=NEVER, or an action that was not asked for.
	Report(env *queue.Envelope, body spool.Body, about []Reported) (*queue.NewMessage, error)
}

// Reported is one recipient of a notice.
type Reported struct {
	Recipient *queue.Recipient
	State     queue.State // Failed, Delivered, Expanded, or Waiting for a delay
	Attempt   *queue.Attempt
	// RetryUntil is when a delayed mail is given up.
	RetryUntil time.Time
	// Relayed: delivered to a host that does not know DSNs, or by a mail's BY worth a notice.
	Relayed bool
}

func reply(code int, enhanced, text string) *queue.Attempt {
	return &queue.Attempt{Code: code, Enhanced: enhanced, Text: text}
}

// attempt turns an error of our own side into a reply.
func attempt(err error) *queue.Attempt {
	r := fail.Reply(err)
	return &queue.Attempt{Code: int(r.GetCode()), Enhanced: r.GetEnhanced(), Text: err.Error()}
}

// ends closes a recipient (or holds it) without an attempt.
func (j *job) ends(r *queue.Recipient, s queue.State, route, reason string) *queue.Change {
	return &queue.Change{Index: r.Index, State: s, Route: route, Reason: reason, Account: r.Account, Detail: r.Detail}
}

func (j *job) fails(r *queue.Recipient, a *queue.Attempt) *queue.Change {
	a.At = j.Clock()
	c := j.ends(r, queue.Failed, "", a.Text)
	c.Attempt = a
	return c
}

// settle turns a reply into a change: 5xx fails, 4xx waits, 2xx is done.
func (j *job) settle(r *queue.Recipient, a *queue.Attempt) *queue.Change {
	switch a.Code / 100 {
	case 2:
		c := j.ends(r, queue.Delivered, "", "")
		a.At = j.Clock()
		c.Attempt = a
		return c
	case 5:
		return j.fails(r, a)
	}
	return j.later(r, a)
}

// later puts a recipient back with its next time, or gives it up when its time
// is over (RFC 5321 section 4.5.4.1). Every mail gets at least one attempt.
func (j *job) later(r *queue.Recipient, a *queue.Attempt) *queue.Change {
	now := j.Clock()
	a.At = now
	if late := j.late(a); late != nil {
		return j.fails(r, late)
	}
	if until := j.expires(); !now.Before(until) {
		c := j.fails(r, a)
		c.Attempt = &queue.Attempt{
			At: now, Code: 550, Enhanced: "4.4.7",
			Text: fmt.Sprintf("Gave up after %s; %s", now.Sub(j.begins()).Round(time.Second), lastAnswer(a)),
		}
		c.Reason = c.Attempt.Text
		return c
	}
	wait := jitter(j.backoff(r.Attempts))
	return &queue.Change{
		Index: r.Index, State: queue.Waiting, Next: now.Add(wait), Attempt: a, Account: r.Account, Detail: r.Detail,
	}
}

func (j *job) backoff(attempts int) time.Duration {
	if len(j.plan.Retry) == 0 {
		return 15 * time.Minute
	}
	return j.plan.Retry[min(attempts, len(j.plan.Retry)-1)]
}

// handedOn tells how a delivered recipient left us.
func (j *job) handedOn(index int32) deliver.Hand {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.hands[index]
}

// outcome turns what a transport said into a change.
func (j *job) outcome(r *queue.Recipient, o deliver.Outcome) *queue.Change {
	j.mu.Lock()
	j.hands[r.Index] = o.Hand
	j.mu.Unlock()
	a := o.Attempt
	c := j.settle(r, &a)
	if c.State != queue.Waiting {
		return c
	}
	now := j.Clock()
	if o.NotTried {
		c.Attempt = nil
		c.Next = now.Add(jitter(max(o.RetryAfter, time.Second)))
		return c
	}
	if at := now.Add(o.RetryAfter); at.After(c.Next) {
		c.Next = at
	}
	return c
}

// commit journals changes together with the notices that they cause: neither
// is durable without the other.
func (j *job) commit(ctx context.Context, changes []queue.Change) error {
	notices, err := j.notices(ctx, changes)
	if err != nil {
		return fmt.Errorf("make a delivery status notification: %w", err)
	}
	if len(notices) > 0 {
		changes[0].Enqueue = append(changes[0].Enqueue, notices...)
	}
	j.journal.Lock()
	defer j.journal.Unlock()
	j.open -= len(changes)
	keep := j.open > 0
	commit := j.Queue.Park
	j.tellRoutes(changes)
	for i := range changes {
		c := &changes[i]
		if c.Lane != "" {
			c.Recheck = j.recheck(c)
			j.parked = append(j.parked, schedule.Backlog{Lane: c.Lane, Next: c.Next, Class: classOf(j.claim.Priority)})
		}
		if c.State != queue.Waiting || c.Attempt != nil || c.Notified || len(c.Add)+len(c.Enqueue) > 0 {
			commit = j.Queue.Commit
		}
	}
	// What happened, happened: the journal is written even when the dispatcher
	// is being stopped.
	if err := commit(context.WithoutCancel(ctx), j.claim, changes, keep); err != nil {
		return fmt.Errorf("journal the results: %w", err)
	}
	j.tell(changes, notices)
	return nil
}

// tellRoutes adds to the changes how their recipients were routed.
func (j *job) tellRoutes(changes []queue.Change) {
	var told []queue.Note // the routes of the recipient before
	for i := range changes {
		c := &changes[i]
		notes := j.routed[c.Index]
		if notes == nil {
			continue
		}
		if !sameRoute(notes, told) {
			c.Notes = append(slices.Clip(notes), c.Notes...)
		}
		told = notes
		delete(j.routed, c.Index) // it is told once
	}
}

// sameRoute tells whether two recipients were routed alike: the journal has that
// once.
func sameRoute(a, b []queue.Note) bool {
	return slices.EqualFunc(a, b, func(x, y queue.Note) bool { return x.By == y.By && x.Verdict == y.Verdict })
}

// notices builds what the sender hears: one notice for all that failed, one for
// what is delayed, one for what was delivered and asked for.
func (j *job) notices(ctx context.Context, changes []queue.Change) ([]*queue.NewMessage, error) {
	by := map[queue.State][]Reported{}
	var relayed []Reported
	for i := range changes {
		c := &changes[i]
		r := j.recipient(c.Index)
		about := Reported{Recipient: r, State: c.State, Attempt: c.Attempt, RetryUntil: j.expires()}
		switch c.State {
		case queue.Failed:
			by[c.State] = append(by[c.State], about)
		case queue.Delivered:
			switch j.handedOn(c.Index) {
			case deliver.Final:
				by[c.State] = append(by[c.State], about)
			case deliver.Relayed, deliver.Traced:
				about.Relayed = true
				relayed = append(relayed, about)
			case deliver.DutyPassed: // the next host tells (RFC 3461 section 5.2.2)
			}
		case queue.Expanded:
			if expanded(r, c) {
				by[c.State] = append(by[c.State], about)
			}
		case queue.Waiting:
			if j.delayed(r, c) {
				c.Notified = true
				if about.Attempt == nil {
					about.Attempt = untried(r, c.Reason)
				}
				by[c.State] = append(by[c.State], about)
			}
		}
	}
	var out []*queue.NewMessage
	for _, about := range [][]Reported{by[queue.Failed], by[queue.Waiting], by[queue.Delivered], by[queue.Expanded], relayed} {
		if len(about) == 0 {
			continue
		}
		if err := j.load(ctx); err != nil {
			return nil, err
		}
		m, err := j.plan.Reports.Report(j.claim.Envelope, j.body, about)
		if err != nil {
			return nil, err
		}
		if m != nil {
			out = append(out, m)
		}
	}
	return out, nil
}

func (j *job) delayed(r *queue.Recipient, c *queue.Change) bool {
	at := j.noticeAt()
	return !at.IsZero() && !r.DelayNotified && (c.Attempt != nil || c.Lane != "") && !j.Clock().Before(at)
}

func (j *job) recipient(index int32) *queue.Recipient {
	for _, r := range j.claim.Recipients {
		if r.Index == index {
			return r
		}
	}
	return &queue.Recipient{Index: index}
}

// tell logs one line per recipient.
func (j *job) tell(changes []queue.Change, notices []*queue.NewMessage) {
	for i := range changes {
		c := &changes[i]
		e := j.log.Info()
		if c.State == queue.Waiting && c.Attempt == nil {
			e = j.log.Debug() // it waits for its turn
		}
		e = e.Str("to", j.recipient(c.Index).Address)
		if c.Route != "" {
			e = e.Str("route", c.Route)
		}
		if c.Deliver != "" {
			e = e.Str("deliver", c.Deliver)
		}
		if a := c.Attempt; a != nil {
			e = e.Int("code", a.Code).Str("enhanced", a.Enhanced).Str("reply", a.Text)
			if a.RemoteMTA != "" {
				e = e.Str("remote", a.RemoteMTA)
			}
			if a.TLS != "" {
				e = e.Str("tls", a.TLS)
			}
		}
		if c.State == queue.Waiting {
			e = e.Time("next", c.Next)
		}
		if c.Reason != "" && (c.Attempt == nil || c.Reason != c.Attempt.Text) {
			e = e.Str("reason", c.Reason)
		}
		for _, a := range c.Add {
			e = e.Str("becomes", a.Address)
		}
		e.Msg(stateWord(c.State))
	}
	for _, n := range notices {
		j.log.Info().Str("dsn", n.Envelope.ID).Str("to", j.claim.Sender).Msg("notified the sender")
	}
}

func stateWord(s queue.State) string {
	if s == queue.Waiting {
		return "deferred"
	}
	return s.String()
}

// original keeps the first address through redirects (RFC 3461 section 5.2.7.1).
func original(r *queue.Recipient) string {
	if r.Original != "" {
		return r.Original
	}
	return "rfc822;" + r.Address
}

// HeaderMap is a header as conditions see it: lower-case names, decoded values.
func HeaderMap(h mail.Header) map[string][]string {
	m := make(map[string][]string, len(h))
	for _, f := range h {
		name := strings.ToLower(f.GetName())
		m[name] = append(m[name], mail.Unfold(f.GetValue()))
	}
	return m
}
