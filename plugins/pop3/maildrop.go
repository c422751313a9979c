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
	// next is the number behind the message that was read last, and ahead what was
	// read before it was asked for, by number.
	next  int
	ahead map[int][]byte
}

// Limits of what is read ahead, when messages are read one after the other: a call
// to the storage costs more than a small message.
const (
	aheadMessages = 32
	aheadOctets   = 256 << 10
)

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

// open returns message n, or nil if it is gone. What it returns stays readable
// however long the client takes, and holds no call to the storage meanwhile.
func (d *maildrop) open(ctx context.Context, n int) (io.ReadCloser, error) {
	inOrder := n == d.next
	d.next = n + 1
	if b, ok := d.ahead[n]; ok {
		delete(d.ahead, n)
		return io.NopCloser(bytes.NewReader(b)), nil
	}
	last := n
	if inOrder {
		last = d.reach(n)
	}
	d.ahead = map[int][]byte{}
	wanted := d.messages[n-1].uid
	at := n
	req := &v1.FetchRequest{MailboxId: d.mailbox.GetId(), Uids: []*v1.UIDRange{{First: wanted, Last: d.messages[last-1].uid}}, Message: true}
	var r io.ReadCloser
	err := d.store.Fetch(ctx, req, func(item *v1.FetchResponse_Item) error {
		for at < last && d.messages[at-1].uid < item.GetUid() {
			at++
		}
		ref := item.GetMessage()
		var err error
		switch mine := item.GetUid() == wanted; {
		case mine && ref.GetPath() != "":
			r, err = mail.FromRef(ref).Open()
		case mine:
			// The item's memory is the storage's again after this returned.
			r = io.NopCloser(bytes.NewReader(bytes.Clone(ref.GetInline())))
		case ref.GetPath() == "" && d.messages[at-1].uid == item.GetUid():
			d.ahead[at] = bytes.Clone(ref.GetInline())
		}
		return err
	})
	if err != nil && r != nil {
		r.Close()
	}
	return r, err
}

// reach is the number of the last message that is read with message n: up to one
// that is deleted or too large.
func (d *maildrop) reach(n int) int {
	octets := d.messages[n-1].size
	for last := n; ; last++ {
		if last == len(d.messages) || last-n+1 == aheadMessages || d.messages[last].deleted {
			return last
		}
		if octets += d.messages[last].size; octets > aheadOctets {
			return last
		}
	}
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
