package imap

import (
	"fmt"
	"io"
	"os"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapserver"

	"github.com/stagecoach-mta/stagecoach/sdk/mail"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// pick returns the sequence numbers that a command names; the caller holds mu.
func (ss *session) pick(set imap.NumSet) ([]uint32, error) {
	if ss.box == nil {
		return nil, &imap.Error{Type: imap.StatusResponseTypeBad, Text: "No mailbox is selected"}
	}
	switch set := set.(type) {
	case imap.SeqSet:
		if len(ss.box.uids) == 0 {
			return nil, nil
		}
		seqs, ok := ss.box.pickSeqs(seqSpans(set))
		if !ok {
			return nil, errNoSuchMessage
		}
		return seqs, nil
	case imap.UIDSet:
		if imap.IsSearchRes(set) {
			return ss.box.pickUIDs(points(ss.saved)), nil
		}
		return ss.box.pickUIDs(uidSpans(set)), nil
	}
	return nil, fmt.Errorf("unknown message set %T", set)
}

// Append implements imapserver.Session.
func (ss *session) Append(name string, r imap.LiteralReader, options *imap.AppendOptions) (*imap.AppendData, error) {
	ctx, cancel := ss.call()
	target, err := ss.target(ctx, name)
	cancel()
	if err != nil {
		return nil, err
	}
	flags, err := storageFlags(options.Flags)
	if err != nil {
		return nil, err
	}
	if r.Size() == 0 {
		// RFC 3502 section 6.3.11: a message of no octets calls the append off.
		return nil, &imap.Error{Type: imap.StatusResponseTypeNo, Text: "A message has at least one octet"}
	}
	msg, done, err := ss.spool(r)
	if err != nil {
		return nil, err
	}
	defer done()
	m := &v1.AppendRequest_Message{Message: msg.Ref(), Flags: flags}
	if !options.Time.IsZero() {
		m.ReceivedMs = options.Time.UnixMilli()
	}
	ctx, cancel = ss.call()
	defer cancel()
	answer, err := ss.store.Append(ctx, &v1.AppendRequest{MailboxId: target.GetId(), Messages: []*v1.AppendRequest_Message{m}})
	if err != nil {
		return nil, refusal(err)
	}
	if len(answer.GetUids()) != 1 {
		return nil, fmt.Errorf("the storage appended %d messages for one", len(answer.GetUids()))
	}
	ss.mu.Lock()
	defer ss.mu.Unlock()
	ss.look()
	return &imap.AppendData{UID: imap.UID(answer.GetUids()[0]), UIDValidity: answer.GetUidValidity()}, nil
}

// spool reads a message as the storage takes it: a small one into memory, a
// larger one into a file. done removes what the storage left there.
func (ss *session) spool(r imap.LiteralReader) (msg *mail.Message, done func(), err error) {
	if r.Size() <= mail.InlineLimit {
		b := make([]byte, r.Size())
		if _, err := io.ReadFull(r, b); err != nil {
			return nil, nil, err
		}
		return mail.FromBytes(b), func() {}, nil
	}
	f, err := os.CreateTemp(ss.s.host.UploadDir, "append-*")
	if err != nil {
		ss.s.host.Log.Error().Err(err).Msg("cannot write an upload")
		return nil, nil, refusal(err)
	}
	done = func() { os.Remove(f.Name()) }
	n, err := io.Copy(f, r)
	if closing := f.Close(); err == nil {
		err = closing
	}
	if err == nil && n != r.Size() {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		done()
		ss.s.host.Log.Error().Err(err).Msg("cannot write an upload")
		return nil, nil, refusal(err)
	}
	return mail.FromFile(f.Name(), n), done, nil
}

// Store implements imapserver.Session.
func (ss *session) Store(w *imapserver.FetchWriter, set imap.NumSet, change *imap.StoreFlags, _ *imap.StoreOptions) error {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	seqs, err := ss.pick(set)
	if err != nil {
		return err
	}
	if ss.readOnly {
		return errReadOnly
	}
	flags, err := storageFlags(change.Flags)
	if err != nil || len(seqs) == 0 {
		return err
	}
	op := map[imap.StoreFlagsOp]v1.SetFlagsRequest_Op{
		imap.StoreFlagsAdd: v1.SetFlagsRequest_ADD,
		imap.StoreFlagsDel: v1.SetFlagsRequest_REMOVE,
		imap.StoreFlagsSet: v1.SetFlagsRequest_REPLACE,
	}[change.Op]
	if _, err := ss.setFlags(seqs, op, flags); err != nil {
		return err
	}
	if change.Silent {
		return nil
	}
	_, byUID := set.(imap.UIDSet)
	for _, seq := range seqs {
		uid := ss.box.uids[seq-1]
		m := w.CreateMessage(seq)
		if byUID {
			m.WriteUID(imap.UID(uid))
		}
		m.WriteFlags(flagList(ss.box.flags[seq-1], ss.box.keywords[uid]))
		if err := m.Close(); err != nil {
			return err
		}
	}
	return nil
}

// setFlags changes flags in the storage and in the view; it returns the sequence
// numbers of the messages whose flags are now others. The view's MODSEQ stays:
// others may have changed something before, which is still to be told.
func (ss *session) setFlags(seqs []uint32, op v1.SetFlagsRequest_Op, flags []string) ([]uint32, error) {
	ctx, cancel := ss.call()
	defer cancel()
	answer, err := ss.store.SetFlags(ctx, &v1.SetFlagsRequest{
		MailboxId: ss.box.mailbox.GetId(), Uids: ss.box.ranges(seqs), Op: op, Flags: flags,
	})
	if err != nil {
		return nil, refusal(err)
	}
	changed := answer.GetChanged()
	return ss.box.apply(&v1.SnapshotResponse{Uids: changed.GetUids(), Flags: changed.GetFlags(), Keywords: changed.GetKeywords()}).flags, nil
}

// Copy implements imapserver.Session.
func (ss *session) Copy(set imap.NumSet, name string) (*imap.CopyData, error) {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	data, _, err := ss.copy(set, name, false)
	return data, err
}

// Move implements imapserver.SessionMove.
func (ss *session) Move(w *imapserver.MoveWriter, set imap.NumSet, name string) error {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	data, sources, err := ss.copy(set, name, true)
	if err != nil || data == nil {
		return err
	}
	if err := w.WriteCopyData(data); err != nil {
		return err
	}
	for _, uid := range sources {
		ss.box.vanish(&v1.UIDRange{First: uid, Last: uid})
	}
	return ss.box.expunge(w.WriteExpunge)
}

func (ss *session) copy(set imap.NumSet, name string, move bool) (*imap.CopyData, []uint32, error) {
	seqs, err := ss.pick(set)
	if err != nil {
		return nil, nil, err
	}
	if move && ss.readOnly {
		return nil, nil, errReadOnly
	}
	ctx, cancel := ss.call()
	defer cancel()
	target, err := ss.target(ctx, name)
	if err != nil || len(seqs) == 0 {
		return nil, nil, err
	}
	answer, err := ss.store.Copy(ctx, &v1.CopyRequest{
		MailboxId: ss.box.mailbox.GetId(), Uids: ss.box.ranges(seqs), TargetMailboxId: target.GetId(), Move: move,
	})
	if err != nil {
		return nil, nil, refusal(err)
	}
	ss.look()
	if len(answer.GetSourceUids()) == 0 {
		return nil, nil, nil
	}
	data := &imap.CopyData{UIDValidity: answer.GetUidValidity()}
	for i, uid := range answer.GetSourceUids() {
		data.SourceUIDs.AddNum(imap.UID(uid))
		data.DestUIDs.AddNum(imap.UID(answer.GetTargetUids()[i]))
	}
	return data, answer.GetSourceUids(), nil
}

// Expunge implements imapserver.Session, for EXPUNGE, UID EXPUNGE and CLOSE. It
// removes only messages that this client knows of.
func (ss *session) Expunge(w *imapserver.ExpungeWriter, uids *imap.UIDSet) error {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	if ss.box == nil {
		return nil
	}
	if ss.readOnly {
		if ss.c.verb == "CLOSE" {
			// RFC 9051 section 6.4.1: nothing is removed, and that is no error.
			return nil
		}
		return errReadOnly
	}
	var seqs []uint32
	for i := range ss.box.uids {
		seqs = append(seqs, uint32(i)+1)
	}
	if uids != nil {
		var err error
		if seqs, err = ss.pick(*uids); err != nil {
			return err
		}
	}
	if len(seqs) == 0 {
		return nil
	}
	ctx, cancel := ss.call()
	defer cancel()
	answer, err := ss.store.Expunge(ctx, &v1.ExpungeRequest{MailboxId: ss.box.mailbox.GetId(), Uids: ss.box.ranges(seqs)})
	if err != nil {
		return refusal(err)
	}
	for _, r := range answer.GetExpunged() {
		ss.box.vanish(r)
	}
	return ss.box.expunge(w.WriteExpunge)
}

// Search implements imapserver.Session.
func (ss *session) Search(kind imapserver.NumKind, criteria *imap.SearchCriteria, options *imap.SearchOptions) (*imap.SearchData, error) {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	if ss.box == nil {
		return nil, &imap.Error{Type: imap.StatusResponseTypeBad, Text: "No mailbox is selected"}
	}
	criterion, err := ss.box.criterion(criteria, ss.saved)
	if err != nil {
		return nil, err
	}
	ctx, cancel := ss.call()
	defer cancel()
	answer, err := ss.store.Search(ctx, &v1.SearchRequest{MailboxId: ss.box.mailbox.GetId(), Criterion: criterion})
	if err != nil {
		return nil, refusal(err)
	}
	var seqs, uids []uint32
	for _, uid := range answer.GetUids() {
		if seq, ok := ss.box.seq(uid); ok {
			seqs, uids = append(seqs, seq), append(uids, uid)
		}
	}
	if options.ReturnSave {
		ss.saved = savedResult(uids, options)
	}
	data := &imap.SearchData{Count: uint32(len(seqs))}
	found := seqs
	if kind == imapserver.NumKindUID {
		found = uids
		set := make(imap.UIDSet, 0)
		for _, n := range found {
			set.AddNum(imap.UID(n))
		}
		data.All = set
	} else {
		set := make(imap.SeqSet, 0)
		set.AddNum(found...)
		data.All = set
	}
	if len(found) > 0 {
		data.Min, data.Max = found[0], found[len(found)-1]
	}
	return data, nil
}

// savedResult: with MIN or MAX and nothing else, only those are kept
// (RFC 9051 section 6.4.4.1).
func savedResult(uids []uint32, o *imap.SearchOptions) []uint32 {
	if len(uids) == 0 || o.ReturnAll && !(o.ReturnMin || o.ReturnMax) || o.ReturnCount || !(o.ReturnMin || o.ReturnMax) {
		return uids
	}
	var out []uint32
	if o.ReturnMin {
		out = append(out, uids[0])
	}
	if last := uids[len(uids)-1]; o.ReturnMax && (len(out) == 0 || out[0] != last) {
		out = append(out, last)
	}
	return out
}
