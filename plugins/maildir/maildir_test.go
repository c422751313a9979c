package maildir

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stagecoach-mta/stagecoach/sdk/conform"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
	"github.com/stagecoach-mta/stagecoach/sdk/storage"
	"github.com/stagecoach-mta/stagecoach/sdk/storage/storagetest"
)

func open(t *testing.T, dir string) *Store {
	t.Helper()
	s, err := New(Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestConformance(t *testing.T) {
	var current *Store
	reopen := func(t conform.T, dir string) storage.Storage {
		var err error
		if current, err = New(Options{Dir: dir}); err != nil {
			t.Fatalf("%v", err)
		}
		return current
	}
	storagetest.Run(conform.Test(t), func(t conform.T) storage.Storage {
		s := reopen(t, t.TempDir())
		t.Cleanup(func() { current.Close() })
		return s
	}, storagetest.Options{Added: true, Reopen: func(t conform.T, s storage.Storage) storage.Storage {
		if err := s.(*Store).Close(); err != nil {
			t.Fatalf("%v", err)
		}
		return reopen(t, s.(*Store).opts.Dir)
	}})
}

// A caller gets the answer over a session and opens the file later, when flags
// and names have changed.
func TestAFetchedMessageStaysReadable(t *testing.T) {
	now, dir := time.Now(), t.TempDir()
	s, err := New(Options{Dir: dir, Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	text := "Subject: large\r\n\r\n" + strings.Repeat("A line of a longer story.\r\n", 1000)
	file := filepath.Join(t.TempDir(), "m")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	a, err := s.Open(ctx, "meg@ryan.example")
	if err != nil {
		t.Fatal(err)
	}
	boxes, err := a.List(ctx, &v1.ListMailboxesRequest{Name: "INBOX"})
	if err != nil {
		t.Fatal(err)
	}
	id := boxes.GetMailboxes()[0].GetId()
	if _, err := a.Append(ctx, &v1.AppendRequest{MailboxId: id, Messages: []*v1.AppendRequest_Message{
		{Message: &v1.MessageRef{Size: int64(len(text)), Where: &v1.MessageRef_Path{Path: file}}},
	}}); err != nil {
		t.Fatal(err)
	}
	fetch := func() (path string) {
		t.Helper()
		err := a.Fetch(ctx, &v1.FetchRequest{MailboxId: id, Message: true}, func(it *v1.FetchResponse_Item) error {
			path = it.GetMessage().GetPath()
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		return path
	}
	first := fetch()
	if _, err := a.SetFlags(ctx, &v1.SetFlagsRequest{MailboxId: id, Op: v1.SetFlagsRequest_ADD, Flags: []string{`\Seen`}}); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(first); err != nil || string(b) != text {
		t.Errorf("after Fetch: %d octets of %d, %v", len(b), len(text), err)
	}
	now = now.Add(2 * readingTime)
	second := fetch()
	if _, err := os.Stat(first); !os.IsNotExist(err) {
		t.Errorf("long after Fetch the name is still there: %v", err)
	}
	// A process that was killed leaves names behind; the next one removes them.
	if err := s.lock.Close(); err != nil {
		t.Fatal(err)
	}
	if s, err = New(Options{Dir: dir}); err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, err := os.Stat(second); !os.IsNotExist(err) {
		t.Errorf("after a new start a name of the old process is still there: %v", err)
	}
}

// TestOtherPrograms does with files what mutt and another delivery agent do.
func TestOtherPrograms(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	defer s.Close()
	a, err := s.Open(t.Context(), "meg@ryan.example")
	if err != nil {
		t.Fatal(err)
	}
	root := filepath.Join(dir, "meg@ryan.example")
	snap := func(since uint64) *v1.SnapshotResponse {
		t.Helper()
		r, err := a.Snapshot(t.Context(), &v1.SnapshotRequest{MailboxId: "F1", SinceModseq: since})
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	if err := os.WriteFile(filepath.Join(root, "new", "1700000000.1.host"), []byte("Subject: x\r\n\r\nbody\r\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	first := snap(0)
	if len(first.Uids) != 1 || first.Flags[0] != 0 {
		t.Fatalf("after a delivery by another program: %v", first)
	}
	if err := os.Rename(filepath.Join(root, "new", "1700000000.1.host"), filepath.Join(root, "cur", "1700000000.1.host:2,Sa")); err != nil {
		t.Fatal(err)
	}
	second := snap(first.Modseq)
	if len(second.Uids) != 1 || second.Uids[0] != first.Uids[0] || second.Flags[0] != uint32(v1.Flag_FLAG_SEEN) || len(second.Vanished) != 0 {
		t.Fatalf("after another program set Seen: %v", second)
	}
	if _, err := a.SetFlags(t.Context(), &v1.SetFlagsRequest{MailboxId: "F1", Op: v1.SetFlagsRequest_ADD, Flags: []string{`\Flagged`}}); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(root, "cur", "1700000000.1.host:2,FSa")); err != nil {
		t.Fatalf("the flags stand in the name, other programs' letters stay: %v", err)
	}
	if third := snap(second.Modseq); len(third.Uids) != 0 || len(third.Vanished) != 1 || third.Mailbox.Messages != 0 {
		t.Fatalf("after another program removed the file: %v", third)
	}
	for _, sub := range []string{"cur", "new", "tmp"} {
		if err := os.MkdirAll(filepath.Join(root, ".Made.By mutt", sub), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	list, err := a.List(t.Context(), &v1.ListMailboxesRequest{Name: "Made/By mutt"})
	if err != nil || len(list.Mailboxes) != 1 || list.Mailboxes[0].Container {
		t.Fatalf("a folder that another program made: %v %v", list, err)
	}
	if err := os.RemoveAll(filepath.Join(root, ".Made.By mutt")); err != nil {
		t.Fatal(err)
	}
	list, err = a.List(t.Context(), &v1.ListMailboxesRequest{Name: "Made/By mutt"})
	if err != nil || len(list.Mailboxes) != 0 {
		t.Fatalf("a folder that another program removed: %v %v", list, err)
	}
}

// TestCrashBetweenFileAndRecord: the queue repeats a delivery whose file is there
// and whose record is not.
func TestCrashBetweenFileAndRecord(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	text := []byte("Subject: x\r\n\r\nbody\r\n")
	req := &v1.DepositRequest{QueueId: "q", Message: &v1.MessageRef{Size: int64(len(text)), Where: &v1.MessageRef_Inline{Inline: text}},
		Targets: []*v1.DepositRequest_Target{{Account: "meg@ryan.example"}}}
	if _, err := s.Open(t.Context(), "meg@ryan.example"); err != nil {
		t.Fatal(err)
	}
	log := filepath.Join(dir, "meg@ryan.example", logName)
	before, err := os.Stat(log)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Deposit(t.Context(), req); err != nil {
		t.Fatal(err)
	}
	s.Close()
	// The record is torn in its middle.
	after, err := os.Stat(log)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(log, (before.Size()+after.Size())/2); err != nil {
		t.Fatal(err)
	}
	s = open(t, dir)
	defer s.Close()
	resp, err := s.Deposit(t.Context(), req)
	if err != nil || resp.Results[0].Problem != nil || resp.Results[0].Uid != 1 {
		t.Fatal(resp, err)
	}
	a, err := s.Open(t.Context(), "meg@ryan.example")
	if err != nil {
		t.Fatal(err)
	}
	snap, err := a.Snapshot(t.Context(), &v1.SnapshotRequest{MailboxId: "F1"})
	if err != nil || len(snap.Uids) != 1 {
		t.Fatalf("delivered %d times: %v", len(snap.GetUids()), err)
	}
}
