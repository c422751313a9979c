package deliver

import (
	"context"
	"time"

	"github.com/stagecoach-mta/stagecoach/sdk/deliver"
	"github.com/stagecoach-mta/stagecoach/sdk/fail"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// Plugin delivers through a plugin of the deliver kind.
type Plugin struct {
	To      deliver.Deliverer
	Timeout time.Duration
}

var _ Transport = (*Plugin)(nil)

// Deliver makes one call for all of the job's recipients.
func (p *Plugin) Deliver(ctx context.Context, job *Job) []Outcome {
	if p.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, p.Timeout)
		defer cancel()
	}
	reply, err := p.To.Deliver(ctx, &v1.DeliverCall{
		Envelope: job.Contract(), Message: job.Body.Message().Ref(), IdempotencyKey: job.Key,
	})
	if err != nil {
		return job.all(func(i int32) Outcome { return failed(i, err, "") })
	}
	said := make(map[int32]*v1.DeliverOutcome, len(reply.GetOutcomes()))
	for _, o := range reply.GetOutcomes() {
		said[o.GetRecipient()] = o
	}
	return job.all(func(i int32) Outcome {
		o, ok := said[i]
		if !ok {
			return failed(i, fail.New(fail.Internal, "the plugin said nothing of this recipient"), "")
		}
		out := replied(i, o.GetReply(), o.GetRemoteMta())
		out.RetryAfter = time.Duration(o.GetRetryAfterMs()) * time.Millisecond
		return out
	})
}

// Close does nothing: the process is the host's.
func (p *Plugin) Close() error { return nil }

// Destination is one for all.
func (p *Plugin) Destination(string) string { return "" }
