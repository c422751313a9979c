package metrics

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/stagecoach-mta/stagecoach/core/host"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

const (
	// scrapeTimeout is how long all plugins together have to tell their figures:
	// Prometheus itself waits for ten seconds.
	scrapeTimeout = 2 * time.Second
	// scrapesAtOnce bounds what one page costs.
	scrapesAtOnce = 16
	// maxSeries of one plugin; maxText octets of a label's value or a help text.
	maxSeries = 2000
	maxText   = 512
)

// Plugin is an instance as the page asks it.
type Plugin interface {
	Info() host.Info
	// Times of all calls that ended.
	Times() host.Times
	// Metrics of its own.
	Metrics(ctx context.Context) ([]*v1.Metric, error)
}

var _ Plugin = (*host.Instance)(nil)

// scraped is what one plugin answered.
type scraped struct {
	info    host.Info
	times   host.Times
	metrics []*v1.Metric
	err     error
}

// scrape asks all plugins at the same time. One that does not answer in time is
// an error of its own, and holds up nobody: its figures are absent, as those of
// any target that Prometheus cannot reach.
func scrape(ctx context.Context, plugins []Plugin) []scraped {
	ctx, cancel := context.WithTimeout(ctx, scrapeTimeout)
	defer cancel()
	out := make([]scraped, len(plugins))
	places := make(chan struct{}, scrapesAtOnce)
	var wg sync.WaitGroup
	for i, p := range plugins {
		s := &out[i]
		s.info, s.times = p.Info(), p.Times()
		if s.info.State != host.Ready {
			continue // it would be asked in vain, and stagecoach_plugin_state says it
		}
		wg.Go(func() {
			select {
			case places <- struct{}{}:
				defer func() { <-places }()
				s.metrics, s.err = p.Metrics(ctx)
			case <-ctx.Done():
				s.err = ctx.Err()
			}
		})
	}
	wg.Wait()
	slices.SortFunc(out, func(a, b scraped) int { return strings.Compare(a.info.Instance, b.info.Instance) })
	return out
}

var states = []host.State{host.Starting, host.Ready, host.Restarting, host.Failed, host.Draining}

// collectPlugin puts what the host knows of an instance on the page.
func collectPlugin(p *page, s *scraped) {
	i := s.info
	name := label{"plugin", i.Instance}
	kindLabel := label{"kind", strings.ToLower(strings.TrimPrefix(i.Kind.String(), "KIND_"))}
	up := 0.0
	if i.State == host.Ready {
		up = 1
	}
	p.put("stagecoach_plugin_up", gauge, "1 if the plugin takes calls.", up, name, kindLabel)
	p.put("stagecoach_plugin_info", gauge, "1; what the instance runs.", 1, name, kindLabel, label{"name", i.Plugin}, label{"version", i.Version})
	for _, state := range states {
		is := 0.0
		if i.State == state {
			is = 1
		}
		p.put("stagecoach_plugin_state", gauge, "1 for the state that the instance is in.", is, name, label{"state", string(state)})
	}
	p.put("stagecoach_plugin_restarts_total", counter, "Restarts after a crash, a hang or a broken session.", float64(i.Restarts), name)
	p.put("stagecoach_plugin_resident_memory_bytes", gauge, "Resident memory of the process, shared pages included.", float64(i.RSS), name)
	if i.Kind == v1.Kind_KIND_ACCESS {
		return // it takes no calls
	}
	p.put("stagecoach_plugin_calls_in_flight", gauge, "Calls under way.", float64(i.InFlight), name)
	p.put("stagecoach_plugin_call_errors_total", counter, "Calls that failed by the plugin's fault: it broke down, was away or late.", float64(i.Errors), name)
	p.putHistogram("stagecoach_plugin_call_seconds", "Time of calls, with what they waited for a restart.",
		s.times.Bounds, s.times.Counts, s.times.Seconds, name)
}

// collectOwn puts what the plugin itself told on the page: stagecoach_plugin_,
// its name and the metric's. What cannot stand there is left out and told.
func collectOwn(p *page, s *scraped) error {
	prefix := namePart(s.info.Plugin) + "_"
	var errs []error
	metrics := s.metrics
	if len(metrics) > maxSeries {
		errs = append(errs, fmt.Errorf("it has %d series: only the first %d are shown", len(metrics), maxSeries))
		metrics = metrics[:maxSeries]
	}
	histograms := histogramsOf(metrics)
	for _, m := range metrics {
		name, suffix, k := m.GetName(), "", gauge
		if m.GetCounter() {
			k = counter
		}
		if base, part, ok := histogramPart(name); ok && histograms[base] {
			name, suffix, k = base, part, histogram
		}
		f, err := p.declare("stagecoach_plugin_"+prefix+strings.TrimPrefix(name, prefix), k, short(m.GetHelp()))
		if err == nil {
			err = p.add(f, suffix, ownLabels(s.info.Instance, m.GetLabels()), m.GetValue())
		}
		if err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// histogramsOf names what is a histogram: NAME_bucket, each with le, and
// NAME_sum and NAME_count. The contract has counters and gauges only; this is
// how sdk.Metrics writes one.
func histogramsOf(metrics []*v1.Metric) map[string]bool {
	parts := map[string]map[string]bool{}
	for _, m := range metrics {
		base, part, ok := histogramPart(m.GetName())
		if !ok {
			continue
		}
		if parts[base] == nil {
			parts[base] = map[string]bool{}
		}
		_, le := m.GetLabels()["le"]
		if !m.GetCounter() || le != (part == "_bucket") {
			parts[base]["wrong"] = true
		}
		parts[base][part] = true
	}
	out := map[string]bool{}
	for base, has := range parts {
		out[base] = has["_bucket"] && has["_sum"] && has["_count"] && !has["wrong"]
	}
	return out
}

func histogramPart(name string) (base, part string, ok bool) {
	for _, part := range []string{"_bucket", "_sum", "_count"} {
		if base, ok := strings.CutSuffix(name, part); ok && base != "" {
			return base, part, true
		}
	}
	return "", "", false
}

// ownLabels are a plugin's labels, by name, behind the core's: it cannot take
// another one's name. le stands last, as in any histogram.
func ownLabels(instance string, labels map[string]string) []label {
	out := []label{{"plugin", instance}}
	for name, value := range labels {
		if name == "plugin" {
			name = "exported_plugin" // as Prometheus does it
		}
		out = append(out, label{name, short(value)})
	}
	slices.SortFunc(out[1:], func(a, b label) int {
		if last := (a.name == "le"); last != (b.name == "le") {
			if last {
				return 1
			}
			return -1
		}
		return strings.Compare(a.name, b.name)
	})
	return out
}

// namePart makes a plugin's name fit for a metric's.
func namePart(plugin string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' {
			return r
		}
		return '_'
	}, plugin)
}

func short(s string) string {
	if len(s) <= maxText {
		return s
	}
	return strings.ToValidUTF8(s[:maxText], "") + "…"
}
