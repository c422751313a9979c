package pipeline

import (
	"github.com/stagecoach-mta/stagecoach/core/dispatch"
	"github.com/stagecoach-mta/stagecoach/core/queue"
	"github.com/stagecoach-mta/stagecoach/core/spool"
)

type reports struct{ spool *spool.Dir }

func (r *reports) Report(env *queue.Envelope, body spool.Body, about []dispatch.Reported) (*queue.NewMessage, error) {
	return nil, nil
}
