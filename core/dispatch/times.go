package dispatch

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/stagecoach-mta/stagecoach/core/queue"
)

// begins is when a mail's time in the queue starts to count: one that was held
// for later (RFC 4865) is not old when it is released.
func (j *job) begins() time.Time {
	if j.claim.NotBefore.After(j.claim.Received) {
		return j.claim.NotBefore
	}
	return j.claim.Received
}

// deliverBy is the time of a BY with that mode (RFC 2852); zero: there is none.
func (j *job) deliverBy(mode string) time.Time {
	p := j.claim.Parameters
	if p.GetDeliverByMode() != mode {
		return time.Time{}
	}
	return time.UnixMilli(p.GetDeliverByMs())
}

// expires is when the mail is given up.
func (j *job) expires() time.Time {
	at := j.claim.Expires
	if at.IsZero() {
		at = j.begins().Add(j.plan.Expire)
	}
	if by := j.deliverBy("R"); !by.IsZero() && by.Before(at) {
		return by
	}
	return at
}

// late tells whether the mail must not be delivered any more, and what its
// sender hears then (RFC 2852 section 4.1.5). A mail that expires in any other
// way still gets its one attempt.
func (j *job) late(last *queue.Attempt) *queue.Attempt {
	by := j.deliverBy("R")
	if by.IsZero() || j.Clock().Before(by) {
		return nil
	}
	a := reply(550, "5.4.7", "Not delivered by "+by.UTC().Format(time.RFC3339)+", as the sender wanted it")
	if last != nil {
		a.Text += "; " + lastAnswer(last)
	}
	return a
}

// lastAnswer quotes a peer in what we say ourselves.
func lastAnswer(a *queue.Attempt) string {
	of := ""
	if a.RemoteMTA != "" {
		of = " of " + a.RemoteMTA
	}
	return fmt.Sprintf("last answer%s: %d %s", of, a.Code, a.Text)
}

// noticeAt is when the sender hears that the mail is delayed; zero: never. Who
// said with BY when that matters hears of it then, and not before.
func (j *job) noticeAt() time.Time {
	if by := j.deliverBy("N"); !by.IsZero() {
		return by
	}
	if j.plan.DelayNotice <= 0 {
		return time.Time{}
	}
	return j.begins().Add(j.plan.DelayNotice)
}

func success(word string) bool { return strings.EqualFold(word, "SUCCESS") }

// expanded tells whether a recipient became several others, and its sender asked
// to hear of that.
func expanded(r *queue.Recipient, c *queue.Change) bool {
	if c.Reason != aliased && c.Reason != redirected || !slices.ContainsFunc(r.Notify, success) {
		return false
	}
	targets := 0
	for _, a := range c.Add {
		if !strings.HasPrefix(a.Reason, copyOf) {
			targets++
		}
	}
	return targets > 1
}

// Reasons of recipients that became others.
const aliased, redirected = "alias", "redirected"
