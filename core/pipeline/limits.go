package pipeline

import (
	"github.com/stagecoach-mta/stagecoach/core/config"
	"github.com/stagecoach-mta/stagecoach/core/dispatch"
	"github.com/stagecoach-mta/stagecoach/core/schedule"
)

// limit gives a plan the limits of the configuration.
func limit(plan *dispatch.Plan, cfg *config.Config) {
	hops := map[string]*config.NextHop{}
	for _, d := range cfg.Delivers {
		if d.SMTP != nil {
			hops[d.Ref] = d.SMTP
		}
	}
	plan.Limits = func(ref, destination string) schedule.Limits {
		hop := hops[ref]
		if hop == nil {
			return schedule.Limits{}
		}
		if len(hop.Hosts) > 0 { // one way for all
			return schedule.Limits{AtOnce: hop.MaxConnections, Rate: schedule.Rate(hop.Rate)}
		}
		own := hop.Limit(destination)
		return schedule.Limits{AtOnce: own.Connections, Rate: schedule.Rate(own.Rate)}
	}
	plan.Source = func(sender, user string) string {
		key, _ := cfg.Queue.Source(sender, user)
		return key
	}
	if len(cfg.Queue.Sources) == 0 {
		return
	}
	plan.SourceLimits = func(source string) schedule.SourceLimits {
		s := cfg.Queue.SourceLimit(source)
		if s == nil {
			return schedule.SourceLimits{}
		}
		return schedule.SourceLimits{AtOnce: s.Deliveries, Rate: schedule.Rate(s.Rate)}
	}
}
