package metrics

import (
	"context"
	"strings"

	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
	"github.com/stagecoach-mta/stagecoach/sdk/stream"
)

// filterCaller counts a filter's answers. How long they took is the plugin
// host's to know.
type filterCaller struct {
	stream.Caller
	meters *Meters
	name   string
}

var _ stream.Caller = (*filterCaller)(nil)

func (f *filterCaller) Call(ctx context.Context, call *v1.Call) (*v1.Reply, error) {
	reply, err := f.Caller.Call(ctx, call)
	verdict := "failed"
	if r := reply.GetFilter(); err == nil && r != nil {
		verdict = enumWord(r.GetVerdict().GetAction().String())
	}
	f.meters.verdicts.with(f.name, enumWord(call.GetFilter().GetEvent().String()), verdict).add(1)
	return reply, err
}

func enumWord(s string) string { return strings.ToLower(s) }
