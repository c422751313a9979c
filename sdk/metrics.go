package sdk

import (
	"sort"
	"strings"
	"sync"
	"sync/atomic"

	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// Metrics are an instance's counters and gauges; the core asks for their values
// and adds the instance's name. Safe for concurrent use.
type Metrics struct {
	mu  sync.Mutex
	all map[string]*Value
}

// Value is one counter or gauge, of whole numbers. Safe for concurrent use.
type Value struct {
	n    atomic.Int64
	meta v1.Metric
}

// Add adds n; a counter takes no negative one.
func (v *Value) Add(n int64) {
	if n > 0 || !v.meta.Counter {
		v.n.Add(n)
	}
}

// Set sets a gauge.
func (v *Value) Set(n int64) { v.n.Store(n) }

// Counter returns the counter of that name and labels (key, value, key, value …),
// new at first use.
func (m *Metrics) Counter(name, help string, labels ...string) *Value {
	return m.value(true, name, help, labels)
}

// Gauge is Counter for a value that also falls.
func (m *Metrics) Gauge(name, help string, labels ...string) *Value {
	return m.value(false, name, help, labels)
}

func (m *Metrics) value(counter bool, name, help string, labels []string) *Value {
	key := name + "\x00" + strings.Join(labels, "\x00")
	m.mu.Lock()
	defer m.mu.Unlock()
	if v := m.all[key]; v != nil {
		return v
	}
	v := &Value{meta: v1.Metric{Name: name, Help: help, Counter: counter, Labels: map[string]string{}}}
	for i := 0; i+1 < len(labels); i += 2 {
		v.meta.Labels[labels[i]] = labels[i+1]
	}
	if m.all == nil {
		m.all = map[string]*Value{}
	}
	m.all[key] = v
	return v
}

// snapshot lists the present values by name.
func (m *Metrics) snapshot() []*v1.Metric {
	m.mu.Lock()
	defer m.mu.Unlock()
	keys := make([]string, 0, len(m.all))
	for k := range m.all {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	var out []*v1.Metric
	for _, k := range keys {
		v := m.all[k]
		out = append(out, &v1.Metric{
			Name: v.meta.Name, Help: v.meta.Help, Counter: v.meta.Counter, Labels: v.meta.Labels, Value: float64(v.n.Load()),
		})
	}
	return out
}
