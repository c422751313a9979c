package local

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2"

	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// filled is a store with small and large mail of two accounts.
func filled(t *testing.T) *Store {
	t.Helper()
	s := open(t, Options{Dir: t.TempDir()})
	large := "Subject: large\r\n\r\n" + strings.Repeat("x\r\n", smallBody)
	for n, text := range []string{"Subject: one\r\n\r\nbody\r\n", large, "Subject: three\r\n\r\nbody\r\n"} {
		resp, err := s.Deposit(t.Context(), &v1.DepositRequest{
			QueueId: fmt.Sprint("q", n), Message: inlineMessage(text), ReturnPath: "tom@hanks.example",
			Targets: []*v1.DepositRequest_Target{
				{Key: 0, Account: "meg@ryan.example", Recipient: "meg@ryan.example"},
				{Key: 1, Account: "tom@hanks.example", Mailbox: "Work/2026", Recipient: "tom@hanks.example", Flags: []string{`\Seen`, "urgent"}},
			},
		})
		if err != nil || resp.Results[0].Problem != nil || resp.Results[1].Problem != nil {
			t.Fatal(resp, err)
		}
	}
	return s
}

func checked(t *testing.T, s *Store, repair bool) (all []*v1.CheckResponse_Finding, count map[string]int64) {
	t.Helper()
	count = map[string]int64{}
	r, err := s.check(context.Background(), "", repair, func(p *v1.CheckResponse) error {
		all = append(all, p.Findings...)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range r.Checked {
		count[k.What] = k.Count
	}
	return append(all, r.Findings...), count
}

// idsOf gives the numbers of the first account deposited into, and of its first message's body and of
// the large one.
func idsOf(t *testing.T, s *Store) (meg uint64, small, large uint64) {
	t.Helper()
	v, err := get(s.db, keyAccountName("meg@ryan.example"))
	if err != nil || v == nil {
		t.Fatal(err)
	}
	err = scan(s.db, []byte{tabBlob}, func(k, v []byte) error {
		switch {
		case v[0] == blobFile:
			large = be.Uint64(k[1:])
		case small == 0:
			small = be.Uint64(k[1:])
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return be.Uint64(v), small, large
}

// TestCheckFindsDamage: each thing that can be wrong is found and named, what can be
// mended is, and then nothing is wrong.
func TestCheckFindsDamage(t *testing.T) {
	for _, test := range []struct {
		name, says string
		// left: it cannot be mended.
		left   bool
		damage func(t *testing.T, s *Store, meg, small, large uint64)
	}{
		{"a body's file is gone", "the file of its body is gone", false, func(t *testing.T, s *Store, _, _, large uint64) {
			if err := os.Remove(s.blobPath(large)); err != nil {
				t.Fatal(err)
			}
		}},
		{"an octet of a body's file is another", "is not what was stored", true, func(t *testing.T, s *Store, _, _, large uint64) {
			b, err := os.ReadFile(s.blobPath(large))
			if err != nil {
				t.Fatal(err)
			}
			b[len(b)/2] ^= 1
			if err := os.WriteFile(s.blobPath(large), b, 0o600); err != nil {
				t.Fatal(err)
			}
		}},
		{"a body's file is short", "octets instead of", true, func(t *testing.T, s *Store, _, _, large uint64) {
			if err := os.Truncate(s.blobPath(large), 7); err != nil {
				t.Fatal(err)
			}
		}},
		{"a small body is gone", "its body is gone", false, func(t *testing.T, s *Store, _, small, _ uint64) {
			unset(t, s, key8(tabBlob, small))
		}},
		{"a message's record is gone", "its record is gone", false, func(t *testing.T, s *Store, meg, _, _ uint64) {
			unset(t, s, key88(tabRendered, meg, 1))
		}},
		{"a reference is gone", "does not know that it is used", false, func(t *testing.T, s *Store, meg, small, _ uint64) {
			unset(t, s, keyReference(small, meg, 1))
		}},
		{"an entry is gone", "it counts 3 messages", false, func(t *testing.T, s *Store, meg, _, _ uint64) {
			unset(t, s, keyColumn(meg, 1, 2))
		}},
		{"a name is gone", "its name does not lead to it", false, func(t *testing.T, s *Store, meg, _, _ uint64) {
			unset(t, s, keyName(meg, "Sent"))
		}},
		{"a name leads nowhere", "the name leads to no mailbox", false, func(t *testing.T, s *Store, meg, _, _ uint64) {
			if err := s.db.Set(keyName(meg, "Nowhere"), be.AppendUint32(nil, 99), pebble.Sync); err != nil {
				t.Fatal(err)
			}
		}},
		{"a file is nobody's", "no message refers to it", false, func(t *testing.T, s *Store, _, _, large uint64) {
			if err := os.WriteFile(filepath.Join(s.blobDir(large), "core"), []byte("x"), 0o600); err != nil {
				t.Fatal(err)
			}
		}},
		{"a part of the index is damaged", "searches look into the messages", false, func(t *testing.T, s *Store, meg, _, _ uint64) {
			if err := os.MkdirAll(s.indexDir(meg), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(s.indexPath(meg, 0), []byte("not an index"), 0o600); err != nil {
				t.Fatal(err)
			}
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := filled(t)
			defer s.Close()
			found, count := checked(t, s, false)
			if len(found) > 0 || count["accounts"] != 2 || count["messages"] != 6 || count["bodies"] != 3 {
				t.Fatalf("of a whole store: %v %v", found, count)
			}
			meg, small, large := idsOf(t, s)
			test.damage(t, s, meg, small, large)
			for _, repair := range []bool{false, true} {
				found, _ := checked(t, s, repair)
				if said := fmt.Sprint(found); !strings.Contains(said, test.says) {
					t.Errorf("it finds %s, and not %q", said, test.says)
				}
			}
			// What a repair uncovers is mended by the next.
			for range 2 {
				checked(t, s, true)
			}
			found, _ = checked(t, s, false)
			if (len(found) > 0) != test.left {
				t.Errorf("after the repair: %v", found)
			}
		})
	}
}

func unset(t *testing.T, s *Store, key []byte) {
	t.Helper()
	if b, err := get(s.db, key); err != nil || b == nil {
		t.Fatalf("there is no %q to damage: %v", key, err)
	}
	if err := s.db.Delete(key, pebble.Sync); err != nil {
		t.Fatal(err)
	}
}

// TestBackupIsTheStore: a backup opens as a store that is whole, and serves what was
// there at its moment, with the same UIDs, whatever became of the store since.
func TestBackupIsTheStore(t *testing.T) {
	s := filled(t)
	defer s.Close()
	before := contents(t, s)
	r, err := s.Backup(t.Context(), &v1.BackupRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"meg@ryan.example", "tom@hanks.example"} {
		a, err := s.Open(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		list, err := a.List(t.Context(), &v1.ListMailboxesRequest{})
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range list.Mailboxes {
			if m.Container {
				continue
			}
			if _, err := a.Expunge(t.Context(), &v1.ExpungeRequest{MailboxId: m.Id, Force: true}); err != nil {
				t.Fatal(err)
			}
		}
	}
	s.collect()
	if _, _, large := idsOf(t, s); large != 0 {
		t.Error("a body that nobody refers to is still there")
	}
	restored := filepath.Join(t.TempDir(), "store")
	if err := os.CopyFS(restored, os.DirFS(r.Path)); err != nil {
		t.Fatal(err)
	}
	c := open(t, Options{Dir: restored})
	defer c.Close()
	if after := contents(t, c); after != before {
		t.Errorf("the backup has\n%s\nand the store had\n%s", after, before)
	}
	if found, count := checked(t, c, false); len(found) > 0 || count["bodies"] != 3 {
		t.Errorf("the backup is not whole: %v %v", found, count)
	}
	if _, err := s.Backup(t.Context(), &v1.BackupRequest{Remove: true}); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(r.Path); !os.IsNotExist(err) {
		t.Errorf("after its removal: %v", err)
	}
}

// contents are all mailboxes and mails, in words.
func contents(t *testing.T, s *Store) string {
	t.Helper()
	var out strings.Builder
	list, err := s.Accounts(t.Context(), &v1.AccountsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range list.Accounts {
		a, err := s.Open(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		boxes, err := a.List(t.Context(), &v1.ListMailboxesRequest{})
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range boxes.Mailboxes {
			fmt.Fprintf(&out, "%s %s %s validity %d next %d, %d mails\n", name, m.Id, m.Name, m.UidValidity, m.UidNext, m.Messages)
			if m.Container {
				continue
			}
			snap, err := a.Snapshot(t.Context(), &v1.SnapshotRequest{MailboxId: m.Id})
			if err != nil {
				t.Fatal(err)
			}
			fmt.Fprintln(&out, snap.Uids, snap.Flags, snap.ReceivedMs, snap.Modseqs, len(snap.Keywords))
			if err := a.Fetch(t.Context(), &v1.FetchRequest{MailboxId: m.Id, Message: true}, func(it *v1.FetchResponse_Item) error {
				b := it.Message.GetInline()
				if p := it.Message.GetPath(); p != "" {
					var err error
					if b, err = os.ReadFile(p); err != nil {
						return err
					}
				}
				fmt.Fprintf(&out, "%d %d %x\n", it.Uid, len(b), hashID(string(b)))
				return nil
			}); err != nil {
				t.Fatal(err)
			}
		}
	}
	return out.String()
}

// TestAccountsByPages: the names come in order, page by page.
func TestAccountsByPages(t *testing.T) {
	s := filled(t)
	defer s.Close()
	var got []string
	for after := ""; ; {
		r, err := s.Accounts(t.Context(), &v1.AccountsRequest{After: after, Limit: 1})
		if err != nil {
			t.Fatal(err)
		}
		if len(r.Accounts) == 0 {
			break
		}
		got = append(got, r.Accounts...)
		after = r.Accounts[len(r.Accounts)-1]
	}
	if strings.Join(got, " ") != "meg@ryan.example tom@hanks.example" {
		t.Errorf("%q", got)
	}
}
