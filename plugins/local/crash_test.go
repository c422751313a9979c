package local

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
	"github.com/stagecoach-mta/stagecoach/sdk/storage/simdisk"
)

var crashAccounts = []string{"meg@ryan.example", "tom@hanks.example", "nora@ryan.example"}

// moment is an operation: where in the disk's log it began and was acknowledged,
// and the store as it was after it.
type moment struct {
	begun, acked int
	state        string
	now          time.Time
	deposit      *v1.DepositRequest
	results      []string
	request      *request
}

// history is the operations of a workload. A crash must leave the store as it was
// after the last one that was acknowledged or after one that was under way.
type history struct {
	log     *simdisk.Log
	moments []moment
	mend    func(s *Store) error // a planted bug of opening
	judged  simdisk.Judged
}

// begin is a new operation.
func (h *history) begin(now time.Time) *moment {
	h.moments = append(h.moments, moment{begun: h.log.Len(), acked: 1 << 40, now: now})
	return &h.moments[len(h.moments)-1]
}

// under are the indexes of the last one that was acknowledged and the last one that
// was under way; they are one when nothing was.
func (h *history) under(at int) (acked, begun int) {
	for i, m := range h.moments {
		if m.acked <= at {
			acked = i
		}
		if m.begun <= at {
			begun = i
		}
	}
	return acked, begun
}

func (h *history) oracle(at int) uint64 {
	acked, begun := h.under(at)
	return uint64(acked)<<16 | uint64(begun)
}

// quiet opens a store whose collector works when it is asked to alone: beside
// the workload it would write in another order each time.
func quiet(opts Options) (*Store, error) {
	opts.Dir, opts.CacheBytes = "store", 1<<20
	s, err := New(opts)
	if err != nil {
		return nil, err
	}
	close(s.stop)
	s.workers.Wait()
	s.stop = make(chan struct{})
	return s, nil
}

func recovered(fs vfs.FS, now time.Time) (*Store, error) { return recoveredUntil(fs, now, nil) }

func recoveredUntil(fs vfs.FS, now time.Time, exit func(int)) (*Store, error) {
	return quiet(Options{FS: fs, Now: func() time.Time { return now }, Tune: new(simdisk.Steady).Tune, Exit: exit})
}

func recoverStore(d *simdisk.Disk) error {
	s, err := recovered(d, crashStart)
	if err != nil {
		return err
	}
	return s.Close()
}

// check opens what a crash left and says what is wrong with what is found there.
func (h *history) check(d *simdisk.Disk, at int) error {
	ended, done := make(chan error, 1), make(chan error, 1)
	exit := func(code int) {
		select {
		case ended <- fmt.Errorf("the process ends with %d", code):
		default:
		}
		select {} // it holds locks that nobody may get
	}
	go func() { done <- h.checkUntil(d, at, exit) }()
	select {
	case err := <-done:
		return err
	case err := <-ended:
		return err
	}
}

func (h *history) checkUntil(d *simdisk.Disk, at int, exit func(int)) error {
	acked, begun := h.under(at)
	last := h.moments[begun]
	s, err := recoveredUntil(d, last.now, exit)
	if err != nil {
		return err
	}
	if h.mend != nil {
		err = h.mend(s)
	}
	var content uint64
	if err == nil {
		content, err = simdisk.SumDB(s.db)
	}
	if err == nil {
		err = h.judged.Once(content+d.Sum("store/blobs"), h.oracle(at), func() error { return h.judge(s, acked, begun) })
	}
	return errors.Join(err, s.Close())
}

func (h *history) judge(s *Store, acked, begun int) error {
	is, err := state(s)
	if err != nil {
		return err
	}
	var allowed []string
	for _, m := range h.moments[acked : begun+1] {
		allowed = append(allowed, m.state)
	}
	if !slices.Contains(allowed, is) {
		return fmt.Errorf("the store is\n%s\nand neither what was acknowledged nor what was under way:\n%s", is, strings.Join(allowed, "\nor\n"))
	}
	// The queue repeats all that it has no result of, and some that it has; so do the
	// clients of the data socket.
	for i, m := range h.moments[:begun+1] {
		if err := h.repeat(s, &m); err != nil {
			return err
		}
		if i > acked && m.request != nil {
			is = m.state
		}
		if m.deposit == nil {
			continue
		}
		got, err := deposit(s, m.deposit)
		if err != nil {
			return fmt.Errorf("repeat deposit %s: %w", m.deposit.QueueId, err)
		}
		if !slices.Equal(got, m.results) {
			return fmt.Errorf("deposit %s (%d) was answered with %q and is now with %q", m.deposit.QueueId, i, m.results, got)
		}
		if i > acked {
			is = m.state // by now it is there, once
		}
	}
	if again, err := state(s); err != nil || again != is {
		return fmt.Errorf("after what was repeated the store is\n%s\nwant\n%s %w", again, is, err)
	}
	s.collect()
	if err := integrity(s); err != nil {
		return err
	}
	return goesOn(s)
}

// goesOn: the next message gets a UID and a MODSEQ that nothing had.
func goesOn(s *Store) error {
	ctx := context.Background()
	a, err := s.Open(ctx, crashAccounts[0])
	if err != nil {
		return err
	}
	before, err := a.List(ctx, &v1.ListMailboxesRequest{Name: inbox})
	if err != nil || len(before.Mailboxes) != 1 {
		return fmt.Errorf("no INBOX: %w", err)
	}
	resp, err := a.Append(ctx, &v1.AppendRequest{MailboxId: before.Mailboxes[0].Id, Messages: []*v1.AppendRequest_Message{{Message: inlineMessage("Subject: later\r\n\r\n")}}})
	if err != nil {
		return fmt.Errorf("the first append after a crash: %w", err)
	}
	if resp.Uids[0] != before.Mailboxes[0].UidNext || resp.Modseq <= before.Modseq {
		return fmt.Errorf("the first append after a crash got UID %d and MODSEQ %d; UIDNEXT was %d, MODSEQ %d", resp.Uids[0], resp.Modseq, before.Mailboxes[0].UidNext, before.Modseq)
	}
	return nil
}

// state is all that clients see, as text.
func state(s *Store) (string, error) {
	var out strings.Builder
	for _, name := range crashAccounts {
		v, err := get(s.db, keyAccountName(name))
		if err != nil {
			return "", err
		}
		if v == nil {
			continue // to open it would make it
		}
		if err := accountState(s, name, &out); err != nil {
			return "", fmt.Errorf("%s: %w", name, err)
		}
	}
	return out.String(), nil
}

func accountState(s *Store, name string, out *strings.Builder) error {
	ctx := context.Background()
	a, err := s.Open(ctx, name)
	if err != nil {
		return err
	}
	list, err := a.List(ctx, &v1.ListMailboxesRequest{})
	if err != nil {
		return err
	}
	q, err := a.Quota(ctx)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "%s MODSEQ %d, %d octets in %d messages\n", name, list.Modseq, q.UsedBytes, q.UsedMessages)
	for _, m := range list.Mailboxes {
		fmt.Fprintf(out, "  %q %s UIDVALIDITY %d UIDNEXT %d MODSEQ %d, %d messages %d unseen %d deleted %d octets, subscribed %v\n",
			m.Name, m.Id, m.UidValidity, m.UidNext, m.HighestModseq, m.Messages, m.Unseen, m.Deleted, m.Size, m.Subscribed)
		if m.Container {
			continue
		}
		snap, err := a.Snapshot(ctx, &v1.SnapshotRequest{MailboxId: m.Id, SinceModseq: 1})
		if err != nil {
			return err
		}
		for _, r := range snap.Vanished {
			fmt.Fprintf(out, "    gone %d:%d\n", r.First, r.Last)
		}
		i := 0
		if snap, err = a.Snapshot(ctx, &v1.SnapshotRequest{MailboxId: m.Id}); err != nil {
			return err
		}
		err = a.Fetch(ctx, &v1.FetchRequest{MailboxId: m.Id, Message: true, Ids: true, Summary: true}, func(it *v1.FetchResponse_Item) error {
			text := string(it.Message.GetInline())
			if !strings.HasSuffix(text, ".end "+string(it.Summary.GetSubject())+"\r\n") {
				return fmt.Errorf("message %d is torn: %.60q … of %d octets", it.Uid, text, len(text))
			}
			if it.Uid != snap.Uids[i] || int64(len(text)) != snap.Sizes[i] {
				return fmt.Errorf("message %d has %d octets, its column says %d of message %d", it.Uid, len(text), snap.Sizes[i], snap.Uids[i])
			}
			fmt.Fprintf(out, "    %d %s %s %q flags %d MODSEQ %d %d octets\n", it.Uid, it.MessageId, it.ThreadId, it.Summary.GetSubject(), snap.Flags[i], snap.Modseqs[i], len(text))
			i++
			return nil
		})
		if err != nil {
			return err
		}
		if i != len(snap.Uids) {
			return fmt.Errorf("%d of %d messages of %q are there", i, len(snap.Uids), m.Name)
		}
	}
	return nil
}

// deposit gives a line for each target.
func deposit(s *Store, req *v1.DepositRequest) ([]string, error) {
	resp, err := s.Deposit(context.Background(), req)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, r := range resp.Results {
		if r.Problem != nil {
			return nil, fmt.Errorf("%v", r.Problem)
		}
		out = append(out, fmt.Sprintf("%s %d %s", r.MailboxId, r.Uid, r.MessageId))
	}
	return out, nil
}

// integrity checks that bodies, references and files belong together.
func integrity(s *Store) error {
	var errs []error
	wrong := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	referenced := map[uint64]bool{}
	err := scan(s.db, []byte{tabReference}, func(k, _ []byte) error {
		referenced[be.Uint64(k[1:])] = true
		if v, _ := get(s.db, key88(tabRendered, be.Uint64(k[9:]), be.Uint64(k[17:]))); v == nil {
			wrong("body %d is referred to by a message that is not there", be.Uint64(k[1:]))
		}
		return nil
	})
	files := map[uint64]bool{}
	err = errors.Join(err, scan(s.db, []byte{tabBlob}, func(k, v []byte) error {
		id := be.Uint64(k[1:])
		if !referenced[id] {
			wrong("body %d is left over", id)
		}
		if v[0] == blobFile {
			files[id] = true
		}
		delete(referenced, id)
		return nil
	}))
	for id := range referenced {
		wrong("body %d is referred to and not there", id)
	}
	dirs, _ := s.fs.List(s.path("blobs"))
	for _, d := range dirs {
		names, _ := s.fs.List(s.path("blobs", d))
		for _, name := range names {
			var id uint64
			fmt.Sscanf(name, "%x.eml", &id)
			if !files[id] {
				wrong("file %s is left over", name)
			}
			delete(files, id)
		}
	}
	for id := range files {
		wrong("the file of body %d is missing", id)
	}
	return errors.Join(append(errs, err)...)
}

// TestCrash cuts the power at every operation on the disk.
func TestCrash(t *testing.T) {
	c, err := simdisk.Checker{Command: "go test ./plugins/local -run '^TestCrash$'", Most: 4, Sample: 4, Exhaust: 2}.Env()
	if err != nil {
		t.Fatal(err)
	}
	if c.States > 0 {
		c.Progress = func(r simdisk.Report) { fmt.Fprintf(os.Stderr, "\r%s", r) }
	}
	r, err := c.Run(func(seed uint64) (*simdisk.Trial, error) { return workload{steps: 40}.run(t, seed) })
	t.Logf("\n%s\n%s", simdisk.ReportHead, r)
	if err != nil {
		t.Fatal(err)
	}
}
