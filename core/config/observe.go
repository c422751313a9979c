package config

import (
	"fmt"
	"slices"
	"time"

	"github.com/hashicorp/hcl/v2"

	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// Observe names the filters that hear of all that happens.
type Observe struct {
	Filters []*Instance
	// Keep is how long an observer may be away before it misses something.
	Keep  time.Duration
	Range hcl.Range
}

const defaultKeep = 7 * 24 * time.Hour

func (l *loader) observe(r *reader) Observe {
	o := Observe{Range: r.head, Keep: defaultKeep}
	r.need("filters", "filters = [filter.webhook.audit]")
	o.Filters = r.refs("filters", "filter")
	r.duration("keep", &o.Keep)
	if o.Keep <= 0 {
		l.err(r.head, "keep = 0 would forget everything before an observer hears it", `Write how long an observer may be away: keep = "7d".`)
	}
	for _, i := range o.Filters {
		if i.Describe == nil || slices.Contains(i.Describe.GetFilter().GetEvents(), v1.FilterEvent_OBSERVE) {
			continue
		}
		l.err(r.head, fmt.Sprintf("The plugin %s does not observe: it asks for no OBSERVE events", i.Plugin),
			fmt.Sprintf("Name %s in the filters of a receive, a route or a deliver block instead.", i.Ref))
	}
	return o
}
