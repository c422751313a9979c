// Package stream carries many calls over one bidirectional Session: frames with
// an id, deadlines, cancels and credits. It knows nothing of what is called.
package stream

import (
	"context"

	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// Caller is the calling end of a Session. It is safe for concurrent use.
type Caller interface {
	// Call sends one call and returns its only (last) reply. The context's
	// deadline travels along; its end sends a cancel frame. A Problem in the
	// reply comes back as *fail.Error; a broken session as fail.Unavailable.
	Call(ctx context.Context, call *v1.Call) (*v1.Reply, error)
	// Stream is Call for calls that answer more than once: each gets every
	// reply that carries a response, in order, until the last or its error.
	Stream(ctx context.Context, call *v1.Call, each func(*v1.Reply) error) error
}

// Handler is the serving end: it answers one call. send may be called before it
// returns, for replies with more=true; the returned reply (or error) is the last.
// Handlers run concurrently, one goroutine per call.
type Handler func(ctx context.Context, call *v1.Call, send func(*v1.Reply) error) (*v1.Reply, error)
