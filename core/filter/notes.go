package filter

import (
	"github.com/stagecoach-mta/stagecoach/core/queue"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// Notes are the steps of a chain as the mail journal keeps them.
func Notes(event v1.FilterEvent, trace []Step) []queue.Note {
	if len(trace) == 0 {
		return nil
	}
	notes := make([]queue.Note, 0, len(trace))
	for _, s := range trace {
		n := queue.Note{
			What: event.String(), By: s.Filter, Verdict: s.Verdict.String(), Text: s.Note, Edits: s.Edits, Score: s.Score, Took: s.Took,
		}
		if s.Failed != "" {
			n.Verdict, n.Text = "failed", s.Failed
		}
		notes = append(notes, n)
	}
	return notes
}
