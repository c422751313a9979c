package sdk

import (
	"context"
	"testing"
	"time"

	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// TestProcessors: a process that is busy on its one processor gets the others, and
// gives them back when it has been calm for a while; who is never busy never does.
func TestProcessors(t *testing.T) {
	var sets []bool
	p := &processors{set: func(wide bool) { sets = append(sets, wide) }}
	for _, s := range []struct {
		took, used time.Duration
		sets       int
	}{
		{window, window / 2, 0},               // light calls
		{window, window * 9 / 10, 1},          // busy: more
		{wideWindow, wideWindow * 3, 1},       // on several
		{wideWindow, wideWindow / 10, 1},      // calm, not for long
		{calm - 2*wideWindow, time.Second, 1}, // nearly
		{wideWindow, wideWindow, 1},           // busy again
		{calm - time.Millisecond, 0, 1},       // begins anew
		{wideWindow, 0, 2},                    // calm long enough
		{window, 0, 2},
	} {
		if p.step(s.took, s.used); len(sets) != s.sets {
			t.Fatalf("after %v of CPU in %v it was set %v", s.used, s.took, sets)
		}
	}
	if !sets[0] || sets[1] || p.wide {
		t.Errorf("it was set %v", sets)
	}
}

// TestProcessorsLookWhileCallsCome: nobody is woken for a process that has nothing to do.
func TestProcessorsLookWhileCallsCome(t *testing.T) {
	used := time.Duration(0)
	p := &processors{
		set: func(bool) {}, used: func() time.Duration { return used },
		after: func(_ time.Duration, f func()) *time.Timer { return time.AfterFunc(time.Hour, f) }, // looked at by hand
	}
	h := p.watch(func(context.Context, *v1.Call, func(*v1.Reply) error) (*v1.Reply, error) { return &v1.Reply{}, nil })
	call := func() {
		if r, err := h(context.Background(), &v1.Call{}, nil); r == nil || err != nil {
			t.Fatal(r, err)
		}
	}
	at := time.Now()
	look := func(after, cpu time.Duration, timer, wide bool) {
		t.Helper()
		at, used = at.Add(after), used+cpu
		p.look(at)
		if p.wide != wide || (p.timer != nil) != timer {
			t.Errorf("it is wide: %v, and looks again: %v; want %v, %v", p.wide, p.timer != nil, wide, timer)
		}
	}
	call()
	if p.timer == nil {
		t.Fatal("a call came, and nobody looks")
	}
	at = p.at
	look(window, 0, true, false) // a call came: once more
	look(window, 0, false, false)
	call()
	at = p.at
	look(window, 0, true, false)
	look(window, window, true, true) // busy without another call: one is long
	look(calm, 0, false, false)
	if h := (*processors)(nil).watch(nil); h != nil {
		t.Error("what is not watched is changed")
	}
}
