package maildir

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
	"github.com/stagecoach-mta/stagecoach/sdk/storage"
)

// TestARequestIsRepeatedAfterACrash loses the records of requests whose files are in
// their places, one or all; repeated by their keys they leave each mail once.
func TestARequestIsRepeatedAfterACrash(t *testing.T) {
	const meg = "meg@ryan.example"
	text := func(n int) *v1.MessageRef {
		b := fmt.Appendf(nil, "Subject: m%d\r\n\r\nx\r\n", n)
		return &v1.MessageRef{Size: int64(len(b)), Where: &v1.MessageRef_Inline{Inline: b}}
	}
	in := func(t *testing.T, a storage.Account, name string) *v1.Mailbox {
		t.Helper()
		r, err := a.List(t.Context(), &v1.ListMailboxesRequest{Name: name})
		if err != nil || len(r.GetMailboxes()) != 1 {
			t.Fatalf("%s: %v %v", name, r, err)
		}
		return r.GetMailboxes()[0]
	}
	uids := func(first, last uint32) []*v1.UIDRange { return []*v1.UIDRange{{First: first, Last: last}} }
	requests := []func(ctx context.Context, a storage.Account) (fmt.Stringer, error){
		func(ctx context.Context, a storage.Account) (fmt.Stringer, error) {
			return a.Append(ctx, &v1.AppendRequest{MailboxId: "F1", Messages: []*v1.AppendRequest_Message{
				{Message: text(10), Flags: []string{"$Work", `\Seen`}, ReceivedMs: 5000}, {Message: text(11)},
			}})
		},
		func(ctx context.Context, a storage.Account) (fmt.Stringer, error) {
			return a.Copy(ctx, &v1.CopyRequest{MailboxId: "F1", Uids: uids(1, 2), TargetMailboxId: "F6"})
		},
		func(ctx context.Context, a storage.Account) (fmt.Stringer, error) {
			return a.Copy(ctx, &v1.CopyRequest{MailboxId: "F1", Uids: uids(2, 3), TargetMailboxId: "F6", Move: true})
		},
		func(ctx context.Context, a storage.Account) (fmt.Stringer, error) {
			return a.Append(ctx, &v1.AppendRequest{
				MailboxId: "F2", Messages: []*v1.AppendRequest_Message{{Message: text(12)}},
				Replaces: &v1.AppendRequest_Replaced{MailboxId: "F1", Uid: 1},
			})
		},
	}
	for lost := range len(requests) + 1 {
		t.Run(fmt.Sprintf("%d lost", lost), func(t *testing.T) {
			dir := t.TempDir()
			s := open(t, dir)
			a, err := s.Open(t.Context(), meg)
			if err != nil {
				t.Fatal(err)
			}
			for n := range 3 {
				if _, err := a.Append(t.Context(), &v1.AppendRequest{MailboxId: "F1", Messages: []*v1.AppendRequest_Message{{Message: text(n)}}}); err != nil {
					t.Fatal(err)
				}
			}
			log := filepath.Join(dir, meg, logName)
			var first []string
			var sizes []int64
			for i, ask := range requests {
				sizes = append(sizes, size(t, log))
				got, err := ask(storage.WithRequestKey(t.Context(), fmt.Sprint("key ", i)), a)
				if err != nil {
					t.Fatalf("request %d: %v", i, err)
				}
				first = append(first, fmt.Sprintf("%v", got))
			}
			sizes = append(sizes, size(t, log))
			s.Close()
			from := len(requests) - lost
			if err := os.Truncate(log, sizes[from]); err != nil {
				t.Fatal(err)
			}
			s = open(t, dir)
			defer s.Close()
			if a, err = s.Open(t.Context(), meg); err != nil {
				t.Fatal(err)
			}
			for i, ask := range requests {
				got, err := ask(storage.WithRequestKey(t.Context(), fmt.Sprint("key ", i)), a)
				if err != nil {
					t.Fatalf("request %d repeated: %v", i, err)
				}
				if i < from && fmt.Sprintf("%v", got) != first[i] {
					t.Errorf("request %d was answered with %s, and repeated with %v", i, first[i], got)
				}
			}
			// Of 0, 1, 2: 0 was replaced, 1 and 2 moved; before that 0 and 1 were copied.
			for name, want := range map[string]uint32{"INBOX": 2, "Archive": 4, "Drafts": 1} {
				if n := in(t, a, name).GetMessages(); n != want {
					t.Errorf("%s holds %d messages, want %d", name, n, want)
				}
			}
			snap, err := a.Snapshot(t.Context(), &v1.SnapshotRequest{MailboxId: "F1"})
			if err != nil || len(snap.GetKeywords()) != 1 || snap.GetReceivedMs()[0] != 5000 && snap.GetReceivedMs()[1] != 5000 {
				t.Errorf("the appended messages have %v %v", snap, err)
			}
		})
	}
}
