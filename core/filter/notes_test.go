package filter_test

import (
	"slices"
	"testing"

	"github.com/stagecoach-mta/stagecoach/core/filter"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// TestNotesTellTags: the journal knows what a route decided by.
func TestNotesTellTags(t *testing.T) {
	tags := map[string]*v1.Tag{
		"spf":   {Value: &v1.Tag_Text{Text: "pass"}},
		"bulk":  {Value: &v1.Tag_Flag{Flag: true}},
		"count": {Value: &v1.Tag_Number{Number: 2.5}},
		"rules": {Value: &v1.Tag_List{List: &v1.TagList{Values: []string{"sale", "a b"}}}},
		"dmarc": {Value: &v1.Tag_Map{Map: &v1.TagMap{Entries: map[string]*v1.Tag{
			"policy": {Value: &v1.Tag_Text{Text: "none"}}, "aligned": {Value: &v1.Tag_Flag{}},
		}}}},
		"empty": {},
	}
	edits := []string{"insert X-Spam"}
	notes := filter.Notes(v1.FilterEvent_MESSAGE, []filter.Step{{Filter: "filter.rules.marks", Tags: tags, Edits: edits}})
	want := []string{
		`tag bulk = true`, `tag count = 2.5`, `tag dmarc = { aligned = false, policy = "none" }`, `tag empty = null`,
		`tag rules = ["sale", "a b"]`, `tag spf = "pass"`, "insert X-Spam",
	}
	if len(notes) != 1 || !slices.Equal(notes[0].Edits, want) {
		t.Errorf("%+v", notes)
	}
	if len(edits) != 1 {
		t.Errorf("the step's edits changed: %q", edits)
	}
}
