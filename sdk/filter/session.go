package filter

import (
	"context"

	"github.com/stagecoach-mta/stagecoach/sdk/fail"
	"github.com/stagecoach-mta/stagecoach/sdk/mail"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
	"github.com/stagecoach-mta/stagecoach/sdk/stream"
)

// Handler answers a session's calls with f. A nil verdict without an error
// accepts.
func Handler(f Filter) stream.Handler {
	return func(ctx context.Context, call *v1.Call, _ func(*v1.Reply) error) (*v1.Reply, error) {
		req := call.GetFilter()
		if req == nil {
			return nil, fail.New(fail.Unsupported, "this plugin is a filter: the call is for another kind")
		}
		v, err := f.Filter(ctx, NewEvent(req))
		if err != nil {
			return nil, err
		}
		if v == nil {
			v = Accept()
		}
		return &v1.Reply{Response: &v1.Reply_Filter{Filter: v.Reply()}}, nil
	}
}

// NewEvent makes an Event of the contract's form.
func NewEvent(req *v1.FilterCall) *Event {
	ev := &Event{
		Kind: req.GetEvent(), Envelope: req.GetEnvelope(), Header: req.GetHeader(), Results: req.GetResults(),
		Authenticated: req.GetAuthenticated(), IdempotencyKey: req.GetIdempotencyKey(),
		Observations: req.GetObservations(),
	}
	if ev.Envelope == nil {
		ev.Envelope = &v1.Envelope{}
	}
	if req.GetMessage() != nil {
		ev.Message = mail.FromRef(req.GetMessage())
	}
	switch ev.Kind {
	case v1.FilterEvent_RCPT, v1.FilterEvent_RCPT_REJECTED:
		for _, r := range ev.Envelope.GetRecipients() {
			if r.GetIndex() == req.GetRecipient() {
				ev.Recipient = r
			}
		}
	}
	return ev
}

// Func makes a Filter of a function.
type Func func(ctx context.Context, ev *Event) (*Verdict, error)

// Filter implements Filter.
func (f Func) Filter(ctx context.Context, ev *Event) (*Verdict, error) { return f(ctx, ev) }
