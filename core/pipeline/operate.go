package pipeline

import (
	"context"
	"time"

	"github.com/stagecoach-mta/stagecoach/core/dispatch"
	"github.com/stagecoach-mta/stagecoach/core/queue"
	"github.com/stagecoach-mta/stagecoach/core/spool"
)

// Operate is queue.Queue's, and tells senders of mail that an operator bounces, or
// redirects to several if they wanted to hear of its success.
func (p *Pipeline) Operate(ctx context.Context, id string, op queue.Operation) error {
	if op.Kind == queue.Fail || op.Kind == queue.Redirect && len(op.To) > 1 {
		op.Notice = p.notice
	}
	return p.queue.Operate(ctx, id, op)
}

func (p *Pipeline) notice(env *queue.Envelope, body spool.Body, changes []queue.Change) ([]*queue.NewMessage, error) {
	var about []dispatch.Reported
	for i := range changes {
		for _, r := range env.Recipients {
			if r.Index == changes[i].Index {
				about = append(about, dispatch.Reported{Recipient: r, State: changes[i].State, Attempt: changes[i].Attempt})
			}
		}
	}
	m, err := p.plan.Load().Reports.Report(env, body, about)
	if m == nil || err != nil {
		return nil, err
	}
	return []*queue.NewMessage{m}, nil
}

// Trace tells what the mail journal knows of an id, a Message-ID or an address.
func (p *Pipeline) Trace(ctx context.Context, name string, since time.Time, most int) (*queue.Trace, error) {
	return p.queue.Trace(ctx, name, since, most)
}

// Revive forgets which destinations were dead.
func (p *Pipeline) Revive() { p.dispatcher.Revive() }

// Breakdown tells what is in the queue.
func (p *Pipeline) Breakdown(ctx context.Context, f queue.Filter, top int, exact bool) (*queue.Breakdown, error) {
	return p.queue.Breakdown(ctx, f, top, exact)
}
