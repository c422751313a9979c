package sdktest

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/stagecoach-mta/stagecoach/sdk"
	"github.com/stagecoach-mta/stagecoach/sdk/filter"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// counting is a filter that counts in every way there is.
var counting = sdk.Plugin{
	Name: "counting", Version: "1",
	Interest: &v1.FilterInterest{Events: []v1.FilterEvent{v1.FilterEvent_MESSAGE}, Effect: v1.FilterInterest_JUDGE},
	Filter: func(_ context.Context, in *sdk.Instance) (filter.Filter, error) {
		m := in.Metrics
		sizes := m.Histogram("read_bytes", "Sizes.", []float64{1000, 10, 10}, "b", "2", "a", "1")
		return filter.Func(func(_ context.Context, ev *filter.Event) (*filter.Verdict, error) {
			c := m.Counter("seen_total", "Mails seen.", "from", ev.Envelope.GetSender())
			c.Add(1)
			c.Add(-5)
			c.Set(0)
			g := m.Gauge("last_bytes", "Size of the last one.")
			g.Set(ev.Envelope.GetSize())
			g.Add(-1)
			sizes.Observe(float64(ev.Envelope.GetSize()))
			m.Histogram("read_bytes", "", nil, "a", "1", "b", "2").Observe(5)
			m.Histogram("last_bytes", "", nil).Since(time.Now())
			return nil, nil
		}), nil
	},
}

func TestMetricsOfAPlugin(t *testing.T) {
	in := Start(t, counting, nil)
	for _, size := range []int64{100, 2000} {
		call := &v1.Call{Request: &v1.Call_Filter{Filter: &v1.FilterCall{
			Event: v1.FilterEvent_MESSAGE, Envelope: &v1.Envelope{Sender: "tom@hanks.example", Size: size},
		}}}
		if _, err := in.Caller.Call(Context(t), call); err != nil {
			t.Fatal(err)
		}
	}
	got := in.Metrics()
	want := map[string]float64{
		`seen_total{from="tom@hanks.example"}`:     2,
		`last_bytes`:                               1999,
		`read_bytes_bucket{a="1",b="2",le="10"}`:   2,
		`read_bytes_bucket{a="1",b="2",le="1000"}`: 3,
		`read_bytes_bucket{a="1",b="2",le="+Inf"}`: 4,
		`read_bytes_sum{a="1",b="2"}`:              2110,
		`read_bytes_count{a="1",b="2"}`:            4,
	}
	for name, v := range want {
		if got[name] != v {
			t.Errorf("%s is %v, want %v", name, got[name], v)
		}
	}
	if len(got) != len(want) {
		t.Errorf("%d series, want %d: %v", len(got), len(want), got)
	}
}

func TestMetricsThatTheCoreLeavesOut(t *testing.T) {
	got := strings.Join(problems([]*v1.Metric{
		{Name: "fine_total", Counter: true, Labels: map[string]string{"a": "b"}},
		{Name: "no name"}, {Name: ""}, {Name: "x", Labels: map[string]string{"1": ""}},
		{Name: "both"}, {Name: "both", Counter: true, Labels: map[string]string{"a": "b"}},
		{Name: "twice"}, {Name: "twice"},
	}), "\n")
	for _, says := range []string{`"no name"`, `""`, `"1" of the metric x`, "both is a counter and a gauge", "twice is there twice"} {
		if !strings.Contains(got, says) {
			t.Errorf("nobody says %q:\n%s", says, got)
		}
	}
	if n := strings.Count(got, "\n") + 1; n != 5 {
		t.Errorf("%d problems:\n%s", n, got)
	}
}
