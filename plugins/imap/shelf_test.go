package imap_test

import (
	"context"
	"fmt"
	"math/rand"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stagecoach-mta/stagecoach/plugins/imap"
	"github.com/stagecoach-mta/stagecoach/plugins/local"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
	"github.com/stagecoach-mta/stagecoach/sdk/storage"
)

// A mailbox that is selected again is as it is now, whatever happened to it while
// nobody had it selected.
func TestSelectAgain(t *testing.T) {
	s := start(t, true, nil)
	a, ctx := s.account(), context.Background()
	do := func(_ any, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	const kept = "From: tom@hanks.example\r\nSubject: hello\r\n\r\nx\r\n"
	s.deposit(kept, kept, kept, kept, kept, kept)
	c := s.raw(true)
	r := rand.New(rand.NewSource(1))
	words := []string{`\Seen`, `\Flagged`, "shop", "corner", "book"}
	for round := range 60 {
		for range r.Intn(4) {
			req := &v1.SetFlagsRequest{MailboxId: "F1", Op: v1.SetFlagsRequest_Op(r.Intn(2)), Flags: []string{words[r.Intn(len(words))]}}
			uid := uint32(1 + r.Intn(6+round))
			req.Uids = []*v1.UIDRange{{First: uid, Last: uid + uint32(r.Intn(5))}}
			switch r.Intn(4) {
			case 0:
				s.deposit(kept)
			case 1:
				do(a.Expunge(ctx, &v1.ExpungeRequest{MailboxId: "F1", Uids: []*v1.UIDRange{{First: uid, Last: uid}}, Force: true}))
			default:
				do(a.SetFlags(ctx, req))
			}
		}
		c.say("a SELECT INBOX\r\n")
		selected := c.until("a OK")
		c.say("b FETCH 1:* (UID FLAGS)\r\n")
		got := c.until("b ")
		snapshot, err := a.Snapshot(ctx, &v1.SnapshotRequest{MailboxId: "F1"})
		do(snapshot, err)
		if want := fmt.Sprintf("* %d EXISTS\r\n", len(snapshot.Uids)); !strings.Contains(selected, want) {
			t.Fatalf("round %d: no %q in:\n%s", round, want, selected)
		}
		if want := fmt.Sprintf("UIDNEXT %d]", snapshot.Mailbox.UidNext); !strings.Contains(selected, want) {
			t.Fatalf("round %d: no %q in:\n%s", round, want, selected)
		}
		var listed []string
		for line := range strings.SplitSeq(got, "\r\n") {
			var seq, uid uint32
			if n, _ := fmt.Sscanf(line, "* %d FETCH (UID %d", &seq, &uid); n == 2 {
				_, flags, _ := strings.Cut(line, "FLAGS (")
				flags, _, _ = strings.Cut(flags, ")")
				said := strings.Fields(flags)
				said = slices.DeleteFunc(said, func(f string) bool { return f == `\Recent` })
				slices.Sort(said)
				listed = append(listed, fmt.Sprint(uid, said))
			}
		}
		var want []string
		for i, uid := range snapshot.Uids {
			var flags []string
			if snapshot.Flags[i]&uint32(v1.Flag_FLAG_SEEN) != 0 {
				flags = append(flags, `\Seen`)
			}
			if snapshot.Flags[i]&uint32(v1.Flag_FLAG_FLAGGED) != 0 {
				flags = append(flags, `\Flagged`)
			}
			for _, k := range snapshot.Keywords {
				if k.Uid == uid {
					flags = append(flags, k.Keywords...)
				}
			}
			slices.Sort(flags)
			want = append(want, fmt.Sprint(uid, flags))
		}
		if !slices.Equal(listed, want) {
			t.Fatalf("round %d:\n got %v\nwant %v", round, listed, want)
		}
		c.say("d UNSELECT\r\n")
		c.until("d OK")
	}
}

// counting counts the calls of a storage that SELECT makes.
type counting struct {
	storage.Storage
	lists, whole, changes atomic.Int32
}

func (s *counting) Open(ctx context.Context, name string) (storage.Account, error) {
	a, err := s.Storage.Open(ctx, name)
	return &countingAccount{a, s}, err
}

type countingAccount struct {
	storage.Account
	s *counting
}

func (a *countingAccount) List(ctx context.Context, req *v1.ListMailboxesRequest) (*v1.ListMailboxesResponse, error) {
	a.s.lists.Add(1)
	return a.Account.List(ctx, req)
}

func (a *countingAccount) Snapshot(ctx context.Context, req *v1.SnapshotRequest) (*v1.SnapshotResponse, error) {
	if req.GetSinceModseq() == 0 {
		a.s.whole.Add(1)
	} else {
		a.s.changes.Add(1)
	}
	return a.Account.Snapshot(ctx, req)
}

// The columns of a mailbox travel once; after that SELECT is one short question,
// until another mailbox has the name.
func TestSelectAgainAsksForChangesAlone(t *testing.T) {
	inner, err := local.New(local.Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { inner.Close() })
	store := &counting{Storage: inner}
	s := serve(t, store, listen(t), listen(t), true, imap.DefaultConfig())
	s.deposit("Subject: one\r\n\r\nx\r\n", "Subject: two\r\n\r\nx\r\n")
	store.lists.Store(0)
	for range 5 {
		c := s.raw(true)
		c.say("a SELECT INBOX\r\n")
		if got := c.until("a OK"); !strings.Contains(got, "* 2 EXISTS") {
			t.Fatal(got)
		}
		c.say("b LOGOUT\r\n")
		c.until("b OK")
		// The session puts its view back before it closes.
		if _, err := c.Read(make([]byte, 1)); err == nil {
			t.Fatal("more after LOGOUT")
		}
	}
	if n := store.lists.Load(); n != 1 {
		t.Errorf("%d lists for five SELECTs of one mailbox", n)
	}
	if n := store.whole.Load(); n != 1 {
		t.Errorf("%d whole snapshots for five SELECTs of one mailbox", n)
	}
	a, ctx := s.account(), context.Background()
	first, err := a.Create(ctx, &v1.CreateMailboxRequest{Name: "shop"})
	if err != nil {
		t.Fatal(err)
	}
	c := s.raw(true)
	for _, want := range []string{first.Id, ""} {
		if want == "" {
			if _, err := a.Rename(ctx, &v1.RenameMailboxRequest{Id: first.Id, Name: "corner"}); err != nil {
				t.Fatal(err)
			}
			m, err := a.Create(ctx, &v1.CreateMailboxRequest{Name: "shop"})
			if err != nil {
				t.Fatal(err)
			}
			want = m.Id
		}
		c.say("a SELECT shop\r\n")
		if got := c.until("a OK"); !strings.Contains(got, "MAILBOXID ("+want+")") {
			t.Fatalf("%s: %s", want, got)
		}
		c.say("b UNSELECT\r\n")
		c.until("b OK")
	}
}
