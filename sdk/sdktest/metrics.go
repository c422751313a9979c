package sdktest

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// Metrics reads what the plugin counts, as the core does for /metrics:
// "refused_total" and `logins_total{outcome="denied"}`, labels by name. A
// Histogram is its counters: `wait_seconds_bucket{le="0.1"}`, wait_seconds_sum
// and wait_seconds_count. What the core would leave out of its page fails the
// test.
func (in *Instance) Metrics() map[string]float64 {
	in.t.Helper()
	resp, err := in.Client.Metrics(Context(in.t), &v1.MetricsRequest{})
	if err != nil {
		in.t.Fatal(err)
	}
	for _, problem := range problems(resp.GetMetrics()) {
		in.t.Error(problem)
	}
	out := map[string]float64{}
	for _, m := range resp.GetMetrics() {
		out[series(m)] = m.GetValue()
	}
	return out
}

func series(m *v1.Metric) string {
	if len(m.GetLabels()) == 0 {
		return m.GetName()
	}
	var labels []string
	for _, name := range slices.Sorted(maps.Keys(m.GetLabels())) {
		labels = append(labels, fmt.Sprintf("%s=%q", name, m.GetLabels()[name]))
	}
	return m.GetName() + "{" + strings.Join(labels, ",") + "}"
}

// problems tells what of a plugin's metrics the core would leave out.
func problems(metrics []*v1.Metric) (out []string) {
	const remedy = ": use letters, digits and _, and begin with a letter"
	seen, counter := map[string]bool{}, map[string]bool{}
	for _, m := range metrics {
		name := m.GetName()
		if !validName(name) {
			out = append(out, fmt.Sprintf("the metric %q has no valid name%s", name, remedy))
		}
		for _, l := range slices.Sorted(maps.Keys(m.GetLabels())) {
			if !validName(l) {
				out = append(out, fmt.Sprintf("the label %q of the metric %s has no valid name%s", l, name, remedy))
			}
		}
		if was, met := counter[name]; met && was != m.GetCounter() {
			out = append(out, fmt.Sprintf("the metric %s is a counter and a gauge", name))
		}
		counter[name] = m.GetCounter()
		if s := series(m); seen[s] {
			out = append(out, fmt.Sprintf("the metric %s is there twice", s))
		} else {
			seen[s] = true
		}
	}
	return out
}

func validName(s string) bool {
	for i, c := range s {
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
		if !letter && (i == 0 || c != '_' && (c < '0' || c > '9')) {
			return false
		}
	}
	return s != ""
}
