package pipeline

import (
	"path/filepath"
	"sync/atomic"

	"github.com/stagecoach-mta/stagecoach/core/config"
	"github.com/stagecoach-mta/stagecoach/core/filter"
	"github.com/stagecoach-mta/stagecoach/core/observe"
)

// observe brings the feed to the observers that cfg names. What cannot be told
// is no reason to take no mail.
func (p *Pipeline) observe(cfg *config.Config) {
	var observers []observe.Observer
	for _, in := range cfg.Observe.Filters {
		observers = append(observers, observe.Observer{
			Name: in.Ref, Caller: p.meters.Filter(in.Ref, p.host.Instance(in.Ref)), Timeout: in.Timeout,
		})
	}
	if err := p.queue.SetHistory(cfg.Queue.Journal, cfg.Queue.JournalSize); err != nil {
		p.Log.Error().Err(err).Msg("the mail journal is not kept")
	}
	if err := p.observers.Set(observers, cfg.Observe.Keep); err != nil {
		p.Log.Error().Err(err).Msg("observers are not told")
	}
}

// member is a filter's place in a chain.
func (p *Pipeline) member(in *config.Instance) filter.Member {
	i := p.host.Instance(in.Ref)
	m := filter.Member{
		Name: in.Ref, Caller: p.meters.Filter(in.Ref, i), Interest: i.Interest, OnFailure: in.OnFailure, Timeout: in.Timeout,
		Dirs: p.spoolDirs(), Observing: new(atomic.Int32),
	}
	if in.Describe.GetNeeds().GetDataDir() {
		m.Dirs = append(m.Dirs, p.instanceDir(in.Ref))
	}
	return m
}

// spoolDirs are where the messages' files lie.
func (p *Pipeline) spoolDirs() []string {
	return []string{filepath.Join(p.dataDir, "spool"), filepath.Join(p.dataDir, "queue", "body")}
}

// instanceDir is an instance's own directory.
func (p *Pipeline) instanceDir(ref string) string { return filepath.Join(p.dataDir, "plugins", ref) }
