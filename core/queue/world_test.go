package queue

import (
	"context"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stagecoach-mta/stagecoach/core/spool"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
	"github.com/stagecoach-mta/stagecoach/sdk/storage/simdisk"
)

// world drives a queue and a model side by side.
type world struct {
	t     testing.TB
	rng   *rand.Rand
	o     Options
	e     *Engine
	spool *spool.Dir
	clock *fakeClock
	now   model
	held  map[string]*Claim // by subject
	n     int
	// lazy: what was parked last need not be on the disk.
	lazy bool
	// doing is told the state that a step will lead to, before it starts.
	doing func(model)
	// complain is told when the queue answers what the model does not.
	complain func(format string, a ...any)
	// claimed and stored are told of what the queue gave out.
	claimed func(*Claim)
	stored  func(id string)
	// reached is told a state that is acknowledged while later ones are not.
	reached func(model)
	// gate before the syncs of the database's log, for together.
	gate *simdisk.Gate
	// journals is on while a Commit runs.
	journals atomic.Bool
}

func newWorld(t testing.TB, seed uint64, o Options) *world {
	w := &world{
		t: t, rng: rand.New(rand.NewPCG(seed, 1)), clock: &fakeClock{start}, now: model{mails: map[string]*mail{}}, held: map[string]*Claim{},
		doing: func(model) {}, complain: t.Errorf, claimed: func(*Claim) {}, stored: func(string) {},
		reached: func(model) {}, gate: simdisk.NewGate(),
	}
	o.Dir, o.Clock, o.CacheSize = "queue", w.clock.Now, 1<<20
	w.o = o
	return w
}

func (w *world) open() (err error) {
	clear(w.held)
	if w.spool, err = spool.OpenDir(w.o.FS, "spool"); err != nil {
		return err
	}
	if w.e, err = Open(w.o); err != nil {
		return err
	}
	select {
	case <-w.e.swept:
	case <-w.e.stop.down:
	}
	return w.e.SetFeed(true)
}

// step does something; its error is what the queue said.
func (w *world) step() error {
	switch k := w.rng.IntN(25); {
	case k < 6:
		return w.put()
	case k < 10:
		return w.claim()
	case k < 15:
		return w.commit()
	case k < 16:
		return w.release()
	case k < 18:
		return w.operate()
	case k < 19:
		return w.seen()
	case k < 22:
		return w.park()
	case k < 24:
		return w.claimLane()
	default:
		w.clock.set(w.clock.now.Add(time.Duration(w.rng.IntN(600)) * time.Second))
		return nil
	}
}

func (w *world) mail(kind string) *Envelope {
	w.n++
	var to []string
	for range 1 + w.rng.IntN(3) {
		w.n++
		to = append(to, fmt.Sprintf("user%d@ryan.example", w.n))
	}
	env := mailTo(to...)
	env.Subject, env.Priority = fmt.Sprintf("%s %d", kind, w.n), w.rng.IntN(3)
	env.Sender = senders[min(w.rng.IntN(2*len(senders)), len(senders)-1)] // most of the last one
	if w.rng.IntN(5) == 0 {
		env.NotBefore = w.clock.now.Add(time.Duration(w.rng.IntN(600)) * time.Second)
	}
	return env
}

// call is an operation that is to be made: the state that it leads to, and what
// is noted when it has ended well.
type call struct {
	next model
	run  func() error
	well func()
}

func (w *world) put() error { return w.make(w.beginPut()) }

// make makes a call.
func (w *world) make(c *call) error {
	w.doing(c.next)
	if err := c.run(); err != nil {
		return err
	}
	w.lazy = false
	w.now = c.next
	c.well()
	return nil
}

func (w *world) beginPut() *call {
	env := w.mail("mail")
	size := w.rng.IntN(2000)
	if w.rng.IntN(3) == 0 {
		size = 17000 + w.rng.IntN(9000) // a file
	}
	text := strings.Repeat(env.Subject+"\r\n", size/(len(env.Subject)+2)+1)
	next := w.now.clone()
	next.put(env, text)
	return &call{next: next, run: func() error {
		wr := w.spool.NewWriter(int64(size))
		if _, err := io.WriteString(wr, text); err != nil {
			return err
		}
		body, err := wr.Finish()
		if err != nil {
			return err
		}
		if err := w.e.Put(context.Background(), env, body); err != nil {
			body.Discard()
			return err
		}
		return nil
	}, well: func() {
		w.now.mails[env.Subject].id = env.ID
		w.stored(env.ID)
	}}
}

// seen forgets what an observer was told, as far as it has looked, and tells it
// something that is no mail.
func (w *world) seen() error {
	os, err := w.e.Observations(context.Background(), 0, 1+w.rng.IntN(20))
	if err != nil {
		return err
	}
	next := w.now.clone()
	if len(os) > 0 {
		last := os[len(os)-1].GetSequence()
		next.feed = next.feed[len(os):]
		w.doing(next)
		if err := w.committed(func() error { return w.e.SetSeen("filter.audit.log", last, last) }); err != nil {
			return err
		}
	}
	w.n++
	refused := fmt.Sprintf("user%d@ryan.example", w.n)
	next = next.clone()
	next.feed = append(next.feed, "REFUSED "+refused)
	w.doing(next)
	if err := w.committed(func() error {
		return w.e.Observe(&v1.Observation{What: v1.Observation_REFUSED, Envelope: &v1.Envelope{
			Recipients: []*v1.Recipient{{Address: refused}},
		}})
	}); err != nil {
		return err
	}
	w.now = next
	return w.put()
}

// committed does what does not wait for the disk, and waits: chance would group
// it with what follows, and a seed would not repeat the disk's log.
func (w *world) committed(f func() error) error {
	w.e.mu.Lock()
	g := w.e.group
	w.e.mu.Unlock()
	if err := f(); err != nil {
		return err
	}
	return w.e.wait(g)
}

// guarded is what the database does that hangs when it failed.
func (w *world) guarded(f func() error) error { return guard(w.e.stop, f) }

// claim asks for what is due and compares: the right ones, in the right order.
func (w *world) claim() error {
	w.doing(w.now)
	most := 1 + w.rng.IntN(5)
	for subject, c := range w.held {
		if !c.Until.After(w.clock.now) {
			delete(w.held, subject)
		}
	}
	waits := map[string]*mail{}
	for subject, x := range w.now.mails {
		if w.held[subject] == nil && x.due() <= nanos(w.clock.now) {
			waits[subject] = x
		}
	}
	cs, err := w.e.Claim(context.Background(), w.clock.now, most, time.Duration(1+w.rng.IntN(900))*time.Second)
	if err != nil {
		return err
	}
	var got []string
	for _, c := range cs {
		got = append(got, c.Subject)
		w.claimed(c)
		if w.now.mails[c.Subject] == nil {
			w.complain("claimed %q, which is not there", c.Subject)
			continue
		}
		w.held[c.Subject] = c
		var due []int32
		for i, r := range w.now.mails[c.Subject].rs {
			if r.state == Waiting && r.fresh() <= nanos(w.clock.now) {
				due = append(due, int32(i))
			}
		}
		if !slices.Equal(due, c.Due) {
			w.complain("claimed %q for the recipients %v, want %v", c.Subject, c.Due, due)
		}
	}
	if err := fair(waits, (*mail).due, most, got); err != nil {
		w.complain("at %v claimed %q: %v", w.clock.now, got, err)
	}
	return nil
}

// pick takes one key of a map, the same for the same seed.
func pick[V any](w *world, m map[string]V) (string, bool) {
	if len(m) == 0 {
		return "", false
	}
	keys := slices.Sorted(maps.Keys(m))
	return keys[w.rng.IntN(len(keys))], true
}

func (w *world) commit() error {
	w.journals.Store(true)
	defer w.journals.Store(false)
	subject, ok := pick(w, w.held)
	if !ok {
		return nil
	}
	return w.make(w.beginCommit(subject))
}

func (w *world) beginCommit(subject string) *call {
	held := w.held[subject]
	next := w.now.clone()
	var changes []Change
	for i := range w.now.mails[subject].rs {
		if w.rng.IntN(3) > 0 {
			changes = append(changes, w.change(int32(i)))
		}
	}
	if len(changes) == 0 {
		changes = []Change{w.change(0)}
	}
	keep := w.rng.IntN(3) == 0
	next.apply(subject, changes, false)
	return &call{next: next, run: func() error {
		return w.e.Commit(context.Background(), held, changes, keep)
	}, well: func() {
		for _, ch := range changes {
			for _, n := range ch.Enqueue {
				w.now.mails[n.Envelope.Subject].id = n.Envelope.ID
			}
		}
		if !keep || w.now.mails[subject] == nil {
			delete(w.held, subject)
		}
	}}
}

func (w *world) change(index int32) Change {
	c := Change{Index: index, State: State(w.rng.IntN(int(Discarded) + 1)), Reason: fmt.Sprintf("reason %d", w.rng.IntN(100))}
	if w.rng.IntN(2) == 0 {
		c.Attempt = &Attempt{At: w.clock.now, Code: 451, Text: "later"}
	}
	switch c.State {
	case Waiting:
		c.Next = w.clock.now.Add(time.Duration(w.rng.IntN(900)) * time.Second)
		w.lane(&c)
	case Expanded:
		for range 1 + w.rng.IntN(2) {
			w.n++
			c.Add = append(c.Add, &Recipient{Address: fmt.Sprintf("member%d@ryan.example", w.n)})
		}
	case Failed:
		if w.rng.IntN(2) == 0 {
			env := w.mail("notice")
			c.Enqueue = []*NewMessage{{env, spool.FromBytes([]byte("about " + env.Subject))}}
		}
	}
	return c
}

func (w *world) release() error {
	subject, ok := pick(w, w.held)
	if !ok {
		return nil
	}
	w.doing(w.now)
	if err := w.e.Release(context.Background(), w.held[subject]); err != nil {
		return err
	}
	delete(w.held, subject)
	return nil
}

func (w *world) operate() error {
	subject, ok := pick(w, w.now.mails)
	if !ok {
		return nil
	}
	op := Operation{Kind: Hold + OpKind(w.rng.IntN(int(Remove-Hold)+1)), Reason: "asked"}
	if op.Kind == Remove && w.rng.IntN(2) == 0 {
		op.Recipients = []int32{0}
	}
	if op.Kind == Retry && w.rng.IntN(2) == 0 {
		op.At = w.clock.now.Add(time.Minute)
	}
	next := w.now.clone()
	var changes []Change
	for i, r := range next.mails[subject].rs {
		c := Change{Index: int32(i), Reason: op.Reason}
		switch {
		case !r.state.Open(), len(op.Recipients) > 0 && !slices.Contains(op.Recipients, c.Index):
			continue
		case op.Kind == Hold && r.state == Waiting:
			c.State = Held
		case op.Kind == ReleaseHold && r.state == Held:
			c.Next, c.Reason = w.clock.now, Released
		case op.Kind == Retry && r.state == Waiting && op.At.IsZero():
			c.Next, c.Reason = w.clock.now, ""
		case op.Kind == Retry && r.state == Waiting:
			c.Next, c.Reason = op.At, ""
		case op.Kind == Remove:
			c.State = Discarded
		default:
			continue
		}
		changes = append(changes, c)
	}
	if len(changes) > 0 {
		next.apply(subject, changes, true)
	}
	w.doing(next)
	if err := w.e.Operate(context.Background(), w.now.mails[subject].id, op); err != nil {
		return err
	}
	w.lazy = w.lazy && len(changes) == 0
	w.now = next
	if next.mails[subject] == nil {
		delete(w.held, subject)
	}
	return nil
}
