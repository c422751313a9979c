package deliver

import (
	"context"

	"github.com/stagecoach-mta/stagecoach/sdk/fail"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
	"github.com/stagecoach-mta/stagecoach/sdk/stream"
)

// Handler answers a session's calls with d.
func Handler(d Deliverer) stream.Handler {
	return func(ctx context.Context, call *v1.Call, _ func(*v1.Reply) error) (*v1.Reply, error) {
		req := call.GetDeliver()
		if req == nil {
			return nil, fail.New(fail.Unsupported, "this plugin delivers: the call is for another kind")
		}
		r, err := d.Deliver(ctx, req)
		if err != nil {
			return nil, err
		}
		return &v1.Reply{Response: &v1.Reply_Deliver{Deliver: r}}, nil
	}
}

// NewClient makes a Deliverer of the calling end of a session to one.
func NewClient(c stream.Caller) Deliverer { return &client{c} }

type client struct{ c stream.Caller }

var _ Deliverer = (*client)(nil)

// Deliver implements Deliverer.
func (d *client) Deliver(ctx context.Context, req *v1.DeliverCall) (*v1.DeliverReply, error) {
	r, err := d.c.Call(ctx, &v1.Call{Request: &v1.Call_Deliver{Deliver: req}})
	if err != nil {
		return nil, err
	}
	if r.GetDeliver() == nil {
		return nil, fail.New(fail.Internal, "the delivery plugin sent no answer")
	}
	return r.GetDeliver(), nil
}
