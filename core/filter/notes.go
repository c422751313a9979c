package filter

import (
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/stagecoach-mta/stagecoach/core/queue"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// Notes are the steps of a chain as the mail journal keeps them. What a filter set as
// tags stands before its edits: routes and later filters decide by them.
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
		if len(s.Tags) > 0 {
			n.Edits = append(tagWords(s.Tags), s.Edits...)
		}
		notes = append(notes, n)
	}
	return notes
}

// tagWords are a line for each tag, in the order of their names.
func tagWords(tags map[string]*v1.Tag) []string {
	lines := make([]string, 0, len(tags))
	for _, name := range slices.Sorted(maps.Keys(tags)) {
		lines = append(lines, "tag "+name+" = "+tagWord(tags[name]))
	}
	return lines
}

func tagWord(t *v1.Tag) string {
	switch v := t.GetValue().(type) {
	case *v1.Tag_Text:
		return strconv.Quote(v.Text)
	case *v1.Tag_Number:
		return strconv.FormatFloat(v.Number, 'g', -1, 64)
	case *v1.Tag_Flag:
		return strconv.FormatBool(v.Flag)
	case *v1.Tag_List:
		var words []string
		for _, s := range v.List.GetValues() {
			words = append(words, strconv.Quote(s))
		}
		return "[" + strings.Join(words, ", ") + "]"
	case *v1.Tag_Map:
		var words []string
		for _, key := range slices.Sorted(maps.Keys(v.Map.GetEntries())) {
			words = append(words, key+" = "+tagWord(v.Map.GetEntries()[key]))
		}
		return "{ " + strings.Join(words, ", ") + " }"
	}
	return "null"
}
