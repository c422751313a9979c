package dispatch

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stagecoach-mta/stagecoach/core/queue"
)

// overtaken gives the commit that gives the lease back every chance to be
// quicker than the one before it.
type overtaken struct {
	queue.Queue
	entered atomic.Int32
	last    chan struct{}
	early   atomic.Bool
}

func (q *overtaken) Commit(ctx context.Context, c *queue.Claim, changes []queue.Change, keep bool) error {
	if keep {
		q.entered.Add(1)
		select {
		case <-q.last:
			q.early.Store(true)
		case <-time.After(50 * time.Millisecond):
		}
		return q.Queue.Commit(ctx, c, changes, keep)
	}
	select {
	case q.last <- struct{}{}:
	default:
	}
	return q.Queue.Commit(ctx, c, changes, keep)
}

// Two groups of one mail are done at the same time: the one that ends the lease
// must not take the other's result away, or that is delivered again.
func TestLastResultDoesNotOvertake(t *testing.T) {
	r := newRig(t, twoRoutes)
	q := &overtaken{Queue: r.q, last: make(chan struct{})}
	r.d.Queue = q
	id := r.put("tom@hanks.example", "meg@ryan.example", "annie@reed.example")
	r.round()
	r.gone(id)
	if q.early.Load() || q.entered.Load() != 1 {
		t.Errorf("the lease was given back while a result was under way (%d)", q.entered.Load())
	}
	if r.here.times("meg@ryan.example") != 1 || r.away.times("annie@reed.example") != 1 {
		t.Errorf("delivered: here %v, away %v", r.here.got, r.away.got)
	}
}
