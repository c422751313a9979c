package sdk

import (
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// A plugin that has nothing to do gives the system back what its start, or its
// last busy hour, needed. Go's own scavenger leaves that much: below 4 MB of heap
// it returns nothing, and a plugin that rests is smaller.
const (
	// settle is from the start of the process to the first look: Ready is over.
	settle = time.Second
	// look is how long little must have been allocated, in octets: health checks
	// and the reading of metrics allocate some.
	look   = time.Minute
	little = 1 << 20
	// worthwhile is how much, in octets, must be there to give back: to look for
	// it is a collection, some milliseconds of CPU.
	worthwhile = 1 << 20
)

// rest gives memory back while the process rests, until the end of the process.
func rest() {
	time.Sleep(settle)
	at := readHeap()
	for ticks := time.Tick(look); ; <-ticks {
		now := readHeap()
		if now.rested(at) {
			debug.FreeOSMemory()
			now = readHeap()
		}
		at = now
	}
}

// heap is what the runtime holds, in octets: allocated ever, objects that live or
// wait for a collection, free and not given back, and what the last collection
// found alive.
type heap struct{ allocated, objects, free, live uint64 }

func readHeap() heap {
	s := []metrics.Sample{
		{Name: "/gc/heap/allocs:bytes"}, {Name: "/memory/classes/heap/objects:bytes"},
		{Name: "/memory/classes/heap/free:bytes"}, {Name: "/gc/heap/live:bytes"},
	}
	metrics.Read(s)
	return heap{s[0].Value.Uint64(), s[1].Value.Uint64(), s[2].Value.Uint64(), s[3].Value.Uint64()}
}

// rested tells whether little happened since before, and it is worth while to give
// memory back.
func (h heap) rested(before heap) bool {
	return h.allocated-before.allocated < little && h.free+h.objects-min(h.objects, h.live) > worthwhile
}
