package command

import (
	"context"

	"github.com/stagecoach-mta/stagecoach/core/queue"
)

// Operate for the admin socket.
func (s *running) Operate(ctx context.Context, id string, op queue.Operation) error {
	return s.pipeline.Operate(ctx, id, op)
}

// Revive for the admin socket.
func (s *running) Revive() { s.pipeline.Revive() }

// Breakdown for the admin socket.
func (s *running) Breakdown(ctx context.Context, f queue.Filter, top int, exact bool) (*queue.Breakdown, error) {
	return s.pipeline.Breakdown(ctx, f, top, exact)
}
