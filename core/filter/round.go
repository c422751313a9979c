package filter

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/stagecoach-mta/stagecoach/sdk/fail"
	"github.com/stagecoach-mta/stagecoach/sdk/mail"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// answer of one member within a round.
type answer struct {
	member *Member
	reply  *v1.FilterReply
	err    error
	took   time.Duration
}

// asking is a member that is to be asked, and what.
type asking struct {
	at     int // among those asked
	member *Member
	call   *v1.Call
}

// round asks its members at the same time and folds the answers in their order.
// done tells that nobody after it is to be asked.
func (c Chain) round(ctx context.Context, ed Editing, q Question, out *Outcome) (done bool, err error) {
	asked, err := c.questions(ctx, ed, q, out)
	if err != nil || len(asked) == 0 {
		return false, err
	}
	for _, a := range askAll(ctx, asked) {
		if a.member == nil {
			continue // somebody ended the round before it answered
		}
		stop, err := out.fold(ed, a)
		if err != nil {
			return false, err
		}
		done = done || stop
	}
	return done, nil
}

// questions are those whose answers are waited for; observers have theirs already then.
func (c Chain) questions(ctx context.Context, ed Editing, q Question, out *Outcome) ([]asking, error) {
	var (
		asked = make([]asking, 0, len(c))
		key   = q.Key + "/" + q.Event.String() + "/"
		// Neighbours often want the same fields.
		names  []string
		fields mail.Header
		read   bool
	)
	for i := range c {
		m := &c[i]
		if !m.wants(q.Event) || tooLarge(m, out.Body) {
			continue
		}
		fc := &v1.FilterCall{
			Event:          q.Event,
			Envelope:       out.Envelope,
			Recipient:      q.Recipient,
			Results:        q.Results,
			Authenticated:  q.Authenticated,
			IdempotencyKey: key + m.Name,
		}
		// What it did not ask for stays out.
		interest := m.Interest()
		if out.Body != nil && interest.GetBody() != v1.FilterInterest_NONE {
			if want := interest.GetHeaderNames(); !read || !slices.Equal(names, want) {
				var err error
				if fields, err = ed.Fields(out.Body, want); err != nil {
					return nil, fmt.Errorf("read header for %s: %w", m.Name, err)
				}
				names, read = want, true
			}
			fc.Header = fields
			if interest.GetBody() == v1.FilterInterest_FULL {
				fc.Message = out.Body.Message().Ref()
			}
		}
		call := &v1.Call{Request: &v1.Call_Filter{Filter: fc}}
		if interest.GetEffect() == v1.FilterInterest_OBSERVE_ONLY {
			if err := out.observe(ctx, ed, m, call); err != nil {
				out.Trace = append(out.Trace, Step{Filter: m.Name, Failed: err.Error()})
			}
			continue
		}
		asked = append(asked, asking{len(asked), m, call})
	}
	return asked, nil
}

// askAll asks them at the same time, the last one itself, and returns their answers in
// their order. When one ends the round, those that have not answered yet are given
// up: theirs have no member.
func askAll(ctx context.Context, asked []asking) []answer {
	// One timer for all that have the same time, which is the rule.
	longest := time.Duration(0)
	for _, a := range asked {
		longest = max(longest, a.member.timeout())
	}
	ctx, cancel := context.WithTimeout(ctx, longest)
	defer cancel()
	var over atomic.Bool
	one := func(a asking) answer {
		got := a.member.ask(ctx, a.call, longest)
		switch {
		case ends(got.reply.GetVerdict().GetAction()):
			over.Store(true)
			cancel()
		case got.err != nil && over.Load():
			return answer{} // given up
		}
		return got
	}
	type numbered struct {
		at  int
		got answer
	}
	last := len(asked) - 1
	answers := make(chan numbered, last)
	for _, a := range asked[:last] {
		callers.do(func() { answers <- numbered{a.at, one(a)} })
	}
	out := make([]answer, len(asked))
	got := numbered{last, one(asked[last])}
	for n := 0; ; n++ {
		out[got.at] = got.got
		if n == last || ends(got.got.reply.GetVerdict().GetAction()) {
			return out
		}
		got = <-answers
	}
}

// ask is one question. The context has the time of the longest question beside it.
func (m *Member) ask(ctx context.Context, call *v1.Call, longest time.Duration) answer {
	begin := time.Now()
	if own := m.timeout(); own < longest {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, own)
		defer cancel()
	}
	reply, err := m.Caller.Call(ctx, call)
	a := answer{member: m, err: err, took: time.Since(begin)}
	if err == nil {
		if a.reply = reply.GetFilter(); a.reply == nil {
			a.err = fail.New(fail.Internal, "answered something that is not a filter's reply")
		}
	}
	return a
}
