package stream

import (
	"testing"

	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// What may be asked again leaves the same behind if it was carried out before.
func TestRepeatable(t *testing.T) {
	storage := func(op *v1.StorageCall) *v1.Call { return &v1.Call{Request: &v1.Call_Storage{Storage: op}} }
	for _, test := range []struct {
		name string
		call *v1.Call
		want bool
	}{
		{"Resolve", &v1.Call{Request: &v1.Call_Directory{Directory: &v1.DirectoryCall{}}}, true},
		{"Deposit", storage(&v1.StorageCall{Op: &v1.StorageCall_Deposit{}}), true},
		{"Fetch", storage(&v1.StorageCall{Op: &v1.StorageCall_Fetch{}}), true},
		{"Expunge", storage(&v1.StorageCall{Op: &v1.StorageCall_Expunge{}}), true},
		{"SetFlags", storage(&v1.StorageCall{Op: &v1.StorageCall_SetFlags{SetFlags: &v1.SetFlagsRequest{}}}), true},
		{"SetFlags on a condition", storage(&v1.StorageCall{Op: &v1.StorageCall_SetFlags{SetFlags: &v1.SetFlagsRequest{UnchangedSince: 1}}}), false},
		{"Append", storage(&v1.StorageCall{Op: &v1.StorageCall_Append{}}), false},
		{"Copy", storage(&v1.StorageCall{Op: &v1.StorageCall_Copy{}}), false},
		{"CreateMailbox", storage(&v1.StorageCall{Op: &v1.StorageCall_CreateMailbox{}}), false},
		{"Filter", &v1.Call{Request: &v1.Call_Filter{Filter: &v1.FilterCall{}}}, false},
		{"Deliver", &v1.Call{Request: &v1.Call_Deliver{Deliver: &v1.DeliverCall{}}}, false},
	} {
		if got := Repeatable(test.call); got != test.want {
			t.Errorf("%s: %v, want %v", test.name, got, test.want)
		}
	}
}
