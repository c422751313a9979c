package pipeline

import (
	"context"
	"time"

	"github.com/stagecoach-mta/stagecoach/core/config"
	"github.com/stagecoach-mta/stagecoach/core/metrics"
)

// metricsPage is the metrics block at work.
type metricsPage struct {
	listen config.Listen
	server *metrics.Server
}

// serveMetrics brings the page to where cfg wants it; on the same address it
// stays as it is. The address is bound already.
func (p *Pipeline) serveMetrics(cfg *config.Config) {
	want := cfg.Metrics.Listen
	if p.page != nil && want != nil && key(p.page.listen) == key(*want) {
		return
	}
	if old := p.page; old != nil {
		p.page = nil
		p.running.Go(func() { p.endMetrics(old) })
	}
	if want == nil {
		return
	}
	// A page that cannot be shown is no reason to take no mail.
	ln, err := p.sockets.duplicate(*want)
	if err != nil {
		p.Log.Error().Err(err).Msg("no metrics")
		return
	}
	srv := metrics.NewServer(p.meters, metrics.Source{
		Version: p.Version, Since: p.since, Queue: p.queue.Stats, Plugins: p.instances,
		Destinations: p.queue.Destinations, Lanes: p.dispatcher.Lanes, Corrupted: p.queue.Corrupted,
	}, p.Log)
	p.page = &metricsPage{*want, srv}
	p.running.Go(func() {
		if err := srv.Serve(ln); err != nil {
			p.Log.Error().Err(err).Msg("the metrics ended")
		}
	})
}

func (p *Pipeline) endMetrics(m *metricsPage) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	_ = m.server.Shutdown(ctx) // a page that was cut off is asked for again
}

// instances are the plugins for the page.
func (p *Pipeline) instances() []metrics.Plugin {
	var out []metrics.Plugin
	for _, i := range p.host.List() {
		if in := p.host.Instance(i.Instance); in != nil {
			out = append(out, in)
		}
	}
	return out
}
