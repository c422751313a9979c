package dispatch

import (
	"slices"
	"strings"

	"github.com/stagecoach-mta/stagecoach/core/filter"
	"github.com/stagecoach-mta/stagecoach/core/queue"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// madeAt marks a waiting recipient for whom filters of a stage made messages or
// recipients already, so that they are not made again at the next attempt. It is
// no count of attempts that decides: one that ended before the filter could answer
// made nothing, and a mail that a filter forwards would be lost.
const madeAt = "a filter made further mail at "

// addedAt marks a recipient that a filter added after the queue.
const addedAt = "added by a filter at "

// madeStages are those that r's mark names.
func madeStages(r *queue.Recipient) []string {
	stages, _ := strings.CutPrefix(r.Reason, madeAt)
	if stages == r.Reason {
		return nil
	}
	return strings.Fields(stages)
}

// made tells whether the stage's additions for r are there. A release takes the
// mark's place; then a first attempt is taken to have made them.
func made(r *queue.Recipient, event v1.FilterEvent) bool {
	return r.Reason == queue.Released && r.Attempts > 0 || slices.Contains(madeStages(r), event.String())
}

// once takes what a stage added into the change of the group's first recipient,
// unless it was taken at an earlier attempt.
func (j *job) once(g *group, asking []*queue.Recipient, event v1.FilterEvent, asked *v1.Envelope, out *filter.Outcome) {
	if !slices.ContainsFunc(asking, func(r *queue.Recipient) bool { return !made(r, event) }) {
		filter.Discard(out.Inject)
		return
	}
	first := asking[0]
	some := len(out.Inject) > 0
	g.inject = append(g.inject, out.Inject...)
	mark := addedAt + g.route + " " + g.ref
	last := filter.NextIndex(asked.GetRecipients())
	if j.descends(first, mark) {
		last = filter.NextIndex(out.Envelope.GetRecipients()) // a filter's own recipient comes to the same filter
	}
	for _, r := range out.Envelope.GetRecipients() {
		if r.GetIndex() < last {
			continue
		}
		some = true
		add(&g.pending, first.Index, &queue.Recipient{
			Address: r.GetAddress(), Original: r.GetOriginalRecipient(), Notify: r.GetNotify(), Reason: mark,
		})
	}
	if some {
		g.made = append(g.made, event.String())
	}
}

// mark has recipients that wait remember what was made for them.
func (j *job) mark(g *group, changes []queue.Change) {
	for i := range changes {
		c := &changes[i]
		if c.State != queue.Waiting {
			continue
		}
		var stages []string
		if r := j.recipient(c.Index); r != nil {
			stages = slices.Clone(madeStages(r))
		}
		if !g.parked {
			stages = append(stages, g.made...)
		}
		if len(stages) > 0 {
			slices.Sort(stages)
			c.Reason = madeAt + strings.Join(slices.Compact(stages), " ")
		}
	}
}
