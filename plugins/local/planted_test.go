package local

import (
	"errors"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
	"github.com/stagecoach-mta/stagecoach/sdk/storage/simdisk"
)

// unsynced is a store that leaves out the syncs of paths that match picks.
func unsynced(match func(path string) bool) workload {
	return workload{wrap: func(fs vfs.FS) vfs.FS { return simdisk.Forget(fs, match) }}
}

// TestPlantedBugsAreFound shows that the checker would see what it looks for.
func TestPlantedBugsAreFound(t *testing.T) {
	for name, l := range map[string]workload{
		"the log is not synced":             unsynced(func(path string) bool { return strings.HasSuffix(path, ".log") }),
		"a large message is not synced":     unsynced(func(path string) bool { return strings.HasSuffix(path, ".eml") }),
		"its directory is not synced":       unsynced(func(path string) bool { return strings.HasPrefix(path, "store/blobs/") }),
		"that one's name is not synced":     unsynced(func(path string) bool { return path == "store/blobs" }),
		"the store's names are not synced":  unsynced(func(path string) bool { return path == "store" || path == "." }),
		"a delivery's key is not recorded":  {spoil: forgetKeys},
		"a request's key is not recorded":   {spoil: forgetRequest},
		"UIDNEXT is one past the last UID":  {mend: countUIDs},
		"MODSEQ is lost, and counted again": {mend: countModseq},
	} {
		t.Run(name, func(t *testing.T) {
			l.steps = 40
			c := simdisk.Checker{Seed: 1, States: 30_000, Most: 4, Sample: 4, Exhaust: 2, Again: 1 << 30}
			r, err := c.Run(func(seed uint64) (*simdisk.Trial, error) { return l.run(t, seed) })
			var v *simdisk.Violation
			if !errors.As(err, &v) {
				t.Fatalf("nobody noticed the planted bug in %d states: %v", r.States, err)
			}
			t.Logf("the planted bug was found after %d states, as it must be: %.300s", r.States, err)
		})
	}
}

func forgetKeys(s *Store, m *moment) error {
	var errs []error
	for _, target := range m.deposit.GetTargets() {
		errs = append(errs, s.db.Delete(keyDeposit(m.deposit.QueueId, target.Key), pebble.Sync))
	}
	return errors.Join(errs...)
}

// eachMailbox changes every mailbox of a store.
func eachMailbox(s *Store, f func(account uint64, m *v1.Mailbox) error) error {
	return scan(s.db, []byte{tabMailbox}, func(k, v []byte) error {
		m, err := decodeMailbox(v)
		if err != nil {
			return err
		}
		if err := f(be.Uint64(k[1:]), m); err != nil {
			return err
		}
		return s.db.Set(append([]byte(nil), k...), encode(m), pebble.NoSync)
	})
}

// countUIDs is a store that does not keep UIDNEXT but counts it when it opens.
func countUIDs(s *Store) error {
	return eachMailbox(s, func(account uint64, m *v1.Mailbox) error {
		num, _ := parseBoxID(m.Id)
		m.UidNext = 1
		return scan(s.db, be.AppendUint32(key8(tabColumn, account), num), func(k, _ []byte) error {
			m.UidNext = max(m.UidNext, column(k)+1)
			return nil
		})
	})
}

// countModseq is one that does so with MODSEQ.
func countModseq(s *Store) error {
	return eachMailbox(s, func(account uint64, m *v1.Mailbox) error {
		num, _ := parseBoxID(m.Id)
		m.HighestModseq = 1
		return scan(s.db, be.AppendUint32(key8(tabColumn, account), num), func(_, v []byte) error {
			var c columns
			err := c.decode(v)
			m.HighestModseq = max(m.HighestModseq, c.modseq)
			return err
		})
	})
}

// TestNobodyUsesADirectoryBeforeItsNameIsDurable: the second of two deposits that
// need a new directory waits for the first one's sync.
func TestNobodyUsesADirectoryBeforeItsNameIsDurable(t *testing.T) {
	var s *Store
	looked := false
	fs := watched{simdisk.New(), func(path string) {
		if s != nil && path == "store/blobs" {
			looked = true
			if s.blobs.making.TryLock() {
				s.blobs.making.Unlock()
				t.Error("another deposit would take the directory for safe")
			}
		}
	}}
	s = open(t, Options{Dir: "store", FS: fs})
	defer s.Close()
	if _, err := s.Deposit(t.Context(), toMeg("large", "Subject: x\r\n\r\n"+strings.Repeat("x\r\n", smallBody))); err != nil {
		t.Fatal(err)
	}
	if !looked {
		t.Error("the directory of directories is not synced")
	}
}

// watched tells of each directory that is opened for its sync.
type watched struct {
	vfs.FS
	opened func(path string)
}

func (w watched) OpenDir(name string) (vfs.File, error) {
	w.opened(name)
	return w.FS.OpenDir(name)
}
