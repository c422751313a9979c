package stream

import (
	"sync"
	"testing"
)

// TestIdleGoroutinesAreLetGo: those that had nothing to do for one patience end,
// and those that were used stay.
func TestIdleGoroutinesAreLetGo(t *testing.T) {
	var mu sync.Mutex
	var i idle
	open := func(c chan incoming) bool {
		select {
		case _, ok := <-c:
			return ok
		default:
			return true
		}
	}
	mu.Lock()
	defer mu.Unlock() // the timer never gets in
	if i.give(incoming{id: 1}) {
		t.Error("a call was given to nobody")
	}
	var list []chan incoming
	for range 4 {
		c := make(chan incoming, 1)
		list = append(list, c)
		i.add(&mu, c)
	}
	i.letGo() // they came since the last time
	for n, id := range []uint64{7, 8} {
		if !i.give(incoming{id: id}) {
			t.Fatal("nobody took the call")
		}
		if in := <-list[3-n]; in.id != id {
			t.Errorf("it was given call %d, not %d", in.id, id)
		}
	}
	i.add(&mu, list[2])
	i.add(&mu, list[3])
	i.letGo()
	for n, want := range []bool{false, false, true, true} {
		if open(list[n]) != want {
			t.Errorf("the one of number %d goes on: %v", n, !want)
		}
	}
	i.letGo()
	if open(list[2]) || open(list[3]) || i.timer != nil {
		t.Error("somebody still waits after all had nothing to do")
	}
	last := make(chan incoming, 1)
	i.add(&mu, last)
	i.end()
	i.end()
	late := make(chan incoming, 1)
	i.add(&mu, late)
	if open(last) || open(late) {
		t.Error("somebody waits after the end")
	}
}
