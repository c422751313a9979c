package host

import (
	"testing"
	"time"
)

// TestTimes: no call is counted in a bucket that it is too long for.
func TestTimes(t *testing.T) {
	for d := time.Duration(1); d < 1000*time.Second; d = d*5/4 + 1 {
		var s stats
		s.record(d, nil)
		got := s.times()
		for n, count := range got.Counts {
			if count == 0 {
				continue
			}
			if n < len(got.Bounds) && d.Seconds() > got.Bounds[n] {
				t.Errorf("%s is in the bucket up to %v s", d, got.Bounds[n])
			}
			// Buckets are four times as wide as the one before.
			if n > 0 && d.Seconds() < got.Bounds[n-1]*0.99 {
				t.Errorf("%s is in the bucket above %v s", d, got.Bounds[n-1])
			}
		}
		if got.Seconds != d.Seconds() {
			t.Errorf("%s sums up to %v", d, got.Seconds)
		}
	}
}
