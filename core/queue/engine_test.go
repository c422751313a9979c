package queue

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stagecoach-mta/stagecoach/core/spool"
)

var start = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// fakeClock stands still until it is moved. Its now is for the test that moves it;
// the engine's goroutines look by Now.
type fakeClock struct{ now time.Time }

// hands of all clocks.
var hands sync.Mutex

func (c *fakeClock) Now() time.Time {
	hands.Lock()
	defer hands.Unlock()
	return c.now
}

func (c *fakeClock) set(now time.Time) {
	hands.Lock()
	defer hands.Unlock()
	c.now = now
}

func open(t testing.TB, o Options) *Engine {
	t.Helper()
	if o.Dir == "" {
		o.Dir = "queue"
	}
	e, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = e.Close() })
	return e
}

func mailTo(addresses ...string) *Envelope {
	env := &Envelope{Sender: "tom@hanks.example", Origin: "receive.smtp.mx", Subject: "hello"}
	for _, a := range addresses {
		env.Recipients = append(env.Recipients, &Recipient{Address: a, Parent: -1})
	}
	return env
}

func put(t testing.TB, e *Engine, env *Envelope, body spool.Body) string {
	t.Helper()
	if err := e.Put(context.Background(), env, body); err != nil {
		t.Fatal(err)
	}
	return env.ID
}

func claim(t testing.TB, e *Engine, now time.Time, most int) []*Claim {
	t.Helper()
	cs, err := e.Claim(context.Background(), now, most, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	return cs
}

func octets(t testing.TB, e *Engine, id string) []byte {
	t.Helper()
	b, err := e.Body(context.Background(), id)
	if err != nil {
		t.Fatal(err)
	}
	r, err := b.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	got, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func large(t testing.TB, fs vfs.FS, text string) spool.Body {
	t.Helper()
	d, err := spool.OpenDir(fs, "spool")
	if err != nil {
		t.Fatal(err)
	}
	w := d.NewWriter(1 << 20)
	if _, err := w.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	b, err := w.Finish()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestOneMailFromPutToItsEnd(t *testing.T) {
	ctx := context.Background()
	for _, size := range []string{"small", "large"} {
		t.Run(size, func(t *testing.T) {
			fs, clock := vfs.NewMem(), &fakeClock{start}
			e := open(t, Options{FS: fs, Clock: clock.Now})
			body := spool.FromBytes([]byte("body"))
			if size == "large" {
				body = large(t, fs, "body")
			}
			id := put(t, e, mailTo("meg@ryan.example", "kathleen@ryan.example"), body)
			if got := octets(t, e, id); string(got) != "body" {
				t.Fatalf("body %q", got)
			}
			cs := claim(t, e, start, 10)
			if len(cs) != 1 || cs[0].ID != id || fmt.Sprint(cs[0].Due) != "[0 1]" {
				t.Fatalf("claimed %+v", cs)
			}
			if again := claim(t, e, start, 10); len(again) != 0 {
				t.Fatalf("claimed twice: %+v", again)
			}
			later := start.Add(time.Hour)
			err := e.Commit(ctx, cs[0], []Change{
				{Index: 0, State: Delivered, Attempt: &Attempt{At: start, Code: 250}},
				{Index: 1, State: Waiting, Next: later, Attempt: &Attempt{At: start, Code: 451, Text: "later"}},
			}, false)
			if err != nil {
				t.Fatal(err)
			}
			if err := e.Commit(ctx, cs[0], nil, false); !errors.Is(err, ErrLeaseLost) {
				t.Errorf("a second Commit: %v", err)
			}
			if at, ok, err := e.NextDue(ctx); err != nil || !ok || !at.Equal(later) {
				t.Errorf("NextDue %v %v %v", at, ok, err)
			}
			if early := claim(t, e, later.Add(-1), 10); len(early) != 0 {
				t.Errorf("claimed too early")
			}

			if err := e.Close(); err != nil {
				t.Fatal(err)
			}
			e = open(t, Options{FS: fs, Clock: clock.Now})
			env, err := e.Get(ctx, id)
			if err != nil {
				t.Fatal(err)
			}
			if r := env.Recipients; r[0].State != Delivered || r[1].State != Waiting || r[1].Attempts != 1 || r[1].Last.Text != "later" {
				t.Errorf("after a restart: %+v %+v", r[0], r[1])
			}
			cs = claim(t, e, later, 10)
			if len(cs) != 1 || fmt.Sprint(cs[0].Due) != "[1]" {
				t.Fatalf("claimed %+v", cs)
			}
			dsn := &Envelope{Recipients: []*Recipient{{Address: "tom@hanks.example"}}, Origin: "dsn"}
			err = e.Commit(ctx, cs[0], []Change{{
				Index: 1, State: Failed, Enqueue: []*NewMessage{{dsn, spool.FromBytes([]byte("bounce"))}},
			}}, false)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := e.Get(ctx, id); !errors.Is(err, ErrNotFound) {
				t.Errorf("after its end: %v", err)
			}
			if got := octets(t, e, dsn.ID); string(got) != "bounce" {
				t.Errorf("the DSN's body: %q", got)
			}
			if s, err := e.Stats(ctx); err != nil || s.Messages != 1 || s.Recipients != 1 || s.Bytes != 6 {
				t.Errorf("stats %+v %v", s, err)
			}
			if names := bodyFiles(t, fs); len(names) != 0 {
				t.Errorf("files left: %v", names)
			}
		})
	}
}

// bodyFiles waits for the files of ended messages to go: that comes after the ack.
func bodyFiles(t testing.TB, fs vfs.FS) []string {
	t.Helper()
	var files []string
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		files = nil
		for c := range idDigits {
			names, err := fs.List("queue/body/" + idDigits[c:c+1])
			if err != nil {
				t.Fatal(err)
			}
			files = append(files, names...)
		}
		if len(files) == 0 {
			break
		}
	}
	return files
}

func TestExpiredLeaseIsFenced(t *testing.T) {
	ctx := context.Background()
	e := open(t, Options{FS: vfs.NewMem(), Clock: (&fakeClock{start}).Now})
	put(t, e, mailTo("meg@ryan.example"), spool.FromBytes([]byte("x")))
	first := claim(t, e, start, 1)[0]
	if at, ok, err := e.NextDue(ctx); err != nil || !ok || !at.Equal(first.Until) {
		t.Errorf("NextDue during a lease: %v %v %v", at, ok, err)
	}
	second := claim(t, e, first.Until, 1)
	if len(second) != 1 || second[0].Token <= first.Token {
		t.Fatalf("after the lease's end: %+v", second)
	}
	if err := e.Commit(ctx, first, []Change{{State: Delivered}}, false); !errors.Is(err, ErrLeaseLost) {
		t.Errorf("the late holder: %v", err)
	}
	if err := e.Commit(ctx, second[0], []Change{{State: Delivered}}, false); err != nil {
		t.Error(err)
	}
}

func TestPriorityAndOrder(t *testing.T) {
	e := open(t, Options{FS: vfs.NewMem(), Clock: (&fakeClock{start}).Now})
	want := make([]string, 4)
	for n, m := range []struct {
		place, priority int
		next            time.Duration
	}{{3, -2, -time.Hour}, {2, 0, 0}, {1, 0, -time.Minute}, {0, 4, 0}} {
		env := mailTo("meg@ryan.example")
		env.Priority, env.Recipients[0].Next = m.priority, start.Add(m.next)
		want[m.place] = put(t, e, env, spool.FromBytes([]byte{byte(n)}))
	}
	var got []string
	for range 4 {
		for _, c := range claim(t, e, start, 1) {
			got = append(got, c.ID)
		}
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("claimed %v, want %v", got, want)
	}
}

func TestReleaseAndKeepAndAdd(t *testing.T) {
	ctx := context.Background()
	e := open(t, Options{FS: vfs.NewMem(), Clock: (&fakeClock{start}).Now})
	put(t, e, mailTo("list@ryan.example"), spool.FromBytes([]byte("x")))
	c := claim(t, e, start, 1)[0]
	if err := e.Release(ctx, c); err != nil {
		t.Fatal(err)
	}
	c = claim(t, e, start, 1)[0]
	add := []*Recipient{{Address: "meg@ryan.example"}, {Address: "joe@ryan.example"}}
	if err := e.Commit(ctx, c, []Change{{State: Expanded, Add: add}}, true); err != nil {
		t.Fatal(err)
	}
	if add[0].Index != 1 || add[1].Index != 2 || add[1].Parent != 0 {
		t.Errorf("added %+v %+v", add[0], add[1])
	}
	if err := e.Commit(ctx, c, []Change{{Index: 1, State: Delivered}, {Index: 7}}, true); err == nil {
		t.Error("a change of an unknown recipient passed")
	}
	if err := e.Commit(ctx, c, []Change{{Index: 1, State: Delivered}, {Index: 2, State: Held, Reason: "look"}}, false); err != nil {
		t.Fatal(err)
	}
	env, err := e.Get(ctx, c.ID)
	if err != nil {
		t.Fatal(err)
	}
	if r := env.Recipients; len(r) != 3 || r[0].State != Expanded || r[1].State != Delivered || r[2].State != Held || r[2].Reason != "look" {
		t.Errorf("recipients %+v", r)
	}
	if _, ok, err := e.NextDue(ctx); ok || err != nil {
		t.Errorf("a held message is due: %v %v", ok, err)
	}
	if err := e.Operate(ctx, c.ID, Operation{Kind: ReleaseHold}); err != nil {
		t.Fatal(err)
	}
	if cs := claim(t, e, start, 1); len(cs) != 1 || fmt.Sprint(cs[0].Due) != "[2]" {
		t.Errorf("after the release: %+v", cs)
	}
}

func TestOperatorDuringADelivery(t *testing.T) {
	ctx := context.Background()
	e := open(t, Options{FS: vfs.NewMem(), Clock: (&fakeClock{start}).Now})
	id := put(t, e, mailTo("meg@ryan.example", "joe@ryan.example"), spool.FromBytes([]byte("x")))
	c := claim(t, e, start, 1)[0]
	if err := e.Operate(ctx, id, Operation{Kind: Hold, Reason: "asked"}); err != nil {
		t.Fatal(err)
	}
	err := e.Commit(ctx, c, []Change{
		{Index: 0, State: Delivered},
		{Index: 1, State: Waiting, Next: start, Attempt: &Attempt{At: start, Code: 451}},
	}, false)
	if err != nil {
		t.Fatal(err)
	}
	env, err := e.Get(ctx, id)
	if err != nil {
		t.Fatal(err)
	}
	if r := env.Recipients; r[0].State != Delivered || r[1].State != Held || r[1].Reason != "asked" || r[1].Attempts != 1 {
		t.Errorf("recipients %+v %+v", r[0], r[1])
	}
	if err := e.Operate(ctx, id, Operation{Kind: Remove}); err != nil {
		t.Fatal(err)
	}
	if _, err := e.Get(ctx, id); !errors.Is(err, ErrNotFound) {
		t.Errorf("removed, but: %v", err)
	}
}

func TestWakeAtAnEarlierMessage(t *testing.T) {
	ctx := context.Background()
	e := open(t, Options{FS: vfs.NewMem(), Clock: (&fakeClock{start}).Now})
	later := mailTo("meg@ryan.example")
	later.NotBefore = start.Add(time.Hour)
	put(t, e, later, spool.FromBytes(nil))
	<-e.Wake()
	if at, _, err := e.NextDue(ctx); err != nil || !at.Equal(later.NotBefore) {
		t.Errorf("NextDue %v %v", at, err)
	}
	put(t, e, mailTo("joe@ryan.example"), spool.FromBytes(nil))
	<-e.Wake()
	if cs := claim(t, e, start, 5); len(cs) != 1 {
		t.Errorf("claimed %d", len(cs))
	}
}

func TestListFilters(t *testing.T) {
	ctx := context.Background()
	e := open(t, Options{FS: vfs.NewMem(), Clock: (&fakeClock{start}).Now})
	a := put(t, e, mailTo("meg@ryan.example"), spool.FromBytes(nil))
	b := put(t, e, mailTo("bill@other.example", "meg@ryan.example"), spool.FromBytes(nil))
	held := Held
	if err := e.Operate(ctx, b, Operation{Kind: Hold, Recipients: []int32{0}}); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		f    Filter
		want []string
	}{
		{Filter{}, []string{a, b}},
		{Filter{Limit: 1}, []string{a}},
		{Filter{IDs: []string{b, "nonsense"}}, []string{b}},
		{Filter{Sender: "TOM@"}, []string{a, b}},
		{Filter{Sender: "nora"}, nil},
		{Filter{Recipient: "bill"}, []string{b}},
		{Filter{Domain: "RYAN.example"}, []string{a, b}},
		{Filter{Domain: "example"}, nil},
		{Filter{State: &held}, []string{b}},
		{Filter{State: &held, Domain: "ryan.example"}, nil},
		{Filter{OlderThan: start}, nil},
		{Filter{OlderThan: start.Add(1)}, []string{a, b}},
	} {
		var got []string
		err := e.List(ctx, c.f, func(env *Envelope) bool { got = append(got, env.ID); return true })
		if err != nil || fmt.Sprint(got) != fmt.Sprint(c.want) {
			t.Errorf("%+v: %v %v, want %v", c.f, got, err, c.want)
		}
	}
}

func TestLongJournalIsFolded(t *testing.T) {
	ctx := context.Background()
	fs := vfs.NewMem()
	e := open(t, Options{FS: fs, Clock: (&fakeClock{start}).Now})
	id := put(t, e, mailTo("meg@ryan.example"), spool.FromBytes([]byte("x")))
	for n := range 3*foldAfter + 1 {
		c := claim(t, e, start, 1)[0]
		if got := c.Recipients[0].Attempts; got != n {
			t.Fatalf("attempt %d is told as %d", n, got)
		}
		err := e.Commit(ctx, c, []Change{{State: Waiting, Attempt: &Attempt{Code: 451}}}, false)
		if err != nil {
			t.Fatal(err)
		}
	}
	i, err := parseID(id)
	if err != nil {
		t.Fatal(err)
	}
	it, err := e.messageIter(i)
	if err != nil {
		t.Fatal(err)
	}
	defer it.Close()
	s, err := readMessage(it, i)
	if err != nil {
		t.Fatal(err)
	}
	if n := s.state.journal - s.state.first; n > foldAfter+1 {
		t.Errorf("%d journal records", n)
	}
}

func TestBodyOfAnotherMessageIsLinked(t *testing.T) {
	fs := vfs.NewMem()
	e := open(t, Options{FS: fs, Clock: (&fakeClock{start}).Now})
	text := string(bytes.Repeat([]byte("0123456789"), 5000))
	id := put(t, e, mailTo("meg@ryan.example"), large(t, fs, text))
	b, err := e.Body(context.Background(), id)
	if err != nil {
		t.Fatal(err)
	}
	second := put(t, e, mailTo("joe@ryan.example"), b)
	if err := e.Operate(context.Background(), id, Operation{Kind: Remove}); err != nil {
		t.Fatal(err)
	}
	if got := octets(t, e, second); string(got) != text {
		t.Errorf("%d octets", len(got))
	}
}

func TestIDsAreUniqueAndSorted(t *testing.T) {
	m := idMaker{epoch: 7}
	last := m.next(start)
	for n := range 1000 {
		i := m.next(start.Add(-time.Duration(n) * time.Second))
		if i <= last || i.String() <= last.String() || len(i.String()) != idLen {
			t.Fatalf("%v after %v", i, last)
		}
		if back, err := parseID(i.String()); err != nil || back != i {
			t.Fatalf("%v reads as %v %v", i, back, err)
		}
		last = i
	}
	if restarted := (&idMaker{epoch: 8}); restarted.next(start) == (&idMaker{epoch: 7}).next(start) {
		t.Error("two epochs gave one id")
	}
	for _, bad := range []string{"", "0", "zzzzzzzzzzz", "0000000000-", "00000000000000"} {
		if _, err := parseID(bad); !errors.Is(err, ErrNotFound) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}
