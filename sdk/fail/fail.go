// Package fail holds the one error type whose kind survives the plugin boundary.
// It is not a place for texts that only a log reads: those are plain errors.
package fail

import (
	"context"
	"errors"
	"fmt"

	pluginv1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// Kind says what sort of failure an Error is, and so what the caller may do.
type Kind = pluginv1.Problem_Kind

// The kinds; their meaning is documented in common.proto.
const (
	Internal    = pluginv1.Problem_INTERNAL
	Invalid     = pluginv1.Problem_INVALID
	NotFound    = pluginv1.Problem_NOT_FOUND
	Exists      = pluginv1.Problem_EXISTS
	Denied      = pluginv1.Problem_DENIED
	Unavailable = pluginv1.Problem_UNAVAILABLE
	OverQuota   = pluginv1.Problem_OVER_QUOTA
	TooLarge    = pluginv1.Problem_TOO_LARGE
	Unsupported = pluginv1.Problem_UNSUPPORTED
	Conflict    = pluginv1.Problem_CONFLICT
	Deadline    = pluginv1.Problem_DEADLINE
	Cancelled   = pluginv1.Problem_CANCELLED
	NoSpace     = pluginv1.Problem_NO_SPACE
)

// Error is a failure with its kind and, where the failing side wants certain
// words said to an SMTP client, the reply.
type Error struct {
	// Kind decides what the caller does, and what an SMTP client is told.
	Kind Kind
	// Text says what went wrong, for the operator's log.
	Text string
	// Reply in place of the kind's own; nil: the kind's (see Reply).
	Reply *pluginv1.SMTPReply
	// Cause stays on this side of the boundary; its text goes over.
	Cause error
}

func (e *Error) Error() string {
	if e.Cause != nil {
		return e.Text + ": " + e.Cause.Error()
	}
	return e.Text
}

func (e *Error) Unwrap() error { return e.Cause }

// New makes an error of the kind; the format is fmt.Sprintf's.
func New(kind Kind, format string, args ...any) *Error {
	return &Error{Kind: kind, Text: fmt.Sprintf(format, args...)}
}

// Wrap gives cause a kind; text says what was being done.
func Wrap(kind Kind, cause error, text string) *Error {
	return &Error{Kind: kind, Text: text, Cause: cause}
}

// KindOf tells the kind of any error: Internal for one that has none, Deadline
// and Cancelled for the context's.
func KindOf(err error) Kind {
	var e *Error
	switch {
	case errors.As(err, &e):
		return e.Kind
	case errors.Is(err, context.DeadlineExceeded):
		return Deadline
	case errors.Is(err, context.Canceled):
		return Cancelled
	}
	return Internal
}

// Is tells whether err is of that kind.
func Is(err error, kind Kind) bool { return err != nil && KindOf(err) == kind }

// Temporary tells whether the same request may succeed later.
func Temporary(err error) bool {
	switch KindOf(err) {
	case Internal, Unavailable, Deadline, Cancelled, NoSpace, Conflict:
		return true
	}
	return false
}

// ToProblem makes the wire form of err.
func ToProblem(err error) *pluginv1.Problem {
	p := &pluginv1.Problem{Kind: KindOf(err), Text: err.Error()}
	var e *Error
	if errors.As(err, &e) {
		p.Reply = e.Reply
	}
	return p
}

// FromProblem makes an error of the wire form; nil for nil.
func FromProblem(p *pluginv1.Problem) error {
	if p == nil {
		return nil
	}
	return &Error{Kind: p.GetKind(), Text: p.GetText(), Reply: p.GetReply()}
}

// Reply maps err to what an SMTP client is told: the failing side's own words,
// or the kind's row in the table below.
func Reply(err error) *pluginv1.SMTPReply {
	var e *Error
	if errors.As(err, &e) && e.Reply != nil {
		return e.Reply
	}
	r, ok := replies[KindOf(err)]
	if !ok {
		r = replies[Internal]
	}
	return &pluginv1.SMTPReply{Code: r.code, Enhanced: r.enhanced, Text: r.text}
}

// replies is the one table from kind to SMTP reply (RFC 5321, RFC 3463).
var replies = map[Kind]struct {
	code     int32
	enhanced string
	text     string
}{
	Internal:    {451, "4.3.0", "Internal error, try again later"},
	Invalid:     {554, "5.6.0", "Message not acceptable"},
	NotFound:    {550, "5.1.1", "No such user here"},
	Exists:      {554, "5.3.0", "Already exists"},
	Denied:      {550, "5.7.1", "Not permitted"},
	Unavailable: {451, "4.3.2", "Service not available, try again later"},
	OverQuota:   {452, "4.2.2", "Mailbox full"},
	TooLarge:    {552, "5.3.4", "Message too big"},
	Unsupported: {554, "5.3.3", "Not supported"},
	Conflict:    {451, "4.3.0", "Changed meanwhile, try again"},
	Deadline:    {451, "4.4.7", "Timed out, try again later"},
	Cancelled:   {451, "4.3.2", "Cancelled, try again later"},
	NoSpace:     {452, "4.3.1", "Insufficient storage"},
}
