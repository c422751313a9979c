package queue

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"google.golang.org/protobuf/proto"

	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// Feed is the log of what happened to mail, for observers. What a Put, a Commit
// or an Operate did stands in it if and only if they did it: one commit has
// both. It keeps no record while it is off.
type Feed interface {
	// SetFeed turns it on or off; off forgets all observations.
	SetFeed(on bool) error
	// Observe adds what happened outside of the queue (a refusal). It does not
	// wait for the disk: a power cut may lose the last ones.
	Observe(os ...*v1.Observation) error
	// Observations returns at most most of them, in the order of their
	// sequence, from the one that follows after.
	Observations(ctx context.Context, after uint64, most int) ([]*v1.Observation, error)
	// Latest is the sequence of the newest observation, or one before the next.
	Latest() uint64
	// Fed is signalled when there is something new.
	Fed() <-chan struct{}
	// Seen tells how far an observer is; ok is false for a new one.
	Seen(observer string) (upto uint64, ok bool, err error)
	// SetSeen remembers how far an observer is, and forgets the observations up
	// to done, which nobody needs any more.
	SetSeen(observer string, upto, done uint64) error
	// ForgetFeed removes observations from before a time, and tells whether
	// there were any.
	ForgetFeed(ctx context.Context, before time.Time) (upto uint64, any bool, err error)
}

var _ Feed = (*Engine)(nil)

func feedKey(sequence uint64) []byte {
	return binary.BigEndian.AppendUint64([]byte{keyFeed}, sequence)
}

func observerKey(name string) []byte { return append([]byte{keyObserver}, name...) }

// feed writes observations into g; mu is held. Their sequence is their key.
func (e *Engine) feed(g *group, records [][]byte) error {
	for _, rec := range records {
		e.sequence++
		key := feedKey(e.sequence)
		if err := g.batch.Set(key, seal(key, rec), nil); err != nil { // the group holds half a change
			e.stop.stop(err)
			return e.stop.err()
		}
		g.fed = true
	}
	return nil
}

// SetFeed is part of Feed.
func (e *Engine) SetFeed(on bool) error {
	if e.feeding.Swap(on) == on || on {
		return nil
	}
	return e.inGroup(func(g *group) error {
		return g.batch.DeleteRange(feedKey(0), []byte{keyFeed + 1}, nil)
	})
}

// Observe is part of Feed.
func (e *Engine) Observe(os ...*v1.Observation) error {
	records, err := e.observations(os)
	if err != nil || len(records) == 0 {
		return err
	}
	return e.inGroup(func(g *group) error { return e.feed(g, records) })
}

// inGroup has f write into the group that is being filled, and waits for nothing.
func (e *Engine) inGroup(f func(g *group) error) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	g, err := e.join()
	if err != nil {
		return err
	}
	if err := f(g); err != nil { // the group holds half of it
		e.stop.stop(err)
		return e.stop.err()
	}
	e.filled(g)
	return nil
}

// observations encodes them; none while the feed is off.
func (e *Engine) observations(os []*v1.Observation) ([][]byte, error) {
	if !e.feeding.Load() || len(os) == 0 {
		return nil, nil
	}
	records := make([][]byte, len(os))
	for i, o := range os {
		if o.AtMs == 0 {
			o.AtMs = e.o.Clock().UnixMilli()
		}
		b, err := proto.MarshalOptions{}.MarshalAppend([]byte{recordVersion}, o)
		if err != nil {
			return nil, fmt.Errorf("write an observation: %w", err)
		}
		records[i] = b
	}
	return records, nil
}

// toldChange is a change as the feed tells it.
type toldChange struct {
	index     int32
	delivered bool
	record    []byte
}

type toldChanges []toldChange

// of leaves out what does not come true of a message in state s: the result of a
// recipient that an operator has ended meanwhile.
func (ts toldChanges) of(s *state) (records [][]byte) {
	for _, t := range ts {
		r := s.find(t.index)
		if r != nil && (r.state.Open() || t.delivered && r.state != Delivered) {
			records = append(records, t.record)
		}
	}
	return records
}

// observeChanges encodes what changes tell of env.
func (e *Engine) observeChanges(env *Envelope, changes []Change) (told toldChanges, err error) {
	if env == nil || !e.feeding.Load() {
		return nil, nil
	}
	os := changeObservations(env, changes)
	records, err := e.observations(os)
	if err != nil {
		return nil, err
	}
	for n, rec := range records {
		told = append(told, toldChange{os[n].Recipient, os[n].What == v1.Observation_DELIVERED, rec})
	}
	return told, nil
}

// observeCommit does so for a claim, whose envelope lacks the recipients that
// came while it was held.
func (e *Engine) observeCommit(ctx context.Context, c *Claim, changes []Change) (toldChanges, error) {
	env := c.Envelope
	if e.feeding.Load() && !env.has(changes) {
		var err error
		if env, err = e.Get(ctx, c.ID); err != nil {
			if errors.Is(err, ErrNotFound) {
				return nil, ErrLeaseLost
			}
			return nil, err
		}
	}
	return e.observeChanges(env, changes)
}

// has tells whether e knows all recipients of changes.
func (e *Envelope) has(changes []Change) bool {
	for i := range changes {
		if e.recipient(changes[i].Index) == nil {
			return false
		}
	}
	return true
}

// Observations is part of Feed. A corrupt one is passed over and reported.
func (e *Engine) Observations(ctx context.Context, after uint64, most int) ([]*v1.Observation, error) {
	if err := e.check(ctx); err != nil {
		return nil, err
	}
	it, err := e.db.NewIter(&pebble.IterOptions{LowerBound: feedKey(after + 1), UpperBound: []byte{keyFeed + 1}})
	if err != nil {
		return nil, err
	}
	defer it.Close()
	var out []*v1.Observation
	for it.First(); it.Valid() && len(out) < most; it.Next() {
		o, err := observation(it)
		if errors.Is(err, ErrCorrupt) {
			e.log.Error().Err(err).Msg("queue: an observation is corrupt and not told")
			continue
		}
		if err != nil {
			return nil, err
		}
		out = append(out, o)
	}
	return out, it.Error()
}

func observation(it *pebble.Iterator) (*v1.Observation, error) {
	rec, err := it.ValueAndErr()
	if err != nil {
		return nil, err
	}
	rec, err = unseal(it.Key(), rec)
	o := &v1.Observation{}
	if err == nil && (rec[0] != recordVersion || proto.Unmarshal(rec[1:], o) != nil) {
		err = ErrCorrupt
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %x", err, it.Key())
	}
	o.Sequence = binary.BigEndian.Uint64(it.Key()[1:])
	return o, nil
}

// Latest is part of Feed.
func (e *Engine) Latest() uint64 {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.sequence
}

// Fed is part of Feed.
func (e *Engine) Fed() <-chan struct{} { return e.fed }

// Seen is part of Feed.
func (e *Engine) Seen(observer string) (uint64, bool, error) {
	upto, err := e.meta(observerKey(observer), 0)
	return upto, upto > 0, err
}

// SetSeen is part of Feed.
func (e *Engine) SetSeen(observer string, upto, done uint64) error {
	key := observerKey(observer)
	rec := seal(key, binary.BigEndian.AppendUint64([]byte{recordVersion}, upto))
	return e.inGroup(func(g *group) error {
		err := g.batch.Set(key, rec, nil)
		if err == nil && done > 0 {
			err = g.batch.DeleteRange(feedKey(0), feedKey(done+1), nil)
		}
		return err
	})
}

// ForgetFeed is part of Feed.
func (e *Engine) ForgetFeed(ctx context.Context, before time.Time) (upto uint64, any bool, err error) {
	if err := e.check(ctx); err != nil {
		return 0, false, err
	}
	it, err := e.db.NewIter(&pebble.IterOptions{LowerBound: feedKey(0), UpperBound: []byte{keyFeed + 1}})
	if err != nil {
		return 0, false, err
	}
	defer it.Close()
	limit := before.UnixMilli()
	for it.First(); it.Valid() && ctx.Err() == nil; it.Next() {
		o, err := observation(it)
		if err == nil && o.AtMs >= limit {
			break
		}
		if err != nil && !errors.Is(err, ErrCorrupt) {
			return 0, false, err
		}
		upto = binary.BigEndian.Uint64(it.Key()[1:])
	}
	if err := it.Error(); err != nil || upto == 0 {
		return 0, false, err
	}
	return upto, true, e.inGroup(func(g *group) error {
		return g.batch.DeleteRange(feedKey(0), feedKey(upto+1), nil)
	})
}

// queuedObservation tells of a Put.
func queuedObservation(i id, env *Envelope) *v1.Observation {
	o := observed(env, env.Recipients...)
	o.What, o.Recipient, o.By = v1.Observation_QUEUED, -1, env.Origin
	o.AtMs, o.Envelope.QueueId = env.Received.UnixMilli(), i.String()
	return o
}

func observed(env *Envelope, rs ...*Recipient) *v1.Observation {
	o := &v1.Observation{Recipient: -1, Envelope: &v1.Envelope{
		QueueId: env.ID, Sender: env.Sender, Parameters: env.Parameters, Client: env.Client, Tags: env.Tags,
		ReceivedMs: env.Received.UnixMilli(), Size: env.Size,
	}}
	for _, r := range rs {
		o.Envelope.Recipients = append(o.Envelope.Recipients, &v1.Recipient{
			Address: r.Address, Index: r.Index, Notify: r.Notify, OriginalRecipient: r.Original,
			Account: r.Account, Detail: r.Detail,
		})
	}
	return o
}

// changeObservations tells of a Commit or an Operate.
func changeObservations(env *Envelope, changes []Change) []*v1.Observation {
	var out []*v1.Observation
	for i := range changes {
		c := &changes[i]
		what, word := whatOf(c)
		r := env.recipient(c.Index)
		if what == v1.Observation_WHAT_UNSPECIFIED || r == nil {
			continue
		}
		o := observed(env, r)
		o.What, o.Recipient, o.Reason, o.By = what, c.Index, c.Reason, c.Deliver
		if o.By == "" && c.Route != "" {
			o.By = "route." + c.Route
		}
		if c.operator {
			o.By = "operator"
		}
		o.Result = &v1.RecipientResult{Recipient: c.Index, State: word}
		if a := c.Attempt; a != nil {
			o.Result.Reply = &v1.SMTPReply{Code: int32(a.Code), Enhanced: a.Enhanced, Text: a.Text}
			o.Result.RemoteMta = a.RemoteMTA
		}
		out = append(out, o)
	}
	return out
}

func whatOf(c *Change) (v1.Observation_What, string) {
	switch c.State {
	case Waiting:
		if c.Attempt != nil {
			return v1.Observation_DEFERRED, "deferred"
		}
		if c.operator && c.released {
			return v1.Observation_RELEASED, "released"
		}
	case Held:
		return v1.Observation_HELD, "held"
	case Delivered:
		return v1.Observation_DELIVERED, "delivered"
	case Failed:
		return v1.Observation_FAILED, "failed"
	case Expanded:
		return v1.Observation_EXPANDED, "expanded"
	case Discarded:
		return v1.Observation_DISCARDED, "discarded"
	}
	return v1.Observation_WHAT_UNSPECIFIED, ""
}
