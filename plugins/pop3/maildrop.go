package pop3

import (
	"bufio"
	"bytes"
	"context"
	"errors"
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

// open calls read with the message; not at all if it is gone.
func (d *maildrop) open(ctx context.Context, m *message, read func(io.Reader) error) error {
	req := &v1.FetchRequest{MailboxId: d.mailbox.GetId(), Uids: []*v1.UIDRange{{First: m.uid, Last: m.uid}}, Message: true}
	return d.store.Fetch(ctx, req, func(item *v1.FetchResponse_Item) error {
		r, err := mail.FromRef(item.GetMessage()).Open()
		if err != nil {
			return err
		}
		defer r.Close()
		return read(r)
	})
}

// remove removes the messages marked as deleted, all or none, and tells how many
// were still there.
func (d *maildrop) remove(ctx context.Context) (int, error) {
	var ranges []*v1.UIDRange
	n := 0
	for _, m := range d.messages {
		if m.deleted {
			n++
			ranges = append(ranges, &v1.UIDRange{First: m.uid, Last: m.uid})
		}
	}
	if n == 0 {
		return 0, nil
	}
	_, err := d.store.Expunge(ctx, &v1.ExpungeRequest{MailboxId: d.mailbox.GetId(), Uids: ranges, Force: true})
	return n, err
}

// stuff writes a message as a multi-line answer: a dot before each line that
// begins with one, and the final dot (RFC 1939 section 3). Of the body it writes
// at most lines lines, all if negative (section 7, TOP). A bare LF becomes a
// line end, for the answer has no other; all else stays as it is.
func stuff(w *bufio.Writer, r io.Reader, lines int) error {
	in := bufio.NewReaderSize(r, 32<<10)
	begins, body := true, false
	var last byte
	for {
		if begins && body && lines >= 0 {
			if lines == 0 {
				break
			}
			lines--
		}
		part, err := in.ReadSlice('\n')
		if len(part) > 0 {
			if begins && part[0] == '.' {
				w.WriteByte('.')
			}
			line, ended := bytes.CutSuffix(part, []byte("\n"))
			if ended {
				if len(line) > 0 {
					last = line[len(line)-1]
				} else if begins {
					last = 0
				}
				body = body || begins && (len(line) == 0 || string(line) == "\r")
				w.Write(line)
				if last != '\r' {
					w.WriteByte('\r')
				}
				w.WriteByte('\n')
				last = 0
			} else {
				w.Write(part)
				last = part[len(part)-1]
			}
			begins = ended
		}
		if err == io.EOF {
			break
		}
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return err
		}
	}
	if !begins {
		if last != '\r' {
			w.WriteByte('\r')
		}
		w.WriteByte('\n')
	}
	w.WriteString(".\r\n")
	return w.Flush()
}
