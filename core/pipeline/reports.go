package pipeline

import (
	"time"

	"github.com/stagecoach-mta/stagecoach/core/dispatch"
	"github.com/stagecoach-mta/stagecoach/core/dsn"
	"github.com/stagecoach-mta/stagecoach/core/queue"
	"github.com/stagecoach-mta/stagecoach/core/spool"
)

// reports makes delivery status notifications in this server's name.
type reports struct{ hostname string }

var _ dispatch.Reporter = (*reports)(nil)

// Report tells what became of recipients; nil when nobody asked to be told.
func (r *reports) Report(env *queue.Envelope, body spool.Body, about []dispatch.Reported) (*queue.NewMessage, error) {
	rep := dsn.Report{Hostname: r.hostname, Envelope: env, Body: body, Now: time.Now()}
	for _, a := range about {
		rep.Action = action(a)
		rep.Recipients = append(rep.Recipients, dsn.Recipient{Recipient: a.Recipient, Attempt: a.Attempt, RetryUntil: a.RetryUntil})
	}
	return dsn.Build(rep)
}

func action(a dispatch.Reported) dsn.Action {
	switch a.State {
	case queue.Failed:
		return dsn.Failed
	case queue.Waiting:
		return dsn.Delayed
	case queue.Expanded:
		return dsn.Expanded
	}
	if a.Relayed {
		return dsn.Relayed
	}
	return dsn.Delivered
}
