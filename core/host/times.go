package host

import "time"

// Times is how long an instance's calls took, as a histogram.
type Times struct {
	// Bounds of the buckets in seconds; Counts has one more, for what is above
	// them all. Counts are each bucket's own.
	Bounds []float64
	Counts []uint64
	// Seconds in all.
	Seconds float64
}

// Times tells how long the calls of this instance took, over restarts and
// reloads.
func (i *Instance) Times() Times { return i.stats.times() }

// Eleven bounds, each four times the one before, go from 64 µs to 67 s.
const (
	firstBound = 6 // log2 of 64 µs
	bounds     = 11
)

func (s *stats) times() Times {
	t := Times{Bounds: make([]float64, bounds), Counts: make([]uint64, bounds+1), Seconds: time.Duration(s.total.Load()).Seconds()}
	for n := range t.Bounds {
		t.Bounds[n] = (time.Duration(1) << (firstBound + 2*n) * time.Microsecond).Seconds()
	}
	for b := range s.buckets {
		// Bucket b ends at 2^(b/4+3) µs where b%4 is 3, and before it otherwise.
		n := max(0, (b/4+3-firstBound+1)/2)
		t.Counts[min(n, bounds)] += s.buckets[b].Load()
	}
	return t
}
