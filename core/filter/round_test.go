package filter

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stagecoach-mta/stagecoach/core/spool"
	"github.com/stagecoach-mta/stagecoach/sdk/mail"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// TestARejectGivesTheOthersUp: wherever the one that rejects stands, nobody waits for
// the others, and they are no failures.
func TestARejectGivesTheOthersUp(t *testing.T) {
	for at := range 3 {
		var begun atomic.Int32
		var c Chain
		for i := range 3 {
			m, _ := member(fmt.Sprint("slow", i), v1.FilterInterest_JUDGE, func(ctx context.Context, _ *v1.FilterCall) (*v1.FilterReply, error) {
				begun.Add(1)
				<-ctx.Done()
				return nil, ctx.Err()
			})
			if i == at {
				m, _ = member("no", v1.FilterInterest_JUDGE, func(ctx context.Context, _ *v1.FilterCall) (*v1.FilterReply, error) {
					for begun.Load() < 2 && ctx.Err() == nil {
						runtime.Gosched()
					}
					return reject("go away"), nil
				})
			}
			m.Timeout = time.Minute
			c = append(c, m)
		}
		out := ask(t, c)
		if out.By != "no" || out.Verdict.GetAction() != v1.Verdict_REJECT || len(out.Trace) != 1 || out.Trace[0].Failed != "" {
			t.Errorf("rejected by the judge at %d: %v by %q, trace %+v", at, out.Verdict, out.By, out.Trace)
		}
	}
}

// TestEachJudgeHasItsOwnTime: a short time-out beside a long one.
func TestEachJudgeHasItsOwnTime(t *testing.T) {
	for _, order := range [][2]time.Duration{{5 * time.Millisecond, time.Minute}, {time.Minute, 5 * time.Millisecond}} {
		var c Chain
		for i, timeout := range order {
			m, _ := member(fmt.Sprint(i), v1.FilterInterest_JUDGE, func(ctx context.Context, _ *v1.FilterCall) (*v1.FilterReply, error) {
				if timeout < time.Second {
					<-ctx.Done()
					return nil, ctx.Err()
				}
				return note("in time"), ctx.Err()
			})
			m.Timeout, m.OnFailure = timeout, OnFailureAccept
			c = append(c, m)
		}
		out := ask(t, c)
		for i, s := range out.Trace {
			if late := order[i] < time.Second; late != strings.Contains(s.Failed, "deadline") || late != (s.Note == "") {
				t.Errorf("time-outs %v: step %d is %+v", order, i, s)
			}
		}
	}
}

// reading counts how often the header is read.
type reading struct {
	marking
	names [][]string
}

func (r *reading) Fields(_ spool.Body, names []string) (mail.Header, error) {
	r.names = append(r.names, names)
	return mail.Header{{Name: strings.Join(names, ",")}}, nil
}

// TestNeighboursShareTheHeader: each judge sees the fields that it named, and the same
// ones are read once.
func TestNeighboursShareTheHeader(t *testing.T) {
	var c Chain
	for _, want := range []string{"subject", "subject", "", "from"} {
		m, _ := member(want, v1.FilterInterest_JUDGE, func(_ context.Context, call *v1.FilterCall) (*v1.FilterReply, error) {
			return note(call.GetHeader()[0].GetName()), nil
		})
		in := &v1.FilterInterest{Events: []v1.FilterEvent{v1.FilterEvent_MESSAGE}, Effect: v1.FilterInterest_JUDGE, Body: v1.FilterInterest_HEADER}
		if want != "" {
			in.HeaderNames = []string{want}
		}
		m.Interest = func() *v1.FilterInterest { return in }
		c = append(c, m)
	}
	r := &reading{}
	out, err := c.Run(context.Background(), r, Question{Event: v1.FilterEvent_MESSAGE, Envelope: &v1.Envelope{}, Body: spool.FromBytes(nil)})
	if err != nil {
		t.Fatal(err)
	}
	for i, s := range out.Trace {
		if s.Note != c[i].Name {
			t.Errorf("the judge of %q saw %q", c[i].Name, s.Note)
		}
	}
	if len(r.names) != 3 {
		t.Errorf("the header was read for %q", r.names)
	}
}

// TestWorkersRest: goroutines are used again, and those that nobody needs end.
func TestWorkersRest(t *testing.T) {
	w := &workers{after: time.Hour} // looked at by hand
	idle := func() int {
		w.mu.Lock()
		defer w.mu.Unlock()
		return len(w.idle)
	}
	together := func(n int32) {
		t.Helper()
		var running atomic.Int32
		all := make(chan struct{})
		for range n {
			w.do(func() {
				if running.Add(1) == n {
					close(all)
				}
				<-all
			})
		}
		for end := time.Now().Add(20 * time.Second); idle() != 4; runtime.Gosched() {
			if time.Now().After(end) {
				t.Fatalf("%d goroutines wait, want 4", idle())
			}
		}
	}
	together(4)
	w.rest()
	together(3) // of the four
	w.rest()
	if n := idle(); n != 3 {
		t.Errorf("one was not needed, and %d are left, want 3", n)
	}
	w.rest()
	if n := idle(); n != 0 || w.timer != nil {
		t.Errorf("nobody was needed, and %d are left; a timer: %v", n, w.timer != nil)
	}
}
