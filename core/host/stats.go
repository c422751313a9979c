package host

import (
	"math/bits"
	"sync/atomic"
	"time"

	"github.com/stagecoach-mta/stagecoach/sdk/fail"
)

// stats counts calls and their times, without a lock. A bucket is a quarter of
// a power of two of microseconds, so a percentile is right to about 12 %.
type stats struct {
	calls, errors atomic.Uint64
	total         atomic.Int64 // nanoseconds of all calls
	buckets       [4 * 36]atomic.Uint64
}

func (s *stats) record(d time.Duration, err error) {
	s.calls.Add(1)
	s.total.Add(int64(d))
	if err != nil {
		switch fail.KindOf(err) {
		case fail.Internal, fail.Unavailable, fail.Deadline:
			s.errors.Add(1)
		}
	}
	s.buckets[bucket(d)].Add(1)
}

func bucket(d time.Duration) int {
	us := uint64(max(4, d.Microseconds()))
	exp := bits.Len64(us) - 3 // us>>exp is 4, 5, 6 or 7
	return min(exp*4+int(us>>exp)-4, 4*36-1)
}

// middle of a bucket.
func middle(b int) time.Duration {
	width := time.Duration(1) << (b / 4)
	return (width*time.Duration(b%4+4) + width/2) * time.Microsecond
}

func (s *stats) fill(info *Info) {
	info.Calls, info.Errors = s.calls.Load(), s.errors.Load()
	var counts [len(s.buckets)]uint64
	var total uint64
	for b := range s.buckets {
		counts[b] = s.buckets[b].Load()
		total += counts[b]
	}
	info.P50, info.P99 = percentile(counts[:], total, 50), percentile(counts[:], total, 99)
}

func percentile(counts []uint64, total, percent uint64) time.Duration {
	var seen uint64
	for b, n := range counts {
		seen += n
		if n > 0 && seen*100 >= total*percent {
			return middle(b)
		}
	}
	return 0
}
