package metrics

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/stagecoach-mta/stagecoach/core/host"
	"github.com/stagecoach-mta/stagecoach/core/queue"
	"github.com/stagecoach-mta/stagecoach/core/schedule"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// told is a plugin that tells what the test says.
type told struct {
	info  host.Info
	tells func(ctx context.Context) ([]*v1.Metric, error)
}

var _ Plugin = (*told)(nil)

func (p *told) Info() host.Info { return p.info }
func (p *told) Times() host.Times {
	return host.Times{Bounds: []float64{1}, Counts: []uint64{2, 1}, Seconds: 5}
}
func (p *told) Metrics(ctx context.Context) ([]*v1.Metric, error) {
	return p.tells(ctx)
}

func tells(name string, metrics ...*v1.Metric) *told {
	return &told{
		info:  host.Info{Instance: "filter." + name + ".a", Kind: v1.Kind_KIND_FILTER, Plugin: name, State: host.Ready},
		tells: func(context.Context) ([]*v1.Metric, error) { return metrics, nil },
	}
}

func metric(name string, value float64, labels ...string) *v1.Metric {
	m := &v1.Metric{Name: name, Value: value, Counter: strings.HasSuffix(name, "_total"), Labels: map[string]string{}}
	for i := 0; i+1 < len(labels); i += 2 {
		m.Labels[labels[i]] = labels[i+1]
	}
	return m
}

func serverOf(log *strings.Builder, plugins ...Plugin) *Server {
	return NewServer(New(), Source{
		Version: "1", Since: time.Unix(1, 0),
		Queue:   func(context.Context) (queue.Stats, error) { return queue.Stats{Messages: 3}, nil },
		Plugins: func() []Plugin { return plugins },
		Destinations: func(int) ([]queue.Destination, queue.Destination, bool) {
			return []queue.Destination{{Deliver: "deliver.smtp.internet", Domain: "ryan.example", Recipients: 5, Tried: 2}}, queue.Destination{Recipients: 7}, true
		},
		Lanes: func(each func(schedule.Lane)) {
			each(schedule.Lane{Name: "deliver.smtp.internet ryan.example", Running: 2, Allowed: 4})
			each(schedule.Lane{Name: "deliver.smtp.internet reed.example", Blocked: time.Now().Add(time.Hour)})
		},
		Corrupted: func() int64 { return 1 },
	}, zerolog.New(log))
}

func answer(t *testing.T, s *Server, path string) (int, string) {
	t.Helper()
	w := httptest.NewRecorder()
	s.http.Handler.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
	return w.Code, w.Body.String()
}

func TestPluginsOwnFigures(t *testing.T) {
	log := &strings.Builder{}
	bucket := func(le string, n float64) *v1.Metric {
		m := metric("wait_seconds_bucket", n, "le", le, "net", "a")
		m.Counter = true
		return m
	}
	sum, count := metric("wait_seconds_sum", 2.5, "net", "a"), metric("wait_seconds_count", 4, "net", "a")
	sum.Counter, count.Counter = true, true
	s := serverOf(log,
		tells("grey-list", metric("seen_total", 7, "result", "a\nb"), metric("grey_list_known", 2), metric("taken", 1, "plugin", "filter.other.b"),
			bucket("1", 3), bucket("+Inf", 4), sum, count),
		tells("bad", metric("no name", 1), metric("fine", 1), metric("fine", 2), metric("x", 1, "no-label", "")),
	)
	_, page := answer(t, s, "/metrics")
	f := parse(t, page)
	for _, line := range []string{
		`stagecoach_plugin_grey_list_seen_total{plugin="filter.grey-list.a",result="a\nb"} 7`,
		`stagecoach_plugin_grey_list_known{plugin="filter.grey-list.a"} 2`,
		`stagecoach_plugin_grey_list_taken{plugin="filter.grey-list.a",exported_plugin="filter.other.b"} 1`,
		`stagecoach_plugin_bad_fine{plugin="filter.bad.a"} 1`,
		`stagecoach_plugin_scrape_errors_total{plugin="filter.bad.a"} 1`,
		`stagecoach_plugin_scrape_errors_total{plugin="filter.grey-list.a"} 0`,
		`stagecoach_plugin_call_seconds_count{plugin="filter.bad.a"} 3`,
		`stagecoach_queue_messages 3`,
	} {
		if !strings.Contains(page, line+"\n") {
			t.Errorf("no %s in\n%s", line, page)
		}
	}
	if h := f["stagecoach_plugin_grey_list_wait_seconds"].GetMetric()[0].GetHistogram(); h.GetSampleCount() != 4 || len(h.GetBucket()) != 2 {
		t.Errorf("the plugin's histogram is %v", f["stagecoach_plugin_grey_list_wait_seconds"])
	}
	for _, says := range []string{"no name", "there twice", "no-label"} {
		if !strings.Contains(log.String(), says) {
			t.Errorf("the log does not say %q: %s", says, log)
		}
	}
	// The same complaint again is counted, and not logged again.
	before := log.Len()
	if _, page := answer(t, s, "/metrics"); !strings.Contains(page, `stagecoach_plugin_scrape_errors_total{plugin="filter.bad.a"} 2`) || log.Len() != before {
		t.Errorf("again: %s", log.String()[before:])
	}
}

func TestPluginThatNeverAnswers(t *testing.T) {
	log := &strings.Builder{}
	plugins := []Plugin{tells("good", metric("seen_total", 1))}
	for n := range 2 * scrapesAtOnce {
		p := tells(fmt.Sprintf("stuck%d", n))
		p.tells = func(ctx context.Context) ([]*v1.Metric, error) { <-ctx.Done(); return nil, ctx.Err() }
		plugins = append(plugins, p)
	}
	down := tells("down")
	down.info.State, down.info.LastError = host.Failed, "exit status 1"
	down.tells = func(context.Context) ([]*v1.Metric, error) { return nil, errors.New("a plugin that is down was asked") }
	s := serverOf(log, append(plugins, down)...)
	begin := time.Now()
	_, page := answer(t, s, "/metrics")
	if took := time.Since(begin); took > 3*scrapeTimeout {
		t.Errorf("the page took %s", took)
	}
	parse(t, page)
	for _, line := range []string{
		`stagecoach_plugin_scrape_errors_total{plugin="filter.stuck0.a"} 1`,
		`stagecoach_plugin_scrape_errors_total{plugin="filter.stuck31.a"} 1`,
		`stagecoach_plugin_scrape_errors_total{plugin="filter.down.a"} 0`,
		`stagecoach_plugin_state{plugin="filter.down.a",state="failed"} 1`,
		`stagecoach_plugin_up{plugin="filter.down.a",kind="filter"} 0`,
	} {
		if !strings.Contains(page, line+"\n") {
			t.Errorf("no %s in\n%s", line, page)
		}
	}
	code, text := answer(t, s, "/healthz")
	if code != 200 || !strings.HasPrefix(text, "ok\n") || !strings.Contains(text, "filter.down.a is failed: exit status 1") {
		t.Errorf("/healthz: %d %s", code, text)
	}
}

func TestPluginWithoutEnd(t *testing.T) {
	log := &strings.Builder{}
	var many []*v1.Metric
	for n := range maxSeries + 1 {
		many = append(many, metric("x", 1, "n", fmt.Sprint(n), "long", strings.Repeat("é", maxText)))
	}
	_, page := answer(t, serverOf(log, tells("many", many...)), "/metrics")
	if n := len(parse(t, page)["stagecoach_plugin_many_x"].GetMetric()); n != maxSeries || !strings.Contains(log.String(), "only the first") {
		t.Errorf("%d series; %s", n, log)
	}
}

func TestHealthOfAStoppedQueue(t *testing.T) {
	s := serverOf(&strings.Builder{})
	s.source.Queue = func(context.Context) (queue.Stats, error) { return queue.Stats{}, queue.ErrStopped }
	if code, text := answer(t, s, "/healthz"); code != 503 || !strings.Contains(text, "failed sync") {
		t.Errorf("%d %s", code, text)
	}
	if _, page := answer(t, s, "/metrics"); strings.Contains(page, "stagecoach_queue_messages") {
		t.Error("figures of a queue that gave none")
	}
}
