package sdk

import (
	"runtime/debug"
	"testing"
)

func TestRested(t *testing.T) {
	const much = 4 * worthwhile
	for what, c := range map[string]struct {
		allocated, objects, free, live uint64
		want                           bool
	}{
		"garbage is left":               {allocated: little / 2, objects: much, live: worthwhile, want: true},
		"free memory is left":           {allocated: little / 2, objects: worthwhile, live: worthwhile, free: much, want: true},
		"busy":                          {allocated: 2 * little, objects: much, free: much},
		"nothing to give back":          {objects: worthwhile, live: worthwhile, free: worthwhile / 2},
		"less alive than was collected": {objects: worthwhile / 2, live: much, free: worthwhile / 2},
	} {
		const before = 10 * much
		h := heap{allocated: before + c.allocated, objects: c.objects, free: c.free, live: c.live}
		if got := h.rested(heap{allocated: before}); got != c.want {
			t.Errorf("%s: %v, want %v", what, got, c.want)
		}
	}
}

// The runtime's own figures mean what rested takes them for.
func TestHeapAfterABusyHour(t *testing.T) {
	debug.FreeOSMemory()
	quiet := readHeap()
	func() {
		hold := make([][]byte, 32)
		for i := range hold {
			hold[i] = make([]byte, 1<<20)
		}
	}()
	busy := readHeap()
	if busy.rested(quiet) {
		t.Errorf("32 MiB were allocated, and it counts as rest: %+v, %+v", quiet, busy)
	}
	if now := readHeap(); !now.rested(busy) {
		t.Errorf("nothing to give back after it: %+v", now)
	}
	// The runtime gives back what its own goroutines hold free meanwhile the next time.
	for range 20 {
		debug.FreeOSMemory()
		if !readHeap().rested(busy) {
			return
		}
	}
	t.Errorf("still something to give back: %+v", readHeap())
}
