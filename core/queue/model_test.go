package queue

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"hash/crc32"
	"io"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/stagecoach-mta/stagecoach/core/spool"
)

var (
	seedFlag  = flag.Uint64("queue.seed", 0, "seed of the model tests; 0: a new one")
	stepsFlag = flag.Int("queue.steps", 300, "steps of TestQueueIsAMap")
)

func newSeed(t testing.TB) uint64 {
	seed := *seedFlag
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("seed %d (go test ./core/queue -run '^%s$' -queue.seed %d)", seed, t.Name(), seed)
	return seed
}

// model is the queue as a map from a mail's subject, which is unique here.
type model map[string]*mail

type mail struct {
	id        string
	priority  int
	notBefore time.Time
	body      string
	rs        []recipient
}

type recipient struct {
	address  string
	state    State
	attempts int
	next     time.Time
	reason   string
	parent   int32
}

func (m model) clone() model {
	c := maps.Clone(m)
	for k, v := range c {
		x := *v
		x.rs = slices.Clone(v.rs)
		c[k] = &x
	}
	return c
}

// String is the whole state, the same for the same state.
func (m model) String() string {
	var lines []string
	for subject, x := range m {
		line := fmt.Sprintf("%s priority %d not before %d body %d/%08x:", subject, x.priority, nanos(x.notBefore), len(x.body), crc32.ChecksumIEEE([]byte(x.body)))
		for _, r := range x.rs {
			line += fmt.Sprintf(" <%s> %s %d× next %d %q from %d;", r.address, r.state, r.attempts, nanos(r.next), r.reason, r.parent)
		}
		lines = append(lines, line)
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// counts are the Stats of that state.
func (m model) counts() (c counts) {
	for _, x := range m {
		c.messages++
		c.bytes += int64(len(x.body))
		for _, r := range x.rs {
			if r.state.Open() {
				c.recipients++
			}
			if r.state == Held {
				c.held++
			}
		}
	}
	return c
}

// due is when the mail is to be claimed.
func (x *mail) due() int64 {
	at := int64(never)
	for _, r := range x.rs {
		if r.state == Waiting {
			at = min(at, max(nanos(r.next), nanos(x.notBefore)))
		}
	}
	return at
}

func (x *mail) open() bool {
	return slices.ContainsFunc(x.rs, func(r recipient) bool { return r.state.Open() })
}

// apply is Commit and Operate as the documentation of Change and Operation has it.
func (m model) apply(subject string, changes []Change, operator bool) {
	x := m[subject]
	for _, c := range changes {
		r := &x.rs[c.Index]
		if c.Attempt != nil {
			r.attempts++
		}
		switch {
		case r.state.Open() && (c.State != Waiting || r.state == Waiting || operator), c.State == Delivered:
			r.state, r.next, r.reason = c.State, c.Next, c.Reason
		case r.state == c.State:
			r.next, r.reason = c.Next, c.Reason
		}
		for _, a := range c.Add {
			x.rs = append(x.rs, recipient{address: a.Address, next: a.Next, parent: c.Index})
		}
		for _, n := range c.Enqueue {
			m.put(n.Envelope, string(n.Body.Bytes()))
		}
	}
	if !x.open() {
		delete(m, subject)
	}
}

func (m model) put(env *Envelope, body string) {
	x := &mail{priority: env.Priority, notBefore: env.NotBefore, body: body}
	for _, r := range env.Recipients {
		x.rs = append(x.rs, recipient{address: r.Address, next: r.Next, parent: r.Parent})
	}
	m[env.Subject] = x
}

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
	// doing is told the state that a step will lead to, before it starts.
	doing func(model)
	// complain is told when the queue answers what the model does not.
	complain func(format string, a ...any)
}

func newWorld(t testing.TB, seed uint64, o Options) *world {
	w := &world{
		t: t, rng: rand.New(rand.NewPCG(seed, 1)), clock: &fakeClock{start}, now: model{}, held: map[string]*Claim{},
		doing: func(model) {}, complain: t.Errorf,
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
	w.e, err = Open(w.o)
	return err
}

// step does something; its error is what the queue said.
func (w *world) step() error {
	switch k := w.rng.IntN(20); {
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
	default:
		w.clock.now = w.clock.now.Add(time.Duration(w.rng.IntN(600)) * time.Second)
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
	if w.rng.IntN(5) == 0 {
		env.NotBefore = w.clock.now.Add(time.Duration(w.rng.IntN(600)) * time.Second)
	}
	return env
}

func (w *world) put() error {
	env := w.mail("mail")
	size := w.rng.IntN(2000)
	if w.rng.IntN(3) == 0 {
		size = 17000 + w.rng.IntN(9000) // a file
	}
	text := strings.Repeat(env.Subject+"\r\n", size/(len(env.Subject)+2)+1)
	next := w.now.clone()
	next.put(env, text)
	w.doing(next)
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
	next[env.Subject].id = env.ID
	w.now = next
	return nil
}

// claim asks for what is due and compares: the right ones, in the right order.
func (w *world) claim() error {
	w.doing(w.now)
	most := 1 + w.rng.IntN(5)
	for subject, c := range w.held {
		if !c.Until.After(w.clock.now) {
			delete(w.held, subject)
		}
	}
	var want []string
	for subject, x := range w.now {
		if w.held[subject] == nil && x.due() <= nanos(w.clock.now) {
			want = append(want, subject)
		}
	}
	slices.SortFunc(want, func(a, b string) int {
		x, y := w.now[a], w.now[b]
		return cmp.Or(cmp.Compare(y.priority, x.priority), cmp.Compare(x.due(), y.due()), cmp.Compare(x.id, y.id))
	})
	want = want[:min(most, len(want))]
	cs, err := w.e.Claim(context.Background(), w.clock.now, most, time.Duration(1+w.rng.IntN(900))*time.Second)
	if err != nil {
		return err
	}
	var got []string
	for _, c := range cs {
		got = append(got, c.Subject)
		if w.now[c.Subject] == nil {
			w.complain("claimed %q, which is not there", c.Subject)
			continue
		}
		w.held[c.Subject] = c
		var due []int32
		for i, r := range w.now[c.Subject].rs {
			if r.state == Waiting && nanos(r.next) <= nanos(w.clock.now) {
				due = append(due, int32(i))
			}
		}
		if !slices.Equal(due, c.Due) {
			w.complain("claimed %q for the recipients %v, want %v", c.Subject, c.Due, due)
		}
	}
	if !slices.Equal(got, want) {
		w.complain("at %v claimed %q, want %q", w.clock.now, got, want)
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
	subject, ok := pick(w, w.held)
	if !ok {
		return nil
	}
	c := w.held[subject]
	next := w.now.clone()
	var changes []Change
	for i := range w.now[subject].rs {
		if w.rng.IntN(3) > 0 {
			changes = append(changes, w.change(int32(i)))
		}
	}
	if len(changes) == 0 {
		changes = []Change{w.change(0)}
	}
	keep := w.rng.IntN(3) == 0
	next.apply(subject, changes, false)
	w.doing(next)
	if err := w.e.Commit(context.Background(), c, changes, keep); err != nil {
		return err
	}
	for _, ch := range changes {
		for _, n := range ch.Enqueue {
			next[n.Envelope.Subject].id = n.Envelope.ID
		}
	}
	w.now = next
	if !keep || next[subject] == nil {
		delete(w.held, subject)
	}
	return nil
}

func (w *world) change(index int32) Change {
	c := Change{Index: index, State: State(w.rng.IntN(int(Discarded) + 1)), Reason: fmt.Sprintf("reason %d", w.rng.IntN(100))}
	if w.rng.IntN(2) == 0 {
		c.Attempt = &Attempt{At: w.clock.now, Code: 451, Text: "later"}
	}
	switch c.State {
	case Waiting:
		c.Next = w.clock.now.Add(time.Duration(w.rng.IntN(900)) * time.Second)
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
	subject, ok := pick(w, w.now)
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
	for i, r := range next[subject].rs {
		c := Change{Index: int32(i), Reason: op.Reason}
		switch {
		case !r.state.Open(), len(op.Recipients) > 0 && !slices.Contains(op.Recipients, c.Index):
			continue
		case op.Kind == Hold && r.state == Waiting:
			c.State = Held
		case op.Kind == ReleaseHold && r.state == Held, op.Kind == Retry && r.state == Waiting && op.At.IsZero():
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
	if err := w.e.Operate(context.Background(), w.now[subject].id, op); err != nil {
		return err
	}
	w.now = next
	if next[subject] == nil {
		delete(w.held, subject)
	}
	return nil
}

// read is the queue's whole state as a model, by List and Body.
func read(e *Engine) (model, error) {
	m := model{}
	ctx := context.Background()
	var bad error
	err := e.List(ctx, Filter{}, func(env *Envelope) bool {
		x := &mail{id: env.ID, priority: env.Priority, notBefore: env.NotBefore}
		for _, r := range env.Recipients {
			x.rs = append(x.rs, recipient{r.Address, r.State, r.Attempts, r.Next, r.Reason, r.Parent})
		}
		var b spool.Body
		if b, bad = e.Body(ctx, env.ID); bad != nil {
			return false
		}
		text, err := readBody(b)
		if bad = err; bad != nil {
			return false
		}
		x.body = text
		if m[env.Subject] != nil {
			bad = fmt.Errorf("%q is there twice", env.Subject)
		}
		m[env.Subject] = x
		return bad == nil
	})
	return m, errors.Join(err, bad)
}

func readBody(b spool.Body) (string, error) {
	r, err := b.Open()
	if err != nil {
		return "", err
	}
	defer r.Close()
	text, err := io.ReadAll(r)
	return string(text), err
}

// compare holds the queue against the model.
func (w *world) compare() {
	w.t.Helper()
	got, err := read(w.e)
	if err != nil {
		w.t.Fatal(err)
	}
	if g, want := got.String(), w.now.String(); g != want {
		w.t.Fatalf("the queue is\n%s\nand should be\n%s", g, want)
	}
	s, err := w.e.Stats(context.Background())
	if err != nil {
		w.t.Fatal(err)
	}
	if got, want := (counts{s.Messages, s.Recipients, s.Held, s.Bytes}), w.now.counts(); got != want {
		w.t.Fatalf("counts %+v, want %+v", got, want)
	}
	if want := int64(len(w.held)); s.Leased != want {
		w.t.Fatalf("%d leased, want %d", s.Leased, want)
	}
}

// TestQueueIsAMap does random things to a queue and to a map, cuts the power and
// restarts now and then, and wants the two to be the same all along.
func TestQueueIsAMap(t *testing.T) {
	seed := newSeed(t)
	mem := vfs.NewCrashableMem()
	w := newWorld(t, seed, Options{FS: mem})
	if err := w.open(); err != nil {
		t.Fatal(err)
	}
	for n := range *stepsFlag {
		switch w.rng.IntN(40) {
		case 0: // a power cut between two steps
			mem = powerCut(mem, w.rng.IntN(101), w.rng)
			old := w.e
			w.o.FS = mem
			if err := w.open(); err != nil {
				t.Fatal(err)
			}
			if err := old.Close(); err != nil {
				t.Fatal(err)
			}
		case 1:
			if err := w.e.Close(); err != nil {
				t.Fatal(err)
			}
			if err := w.open(); err != nil {
				t.Fatal(err)
			}
		case 2:
			if err := w.e.db.Flush(); err != nil {
				t.Fatal(err)
			}
		default:
			if err := w.step(); err != nil {
				t.Fatalf("step %d: %v", n, err)
			}
		}
		if w.compare(); t.Failed() {
			t.Fatalf("at step %d", n)
		}
	}
	if err := w.e.Close(); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d mails are left", len(w.now))
}
