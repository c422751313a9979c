package imap

import (
	"slices"
	"strconv"
	"strings"

	"github.com/emersion/go-imap/v2"

	"github.com/stagecoach-mta/stagecoach/plugins/imap/wire"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

var errNoSuchMessage = bad("There is no message of that number")

func formatUint(n uint64) string { return strconv.FormatUint(n, 10) }

// pick returns the sequence numbers of the messages that a command names.
func (ss *session) pick(cmd *command, set wire.Set) ([]uint32, error) {
	switch {
	case set.Saved:
		return ss.box.pickUIDs(points(ss.saved)), nil
	case cmd.byUID():
		return ss.box.pickUIDs(set.Ranges), nil
	case ss.uidOnly:
		return nil, errUIDRequired
	case len(ss.box.uids) == 0:
		return nil, nil
	}
	seqs, ok := ss.box.pickSeqs(set.Ranges)
	if !ok {
		return nil, errNoSuchMessage
	}
	return seqs, nil
}

var errUIDRequired = &imap.Error{Type: imap.StatusResponseTypeBad, Code: "UIDREQUIRED", Text: "Message numbers are off: use UIDs"}

// storeFlags is STORE, with RFC 7162's UNCHANGEDSINCE.
func (ss *session) storeFlags(cmd *command) error {
	p := cmd.p
	p.SP()
	set := p.Set()
	p.SP()
	var unchanged uint64
	conditional := false
	if p.Peek() == '(' {
		p.List(func() {
			if word := p.Word(); word != "UNCHANGEDSINCE" {
				p.Fail("STORE does not know %s", word)
			}
			p.SP()
			unchanged, conditional = p.Number63(), true
		})
		p.SP()
	}
	op := v1.SetFlagsRequest_REPLACE
	switch {
	case p.Try('+'):
		op = v1.SetFlagsRequest_ADD
	case p.Try('-'):
		op = v1.SetFlagsRequest_REMOVE
	}
	item, silent := strings.CutSuffix(p.Word(), ".SILENT")
	if item != "FLAGS" {
		p.Fail("STORE changes FLAGS")
	}
	p.SP()
	var flags []string
	if p.Peek() == '(' {
		p.List(func() { flags = append(flags, p.Flag()) })
	} else {
		flags = append(flags, p.Flag())
		for p.Try(' ') {
			flags = append(flags, p.Flag())
		}
	}
	if err := cmd.end(); err != nil {
		return err
	}
	flags, err := storageFlags(flags)
	if err != nil {
		return err
	}
	seqs, err := ss.pick(cmd, set)
	if err != nil {
		return err
	}
	if ss.readOnly {
		return errReadOnly
	}
	if conditional {
		if err := ss.useCondstore(); err != nil {
			return err
		}
	}
	if len(seqs) == 0 {
		return nil
	}
	done, err := ss.setFlags(seqs, op, flags, unchanged, conditional)
	if err != nil {
		return err
	}
	ss.storeReplies(cmd, seqs, done, silent)
	return nil
}

// storeReplies tells the new flags: with .SILENT only their MODSEQ, where the
// client keeps those.
func (ss *session) storeReplies(cmd *command, seqs []uint32, done stored, silent bool) {
	if done.keywords {
		ss.flagsLine()
	}
	withUID := (cmd.byUID() || ss.qresync) && !ss.uidOnly
	for _, seq := range seqs {
		changed := contained(done.changed, seq)
		uid := ss.box.uids[seq-1]
		switch {
		case contained(done.conflicts, uid):
			continue
		case silent && !(ss.condstore && changed):
			continue
		}
		ss.fetchHead(seq)
		if withUID {
			ss.out.raw("UID ")
			ss.out.number(uint64(uid))
			ss.out.raw(" ")
		}
		if !silent {
			ss.out.raw("FLAGS ")
			ss.appendFlags(seq)
		}
		if ss.condstore {
			if silent {
				ss.out.raw("MODSEQ (")
				ss.out.number(ss.box.modseqs[seq-1])
				ss.out.raw(")")
			} else {
				ss.appendModseq(seq)
			}
		}
		ss.out.raw(")")
		ss.out.end()
	}
	if len(done.conflicts) == 0 {
		return
	}
	failed := done.conflicts
	if !cmd.byUID() {
		failed = nil
		for _, uid := range done.conflicts {
			if seq, ok := ss.box.seq(uid); ok {
				failed = append(failed, seq)
			}
		}
	}
	ss.code = "MODIFIED " + string(wire.AppendSet(nil, failed))
}

func contained(sorted []uint32, n uint32) bool {
	_, ok := slices.BinarySearch(sorted, n)
	return ok
}

// stored is what became of a change of flags.
type stored struct {
	// changed sequence numbers, and UIDs left out because of UNCHANGEDSINCE, both
	// growing.
	changed, conflicts []uint32
	keywords           bool
}

// setFlags changes flags in the storage and in the view. The view's MODSEQ stays:
// others may have changed something before, which is still to be told.
func (ss *session) setFlags(seqs []uint32, op v1.SetFlagsRequest_Op, flags []string, unchanged uint64, conditional bool) (stored, error) {
	req := &v1.SetFlagsRequest{
		MailboxId: ss.box.mailbox.GetId(), Uids: ss.box.ranges(seqs), Op: op, Flags: flags, UnchangedSince: unchanged,
	}
	if conditional && unchanged == 0 {
		// Every message has a MODSEQ greater than 0, so that none passes.
		out := stored{}
		for _, seq := range seqs {
			out.conflicts = append(out.conflicts, ss.box.uids[seq-1])
		}
		return out, nil
	}
	ctx, cancel := ss.call()
	defer cancel()
	answer, err := ss.store.SetFlags(ctx, req)
	if err != nil {
		return stored{}, ss.refusal(err)
	}
	c := ss.box.apply(&v1.SnapshotResponse{
		Uids: answer.GetChanged().GetUids(), Flags: answer.GetChanged().GetFlags(),
		Modseqs: answer.GetChanged().GetModseqs(), Keywords: answer.GetChanged().GetKeywords(),
	})
	out := stored{conflicts: answer.GetConflicts(), keywords: c.keywords}
	for _, uid := range answer.GetChanged().GetUids() {
		if seq, ok := ss.box.seq(uid); ok {
			out.changed = append(out.changed, seq)
		}
	}
	slices.Sort(out.conflicts)
	if ss.condstore {
		// The client may go on from the MODSEQs that it is told now, so it must
		// hear of what others changed before.
		ss.changes.pending.Store(true)
	}
	return out, nil
}

// copy is COPY and MOVE (RFC 6851).
func (ss *session) copy(cmd *command) error {
	p := cmd.p
	p.SP()
	set := p.Set()
	p.SP()
	name := ss.mailbox(p)
	if err := cmd.end(); err != nil {
		return err
	}
	move := strings.HasSuffix(cmd.name, "MOVE")
	seqs, err := ss.pick(cmd, set)
	if err != nil {
		return err
	}
	if move && ss.readOnly {
		return errReadOnly
	}
	ctx, cancel := ss.call()
	defer cancel()
	target, err := ss.target(ctx, name)
	if err != nil || len(seqs) == 0 {
		return err
	}
	req := &v1.CopyRequest{MailboxId: ss.box.mailbox.GetId(), Uids: ss.box.ranges(seqs), TargetMailboxId: target.GetId(), Move: move}
	if !move {
		if req.QuotaBytes, err = ss.quotaLimit(ctx); err != nil {
			return ss.refusal(err)
		}
	}
	answer, err := patiently(ss, cmd, func() (*v1.CopyResponse, error) { return ss.store.Copy(ctx, req) })
	if err != nil {
		return ss.refusal(err)
	}
	ss.changes.pending.Store(true)
	if len(answer.GetSourceUids()) == 0 {
		return nil
	}
	code := "COPYUID " + formatUint(uint64(answer.GetUidValidity())) + " " +
		string(wire.AppendSet(nil, answer.GetSourceUids())) + " " + string(wire.AppendSet(nil, answer.GetTargetUids()))
	if !move {
		ss.code = code
		return nil
	}
	ss.out.line("* OK [%s] Moved", code)
	for _, uid := range answer.GetSourceUids() {
		ss.box.vanish(&v1.UIDRange{First: uid, Last: uid})
	}
	ss.expungeView()
	if ss.qresync {
		ss.code = "HIGHESTMODSEQ " + formatUint(max(1, answer.GetModseq()))
	}
	return nil
}

// expunge is EXPUNGE and UID EXPUNGE. It removes only messages that this client
// knows of.
func (ss *session) expunge(cmd *command) error {
	p := cmd.p
	var set wire.Set
	if cmd.byUID() {
		p.SP()
		set = p.Set()
	}
	if err := cmd.end(); err != nil {
		return err
	}
	if ss.readOnly {
		return errReadOnly
	}
	seqs := ss.box.all()
	if cmd.byUID() {
		var err error
		if seqs, err = ss.pick(cmd, set); err != nil {
			return err
		}
	}
	gone, modseq, err := ss.expungeStore(seqs)
	if err != nil {
		return ss.refusal(err)
	}
	for _, r := range gone {
		ss.box.vanish(r)
	}
	// What others have removed is told with it, even if the stream is not yet here.
	ss.changes.pending.Store(true)
	any := len(ss.box.gone) > 0
	ss.expungeView()
	if ss.qresync && any {
		ss.code = "HIGHESTMODSEQ " + formatUint(max(modseq, highest(ss.box.mailbox)))
	}
	return nil
}

func (ss *session) expungeStore(seqs []uint32) ([]*v1.UIDRange, uint64, error) {
	if len(seqs) == 0 {
		return nil, 0, nil
	}
	ctx, cancel := ss.call()
	defer cancel()
	answer, err := ss.store.Expunge(ctx, &v1.ExpungeRequest{MailboxId: ss.box.mailbox.GetId(), Uids: ss.box.ranges(seqs)})
	return answer.GetExpunged(), answer.GetModseq(), err
}
