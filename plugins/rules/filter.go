package rules

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/stagecoach-mta/stagecoach/sdk"
	"github.com/stagecoach-mta/stagecoach/sdk/expression"
	"github.com/stagecoach-mta/stagecoach/sdk/filter"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// rule is one that is ready to be asked.
type rule struct {
	*Rule
	when *expression.Expr
	// each: it asks for the recipient, and so of each one.
	each    bool
	matched *sdk.Value
}

// Filter is one instance.
type Filter struct {
	rules map[v1.FilterEvent][]*rule
	// headers: some rule reads message.headers.
	headers bool
}

var _ filter.Filter = (*Filter)(nil)

func newFilter(c *Config, m *sdk.Metrics) (*Filter, error) {
	f := &Filter{rules: map[v1.FilterEvent][]*rule{}}
	for i := range c.Rules {
		x, err := expression.Parse(c.Rules[i].When)
		if err != nil {
			return nil, err
		}
		r := &rule{Rule: &c.Rules[i], when: x, each: x.Uses("recipient")}
		r.matched = m.Counter("matched_total", "Mails, or recipients, of which a rule's condition was true.", "rule", r.Name)
		f.headers = f.headers || x.Uses("message.headers")
		e := moments[r.At]
		f.rules[e] = append(f.rules[e], r)
	}
	return f, nil
}

// Filter looks at the rules of this moment in their order.
func (f *Filter) Filter(_ context.Context, ev *filter.Event) (*filter.Verdict, error) {
	q := &question{v: filter.Accept(), tags: ev.Envelope.GetTags(), open: map[int32]bool{}}
	env := f.env(ev)
	for _, r := range ev.Envelope.GetRecipients() {
		q.open[r.GetIndex()] = true
	}
	for _, r := range f.rules[ev.Kind] {
		env.Tags = q.tags
		done, err := q.ask(r, ev, env)
		if err != nil {
			return nil, fmt.Errorf("rule %q: %w", r.Name, err)
		}
		if done {
			break
		}
	}
	if len(q.names) > 0 {
		q.v.TagList("rules", q.names...)
	}
	return q.v, nil
}

// question is one mail's way through the rules.
type question struct {
	v     *filter.Verdict
	names []string
	tags  map[string]*v1.Tag
	// open are the recipients that no rule has decided.
	open map[int32]bool
}

// ask is one rule; done says that no later one counts.
func (q *question) ask(r *rule, ev *filter.Event, env *expression.Env) (done bool, err error) {
	if !r.each || ev.Kind != v1.FilterEvent_MESSAGE {
		if ev.Recipient != nil {
			env.Recipient, env.Account, env.Detail = ev.Recipient.GetAddress(), ev.Recipient.GetAccount(), ev.Recipient.GetDetail()
		}
		ok, err := r.when.Bool(env)
		if err != nil || !ok {
			return false, err
		}
		q.matched(r)
		q.extras(r)
		return q.decide(r, len(ev.Envelope.GetRecipients())), nil
	}
	first := true
	for _, to := range ev.Envelope.GetRecipients() {
		if !q.open[to.GetIndex()] {
			continue
		}
		env.Recipient, env.Account, env.Detail = to.GetAddress(), to.GetAccount(), to.GetDetail()
		ok, err := r.when.Bool(env)
		if err != nil {
			return false, err
		}
		if !ok {
			continue
		}
		q.matched(r)
		if first {
			q.extras(r)
			first = false
		}
		if v := r.verdict(); v != nil {
			q.v.For(to.GetIndex(), v)
			delete(q.open, to.GetIndex())
		} else if r.Accept {
			delete(q.open, to.GetIndex())
		}
	}
	env.Recipient, env.Account, env.Detail = "", "", ""
	return len(q.open) == 0, nil
}

func (q *question) matched(r *rule) {
	r.matched.Add(1)
	if !slices.Contains(q.names, r.Name) {
		q.names = append(q.names, r.Name)
	}
}

// extras is what a rule does beside its verdict. Later rules see its tags.
func (q *question) extras(r *rule) {
	if r.Score != 0 {
		q.v.Score(r.Score)
	}
	for _, name := range slices.Sorted(maps.Keys(r.Tags)) {
		q.v.Tag(name, r.Tags[name])
	}
	if len(r.Tags) > 0 {
		q.tags = maps.Clone(q.tags)
		if q.tags == nil {
			q.tags = map[string]*v1.Tag{}
		}
		for name, value := range r.Tags {
			q.tags[name] = &v1.Tag{Value: &v1.Tag_Text{Text: value}}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(r.Headers)) {
		q.v.AddHeader(name, r.Headers[name])
	}
	for _, a := range r.Copy {
		q.v.AddRecipient(a)
	}
	if r.Delay > 0 {
		q.v.Delay(r.Delay)
	}
}

// decide sets the verdict of a rule for the whole mail; recipients that another
// rule has decided keep what they got.
func (q *question) decide(r *rule, all int) bool {
	v := r.verdict()
	if v == nil {
		return r.Accept
	}
	if len(q.open) < all {
		for index := range q.open {
			q.v.For(index, v)
		}
		return true
	}
	from, to := v.Reply().GetVerdict(), q.v.Reply().GetVerdict()
	to.Action, to.Reply, to.Reason = from.GetAction(), from.GetReply(), from.GetReason()
	return true
}

// verdict of a rule; nil if it lets the mail go on.
func (r *rule) verdict() *filter.Verdict {
	because := fmt.Sprintf("rule %q", r.Name)
	switch {
	case r.Reject != "":
		code, enhanced, text := parseReply(r.Reject)
		return filter.Reject(cmp.Or(code, 550), cmp.Or(enhanced, "5.7.1"), text).Reason(because)
	case r.Defer != "":
		code, enhanced, text := parseReply(r.Defer)
		return filter.Defer(cmp.Or(code, 451), cmp.Or(enhanced, "4.7.1"), text).Reason(because)
	case r.Disconnect != "":
		_, enhanced, text := parseReply(r.Disconnect)
		return filter.Disconnect(421, cmp.Or(enhanced, "4.7.0"), text).Reason(because)
	case r.Hold != "":
		return filter.Hold(r.Hold)
	case r.Discard:
		return filter.Discard().Reason(because)
	}
	return nil
}

// env is what the conditions see; the recipient comes with each question.
func (f *Filter) env(ev *filter.Event) *expression.Env {
	e := ev.Envelope
	env := &expression.Env{Sender: e.GetSender(), Client: e.GetClient(), Tags: e.GetTags()}
	env.Message.Size = e.GetSize()
	if len(ev.Header) == 0 {
		return env
	}
	env.Message.Subject = ev.Header.Get("subject")
	env.Message.From = ev.Header.Get("from")
	env.Message.MessageID = ev.Header.Get("message-id")
	if f.headers {
		env.Message.Headers = map[string][]string{}
		for _, h := range ev.Header {
			name := strings.ToLower(h.GetName())
			if _, done := env.Message.Headers[name]; done {
				continue
			}
			env.Message.Headers[name] = ev.Header.Values(name)
		}
	}
	return env
}
