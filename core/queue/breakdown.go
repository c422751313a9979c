package queue

import (
	"cmp"
	"context"
	"math"
	"slices"
	"time"
)

// Breakdown tells what is in the queue: how much goes where, from whom, how old
// it is and why it waits.
type Breakdown struct {
	Messages int64 `json:"messages"`
	Bytes    int64 `json:"bytes"`
	// Open recipients by their state.
	Recipients int64 `json:"recipients"`
	Waiting    int64 `json:"waiting"`
	Held       int64 `json:"held"`
	// Tried are the recipients that wait after at least one attempt.
	Tried int64 `json:"tried"`
	// The greatest shares, by recipients.
	Destinations []Share `json:"destinations"`
	Senders      []Share `json:"senders"`
	Reasons      []Share `json:"reasons"`
	Ages         []Age   `json:"ages"`
	// Sample is how many messages were read to estimate senders and reasons; 0: they
	// were counted as all else is.
	Sample int64 `json:"sample,omitempty"`
}

// TheRest names the share of what was not told apart.
const TheRest = "(others)"

// Share is what has one destination, sender or reason.
type Share struct {
	Name       string    `json:"name"`
	Messages   int64     `json:"messages"`
	Recipients int64     `json:"recipients"`
	Bytes      int64     `json:"bytes"`
	Oldest     time.Time `json:"oldest,omitzero"`
}

// Age is how many messages came later than Below ago and not than the one before, by
// whole minutes; the last has Below zero: no bound.
type Age struct {
	Below    time.Duration `json:"below_ns"`
	Messages int64         `json:"messages"`
}

var ageBounds = []time.Duration{5 * time.Minute, time.Hour, 4 * time.Hour, 24 * time.Hour, 2 * 24 * time.Hour, 5 * 24 * time.Hour}

const (
	// sampleFrom so many messages on, senders and reasons of the whole queue are
	// estimated from some of them: a breakdown is to be there at once.
	sampleFrom = 50_000
	// maxShares are told apart, to bound the memory.
	maxShares = 100_000
)

// ageClass is the place among the ages of what came so many minutes ago.
func ageClass(minutes int64) int {
	n, _ := slices.BinarySearch(ageBounds, time.Duration(max(minutes, 0))*time.Minute+1)
	return n
}

func agesOf(counts []int64) (as []Age) {
	for n, count := range counts {
		a := Age{Messages: count}
		if n < len(ageBounds) {
			a.Below = ageBounds[n]
		}
		as = append(as, a)
	}
	return as
}

// Breakdown tells of the messages that f selects. Of a whole, large queue senders and
// reasons are an estimate, unless exact; all else is always counted.
func (e *Engine) Breakdown(ctx context.Context, f Filter, top int, exact bool) (*Breakdown, error) {
	st, err := e.Stats(ctx)
	if err != nil {
		return nil, err
	}
	t := newTally(e.o.Clock())
	if !exact && !f.Selects() && st.Messages >= sampleFrom {
		b, err := e.keptBreakdown(ctx, top)
		if err != nil {
			return nil, err
		}
		if err := e.sample(ctx, t, b.Messages); err != nil {
			return nil, err
		}
		s := t.breakdown(top)
		b.Senders, b.Reasons, b.Sample = s.Senders, s.Reasons, s.Sample
		return b, nil
	}
	err = e.List(ctx, f, func(env *Envelope) bool {
		t.add(env, &f, 1)
		return true
	})
	return t.breakdown(top), err
}

// sample reads some messages, each of the queue's as likely as another.
func (e *Engine) sample(ctx context.Context, t *tally, messages int64) error {
	ids, err := e.sampled(ctx)
	if err != nil {
		return err
	}
	ms := &manyReader{db: e.db}
	defer ms.close()
	_, err = ms.each(ids, func(s *stored) bool {
		if s.err == nil {
			t.sample++
			t.add(s.env, &Filter{}, float64(messages)/float64(len(ids)))
		}
		return ctx.Err() == nil
	})
	return cmp.Or(err, ctx.Err())
}

// tally counts, a sampled message as often as it stands for others.
type tally struct {
	now                                      time.Time
	messages, bytes, recipients, held, tried float64
	destinations, senders, reasons           map[string]*share
	ages                                     []float64
	sample                                   int64
}

type share struct {
	messages, recipients, bytes float64
	oldest                      time.Time
}

func newTally(now time.Time) *tally {
	return &tally{
		now: now, destinations: map[string]*share{}, senders: map[string]*share{}, reasons: map[string]*share{},
		ages: make([]float64, len(ageBounds)+1),
	}
}

// of finds the share of a name, or that of all that came too late to be told
// apart.
func of(shares map[string]*share, name string) *share {
	if len(shares) >= maxShares && shares[name] == nil {
		name = TheRest
	}
	s := shares[name]
	if s == nil {
		s = &share{}
		shares[name] = s
	}
	return s
}

func (s *share) add(e *Envelope, messages, recipients, bytes float64) {
	s.messages += messages
	s.recipients += recipients
	s.bytes += bytes
	if s.oldest.IsZero() || e.Received.Before(s.oldest) {
		s.oldest = e.Received
	}
}

func (t *tally) add(e *Envelope, f *Filter, weight float64) {
	size := weight * float64(e.Size)
	t.messages += weight
	t.bytes += size
	if i, ok := readID(e.ID); ok {
		t.ages[ageClass(minuteOf(idAt(t.now))-minuteOf(i))] += weight
	}
	seen := map[*share]bool{}
	count := func(s *share) {
		if seen[s] {
			s.add(e, 0, weight, 0)
			return
		}
		seen[s] = true
		s.add(e, weight, weight, size)
	}
	for _, r := range e.Recipients {
		if !f.Matches(r) {
			continue
		}
		t.recipients += weight
		switch {
		case r.State == Held:
			t.held += weight
		case r.Attempts > 0:
			t.tried += weight
		}
		count(of(t.destinations, r.destination()))
		count(of(t.senders, e.Sender))
		if why := r.why(); why != "" {
			count(of(t.reasons, why))
		}
	}
}

// destination is where r goes, for people.
func (r *Recipient) destination() string {
	l := line{way: r.way()}
	return l.name()
}

// why r waits or is held; "" if it is simply new.
func (r *Recipient) why() string {
	switch {
	case r.Reason != "":
		return r.Reason
	case r.Last != nil:
		return r.Last.line()
	}
	return ""
}

func (t *tally) breakdown(top int) *Breakdown {
	whole := func(f float64) int64 { return int64(math.Round(f)) }
	b := &Breakdown{
		Messages: whole(t.messages), Bytes: whole(t.bytes), Recipients: whole(t.recipients), Held: whole(t.held),
		Waiting: whole(t.recipients - t.held), Tried: whole(t.tried), Sample: t.sample,
	}
	shares := func(all map[string]*share) []Share {
		out := make([]Share, 0, len(all))
		for name, s := range all {
			out = append(out, Share{name, whole(s.messages), whole(s.recipients), whole(s.bytes), s.oldest})
		}
		slices.SortFunc(out, func(a, b Share) int {
			return cmp.Or(cmp.Compare(b.Recipients, a.Recipients), cmp.Compare(a.Name, b.Name))
		})
		if top > 0 && len(out) > top {
			out = out[:top]
		}
		return out
	}
	b.Destinations = shares(t.destinations)
	b.Senders = shares(t.senders)
	b.Reasons = shares(t.reasons)
	ages := make([]int64, len(t.ages))
	for n, count := range t.ages {
		ages[n] = whole(count)
	}
	b.Ages = agesOf(ages)
	return b
}
