package pop3

import (
	"bytes"
	"context"
	"fmt"
	"io"

	"github.com/stagecoach-mta/stagecoach/sdk/fail"
	"github.com/stagecoach-mta/stagecoach/sdk/mail"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
	"github.com/stagecoach-mta/stagecoach/sdk/storage"
)

// maildrop is INBOX as it was at the login: what comes later belongs to the next
// session, so message numbers stay (RFC 1939 section 4).
type maildrop struct {
	store    storage.Account
	mailbox  *v1.Mailbox
	messages []*message
}

type message struct {
	uid     uint32
	size    int64
	deleted bool
}

func openMaildrop(ctx context.Context, store storage.Account) (*maildrop, error) {
	list, err := store.List(ctx, &v1.ListMailboxesRequest{Name: "INBOX"})
	if err != nil {
		return nil, err
	}
	if len(list.GetMailboxes()) == 0 {
		return nil, fail.New(fail.Internal, "the storage has no INBOX")
	}
	s, err := store.Snapshot(ctx, &v1.SnapshotRequest{MailboxId: list.GetMailboxes()[0].GetId()})
	if err != nil {
		return nil, err
	}
	d := &maildrop{store: store, mailbox: s.GetMailbox()}
	for i, uid := range s.GetUids() {
		d.messages = append(d.messages, &message{uid: uid, size: s.GetSizes()[i]})
	}
	return d, nil
}

// total counts what is not marked as deleted.
func (d *maildrop) total() (count int, size int64) {
	for _, m := range d.messages {
		if !m.deleted {
			count++
			size += m.size
		}
	}
	return count, size
}

// uniqueID is the same in every session and never given to another message
// (RFC 1939 section 7): a UID is not used again while UIDVALIDITY stays.
func (d *maildrop) uniqueID(m *message) string {
	return fmt.Sprintf("%08x%08x", d.mailbox.GetUidValidity(), m.uid)
}

// open returns the message, or nil if it is gone. What it returns stays readable
// however long the client takes, and holds no call to the storage meanwhile.
func (d *maildrop) open(ctx context.Context, m *message) (io.ReadCloser, error) {
	req := &v1.FetchRequest{MailboxId: d.mailbox.GetId(), Uids: []*v1.UIDRange{{First: m.uid, Last: m.uid}}, Message: true}
	var r io.ReadCloser
	err := d.store.Fetch(ctx, req, func(item *v1.FetchResponse_Item) error {
		var err error
		if ref := item.GetMessage(); ref.GetPath() == "" {
			// The item's memory is the storage's again after this returned.
			r = io.NopCloser(bytes.NewReader(bytes.Clone(ref.GetInline())))
		} else {
			r, err = mail.FromRef(ref).Open()
		}
		return err
	})
	if err != nil && r != nil {
		r.Close()
	}
	return r, err
}

// remove removes the messages marked as deleted and tells how many those were.
func (d *maildrop) remove(ctx context.Context) (int, error) {
	var ranges []*v1.UIDRange
	n := 0
	for _, m := range d.messages {
		if !m.deleted {
			continue
		}
		n++
		if last := len(ranges) - 1; last >= 0 && ranges[last].Last+1 == m.uid {
			ranges[last].Last = m.uid
			continue
		}
		ranges = append(ranges, &v1.UIDRange{First: m.uid, Last: m.uid})
	}
	if n == 0 {
		return 0, nil
	}
	req := &v1.ExpungeRequest{MailboxId: d.mailbox.GetId(), Uids: ranges, Force: true}
	_, err := d.store.Expunge(ctx, req)
	if fail.Is(err, fail.Unavailable) {
		// It met a restart of the storage, and may have been done or not. No other
		// message ever has these UIDs, so it may be asked again.
		_, err = d.store.Expunge(ctx, req)
	}
	return n, err
}
