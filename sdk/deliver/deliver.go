// Package deliver is what a delivery plugin implements: a way out that the core
// does not have (a program, an API, a chat). deliver.proto documents the fields.
package deliver

import (
	"context"

	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// Deliverer hands messages over; it may be called concurrently. It answers with
// an outcome for every recipient. An error (or a crash) fails them all for now:
// the queue tries again, so a Deliverer that can be asked twice for the same
// idempotency key and recipient index delivers once. A *fail.Error of a kind that
// is for good (INVALID, TOO_LARGE, DENIED …) fails them for good. ctx has the
// block's time-out; after it the answer is lost.
type Deliverer interface {
	Deliver(ctx context.Context, req *v1.DeliverCall) (*v1.DeliverReply, error)
}
