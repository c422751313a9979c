package queue

import (
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
	stepsFlag = flag.Int("queue.steps", 200, "steps of TestQueueIsAMap")
)

func newSeed(t testing.TB) uint64 {
	seed := *seedFlag
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("seed %d (go test ./core/queue -run '^%s$' -queue.seed %d)", seed, t.Name(), seed)
	return seed
}

// model is the queue as a map from a mail's subject, which is unique here, and
// its feed as lines.
type model struct {
	mails map[string]*mail
	feed  []string
}

type mail struct {
	id        string
	sender    string
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
	lane     string
	recheck  time.Time
}

func (m model) clone() model {
	c := model{maps.Clone(m.mails), slices.Clone(m.feed)}
	for k, v := range c.mails {
		x := *v
		x.rs = slices.Clone(v.rs)
		c.mails[k] = &x
	}
	return c
}

// String is the whole state, the same for the same state.
func (m model) String() string {
	var lines []string
	for subject, x := range m.mails {
		line := fmt.Sprintf("%s of %s priority %d not before %d body %d/%08x:", subject, x.sender, x.priority, nanos(x.notBefore), len(x.body), crc32.ChecksumIEEE([]byte(x.body)))
		for _, r := range x.rs {
			line += fmt.Sprintf(" <%s> %s %d× next %d %q from %d%s;", r.address, r.state, r.attempts, nanos(r.next), r.reason, r.parent, r.where())
		}
		lines = append(lines, line)
	}
	slices.Sort(lines)
	return strings.Join(append(lines, m.feed...), "\n")
}

// counts are the Stats of that state.
func (m model) counts() (c counts) {
	for _, x := range m.mails {
		c.messages++
		c.bytes += int64(len(x.body))
		for _, r := range x.rs {
			if r.state.Open() {
				c.recipients++
			}
			switch {
			case r.state == Held:
				c.held++
			case r.state == Waiting && r.attempts > 0:
				c.tried++
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
			at = min(at, max(r.fresh(), nanos(x.notBefore)))
		}
	}
	return at
}

func (x *mail) open() bool {
	return slices.ContainsFunc(x.rs, func(r recipient) bool { return r.state.Open() })
}

// apply is Commit and Operate as the documentation of Change and Operation has it.
func (m *model) apply(subject string, changes []Change, operator bool) {
	x := m.mails[subject]
	var feed []string
	for i := range changes {
		c := &changes[i]
		r := &x.rs[c.Index]
		if what := happened(c, r, operator); what != "" {
			feed = append(feed, what+" "+r.address)
		}
		if c.Attempt != nil {
			r.attempts++
		}
		reason := c.Reason
		if r.reason == Released && c.State == Waiting { // it stays released
			reason = Released
		}
		switch {
		case r.state.Open() && (c.State != Waiting || r.state == Waiting || operator), c.State == Delivered:
			r.state, r.next, r.reason, r.lane, r.recheck = c.State, c.Next, reason, c.Lane, c.Recheck
		case r.state == c.State:
			r.next, r.reason, r.lane, r.recheck = c.Next, reason, c.Lane, c.Recheck
		}
		for _, a := range c.Add {
			x.rs = append(x.rs, recipient{address: a.Address, next: a.Next, parent: c.Index})
		}
		for _, n := range c.Enqueue {
			m.put(n.Envelope, string(n.Body.Bytes()))
		}
	}
	if !x.open() {
		delete(m.mails, subject)
	}
	m.feed = append(m.feed, feed...) // after the notices that it caused
}

// happened is the word of the feed for a change; "" when it tells nothing.
func happened(c *Change, before *recipient, operator bool) string {
	switch {
	case !before.state.Open() && (c.State != Delivered || before.state == Delivered):
		// It has ended: nothing comes of this.
	case c.State != Waiting:
		return strings.ToUpper(c.State.String())
	case c.Attempt != nil:
		return "DEFERRED"
	case operator && before.state == Held:
		return "RELEASED"
	}
	return ""
}

func (m *model) put(env *Envelope, body string) {
	x := &mail{sender: env.Sender, priority: env.Priority, notBefore: env.NotBefore, body: body}
	for _, r := range env.Recipients {
		x.rs = append(x.rs, recipient{address: r.Address, next: r.Next, parent: r.Parent})
	}
	m.mails[env.Subject] = x
	m.feed = append(m.feed, "QUEUED "+strings.Join(addresses(env.Recipients), ","))
}

func addresses(rs []*Recipient) (out []string) {
	for _, r := range rs {
		out = append(out, r.Address)
	}
	return out
}

// read is the queue's whole state as a model, by List, Body and Observations.
func read(e *Engine) (model, error) {
	m := model{mails: map[string]*mail{}}
	ctx := context.Background()
	var bad error
	err := e.List(ctx, Filter{}, func(env *Envelope) bool {
		x := &mail{id: env.ID, sender: env.Sender, priority: env.Priority, notBefore: env.NotBefore}
		for _, r := range env.Recipients {
			x.rs = append(x.rs, recipient{r.Address, r.State, r.Attempts, r.Next, r.Reason, r.Parent, r.Lane, r.Recheck})
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
		if m.mails[env.Subject] != nil {
			bad = fmt.Errorf("%q is there twice", env.Subject)
		}
		m.mails[env.Subject] = x
		return bad == nil
	})
	os, ferr := e.Observations(ctx, 0, 1<<20)
	var last uint64
	for _, o := range os {
		if o.GetSequence() <= last {
			bad = errors.Join(bad, fmt.Errorf("sequence %d after %d", o.GetSequence(), last))
		}
		last = o.GetSequence()
		var to []string
		for _, r := range o.GetEnvelope().GetRecipients() {
			to = append(to, r.GetAddress())
		}
		m.feed = append(m.feed, o.GetWhat().String()+" "+strings.Join(to, ","))
	}
	return m, errors.Join(err, bad, ferr)
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
	if err := errors.Join(counted(w.e, w.now), indexed(w.e)); err != nil {
		w.t.Fatal(err)
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
			if w.lazy { // it may lose what was parked
				if err := w.put(); err != nil {
					t.Fatal(err)
				}
			}
			mem = mem.CrashClone(vfs.CrashCloneCfg{})
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
	t.Logf("%d mails are left", len(w.now.mails))
}
