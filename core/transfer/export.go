package transfer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
	"github.com/stagecoach-mta/stagecoach/sdk/storage"
)

// Sink is where exported mail goes. It is used by one goroutine.
type Sink interface {
	// Open begins a mailbox; whole: an earlier run wrote all of it.
	Open(m Mailbox, state string) (box Box, whole bool, err error)
	// Close ends the whole with the names that are subscribed.
	Close(subscribed []string) error
}

// Box is one mailbox of a Sink.
type Box interface {
	// Has tells whether an earlier run wrote a message.
	Has(m *Outgoing) bool
	Put(m *Outgoing) error
	// Close ends the mailbox; what is in it is on the disk then.
	Close() error
	// Abandon lets go of it: it is not whole.
	Abandon()
}

// Outgoing is a message on its way out.
type Outgoing struct {
	UIDValidity, UID uint32
	Flags            []string
	Received         time.Time
	Size             int64
	// Open gives its octets, each time from the first on.
	Open func() (io.ReadSeekCloser, error)
}

// Export brings an account's mail out.
type Export struct {
	Account storage.Account
	// Only these mailboxes; empty: all.
	Only     []string
	DryRun   bool
	Progress func(Progress)

	report *Report
	now    Progress
}

// Run exports until all is there, or ctx ends: the message under way is finished
// then, and another run goes on.
func (e *Export) Run(ctx context.Context, to Sink) (*Report, error) {
	e.report = &Report{Mailboxes: []*Row{}, Left: []Left{}, Notes: []Left{}}
	r, err := e.Account.List(ctx, &v1.ListMailboxesRequest{})
	if err != nil {
		return e.report, err
	}
	var list []Mailbox
	ids := map[string]*v1.Mailbox{}
	subscribed := r.GetKeptSubscriptions()
	for _, m := range r.GetMailboxes() {
		if m.GetSubscribed() {
			subscribed = append(subscribed, m.GetName())
		}
		if !m.GetContainer() {
			ids[m.GetName()] = m
			list = append(list, Mailbox{Name: m.GetName(), Role: m.GetRole(), Subscribed: m.GetSubscribed(), Messages: int64(m.GetMessages()), Octets: m.GetSize()})
		}
	}
	if list, err = chosen(list, e.Only); err != nil {
		return e.report, err
	}
	e.now.AllMessages, e.now.AllOctets = total(list)
	for _, m := range list {
		if err := e.mailbox(ctx, ids[m.Name], m, to); err != nil {
			return e.report, fmt.Errorf("%s: %w", m.Name, err)
		}
	}
	if e.DryRun {
		return e.report, nil
	}
	return e.report, to.Close(subscribed)
}

// fetched messages are asked for at a time.
const fetched = 100

func (e *Export) mailbox(ctx context.Context, b *v1.Mailbox, m Mailbox, to Sink) error {
	row := &Row{From: m.Name}
	e.report.Mailboxes = append(e.report.Mailboxes, row)
	e.now.Mailbox = m.Name
	snap, err := e.Account.Snapshot(ctx, &v1.SnapshotRequest{MailboxId: b.GetId()})
	if err != nil {
		return err
	}
	if e.DryRun {
		row.Messages, row.Carried, row.Octets = int64(len(snap.GetUids())), int64(len(snap.GetUids())), snap.GetMailbox().GetSize()
		return nil
	}
	state := fmt.Sprintf("%s %d %d", b.GetId(), b.GetUidValidity(), snap.GetMailbox().GetHighestModseq())
	box, whole, err := to.Open(m, state)
	if err != nil {
		return err
	}
	if whole {
		row.Messages, row.Before = int64(len(snap.GetUids())), int64(len(snap.GetUids()))
		e.now.Messages, e.now.Octets = e.now.Messages+row.Messages, e.now.Octets+m.Octets
		e.tell()
		return nil
	}
	if err := e.messages(ctx, b, snap, box, row); err != nil {
		box.Abandon()
		return err
	}
	return box.Close()
}

func (e *Export) tell() {
	if e.Progress != nil {
		e.Progress(e.now)
	}
}

func (e *Export) messages(ctx context.Context, b *v1.Mailbox, snap *v1.SnapshotResponse, box Box, row *Row) error {
	keywords := map[uint32][]string{}
	for _, k := range snap.GetKeywords() {
		keywords[k.GetUid()] = k.GetKeywords()
	}
	var batch []*Outgoing
	flush := func() error {
		list := batch
		batch = nil
		return e.fetch(ctx, b.GetId(), list, box, row)
	}
	for n, uid := range snap.GetUids() {
		m := &Outgoing{
			UIDValidity: b.GetUidValidity(), UID: uid, Size: snap.GetSizes()[n],
			Received: time.UnixMilli(snap.GetReceivedMs()[n]), Flags: keywords[uid],
		}
		for _, f := range system {
			if snap.GetFlags()[n]&uint32(f.bit) != 0 {
				m.Flags = append(m.Flags, f.name)
			}
		}
		row.Messages++
		if box.Has(m) {
			row.Before++
			e.now.Messages, e.now.Octets = e.now.Messages+1, e.now.Octets+m.Size
			continue
		}
		if batch = append(batch, m); len(batch) == fetched {
			if err := flush(); err != nil {
				return err
			}
		}
	}
	return flush()
}

// errStopped ends a fetch between two messages.
var errStopped = errors.New("stopped")

func (e *Export) fetch(ctx context.Context, id string, list []*Outgoing, box Box, row *Row) error {
	if err := ctx.Err(); err != nil || len(list) == 0 {
		return err
	}
	byUID := map[uint32]*Outgoing{}
	req := &v1.FetchRequest{MailboxId: id, Message: true}
	for _, m := range list {
		byUID[m.UID] = m
		req.Uids = append(req.Uids, &v1.UIDRange{First: m.UID, Last: m.UID})
	}
	// The message under way is finished, so the call must not end before it.
	err := e.Account.Fetch(context.WithoutCancel(ctx), req, func(it *v1.FetchResponse_Item) error {
		if ctx.Err() != nil {
			return errStopped
		}
		m := byUID[it.GetUid()]
		delete(byUID, it.GetUid())
		ref := it.GetMessage()
		m.Open = func() (io.ReadSeekCloser, error) { return openRef(ref) }
		if err := box.Put(m); err != nil {
			return fmt.Errorf("message %d: %w", m.UID, err)
		}
		row.Carried++
		row.Octets += m.Size
		e.now.Messages, e.now.Octets, e.now.Carried = e.now.Messages+1, e.now.Octets+m.Size, e.now.Carried+m.Size
		e.tell()
		return nil
	})
	if errors.Is(err, errStopped) || ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		return err
	}
	for uid := range byUID {
		e.report.leave(row, fmt.Sprint("UID ", uid), errors.New("it was removed meanwhile"))
	}
	return nil
}
