package maildir

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stagecoach-mta/stagecoach/sdk/fail"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// TestCheck: a store is whole until a program changes a mail in its file; then the
// check says so, and a repair gives the mail a new UID.
func TestCheck(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "mail")
	s, err := New(Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	a, err := s.Open(t.Context(), "meg@ryan.example")
	if err != nil {
		t.Fatal(err)
	}
	list, err := a.List(t.Context(), &v1.ListMailboxesRequest{Name: inbox})
	if err != nil {
		t.Fatal(err)
	}
	box := list.GetMailboxes()[0].GetId()
	text := []byte("Subject: x\r\n\r\nbody\r\n")
	one := &v1.AppendRequest_Message{Message: &v1.MessageRef{Size: int64(len(text)), Where: &v1.MessageRef_Inline{Inline: text}}}
	if _, err := a.Append(t.Context(), &v1.AppendRequest{MailboxId: box, Messages: []*v1.AppendRequest_Message{one, one}}); err != nil {
		t.Fatal(err)
	}
	check := func(repair bool) (found []*v1.CheckResponse_Finding, messages int64) {
		t.Helper()
		r, err := s.Check(t.Context(), &v1.CheckRequest{Repair: repair}, func(p *v1.CheckResponse) error {
			found = append(found, p.GetFindings()...)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		return append(found, r.GetFindings()...), r.GetChecked()[2].GetCount()
	}
	if found, n := check(false); len(found) != 0 || n != 2 {
		t.Fatalf("%v of %d messages in a store that is whole", found, n)
	}
	files, err := filepath.Glob(filepath.Join(dir, "meg@ryan.example", "new", "*"))
	if err != nil || len(files) != 2 {
		t.Fatal(files, err)
	}
	if err := os.WriteFile(files[0], append(text, "more\r\n"...), 0o600); err != nil {
		t.Fatal(err)
	}
	if found, _ := check(false); len(found) != 1 || found[0].GetRepaired() || !strings.Contains(found[0].GetText(), "the file has 26 octets") {
		t.Fatalf("%v", found)
	}
	if found, _ := check(true); len(found) != 1 || !found[0].GetRepaired() {
		t.Fatalf("%v", found)
	}
	if found, n := check(false); len(found) != 0 || n != 2 {
		t.Fatalf("%v of %d messages after the repair", found, n)
	}
	snap, err := a.Snapshot(t.Context(), &v1.SnapshotRequest{MailboxId: box})
	if err != nil || len(snap.GetUids()) != 2 || snap.GetUids()[1] != 3 || !slices.Contains(snap.GetSizes(), 26) {
		t.Errorf("%v %v", snap, err)
	}
	if _, err := s.Check(t.Context(), &v1.CheckRequest{Account: "nobody@ryan.example"}, nil); !fail.Is(err, fail.NotFound) {
		t.Errorf("an account that there is not: %v", err)
	}
}
