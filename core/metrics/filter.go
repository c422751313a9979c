package metrics

import (
	"context"
	"strings"
	"time"

	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
	"github.com/stagecoach-mta/stagecoach/sdk/stream"
)

// filterCaller counts a filter's answers, and how long they took.
type filterCaller struct {
	stream.Caller
	meters *Meters
	name   string
}

var _ stream.Caller = (*filterCaller)(nil)

func (f *filterCaller) Call(ctx context.Context, call *v1.Call) (*v1.Reply, error) {
	begin := time.Now()
	reply, err := f.Caller.Call(ctx, call)
	event := eventWords[call.GetFilter().GetEvent()]
	f.meters.filterTime.observe(f.meters.filterTime.with(f.name, event), time.Since(begin))
	verdict := "failed"
	if r := reply.GetFilter(); err == nil && r != nil {
		verdict = actionWords[r.GetVerdict().GetAction()]
	}
	f.meters.verdicts.with(f.name, event, verdict).add(1)
	return reply, err
}

// The labels of events and verdicts: the contract's names in lower case, made once.
var (
	eventWords  = words[v1.FilterEvent](v1.FilterEvent_name)
	actionWords = words[v1.Verdict_Action](v1.Verdict_Action_name)
)

func words[E ~int32](names map[int32]string) map[E]string {
	out := make(map[E]string, len(names))
	for n, name := range names {
		out[E(n)] = strings.ToLower(name)
	}
	return out
}
