package observe

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/rs/zerolog"

	"github.com/stagecoach-mta/stagecoach/core/queue"
	"github.com/stagecoach-mta/stagecoach/core/spool"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// observer notes what it was told; it fails as often as it should.
type observer struct {
	mu    sync.Mutex
	fails int
	seen  []uint64
	to    []string
	calls int
	grew  chan struct{}
}

func newObserver(fails int) *observer {
	return &observer{fails: fails, grew: make(chan struct{}, 1)}
}

func (o *observer) Call(_ context.Context, call *v1.Call) (*v1.Reply, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.calls++
	if o.fails > 0 {
		o.fails--
		return nil, errors.New("away")
	}
	for _, ob := range call.GetFilter().GetObservations() {
		o.seen = append(o.seen, ob.GetSequence())
		o.to = append(o.to, ob.GetEnvelope().GetRecipients()[0].GetAddress())
	}
	select {
	case o.grew <- struct{}{}:
	default:
	}
	return &v1.Reply{Response: &v1.Reply_Filter{Filter: &v1.FilterReply{}}}, nil
}

func (o *observer) Stream(context.Context, *v1.Call, func(*v1.Reply) error) error { return nil }

// wait returns what the observer was told, once that is n observations.
func (o *observer) wait(t *testing.T, n int) []string {
	t.Helper()
	limit := time.After(20 * time.Second)
	for {
		o.mu.Lock()
		to := append([]string(nil), o.to...)
		o.mu.Unlock()
		if len(to) >= n {
			return to
		}
		select {
		case <-o.grew:
		case <-limit:
			t.Fatalf("told %d observations, want %d", len(to), n)
		}
	}
}

func openQueue(t *testing.T, fs vfs.FS) *queue.Engine {
	t.Helper()
	q, err := queue.Open(queue.Options{Dir: "queue", FS: fs, Log: zerolog.Nop()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = q.Close() })
	return q
}

func put(t *testing.T, q *queue.Engine, to string) {
	t.Helper()
	env := &queue.Envelope{Sender: "tom@hanks.example", Recipients: []*queue.Recipient{{Address: to, Parent: -1}}}
	if err := q.Put(context.Background(), env, spool.FromBytes([]byte("x"))); err != nil {
		t.Fatal(err)
	}
}

func pump(t *testing.T, q *queue.Engine, keep time.Duration, observers ...Observer) *Pump {
	t.Helper()
	p := New(Options{Feed: q, Clock: time.Now, Log: zerolog.Nop()})
	t.Cleanup(p.Close)
	if err := p.Set(observers, keep); err != nil {
		t.Fatal(err)
	}
	return p
}

func TestEachObserverHearsAllInOrder(t *testing.T) {
	q := openQueue(t, vfs.NewMem())
	put(t, q, "before@ryan.example")
	well, sick := newObserver(0), newObserver(3)
	pump(t, q, time.Hour, Observer{Name: "filter.a.well", Caller: well}, Observer{Name: "filter.a.sick", Caller: sick})
	const n = 250 // more than a batch
	for i := range n {
		put(t, q, fmt.Sprintf("m%d@ryan.example", i))
	}
	for name, o := range map[string]*observer{"well": well, "sick": sick} {
		got := o.wait(t, n)
		for i, to := range got {
			if want := fmt.Sprintf("m%d@ryan.example", i); to != want {
				t.Fatalf("%s: observation %d is of %s, want %s", name, i, to, want)
			}
		}
	}
}

// What an observer has not taken when the server is killed it hears after the
// start; what both have taken is gone from the disk.
func TestObserverAwayOverARestart(t *testing.T) {
	fs := vfs.NewCrashableMem()
	q := openQueue(t, fs)
	o := newObserver(1 << 30)
	p := pump(t, q, time.Hour, Observer{Name: "filter.a.b", Caller: o})
	put(t, q, "meg@ryan.example")
	put(t, q, "kathleen@ryan.example")
	p.Close()

	q = openQueue(t, fs.CrashClone(vfs.CrashCloneCfg{}))
	o = newObserver(0)
	pump(t, q, time.Hour, Observer{Name: "filter.a.b", Caller: o})
	put(t, q, "joe@ryan.example")
	if got := fmt.Sprint(o.wait(t, 3)); got != "[meg@ryan.example kathleen@ryan.example joe@ryan.example]" {
		t.Errorf("told %s", got)
	}
	for limit := time.Now().Add(20 * time.Second); ; put(t, q, "joe@ryan.example") {
		left, err := q.Observations(context.Background(), 0, 100)
		if err != nil {
			t.Fatal(err)
		}
		if len(left) < 3 {
			break
		}
		if time.Now().After(limit) {
			t.Fatalf("%d observations are kept that everybody has seen", len(left))
		}
	}
}

// A reload keeps an observer's place and starts a new one at the present.
func TestReload(t *testing.T) {
	q := openQueue(t, vfs.NewMem())
	first := newObserver(0)
	p := pump(t, q, time.Hour, Observer{Name: "filter.a.old", Caller: first})
	put(t, q, "one@ryan.example")
	first.wait(t, 1)
	again, young := newObserver(0), newObserver(0)
	if err := p.Set([]Observer{{Name: "filter.a.old", Caller: again}, {Name: "filter.a.young", Caller: young}}, time.Hour); err != nil {
		t.Fatal(err)
	}
	put(t, q, "two@ryan.example")
	if a, y := fmt.Sprint(again.wait(t, 1)), fmt.Sprint(young.wait(t, 1)); a != "[two@ryan.example]" || y != a {
		t.Errorf("the old one hears %s, the new one %s", a, y)
	}
	if err := p.Set(nil, time.Hour); err != nil {
		t.Fatal(err)
	}
	put(t, q, "three@ryan.example")
	if left, err := q.Observations(context.Background(), 0, 100); err != nil || len(left) != 0 {
		t.Errorf("without observers %d observations are kept (%v)", len(left), err)
	}
}

func TestTooLongAwayIsSaid(t *testing.T) {
	q := openQueue(t, vfs.NewMem())
	var log zerologLines
	p := New(Options{Feed: q, Clock: func() time.Time { return time.Now().Add(8 * 24 * time.Hour) }, Log: zerolog.New(&log)})
	t.Cleanup(p.Close)
	if err := p.Set([]Observer{{Name: "filter.a.b", Caller: newObserver(1 << 30)}}, 7*24*time.Hour); err != nil {
		t.Fatal(err)
	}
	put(t, q, "meg@ryan.example")
	p.Sweep()
	put(t, q, "sync@ryan.example")
	if !log.has("away too long") {
		t.Error("nobody was told that observations are lost")
	}
	if left, _ := q.Observations(context.Background(), 0, 100); len(left) != 1 {
		t.Errorf("%d observations are kept, want the one after the sweep", len(left))
	}
}

type zerologLines struct {
	mu sync.Mutex
	b  []byte
}

func (l *zerologLines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.b = append(l.b, b...)
	return len(b), nil
}

func (l *zerologLines) has(s string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Contains(string(l.b), s)
}
