package metrics

import (
	"cmp"
	"math"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// vec is a family of counters, gauges or histograms of the core's own: one
// series for each combination of label values that was ever met, up to maxOwn.
// Safe for concurrent use. To count into a series that is there allocates nothing.
type vec struct {
	name, help string
	kind       kind
	labels     []string
	bounds     []float64 // upper, of a histogram

	mu     sync.RWMutex
	series map[labelValues]*series
}

// labelValues are those of a series, at most four.
type labelValues [4]string

// maxOwn of a family are told apart, to bound the page: all labels are blocks of
// the configuration or words of ours, and a family comes here only if many
// configurations followed each other. What is beyond counts in a series whose label
// values are all other.
const maxOwn = 2000

const other = "other"

type series struct {
	values  []string
	n       atomic.Int64
	buckets []atomic.Uint64 // one more than bounds
	sum     atomic.Uint64   // bits of a float64
}

func newVec(k kind, name, help string, labels ...string) *vec {
	return &vec{name: name, help: help, kind: k, labels: labels, series: map[labelValues]*series{}}
}

func newHistogram(bounds []float64, name, help string, labels ...string) *vec {
	v := newVec(histogram, name, help, labels...)
	v.bounds = bounds
	return v
}

// with returns the series of these label values.
func (v *vec) with(values ...string) *series {
	var key labelValues
	copy(key[:], values)
	v.mu.RLock()
	s := v.series[key]
	v.mu.RUnlock()
	if s != nil {
		return s
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if len(v.series) >= maxOwn && v.series[key] == nil {
		key = labelValues{}
		for i := range v.labels {
			key[i] = other
		}
	}
	if s = v.series[key]; s == nil {
		s = &series{values: slices.Clone(key[:len(v.labels)]), buckets: make([]atomic.Uint64, len(v.bounds)+1)}
		v.series[key] = s
	}
	return s
}

func (s *series) add(n int64) { s.n.Add(n) }

// observe counts a time into a histogram of seconds.
func (v *vec) observe(s *series, d time.Duration) {
	x := d.Seconds()
	i, _ := slices.BinarySearch(v.bounds, x)
	s.buckets[i].Add(1)
	addFloat(&s.sum, x)
}

func addFloat(bits *atomic.Uint64, x float64) {
	for {
		old := bits.Load()
		if bits.CompareAndSwap(old, math.Float64bits(math.Float64frombits(old)+x)) {
			return
		}
	}
}

// collect puts the family on a page, series by their label values.
func (v *vec) collect(p *page) {
	v.mu.RLock()
	all := make([]*series, 0, len(v.series))
	for _, s := range v.series {
		all = append(all, s)
	}
	v.mu.RUnlock()
	slices.SortFunc(all, func(a, b *series) int {
		return cmp.Compare(strings.Join(a.values, "\x00"), strings.Join(b.values, "\x00"))
	})
	for _, s := range all {
		var labels []label
		for i, name := range v.labels {
			labels = append(labels, label{name, s.values[i]})
		}
		if v.kind != histogram {
			p.put(v.name, v.kind, v.help, float64(s.n.Load()), labels...)
			continue
		}
		counts := make([]uint64, len(s.buckets))
		for i := range s.buckets {
			counts[i] = s.buckets[i].Load()
		}
		p.putHistogram(v.name, v.help, v.bounds, counts, math.Float64frombits(s.sum.Load()), labels...)
	}
}

// putHistogram puts a histogram's series on the page. counts are those of each
// bucket alone; the last one is above all bounds.
func (p *page) putHistogram(name, help string, bounds []float64, counts []uint64, sum float64, labels ...label) {
	f, err := p.declare(name, histogram, help)
	var total uint64
	for i, n := range counts {
		total += n
		le := "+Inf"
		if i < len(bounds) {
			le = number(bounds[i])
		}
		if err == nil {
			err = p.add(f, "_bucket", append(labels[:len(labels):len(labels)], label{"le", le}), float64(total))
		}
	}
	if err == nil {
		err = p.add(f, "_sum", labels, sum)
	}
	if err == nil {
		err = p.add(f, "_count", labels, float64(total))
	}
	if err != nil {
		p.faults = append(p.faults, err)
	}
}
