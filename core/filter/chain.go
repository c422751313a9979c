// Package filter asks the filters of a stage, in the order and at the price that
// they declared, and folds their answers into one outcome. It does not know what
// a plugin process is: a member is a name and something to call.
package filter

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"time"

	"github.com/stagecoach-mta/stagecoach/core/message"
	"github.com/stagecoach-mta/stagecoach/core/spool"
	"github.com/stagecoach-mta/stagecoach/sdk/mail"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
	"github.com/stagecoach-mta/stagecoach/sdk/stream"
)

// What happens to the mail when a filter fails or is late.
const (
	OnFailureDefer  = "defer"
	OnFailureAccept = "accept"
	OnFailureHold   = "hold"
)

// DefaultTimeout of one call.
const DefaultTimeout = 30 * time.Second

// Member is one filter of a chain.
type Member struct {
	// Name is the instance: "filter.greylist.calm".
	Name   string
	Caller stream.Caller
	// Interest is asked each time: a reload may change it.
	Interest  func() *v1.FilterInterest
	OnFailure string
	Timeout   time.Duration
	// Dirs are where files lie that it may hand over: its own directory and the
	// spool.
	Dirs []string
	// Observing counts the questions to an observer that are under way; nil: any
	// number may be.
	Observing *atomic.Int32
}

// maxObserving questions wait for one observer; it is not asked more.
const maxObserving = 64

// wants tells whether the member asked for this event.
func (m *Member) wants(event v1.FilterEvent) bool {
	for _, e := range m.Interest().GetEvents() {
		if e == event {
			return true
		}
	}
	return false
}

// Chain is the filters of one stage as the operator wrote them.
type Chain []Member

// Wants tells whether anybody in the chain asked for this event.
func (c Chain) Wants(event v1.FilterEvent) bool {
	for i := range c {
		if c[i].wants(event) {
			return true
		}
	}
	return false
}

// Editing is what a chain needs of the message to show it and to change it.
type Editing interface {
	// Fields returns the header's fields, those of names only if there are any.
	Fields(body spool.Body, names []string) (mail.Header, error)
	// Apply returns a new body with the edits done; body stays as it is.
	Apply(body spool.Body, edits []*v1.Edit) (spool.Body, error)
	// Adopt copies what a plugin made, from its own directories only.
	Adopt(ref *v1.MessageRef, dirs []string) (spool.Body, error)
	// Keep gives a body that outlives the stage.
	Keep(body spool.Body) (spool.Body, error)
}

// Question is what a stage asks its chain.
type Question struct {
	Event     v1.FilterEvent
	Envelope  *v1.Envelope
	Recipient int32 // index, for RCPT; else -1
	Body      spool.Body
	Results   []*v1.RecipientResult
	// Authenticated, for AUTH.
	Authenticated bool
	// Key makes the idempotency key, together with event and member.
	Key string
}

// Outcome is what the chain said together.
type Outcome struct {
	// Verdict is never nil; its zero value accepts.
	Verdict *v1.Verdict
	// By names the filter that gave a verdict other than ACCEPT.
	By string
	// PerRecipient holds verdicts other than ACCEPT for single recipients.
	PerRecipient map[int32]*v1.Verdict
	// ByRecipient is who gave them.
	ByRecipient map[int32]string
	// Envelope with the edits done; the question's own stays as it was.
	Envelope *v1.Envelope
	// Body with the edits done: the question's, if nobody edited.
	Body   spool.Body
	Hints  *v1.RouteHints
	Inject []Injected
	// Placements of single recipients, for a storage.
	Placements map[int32][]Placed
	// Trace has a step for each filter asked, in the order of the chain.
	Trace []Step

	asked spool.Body // as the question had it
	event v1.FilterEvent
}

// Injected is a further message that a filter made. Whoever drops it discards
// its body.
type Injected struct {
	By         string
	Sender     string
	Recipients []*v1.Recipient
	Body       spool.Body
}

// Step is one filter's part in an outcome.
type Step struct {
	Filter  string
	Verdict v1.Verdict_Action
	Note    string
	Score   float64
	// Edits say in a few words what the filter changed, and of which recipients it
	// judged apart.
	Edits []string
	// Tags that it set.
	Tags map[string]*v1.Tag
	Took time.Duration
	// Failed is why the filter gave no answer; "" if it did.
	Failed string
}

// Run asks the chain. It returns an error only when the message itself could not
// be read or edited (a full disk): a filter's failure is an outcome.
//
// Judges that stand next to each other are asked at the same time; the first
// that rejects ends the round. An editor is asked after all before it, and sees
// what they changed.
func (c Chain) Run(ctx context.Context, ed Editing, q Question) (*Outcome, error) {
	out := &Outcome{Verdict: &v1.Verdict{}, Envelope: q.Envelope, Body: q.Body, asked: q.Body, event: q.Event}
	for at := 0; at < len(c); {
		next := at + 1
		if c[at].Interest().GetEffect() != v1.FilterInterest_EDIT {
			for next < len(c) && c[next].Interest().GetEffect() != v1.FilterInterest_EDIT {
				next++
			}
		}
		done, err := c[at:next].round(ctx, ed, q, out)
		if err != nil {
			return nil, err
		}
		if done {
			break
		}
		at = next
	}
	return out, nil
}

func tooLarge(m *Member, body spool.Body) bool {
	limit := m.Interest().GetMaxSize()
	return body != nil && limit > 0 && body.Size() > limit
}

// ends tells whether an action makes all further questions idle.
func ends(a v1.Verdict_Action) bool {
	switch a {
	case v1.Verdict_REJECT, v1.Verdict_DEFER, v1.Verdict_DISCONNECT, v1.Verdict_DISCARD:
		return true
	}
	return false
}

func (m *Member) timeout() time.Duration {
	if m.Timeout > 0 {
		return m.Timeout
	}
	return DefaultTimeout
}

// observe asks without waiting. The message stays for as long as that takes,
// whatever becomes of the mail.
func (out *Outcome) observe(ctx context.Context, ed Editing, m *Member, call *v1.Call) error {
	if m.Observing != nil && m.Observing.Add(1) > maxObserving {
		m.Observing.Add(-1)
		return errBusy
	}
	var kept spool.Body
	if call.GetFilter().GetMessage() != nil {
		var err error
		if kept, err = ed.Keep(out.Body); err != nil {
			return err
		}
		call.GetFilter().Message = kept.Message().Ref()
	}
	go func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), m.timeout())
		defer cancel()
		_, _ = m.Caller.Call(ctx, call) // nobody waits for an observer
		if kept != nil {
			kept.Discard()
		}
		if m.Observing != nil {
			m.Observing.Add(-1)
		}
	}()
	return nil
}

var errBusy = errors.New("it is behind with what it was asked before, and was not asked")

// fold takes one answer into the outcome.
func (out *Outcome) fold(ed Editing, a answer) (stop bool, err error) {
	step := Step{Filter: a.member.Name, Took: a.took}
	defer func() { out.Trace = append(out.Trace, step) }()
	if a.err != nil {
		step.Failed = a.err.Error()
		v := onFailure(a.member)
		step.Verdict = v.GetAction()
		return out.judge(v, a.member.Name), nil
	}
	r := a.reply
	step.Note, step.Score = r.GetNote(), r.GetScore()
	step.Verdict = r.GetVerdict().GetAction()
	edits, err := out.edit(ed, a.member, r)
	if err == nil {
		err = out.place(ed, a.member, r)
	}
	switch step.Edits = edits; {
	case errors.Is(err, message.ErrEdit):
		// The filter's fault, not the mail's: as if it had not answered.
		step.Failed = err.Error()
		v := onFailure(a.member)
		step.Verdict = v.GetAction()
		return out.judge(v, a.member.Name), nil
	case err != nil:
		return false, err
	}
	step.Tags = r.GetTags()
	step.Edits = append(step.Edits, out.apart(r.GetPerRecipient(), a.member.Name)...)
	out.Hints = MergeHints(out.Hints, r.GetHints())
	return out.judge(r.GetVerdict(), a.member.Name), nil
}

// apart keeps what a filter says of single recipients, and tells it.
func (out *Outcome) apart(verdicts map[int32]*v1.Verdict, by string) []string {
	var told []string
	for _, r := range out.Envelope.GetRecipients() {
		v := verdicts[r.GetIndex()]
		if v.GetAction() == v1.Verdict_ACCEPT {
			continue
		}
		if out.PerRecipient == nil {
			out.PerRecipient, out.ByRecipient = map[int32]*v1.Verdict{}, map[int32]string{}
		}
		if _, ok := out.PerRecipient[r.GetIndex()]; !ok {
			out.PerRecipient[r.GetIndex()], out.ByRecipient[r.GetIndex()] = v, by
		}
		told = append(told, strings.ToLower(v.GetAction().String())+" for "+r.GetAddress())
	}
	return told
}

// judge keeps the gravest verdict: a later filter may not soften an earlier one.
func (out *Outcome) judge(v *v1.Verdict, by string) (stop bool) {
	if v == nil {
		return false
	}
	if v.GetAction() != v1.Verdict_ACCEPT && (out.Verdict.GetAction() == v1.Verdict_ACCEPT || out.Verdict.GetAction() == v1.Verdict_HOLD) {
		out.Verdict, out.By = v, by
	} else if out.Verdict.GetAction() == v1.Verdict_ACCEPT && v.GetDelayMs() > out.Verdict.GetDelayMs() {
		out.Verdict = v
	}
	return ends(v.GetAction()) || v.GetSkipRest()
}

func onFailure(m *Member) *v1.Verdict {
	switch m.OnFailure {
	case OnFailureAccept:
		return &v1.Verdict{}
	case OnFailureHold:
		return &v1.Verdict{Action: v1.Verdict_HOLD, Reason: m.Name + " could not be asked"}
	}
	return &v1.Verdict{
		Action: v1.Verdict_DEFER,
		Reply:  &v1.SMTPReply{Code: 451, Enhanced: "4.7.1", Text: "A content check is not available, try again later"},
		Reason: m.Name + " could not be asked",
	}
}
