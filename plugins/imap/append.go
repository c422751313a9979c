package imap

import (
	"context"
	"time"

	"github.com/emersion/go-imap/v2"

	"github.com/stagecoach-mta/stagecoach/plugins/imap/wire"
	"github.com/stagecoach-mta/stagecoach/sdk/fail"
	"github.com/stagecoach-mta/stagecoach/sdk/mail"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// draft is a message that a client brings, before it is put together.
type draft struct {
	flags    []string
	received time.Time
	// pieces: one, or those of CATENATE.
	pieces []piece
	// binary: it was sent as a literal8, and may hold NUL.
	binary bool
}

// piece is a part of a message: the client's octets, or a section of a stored one.
type piece struct {
	blob wire.Blob
	url  *messageURL
}

// append is APPEND, with several messages (RFC 3502), pieces (RFC 4469), literal8
// (RFC 3516) and UTF8 (RFC 6855).
func (ss *session) append(cmd *command) error {
	p := cmd.p
	p.SP()
	name := ss.mailbox(p)
	var drafts []*draft
	for p.Err() == nil && (len(drafts) == 0 || !p.AtEnd()) {
		p.SP()
		drafts = append(drafts, ss.draft(p))
	}
	if err := cmd.end(); err != nil {
		return err
	}
	ctx, cancel := ss.long()
	defer cancel()
	target, err := ss.target(ctx, name)
	if err != nil {
		return err
	}
	answer, err := ss.deposit(ctx, target, drafts, nil)
	if err != nil {
		return err
	}
	ss.code = "APPENDUID " + formatUint(uint64(answer.GetUidValidity())) + " " + string(wire.AppendSet(nil, answer.GetUids()))
	return nil
}

// draft takes flags, a date and a message.
func (ss *session) draft(p *wire.Parser) *draft {
	d := &draft{}
	if p.Peek() == '(' {
		p.List(func() { d.flags = append(d.flags, p.Flag()) })
		p.SP()
	}
	if p.Peek() == '"' {
		d.received = p.DateTime()
		p.SP()
	}
	switch p.Peek() {
	case '{', '~':
		d.binary = p.Peek() == '~'
		d.pieces = []piece{{blob: ss.octets(p)}}
		return d
	}
	switch word := p.Word(); word {
	case "UTF8":
		p.SP()
		p.Expect('(')
		d.pieces = []piece{{blob: ss.octets(p)}}
		p.Expect(')')
	case "CATENATE":
		p.SP()
		p.List(func() {
			switch kind := p.Word(); kind {
			case "TEXT":
				p.SP()
				d.binary = d.binary || p.Peek() == '~'
				d.pieces = append(d.pieces, piece{blob: ss.octets(p)})
			case "URL":
				p.SP()
				d.pieces = append(d.pieces, piece{url: parseURL(p.AString())})
			default:
				p.Fail("CATENATE has TEXT and URL, not %s", kind)
			}
		})
		if len(d.pieces) == 0 {
			p.Fail("CATENATE has at least one piece")
		}
	default:
		p.Fail("Expected a message and not %s", word)
	}
	return d
}

// octets takes a message's literal.
func (ss *session) octets(p *wire.Parser) wire.Blob {
	p.Try('~')
	_, blob := p.Literal()
	if blob == nil {
		p.Fail("Expected a message as a literal")
		return &blob0
	}
	return blob
}

var blob0 = blob{}

var errEmptyMessage = no("", "A message has at least one octet")

// deposit puts the messages together and stores them: all or none. replaces is the
// message that goes in the same change; nil: none does.
func (ss *session) deposit(ctx context.Context, target *v1.Mailbox, drafts []*draft, replaces *v1.AppendRequest_Replaced) (*v1.AppendResponse, error) {
	req := &v1.AppendRequest{MailboxId: target.GetId(), Replaces: replaces}
	for _, d := range drafts {
		flags, err := storageFlags(d.flags)
		if err != nil {
			return nil, err
		}
		m, done, err := ss.assemble(ctx, d)
		if err != nil {
			return nil, ss.refusal(err)
		}
		defer done()
		entry := &v1.AppendRequest_Message{Message: m.Ref(), Flags: flags}
		if !d.received.IsZero() {
			entry.ReceivedMs = d.received.UnixMilli()
		}
		req.Messages = append(req.Messages, entry)
	}
	ctx, cancel := context.WithTimeout(ctx, ss.s.config.StorageTimeout)
	defer cancel()
	var err error
	if req.QuotaBytes, err = ss.quotaLimit(ctx); err != nil {
		return nil, ss.refusal(err)
	}
	answer, err := ss.store.Append(ctx, req)
	if fail.Is(err, fail.NotFound) && replaces != nil {
		return nil, errNoneToReplace
	}
	if err != nil {
		return nil, ss.refusal(err)
	}
	if len(answer.GetUids()) != len(drafts) {
		ss.log.Error().Int("messages", len(drafts)).Int("uids", len(answer.GetUids())).Msg("the storage answers APPEND with another number of UIDs")
		return nil, no(imap.ResponseCodeUnavailable, "Not available now, try again later")
	}
	if ss.changes != nil && ss.changes.mailbox == target.GetId() {
		ss.changes.pending.Store(true)
	}
	return answer, nil
}

// assemble makes one message of a draft. A single piece stays what it is.
func (ss *session) assemble(ctx context.Context, d *draft) (*mail.Message, func(), error) {
	if len(d.pieces) == 1 && d.pieces[0].blob != nil && !d.binary {
		b := d.pieces[0].blob.(*blob)
		if b.size == 0 {
			// RFC 3502 section 6.3.11: a message of no octets calls APPEND off.
			return nil, nil, errEmptyMessage
		}
		return b.message(), func() {}, nil
	}
	w := &upload{dir: ss.s.host.UploadDir, limit: int64(ss.s.config.MaxMessage)}
	for _, part := range d.pieces {
		var err error
		if part.blob != nil {
			err = part.blob.(*blob).copyTo(w)
		} else {
			err = ss.copyURL(ctx, part.url, w)
		}
		if err != nil {
			w.discard()
			return nil, nil, err
		}
	}
	m, err := w.message()
	if err == nil && m.Size() == 0 {
		err = errEmptyMessage
	}
	if err == nil && d.binary {
		m, err = w.withoutNUL(m)
	}
	if err != nil {
		w.discard()
		return nil, nil, err
	}
	return m, w.discard, nil
}

var errNoneToReplace = no(imap.ResponseCodeNonExistent, "There is no such message to replace")

// replace is RFC 8508: the new message is stored and the old one goes, whatever its
// flags, in one change of the storage.
func (ss *session) replace(cmd *command) error {
	p := cmd.p
	p.SP()
	var number uint32
	if star := p.Try('*'); !star {
		number = p.NonZero()
	}
	p.SP()
	name := ss.mailbox(p)
	p.SP()
	d := ss.draft(p)
	if err := cmd.end(); err != nil {
		return err
	}
	seqs, err := ss.pick(cmd, wire.Set{Ranges: []wire.Range{{First: number, Last: number}}})
	switch {
	case err != nil:
		return err
	case ss.readOnly:
		return errReadOnly
	case len(seqs) != 1 || cmd.byUID() && number != 0 && ss.box.uids[seqs[0]-1] != number:
		return errNoneToReplace
	}
	ctx, cancel := ss.long()
	defer cancel()
	target, err := ss.target(ctx, name)
	if err != nil {
		return err
	}
	uid := ss.box.uids[seqs[0]-1]
	answer, err := ss.deposit(ctx, target, []*draft{d}, &v1.AppendRequest_Replaced{MailboxId: ss.box.mailbox.GetId(), Uid: uid})
	if err != nil {
		return err
	}
	if !answer.GetReplaced() {
		if err := ss.removeReplaced(target, uid, answer); err != nil {
			return err
		}
	}
	// RFC 8508 section 3.5: the new UID is told before the old message goes.
	ss.out.line("* OK [APPENDUID %d %d] Replaced", answer.GetUidValidity(), answer.GetUids()[0])
	ss.box.vanish(&v1.UIDRange{First: uid, Last: uid})
	ss.expungeView()
	ss.changes.pending.Store(true)
	return nil
}

// removeReplaced is for a storage that stores the new message and leaves the old one.
// If that cannot go, the new one is taken back.
func (ss *session) removeReplaced(target *v1.Mailbox, uid uint32, answer *v1.AppendResponse) error {
	ctx, cancel := ss.call()
	defer cancel()
	_, err := ss.store.Expunge(ctx, forced(ss.box.mailbox.GetId(), uid))
	if err == nil {
		return nil
	}
	if _, again := ss.store.Expunge(ctx, forced(target.GetId(), answer.GetUids()[0])); again != nil {
		ss.log.Error().Err(again).Str("account", ss.account).Msg("REPLACE leaves both messages: the old one cannot be removed, nor the new one")
	}
	return ss.refusal(err)
}

func forced(mailbox string, uid uint32) *v1.ExpungeRequest {
	return &v1.ExpungeRequest{MailboxId: mailbox, Uids: []*v1.UIDRange{{First: uid, Last: uid}}, Force: true}
}
