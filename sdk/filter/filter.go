// Package filter is what a filter plugin implements: it is asked at the moments
// of a mail's life that it declared, and answers with a verdict, tags and, if it
// declared to edit, edits. filter.proto documents the fields.
package filter

import (
	"context"

	"github.com/stagecoach-mta/stagecoach/sdk/mail"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// Filter is asked concurrently, once for every event that it declared. An error
// is not a verdict: the operator's on_failure decides (defer, accept or hold).
// ctx carries the operator's time-out.
type Filter interface {
	Filter(ctx context.Context, ev *Event) (*Verdict, error)
}

// Event is one question. Its memory is the filter's until Filter returns.
type Event struct {
	// Kind is the moment: v1.FilterEvent_MESSAGE and so on.
	Kind v1.FilterEvent
	// Envelope as known so far; never nil.
	Envelope *v1.Envelope
	// Recipient is the one concerned by RCPT and RCPT_REJECTED, else nil.
	Recipient *v1.Recipient
	// Header holds the fields asked for, in the message's order.
	Header mail.Header
	// Message is nil unless the filter declared Body FULL.
	Message *mail.Message
	// Results for RESULT and RCPT_REJECTED.
	Results []*v1.RecipientResult
	// Authenticated, for AUTH.
	Authenticated bool
	// Observations for OBSERVE, in the order of their sequence; Envelope is then
	// empty. An error has them told again.
	Observations []*v1.Observation
	// IdempotencyKey is the same when the question is repeated after a crash.
	IdempotencyKey string
}
