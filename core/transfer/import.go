package transfer

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/stagecoach-mta/stagecoach/sdk/fail"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
	"github.com/stagecoach-mta/stagecoach/sdk/storage"
)

// A batch is stored by one call: so many small messages, or one large one.
const (
	mostBatch       = 64
	mostBatchOctets = 512 << 10
)

// Import brings a source's mail into an account.
type Import struct {
	// Account that gets the mail; nil for a DryRun into one that there is not yet.
	Account storage.Account
	// Ledger of this source and this account.
	Ledger *Ledger
	// Only these mailboxes of the source; empty: all.
	Only []string
	// Map says which mailbox takes the place of one of the source's; the others go
	// below Prefix. Without it they go to the mailbox of the same role, or name.
	Map    map[string]string
	Prefix string
	// Quota of the account in octets; 0: none.
	Quota int64
	// DryRun stores nothing and counts what would be.
	DryRun bool
	// Progress is called often.
	Progress func(Progress)

	report *Report
	now    Progress
	boxes  []*v1.Mailbox
}

// target is the mailbox of the account that a mailbox of the source goes to.
type target struct {
	im      *Import
	row     *Row
	from    string
	box     string // id
	uidNext uint32

	pending []*Message
	items   []item
	octets  int64
	// again are the batches in doubt that are stored under their own key, as soon as
	// all of their messages have come by.
	again []*repeat
}

type repeat struct {
	*batch
	messages []*Message
	missing  int
}

// Run imports until all is there, or ctx ends: the batch under way is finished then,
// and another run goes on. The report tells what was done in either case.
func (im *Import) Run(ctx context.Context, src Source) (*Report, error) {
	im.report = &Report{Mailboxes: []*Row{}, Left: []Left{}, Notes: []Left{}}
	list, err := src.Mailboxes(ctx)
	if err != nil {
		return im.report, err
	}
	if list, err = chosen(list, im.Only); err != nil {
		return im.report, err
	}
	for name := range im.Map {
		if _, err := chosen(list, []string{name}); err != nil {
			return im.report, fmt.Errorf("%w to map", err)
		}
	}
	im.now.AllMessages, im.now.AllOctets = total(list)
	if im.Account != nil {
		if err := im.look(ctx); err != nil {
			return im.report, err
		}
	}
	if !im.DryRun {
		if err := im.settle(ctx); err != nil {
			return im.report, err
		}
	}
	for _, m := range list {
		if err := im.mailbox(ctx, src, m); err != nil {
			return im.report, err
		}
	}
	return im.report, nil
}

func (im *Import) look(ctx context.Context) error {
	r, err := im.Account.List(ctx, &v1.ListMailboxesRequest{})
	im.boxes = r.GetMailboxes()
	return err
}

func (im *Import) tell() {
	if im.Progress != nil {
		im.Progress(im.now)
	}
}

// settle finds out what became of the batches that an earlier run began.
func (im *Import) settle(ctx context.Context) error {
	for _, b := range slices.Clone(im.Ledger.doubt) {
		uids, err := im.find(ctx, b)
		switch {
		case err != nil:
			return err
		case uids != nil:
			err = im.Ledger.stored(b, uids)
		case !slices.ContainsFunc(im.boxes, func(m *v1.Mailbox) bool { return m.GetId() == b.box }):
			err = im.Ledger.void(b) // the mailbox is gone, and with it all that was in it
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// find looks for the messages of a batch, which are all there or none; nil: none is.
func (im *Import) find(ctx context.Context, b *batch) ([]uint32, error) {
	if !slices.ContainsFunc(im.boxes, func(m *v1.Mailbox) bool { return m.GetId() == b.box }) {
		return nil, nil
	}
	snap, err := im.Account.Snapshot(ctx, &v1.SnapshotRequest{MailboxId: b.box, Uids: []*v1.UIDRange{{First: max(b.uidNext, 1)}}})
	if err != nil {
		return nil, err
	}
	known := im.Ledger.uidsOf(b.box, b.uidNext)
	uids := make([]uint32, len(b.items))
	found := false
	next := 0
	for n, uid := range snap.GetUids() {
		// They were stored in their order; others may have come between.
		if known[uid] {
			continue
		}
		for k := next; k < len(b.items); k++ {
			if b.items[k].size != snap.GetSizes()[n] {
				continue
			}
			sum, err := im.sum(ctx, b.box, uid)
			if err != nil {
				return nil, err
			}
			if sum == b.items[k].sum {
				uids[k], next, found = uid, k+1, true
				break
			}
		}
	}
	if !found {
		return nil, nil
	}
	return uids, nil
}

// sum is the SHA-256 of a message that the storage has.
func (im *Import) sum(ctx context.Context, box string, uid uint32) (sum [sha256.Size]byte, err error) {
	h := sha256.New()
	err = im.Account.Fetch(ctx, &v1.FetchRequest{MailboxId: box, Uids: []*v1.UIDRange{{First: uid, Last: uid}}, Message: true}, func(it *v1.FetchResponse_Item) error {
		r, err := openRef(it.GetMessage())
		if err != nil {
			return err
		}
		defer r.Close()
		_, err = io.Copy(h, r)
		return err
	})
	h.Sum(sum[:0])
	return sum, err
}

func (im *Import) mailbox(ctx context.Context, src Source, m Mailbox) (err error) {
	t, err := im.open(ctx, m)
	if err != nil {
		return fmt.Errorf("%s: %w", m.Name, err)
	}
	im.report.Mailboxes = append(im.report.Mailboxes, t.row)
	im.now.Mailbox = m.Name
	defer t.drop()
	err = src.Messages(ctx, m, t.want, func(msg *Message) error {
		defer im.tell()
		t.row.Messages++
		im.now.Messages++
		if msg.Problem != nil {
			im.report.leave(t.row, msg.ID, msg.Problem)
			return nil
		}
		im.now.Octets += msg.Body.Size
		return t.put(ctx, msg)
	})
	if err != nil {
		return fmt.Errorf("%s: %w", m.Name, err)
	}
	if err := t.end(ctx); err != nil {
		return fmt.Errorf("%s: %w", m.Name, err)
	}
	return nil
}

// want says whether a message is not there yet.
func (t *target) want(id string, size int64) bool {
	_, have := t.im.Ledger.have[idOf(t.from, id)]
	if !have && !t.im.DryRun {
		return true
	}
	t.row.Messages++
	t.im.now.Messages++
	t.im.now.Octets += size
	if have {
		t.row.Before++
	} else {
		t.row.Carried++
		t.row.Octets += size
	}
	t.im.tell()
	return false
}

// put takes a message into the batch; the body is the target's now.
func (t *target) put(ctx context.Context, m *Message) error {
	if m.Body.Size == 0 {
		t.im.report.leave(t.row, m.ID, errors.New("it is empty"))
		return nil
	}
	good, bad := usable(m.Flags)
	m.Flags = good
	for _, f := range bad {
		t.im.report.note(t.row, m.ID, fmt.Sprintf("without the keyword %q, which IMAP cannot have", f))
	}
	it := item{idOf(t.from, m.ID), m.Body.Size, m.Body.Sum}
	for _, r := range t.again {
		if n := slices.IndexFunc(r.items, func(x item) bool { return x == it }); n >= 0 && r.messages[n] == nil {
			r.messages[n] = m
			if r.missing--; r.missing > 0 {
				return nil
			}
			return t.repeat(ctx, r)
		}
	}
	if !m.Body.small() || len(t.pending) == mostBatch || t.octets+m.Body.Size > mostBatchOctets {
		if err := t.flush(ctx); err != nil {
			m.Body.drop()
			return err
		}
	}
	t.pending, t.items, t.octets = append(t.pending, m), append(t.items, it), t.octets+m.Body.Size
	if !m.Body.small() {
		return t.flush(ctx)
	}
	return nil
}

// repeat stores a batch under the key that it had.
func (t *target) repeat(ctx context.Context, r *repeat) error {
	t.again = slices.DeleteFunc(t.again, func(x *repeat) bool { return x == r })
	return t.store(ctx, r.batch, r.messages)
}

// end stores what is still there.
func (t *target) end(ctx context.Context) error {
	for _, r := range slices.Clone(t.again) {
		// Not all of them are in the source any more.
		t.again = slices.DeleteFunc(t.again, func(x *repeat) bool { return x == r })
		if err := t.im.Ledger.void(r.batch); err != nil {
			return err
		}
		for _, m := range r.messages {
			if m != nil {
				if err := t.put(ctx, m); err != nil {
					return err
				}
			}
		}
	}
	return t.flush(ctx)
}

func (t *target) drop() {
	for _, m := range t.pending {
		m.Body.drop()
	}
	for _, r := range t.again {
		for _, m := range r.messages {
			if m != nil {
				m.Body.drop()
			}
		}
	}
}

// flush stores the batch. It is not begun when ctx has ended.
func (t *target) flush(ctx context.Context) error {
	if err := ctx.Err(); err != nil || len(t.pending) == 0 {
		return err
	}
	list, items := t.pending, t.items
	t.pending, t.items, t.octets = nil, nil, 0
	return t.begin(ctx, list, items)
}

func (t *target) begin(ctx context.Context, list []*Message, items []item) error {
	b := &batch{key: rand.Text(), from: t.from, box: t.box, uidNext: t.uidNext, items: items}
	if err := t.im.Ledger.begin(b); err != nil {
		return fmt.Errorf("the record of what was imported: %w", err)
	}
	return t.store(ctx, b, list)
}

func (t *target) store(ctx context.Context, b *batch, list []*Message) error {
	req := &v1.AppendRequest{MailboxId: t.box, QuotaBytes: t.im.Quota}
	octets := int64(0)
	for _, m := range list {
		octets += m.Body.Size
		req.Messages = append(req.Messages, &v1.AppendRequest_Message{
			Message: m.Body.ref(), Flags: m.Flags, ReceivedMs: m.Received.UnixMilli(),
		})
	}
	// What has begun is finished, whatever the operator does.
	r, err := t.im.Account.Append(storage.WithRequestKey(context.WithoutCancel(ctx), b.key), req)
	if err == nil && len(r.GetUids()) != len(list) {
		err = fail.New(fail.Internal, "the storage told %d UIDs for %d messages", len(r.GetUids()), len(list))
	}
	if err != nil {
		return t.refused(ctx, b, list, err)
	}
	for _, m := range list {
		m.Body.drop()
	}
	t.uidNext = max(t.uidNext, slices.Max(r.GetUids())+1)
	t.row.Carried += int64(len(list))
	t.row.Octets += octets
	t.im.now.Carried += octets
	t.im.tell()
	return t.im.Ledger.stored(b, r.GetUids())
}

// refused: what concerns a message alone is no reason to stop.
func (t *target) refused(ctx context.Context, b *batch, list []*Message, why error) error {
	alone := fail.Is(why, fail.Invalid) || fail.Is(why, fail.TooLarge) || fail.Is(why, fail.OverQuota)
	if !alone {
		for _, m := range list {
			m.Body.drop()
		}
		return why // and the batch stays in doubt
	}
	if err := t.im.Ledger.void(b); err != nil {
		return err
	}
	if len(list) == 1 {
		list[0].Body.drop()
		t.im.report.leave(t.row, list[0].ID, why)
		return nil
	}
	for n, m := range list {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := t.begin(ctx, []*Message{m}, b.items[n:n+1]); err != nil {
			return err
		}
	}
	return nil
}

// openRef opens a message that the storage gave.
func openRef(ref *v1.MessageRef) (io.ReadSeekCloser, error) {
	if p := ref.GetPath(); p != "" {
		return os.Open(p)
	}
	return inMemory{bytes.NewReader(ref.GetInline())}, nil
}

type inMemory struct{ *bytes.Reader }

// Close implements io.Closer.
func (inMemory) Close() error { return nil }
