package sdk

import (
	"cmp"
	"maps"
	"math"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// Metrics are what an instance counts. The core shows them on its /metrics page
// as stagecoach_plugin_PLUGIN_NAME, with the label plugin="filter.greylist.calm".
// The zero value is ready. Safe for concurrent use.
//
// Names and label names are letters, digits and _, and begin with a letter; a
// counter's name ends in _total, a unit stands in the plural: wait_seconds,
// read_bytes. Leave the plugin's own name out: the core puts it in front. What
// breaks these rules, and what is beyond 2000 series, is left out of the page
// and named in the server's log; sdktest.Instance.Metrics finds it in a test.
//
// A label's values should be few and known beforehand: each is a series that
// lives as long as the process. An address of a mail is no label.
type Metrics struct {
	mu  sync.Mutex
	all map[string]*meter
}

// meter is one series of a name: a value or a histogram.
type meter struct {
	name, help string
	labels     map[string]string
	counter    bool
	value      Value
	histogram  *Histogram
}

// Value is one counter or gauge, of whole numbers. Safe for concurrent use.
type Value struct {
	n       atomic.Int64
	counter bool
}

// Add adds n; a counter takes no negative one.
func (v *Value) Add(n int64) {
	if n > 0 || !v.counter {
		v.n.Add(n)
	}
}

// Set sets a gauge. A counter stays as it is: it only grows.
func (v *Value) Set(n int64) {
	if !v.counter {
		v.n.Store(n)
	}
}

// Value is what it stands at.
func (v *Value) Value() int64 { return v.n.Load() }

// Counter returns the counter of that name and labels (key, value, key, value …),
// new at first use. help says in a line what it counts.
func (m *Metrics) Counter(name, help string, labels ...string) *Value {
	return &m.meter(name, help, labels, func(x *meter) { x.counter, x.value.counter = true, true }).value
}

// Gauge is Counter for a value that also falls.
func (m *Metrics) Gauge(name, help string, labels ...string) *Value {
	return &m.meter(name, help, labels, func(*meter) {}).value
}

// Seconds are upper bounds for a Histogram of times, from a millisecond to half
// a minute.
func Seconds() []float64 {
	return []float64{0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30}
}

// Histogram counts what is observed by its size, so that the page shows shares
// and percentiles: how many answers took longer than a second. bounds are the
// upper bounds, each included, in any order; what lies above all of them is
// counted too. Its name has no ending of its own: wait_seconds.
//
// The second call for a name and labels returns the first one's histogram, with
// its bounds.
func (m *Metrics) Histogram(name, help string, bounds []float64, labels ...string) *Histogram {
	x := m.meter(name, help, labels, func(x *meter) {
		b := slices.Clone(bounds)
		slices.Sort(b)
		b = slices.Compact(b)
		x.histogram = &Histogram{bounds: b, counts: make([]atomic.Uint64, len(b)+1)}
	})
	if x.histogram == nil {
		// The name is a counter's or a gauge's: it keeps it, and this one is
		// counted for nobody.
		return &Histogram{counts: make([]atomic.Uint64, 1)}
	}
	return x.histogram
}

// Histogram is a distribution of numbers. Safe for concurrent use.
type Histogram struct {
	bounds []float64
	counts []atomic.Uint64
	sum    atomic.Uint64 // bits of a float64
}

// Observe counts v. NaN is not counted.
func (h *Histogram) Observe(v float64) {
	if math.IsNaN(v) {
		return
	}
	i, _ := slices.BinarySearch(h.bounds, v)
	h.counts[i].Add(1)
	for {
		old := h.sum.Load()
		if h.sum.CompareAndSwap(old, math.Float64bits(math.Float64frombits(old)+v)) {
			return
		}
	}
}

// Since counts the seconds since begin: defer wait.Since(time.Now()).
func (h *Histogram) Since(begin time.Time) { h.Observe(time.Since(begin).Seconds()) }

// Count is how many were observed, Sum what they come to.
func (h *Histogram) Count() (n uint64) {
	for i := range h.counts {
		n += h.counts[i].Load()
	}
	return n
}

// Sum of all that was observed.
func (h *Histogram) Sum() float64 { return math.Float64frombits(h.sum.Load()) }

// meter finds a series, or makes it as fresh says.
func (m *Metrics) meter(name, help string, labels []string, fresh func(*meter)) *meter {
	set := map[string]string{}
	for i := 0; i+1 < len(labels); i += 2 {
		set[labels[i]] = labels[i+1]
	}
	key := name
	for _, l := range slices.Sorted(maps.Keys(set)) {
		key += "\x00" + l + "\x00" + set[l]
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if x := m.all[key]; x != nil {
		return x
	}
	x := &meter{name: name, help: help, labels: set}
	fresh(x)
	if m.all == nil {
		m.all = map[string]*meter{}
	}
	m.all[key] = x
	return x
}

// snapshot lists the present values by name.
func (m *Metrics) snapshot() []*v1.Metric {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []*v1.Metric
	for _, key := range slices.SortedFunc(maps.Keys(m.all), cmp.Compare[string]) {
		x := m.all[key]
		if x.histogram != nil {
			out = append(out, x.expand()...)
			continue
		}
		out = append(out, &v1.Metric{Name: x.name, Help: x.help, Counter: x.counter, Labels: x.labels, Value: float64(x.value.Value())})
	}
	return out
}

// expand writes a histogram as the counters that Prometheus has for it: what is
// at most le, for each bound, their number and their sum.
func (x *meter) expand() []*v1.Metric {
	h := x.histogram
	one := func(suffix string, value float64) *v1.Metric {
		return &v1.Metric{Name: x.name + suffix, Help: x.help, Counter: true, Labels: maps.Clone(x.labels), Value: value}
	}
	var (
		out   []*v1.Metric
		total uint64
	)
	for i := range h.counts {
		total += h.counts[i].Load()
		b := one("_bucket", float64(total))
		b.Labels["le"] = "+Inf"
		if i < len(h.bounds) {
			b.Labels["le"] = strconv.FormatFloat(h.bounds[i], 'g', -1, 64)
		}
		out = append(out, b)
	}
	return append(out, one("_sum", h.Sum()), one("_count", float64(total)))
}
