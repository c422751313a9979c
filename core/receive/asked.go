package receive

import (
	"fmt"
	"strings"
	"time"

	"github.com/stagecoach-mta/stagecoach/core/queue"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// asked is what the sender said of the mail's times, for the mail journal.
func asked(p *v1.MailParameters) []queue.Note {
	var said []string
	if n := p.GetPriority(); n != 0 {
		said = append(said, fmt.Sprintf("priority %d", n))
	}
	if ms := p.GetHoldUntilMs(); ms > 0 {
		said = append(said, "not before "+moment(ms))
	}
	switch p.GetDeliverByMode() {
	case "R":
		said = append(said, "deliver by "+moment(p.GetDeliverByMs())+" or return it")
	case "N":
		said = append(said, "deliver by "+moment(p.GetDeliverByMs())+" or say so")
	}
	if p.GetDeliverByTrace() {
		said = append(said, "tell of each relay")
	}
	if said == nil {
		return nil
	}
	return []queue.Note{{What: "asked", By: "sender", Text: strings.Join(said, ", ")}}
}

func moment(ms int64) string { return time.UnixMilli(ms).UTC().Format(time.RFC3339) }
