package command

import (
	"context"
	"time"

	"github.com/stagecoach-mta/stagecoach/core/queue"
)

// Operate for the admin socket.
func (s *running) Operate(ctx context.Context, id string, op queue.Operation) error {
	return s.pipeline.Operate(ctx, id, op)
}

// Trace for the admin socket.
func (s *running) Trace(ctx context.Context, name string, since time.Time, most int) (*queue.Trace, error) {
	return s.pipeline.Trace(ctx, name, since, most)
}

// Revive for the admin socket.
func (s *running) Revive() { s.pipeline.Revive() }

// Breakdown for the admin socket.
func (s *running) Breakdown(ctx context.Context, f queue.Filter, top int, exact bool) (*queue.Breakdown, error) {
	return s.pipeline.Breakdown(ctx, f, top, exact)
}
