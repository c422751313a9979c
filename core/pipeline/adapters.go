package pipeline

import (
	"github.com/stagecoach-mta/stagecoach/core/filter"
	"github.com/stagecoach-mta/stagecoach/core/message"
)

// editing lets filters see and change messages; what they change is spooled.
func (p *Pipeline) editing() filter.Editing { return message.Editor{Dir: p.spool} }
