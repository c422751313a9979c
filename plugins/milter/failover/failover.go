// Package failover asks servers that can stand in for each other: in their order,
// those last that failed a moment ago.
package failover

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"
)

// avoided is how long a server that failed is asked last.
const avoided = 10 * time.Second

// Record is what a server has of its last failure; embed it.
type Record struct {
	failed atomic.Int64 // when, in Unix milliseconds
}

func (r *Record) record() *Record { return r }

// Server is asked; its text is for people.
type Server interface {
	fmt.Stringer
	record() *Record
}

// Ask asks one server after the other until one answers. Whoever is asked when ctx
// ends is not to blame for that.
func Ask[S Server, A any](ctx context.Context, servers []S, ask func(S) (A, error)) (answer A, err error) {
	var errs []error
	for _, s := range order(servers, time.Now()) {
		if answer, err = ask(s); err == nil {
			s.record().failed.Store(0)
			return answer, nil
		}
		errs = append(errs, fmt.Errorf("%s: %w", s, err))
		if ctx.Err() != nil {
			break
		}
		s.record().failed.Store(time.Now().UnixMilli())
	}
	var none A
	return none, errors.Join(errs...)
}

func order[S Server](servers []S, now time.Time) []S {
	out := slices.Clone(servers)
	rank := func(s S) int {
		if now.UnixMilli()-s.record().failed.Load() < avoided.Milliseconds() {
			return 1
		}
		return 0
	}
	slices.SortStableFunc(out, func(a, b S) int { return cmp.Compare(rank(a), rank(b)) })
	return out
}
