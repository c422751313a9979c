package queue

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/stagecoach-mta/stagecoach/core/spool"
)

// counted: Stats and Breakdown count what the model has.
func counted(e *Engine, m model) error {
	ctx := context.Background()
	s, err := e.Stats(ctx)
	if err != nil {
		return err
	}
	b, err := e.keptBreakdown(ctx, 0)
	if err != nil {
		return err
	}
	want := m.counts()
	if got := (counts{s.Messages, s.Recipients, s.Held, s.Bytes, b.Tried}); got != want {
		return fmt.Errorf("counts %+v, want %+v", got, want)
	}
	return nil
}

// indexed: each index has what the messages say and nothing else, and so has what is
// kept of it in memory.
func indexed(e *Engine) error {
	want := map[string]bool{}
	kept := newStock()
	err := e.scan(0, func(s *stored) bool {
		for _, k := range s.indexKeys() {
			want[string(k)] = true
		}
		for _, d := range s.state.destinations(s.id) {
			kept.add(&d, 1)
		}
		return true
	})
	if err != nil {
		return err
	}
	for _, space := range indexSpaces {
		it, err := e.db.NewIter(&pebble.IterOptions{LowerBound: []byte{space}, UpperBound: []byte{space + 1}})
		if err != nil {
			return err
		}
		for it.First(); it.Valid(); it.Next() {
			if !want[string(it.Key())] {
				err = errors.Join(err, fmt.Errorf("the index has %q, which no message asks for", it.Key()))
			}
			delete(want, string(it.Key()))
		}
		if err := errors.Join(err, it.Error(), it.Close()); err != nil {
			return err
		}
	}
	for k := range want {
		return fmt.Errorf("the index lacks %q", k)
	}
	if err := e.stocked(context.Background()); err != nil {
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if !maps.Equal(e.stock.minutes, kept.minutes) {
		return fmt.Errorf("the ages are %v, want %v", e.stock.minutes, kept.minutes)
	}
	same := func(a, b *sum) bool { // how far somebody has looked for the oldest is no matter
		return *a == sum{b.messages, b.bytes, b.recipients, b.held, b.tried, a.oldest}
	}
	if !maps.EqualFunc(e.stock.ways, kept.ways, same) {
		return fmt.Errorf("%d destinations are kept, want %d, or their sums differ", len(e.stock.ways), len(kept.ways))
	}
	return nil
}

// spread puts mails for several domains, some of them routed.
func spread(t *testing.T, e *Engine, mails int) {
	t.Helper()
	for n := range mails {
		env := mailTo(fmt.Sprintf("u%d@d%d.example", n, n%7), fmt.Sprintf("v%d@D%d.Example", n, n%5))
		put(t, e, env, spool.FromBytes([]byte("0123456789")))
	}
	for n, c := range claim(t, e, start, mails/2) {
		changes := []Change{{Index: 0, State: Waiting, Next: start.Add(time.Hour), Deliver: fmt.Sprintf("deliver.smtp.way%d", n%3), Attempt: &Attempt{Code: 451}}}
		switch n % 4 {
		case 0:
			changes[0] = Change{Index: 0, State: Delivered}
		case 1:
			changes = append(changes, Change{Index: 1, State: Held, Deliver: "deliver.storage.mail", Reason: "asked"})
		}
		if err := e.Commit(context.Background(), c, changes, false); err != nil {
			t.Fatal(err)
		}
	}
}

// TestAListByDestinationIsTheSame compares lists that use the index with a look at
// every message, page by page too.
func TestAListByDestinationIsTheSame(t *testing.T) {
	ctx := context.Background()
	e := open(t, Options{FS: vfs.NewMem(), Clock: (&fakeClock{start}).Now})
	spread(t, e, 300)
	held := Held
	var all []*Envelope
	if err := e.List(ctx, Filter{}, func(env *Envelope) bool { all = append(all, env); return true }); err != nil {
		t.Fatal(err)
	}
	filters := []Filter{
		{Domain: "d3.example"}, {Domain: "D4.EXAMPLE"}, {Domain: "nowhere.example"},
		{Destination: "d1.example"}, {Destination: "deliver.smtp.way1"}, {Destination: "deliver.smtp.way1 d3.example"},
		{Destination: "deliver.smtp.way1 d1.example", Domain: "d2.example"}, {Destination: "nothing"},
		{Deliver: "deliver.storage.mail"}, {Deliver: "deliver.storage.mail", Domain: "d2.example"},
		{Recipient: "<u10@d3.example>"}, {Recipient: "<v3@D3.Example>", Domain: "d3.example"},
		{Domain: "d1.example", State: &held}, {Destination: "d0.example", Words: []string{"451"}},
	}
	indexed := 0
	for _, f := range filters {
		var want []string
		for _, env := range all {
			if f.match(env) {
				want = append(want, env.ID)
			}
		}
		if _, few, err := e.ways(e.db, &f); err != nil {
			t.Fatal(err)
		} else if few {
			indexed++
		}
		for _, limit := range []int{0, 1, 7} {
			f.After, f.Limit = "", limit
			var got []string
			for {
				n := 0
				if err := e.List(ctx, f, func(env *Envelope) bool { got = append(got, env.ID); n++; return true }); err != nil {
					t.Fatal(err)
				}
				if limit == 0 || n < limit {
					break
				}
				f.After = got[len(got)-1]
			}
			if !slices.Equal(got, want) {
				t.Errorf("%+v: %d messages, want %d", f, len(got), len(want))
			}
		}
	}
	if indexed < len(filters)-2 {
		t.Errorf("only %d of %d filters use the index", indexed, len(filters))
	}
}

// TestKeptBreakdownIsExact: what is kept in memory is what a look at every message
// counts, also after a restart and with more destinations than are kept.
func TestKeptBreakdownIsExact(t *testing.T) {
	ctx := context.Background()
	o := Options{FS: vfs.NewMem(), Clock: (&fakeClock{start}).Now}
	e := open(t, o)
	spread(t, e, 200)
	same := func(when string) {
		t.Helper()
		kept, err := e.keptBreakdown(ctx, 5)
		if err != nil {
			t.Fatal(err)
		}
		want, err := e.Breakdown(ctx, Filter{}, 5, true)
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range []*Breakdown{kept, want} {
			b.Senders, b.Reasons = nil, nil
			for n := range b.Destinations { // an id is later than its message by nothing here
				b.Destinations[n].Oldest = b.Destinations[n].Oldest.Truncate(time.Second)
			}
		}
		if fmt.Sprintf("%+v", kept) != fmt.Sprintf("%+v", want) {
			t.Errorf("%s: kept\n%+v\ncounted\n%+v", when, kept, want)
		}
	}
	same("as it came")
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	e = open(t, o)
	spread(t, e, 20)
	same("after a restart")
	e.mu.Lock()
	e.stock.ways = nil
	e.mu.Unlock()
	same("with too many destinations")
}
