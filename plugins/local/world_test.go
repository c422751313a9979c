package local

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"google.golang.org/protobuf/proto"

	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
	"github.com/stagecoach-mta/stagecoach/sdk/storage"
	"github.com/stagecoach-mta/stagecoach/sdk/storage/simdisk"
)

var crashStart = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// workload does random things to a store on a disk.
type workload struct {
	steps int
	wrap  func(vfs.FS) vfs.FS // a bug below the store
	// spoil is a bug in it, after each step; mend is one in how it opens.
	spoil func(s *Store, m *moment) error
	mend  func(s *Store) error
}

// world is a workload that runs.
type world struct {
	workload
	t      testing.TB
	chance *rand.PCG
	rng    *rand.Rand
	exit   func(int)
	d      *simdisk.Disk
	steady *simdisk.Steady
	s      *Store
	now    time.Time
	n      int
	h      *history
	gate   *simdisk.Gate // before the syncs of the database's log, for together
}

func newWorld(t testing.TB, l workload, d *simdisk.Disk, seed uint64) *world {
	w := &world{workload: l, t: t, d: d, steady: &simdisk.Steady{}, now: crashStart, gate: simdisk.NewGate()}
	w.chance = rand.NewPCG(seed, 1)
	w.rng = rand.New(w.chance)
	w.h = &history{log: w.d.Record(), mend: l.mend}
	w.h.moments = []moment{{now: w.now}}
	return w
}

func (l workload) run(t testing.TB, seed uint64) (*simdisk.Trial, error) {
	w := newWorld(t, l, simdisk.New(), seed)
	trial := &simdisk.Trial{Log: w.h.log, Check: w.h.check, Recover: recoverStore, Oracle: w.h.oracle}
	err := w.open()
	for n := 0; n < l.steps && err == nil; n++ {
		w.now = w.now.Add(time.Second)
		if l.spoil == nil && n > len(crashAccounts) && n%7 == 6 {
			if err = w.together(); err != nil {
				return trial, fmt.Errorf("step %d: %w", n, err)
			}
			continue
		}
		at := w.h.begin(w.now)
		switch {
		case n < len(crashAccounts):
			_, err = w.s.Open(context.Background(), crashAccounts[n])
		case n == l.steps/2:
			if err = w.s.Close(); err == nil {
				err = w.open()
			}
		case n%10 == 9:
			err = errors.Join(w.s.db.Flush(), w.steady.Sweep(w.s.db))
		case n%20 == 14:
			err = errors.Join(w.s.db.Compact(context.Background(), []byte{0}, []byte{0xff}, false), w.steady.Sweep(w.s.db))
		default:
			err = w.step(at)
		}
		if err == nil {
			at.acked = w.h.log.Len()
			if l.spoil != nil {
				err = l.spoil(w.s, at)
			}
			if err == nil {
				at.state, err = state(w.s)
			}
		}
		if err != nil {
			return trial, fmt.Errorf("step %d: %w", n, err)
		}
	}
	if err != nil {
		return trial, err
	}
	return trial, w.s.Close()
}

func (w *world) open() (err error) {
	fs := vfs.FS(w.d)
	if w.wrap != nil {
		fs = w.wrap(fs)
	}
	fs = w.gate.FS(fs, func(path string) bool { return strings.HasSuffix(path, ".log") })
	w.s, err = quiet(Options{FS: fs, Now: func() time.Time { return w.now }, Tune: w.steady.Tune, Exit: w.exit})
	return err
}

// text is a message that tells by its last line whether it is whole.
func (w *world) text() string {
	w.n++
	fill := strings.Repeat("x", w.rng.IntN(3000))
	if w.rng.IntN(4) == 0 {
		fill = strings.Repeat("large\r\n", smallBody/7+w.rng.IntN(1000))
	}
	return fmt.Sprintf("Subject: m%d\r\nMessage-ID: <m%d@hanks.example>\r\n\r\n%s\r\n.end m%d\r\n", w.n, w.n, fill, w.n)
}

func (w *world) step(m *moment) error {
	ctx := context.Background()
	account := crashAccounts[w.rng.IntN(len(crashAccounts))]
	a, err := w.s.Open(ctx, account)
	if err != nil {
		return err
	}
	list, err := a.List(ctx, &v1.ListMailboxesRequest{})
	if err != nil {
		return err
	}
	boxes := slices.DeleteFunc(list.Mailboxes, func(m *v1.Mailbox) bool { return m.Container })
	box := boxes[w.rng.IntN(len(boxes))]
	uids := []*v1.UIDRange{{First: 1, Last: 1 + uint32(w.rng.IntN(int(box.UidNext)+1))}}
	switch w.rng.IntN(14) {
	case 0, 1, 2, 3:
		return w.deposit(m)
	case 4:
		if old := w.deposits(); len(old) > 0 {
			_, err = deposit(w.s, old[w.rng.IntN(len(old))])
		}
	case 5, 6:
		err = w.append(m, account, box)
	case 7:
		_, err = a.SetFlags(ctx, &v1.SetFlagsRequest{MailboxId: box.Id, Uids: uids, Flags: []string{`\Seen`, "$Work"}, Op: v1.SetFlagsRequest_Op(w.rng.IntN(3))})
	case 8, 9:
		to := boxes[w.rng.IntN(len(boxes))]
		if to.Id != box.Id {
			err = w.copy(m, account, &v1.CopyRequest{MailboxId: box.Id, Uids: uids, TargetMailboxId: to.Id, Move: w.rng.IntN(3) > 0})
		}
	case 10:
		_, err = a.Expunge(ctx, &v1.ExpungeRequest{MailboxId: box.Id, Uids: uids, Force: true})
	case 11:
		err = w.folder(a, box)
	default:
		w.s.collect()
	}
	return err
}

func (w *world) folder(a storage.Account, box *v1.Mailbox) error {
	ctx := context.Background()
	w.n++
	name := fmt.Sprintf("folder %d", w.n)
	var err error
	switch w.rng.IntN(4) {
	case 0:
		_, err = a.Create(ctx, &v1.CreateMailboxRequest{Name: name + "/below"})
	case 1:
		_, err = a.Rename(ctx, &v1.RenameMailboxRequest{Id: box.Id, Name: name})
	case 2:
		if box.Name != inbox {
			_, err = a.Delete(ctx, &v1.DeleteMailboxRequest{Id: box.Id})
		}
	case 3:
		subscribed := !box.Subscribed
		_, err = a.Update(ctx, &v1.UpdateMailboxRequest{Id: box.Id, Subscribed: &subscribed})
	}
	return err
}

func (w *world) deposits() (out []*v1.DepositRequest) {
	for _, m := range w.h.moments {
		if m.deposit != nil {
			out = append(out, m.deposit)
		}
	}
	return out
}

func (w *world) newDeposit() (text string, req *v1.DepositRequest) {
	text = w.text()
	req = &v1.DepositRequest{QueueId: fmt.Sprintf("q%d", w.n), Message: inlineMessage(text), ReturnPath: "tom@hanks.example"}
	for i, account := range crashAccounts[:1+w.rng.IntN(len(crashAccounts))] {
		req.Targets = append(req.Targets, &v1.DepositRequest_Target{Key: int32(i), Account: account, Mailbox: []string{"", "Lists/new"}[w.rng.IntN(2)]})
	}
	return text, req
}

// deposit brings a new message, some by the name of the spool's file.
func (w *world) deposit(m *moment) (err error) {
	text, req := w.newDeposit()
	m.deposit = req
	if w.rng.IntN(2) == 0 && len(text) > smallBody {
		linked, err := w.spool(text)
		if err != nil {
			return err
		}
		w.s.local = true // for this call: who reads wants the octets
		defer func() { w.s.local = false }()
		here := proto.Clone(req).(*v1.DepositRequest)
		here.Message = linked
		m.results, err = deposit(w.s, here)
		return err
	}
	m.results, err = deposit(w.s, req)
	return err
}

// spool is a file that the queue made durable: on the machine, from where it is
// read, and under the same name on the disk, where it is linked.
func (w *world) spool(text string) (*v1.MessageRef, error) {
	path := filepath.Join(w.t.TempDir(), "message")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		return nil, err
	}
	if err := w.d.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	f, err := w.d.Create(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		return nil, err
	}
	_, err = f.Write([]byte(text))
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return nil, err
	}
	return &v1.MessageRef{Size: int64(len(text)), Where: &v1.MessageRef_Path{Path: path}}, nil
}
