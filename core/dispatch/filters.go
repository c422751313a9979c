package dispatch

import (
	"context"
	"slices"
	"time"

	"github.com/stagecoach-mta/stagecoach/core/deliver"
	"github.com/stagecoach-mta/stagecoach/core/filter"
	"github.com/stagecoach-mta/stagecoach/core/queue"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// filter asks a stage's filters about the job's recipients. It narrows the job
// to those that go on and returns the changes of the others. Edits and hints
// hold for this attempt: the queued message stays what was received. What is
// made only once, recipients and messages that a filter adds, is made at the
// first attempt at which the stage answers with any (see once).
func (j *job) filter(ctx context.Context, g *group, work *deliver.Job, event v1.FilterEvent, chain filter.Chain) ([]queue.Change, error) {
	if !chain.Wants(event) {
		return nil, nil
	}
	asked := work.Contract()
	out, err := chain.Run(ctx, j.plan.Editing, filter.Question{
		Event: event, Envelope: asked, Recipient: -1, Body: work.Body, Key: work.Key,
	})
	if err != nil {
		return nil, err
	}
	for _, s := range out.Trace {
		j.log.Info().Str("filter", s.Filter).Stringer("verdict", s.Verdict).Float64("score", s.Score).Dur("took", s.Took).
			Strs("edits", s.Edits).Str("failed", s.Failed).Str("note", s.Note).Stringer("stage", event).Msg("filtered")
	}
	g.notes = append(g.notes, filter.Notes(event, out.Trace)...)
	if work.Body != out.Body && work.Body != j.body {
		work.Body.Discard() // as the stage before had edited it
	}
	work.Body = out.Body
	env := *work.Envelope
	env.Sender, env.Tags, env.Hints = out.Envelope.GetSender(), out.Envelope.GetTags(), filter.MergeHints(env.Hints, out.Hints)
	work.Envelope = &env
	j.once(g, work.Recipients, event, asked, out)
	work.Placements = out.Placements

	var changes []queue.Change
	work.Recipients = slices.DeleteFunc(slices.Clone(work.Recipients), func(r *queue.Recipient) bool {
		c := j.stays(r, out)
		if c == nil {
			return false
		}
		changes = append(changes, *c)
		return true
	})
	return changes, nil
}

// stays is what a stage made of a recipient; nil if it goes on to its delivery.
func (j *job) stays(r *queue.Recipient, out *filter.Outcome) *queue.Change {
	v, by := out.Verdict, out.By
	if own, ok := out.PerRecipient[r.Index]; ok && v.GetAction() == v1.Verdict_ACCEPT {
		v, by = own, out.ByRecipient[r.Index]
	}
	if c := j.verdict(r, v, by); c != nil {
		return c
	}
	if !slices.ContainsFunc(out.Envelope.GetRecipients(), func(have *v1.Recipient) bool { return have.GetIndex() == r.Index }) {
		return j.ends(r, queue.Discarded, "", "removed by a filter")
	}
	if at := out.Hints.GetNotBeforeMs(); at > j.Clock().UnixMilli() {
		return &queue.Change{Index: r.Index, State: queue.Waiting, Next: time.UnixMilli(at), Reason: "not before, says a filter"}
	}
	return nil
}

// injected are a filter's messages as the queue takes them.
func (j *job) injected(in []filter.Injected) []*queue.NewMessage {
	var out []*queue.NewMessage
	for _, m := range in {
		env := &queue.Envelope{
			Received: j.Clock(), Sender: m.Sender, Origin: m.By, Size: m.Body.Size(), Client: j.claim.Client, Parameters: &v1.MailParameters{},
		}
		for i, r := range m.Recipients {
			env.Recipients = append(env.Recipients, &queue.Recipient{Index: int32(i), Address: r.GetAddress(), Notify: r.GetNotify(), Parent: -1})
		}
		out = append(out, &queue.NewMessage{Envelope: env, Body: m.Body})
	}
	return out
}

// results tells the group's filters what became of its recipients. Nobody waits
// for them, unless so many are being told that this one has to.
func (j *job) results(ctx context.Context, g *group, changes []queue.Change) {
	chain := slices.Concat(j.plan.RouteFilters[g.route], j.plan.DeliverFilters[g.ref])
	if !chain.Wants(v1.FilterEvent_RESULT) {
		return
	}
	work := &deliver.Job{Envelope: j.claim.Envelope, Key: j.claim.ID + "/" + g.ref}
	var results []*v1.RecipientResult
	for i := range changes {
		c := &changes[i]
		state, told := resultWord[c.State]
		if !told || c.Attempt == nil {
			continue
		}
		work.Recipients = append(work.Recipients, j.recipient(c.Index))
		results = append(results, &v1.RecipientResult{
			Recipient: c.Index, State: state, RemoteMta: c.Attempt.RemoteMTA,
			Reply: &v1.SMTPReply{Code: int32(c.Attempt.Code), Enhanced: c.Attempt.Enhanced, Text: c.Attempt.Text},
		})
	}
	if len(results) == 0 {
		return
	}
	q := filter.Question{Event: v1.FilterEvent_RESULT, Envelope: work.Contract(), Recipient: -1, Results: results, Key: work.Key}
	tell := func() {
		out, err := chain.Run(ctx, j.plan.Editing, q)
		if err == nil {
			filter.Discard(out.Inject)
		}
	}
	select {
	case j.telling <- struct{}{}:
		j.jobs.Go(func() {
			defer func() { <-j.telling }()
			tell()
		})
	default:
		tell()
	}
}

// resultWord are the states of RESULT.
var resultWord = map[queue.State]string{queue.Delivered: "delivered", queue.Waiting: "deferred", queue.Failed: "failed"}

// verdict after the queue: a rejection is a failed delivery, a deferral waits.
func (j *job) verdict(r *queue.Recipient, v *v1.Verdict, by string) *queue.Change {
	said := v.GetReply()
	switch v.GetAction() {
	case v1.Verdict_REJECT, v1.Verdict_DISCONNECT:
		return j.fails(r, reply(code(said, 550), enhanced(said, "5.7.1"), text(said, "Refused by "+by)))
	case v1.Verdict_DEFER:
		return j.later(r, reply(code(said, 451), enhanced(said, "4.7.1"), text(said, "Deferred by "+by)))
	case v1.Verdict_DISCARD:
		return j.ends(r, queue.Discarded, "", "discarded by "+by)
	case v1.Verdict_HOLD:
		if r.Reason == queue.Released {
			return nil // an operator has looked at it
		}
		return j.ends(r, queue.Held, "", v.GetReason())
	}
	return nil
}

func code(r *v1.SMTPReply, otherwise int) int {
	if r.GetCode() != 0 {
		return int(r.GetCode())
	}
	return otherwise
}

func enhanced(r *v1.SMTPReply, otherwise string) string {
	if r.GetEnhanced() != "" {
		return r.GetEnhanced()
	}
	return otherwise
}

func text(r *v1.SMTPReply, otherwise string) string {
	if r.GetText() != "" {
		return r.GetText()
	}
	return otherwise
}
