package imap

import (
	"slices"

	"github.com/stagecoach-mta/stagecoach/plugins/imap/wire"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// resync is what a client says it knows of a mailbox (RFC 7162 section 3.2.5).
type resync struct {
	validity uint32
	modseq   uint64
	uids     []wire.Range
}

// selectBox is SELECT and EXAMINE.
func (ss *session) selectBox(cmd *command) error {
	p := cmd.p
	p.SP()
	name := ss.mailbox(p)
	condstore := false
	var known *resync
	if p.Try(' ') {
		p.List(func() {
			switch option := p.Word(); option {
			case "CONDSTORE":
				condstore = true
			case "QRESYNC":
				p.SP()
				known = ss.resyncOption(p)
			default:
				p.Fail("%s does not know %s", cmd.name, option)
			}
		})
	}
	if err := cmd.end(); err != nil {
		return err
	}
	if known != nil && !ss.qresync {
		return bad("ENABLE QRESYNC first")
	}
	if ss.box != nil {
		// RFC 7162 section 3.2.11: what follows is of the other mailbox.
		if ss.qresync || ss.rev2 {
			ss.out.line("* OK [CLOSED] Previous mailbox closed")
		}
		ss.leaveBox()
	}
	ss.condstore = ss.condstore || condstore
	ctx, cancel := ss.call()
	defer cancel()
	box, changes, err := ss.openBox(ctx, name)
	if err != nil {
		return err
	}
	ss.changes, ss.box, ss.readOnly = changes, box, cmd.name == "EXAMINE"
	ss.listenToBox()
	ss.claimRecent()
	ss.describeBox()
	if known != nil {
		if err := ss.catchUp(known); err != nil {
			ss.leaveBox()
			return ss.refusal(err)
		}
	}
	ss.code = "READ-WRITE"
	if ss.readOnly {
		ss.code = "READ-ONLY"
	}
	return nil
}

// resyncOption takes (uidvalidity modseq [known-uids] [(known-numbers known-uids)]).
// The last is a hint for servers without tombstones: ours has them.
func (ss *session) resyncOption(p *wire.Parser) *resync {
	r := &resync{}
	p.Expect('(')
	r.validity = p.NonZero()
	p.SP()
	r.modseq = p.Number63()
	if p.Try(' ') && p.Peek() != '(' {
		r.uids = p.Ranges(true)
		p.Try(' ')
	}
	if p.Peek() == '(' {
		p.Expect('(')
		p.Ranges(true)
		p.SP()
		p.Ranges(true)
		p.Expect(')')
	}
	p.Expect(')')
	if r.modseq == 0 {
		p.Fail("A MODSEQ is not 0")
	}
	return r
}

// describeBox writes SELECT's untagged replies.
func (ss *session) describeBox() {
	box := ss.box
	ss.out.line("* %d EXISTS", len(box.uids))
	if !ss.rev2 {
		ss.out.line("* %d RECENT", box.countRecent())
	}
	if !ss.rev2 && !ss.uidOnly {
		if i := slices.IndexFunc(box.flags, func(f uint8) bool { return f&uint8(v1.Flag_FLAG_SEEN) == 0 }); i >= 0 {
			ss.out.line("* OK [UNSEEN %d] First unseen message", i+1)
		}
	}
	ss.out.line("* OK [UIDVALIDITY %d] UIDs valid", box.mailbox.GetUidValidity())
	ss.out.line("* OK [UIDNEXT %d] Predicted next UID", box.mailbox.GetUidNext())
	ss.flagsLine()
	ss.out.raw("* OK [PERMANENTFLAGS ")
	if ss.readOnly {
		ss.out.raw("()")
	} else {
		ss.out.b = appendFlags(ss.out.b, ^uint8(0), box.known, false)
		ss.out.b = append(ss.out.b[:len(ss.out.b)-1], ` \*)`...)
	}
	ss.out.raw("] Permanent flags")
	ss.out.end()
	ss.out.line("* OK [HIGHESTMODSEQ %d] Highest", highest(box.mailbox))
	ss.out.line("* OK [MAILBOXID (%s)] Ok", objectID(box.mailbox.GetId()))
	if ss.rev2 {
		ss.out.raw(`* LIST () "` + separator + `" `)
		ss.out.mailbox(box.mailbox.GetName())
		ss.out.end()
	}
}

// catchUp tells what changed since a client was last here. The view is the truth
// of one moment; the second snapshot is later, and only its tombstones are used:
// what is still in the view is told with the next look for changes.
func (ss *session) catchUp(known *resync) error {
	box := ss.box
	if known.validity != box.mailbox.GetUidValidity() {
		return nil
	}
	gone, err := ss.vanishedSince(known.modseq, known.uids)
	if err != nil {
		return err
	}
	ss.tellEarlier(gone)
	seqs := box.all()
	if known.uids != nil {
		seqs = box.pickUIDs(known.uids)
	}
	for _, seq := range seqs {
		if box.modseqs[seq-1] > known.modseq {
			ss.flagsOf(seq, true)
		}
	}
	return nil
}

// vanishedSince returns the UIDs that were removed after a MODSEQ and are not in
// the view, of the spans (nil: all).
func (ss *session) vanishedSince(modseq uint64, spans []wire.Range) ([]*v1.UIDRange, error) {
	ctx, cancel := ss.call()
	defer cancel()
	req := &v1.SnapshotRequest{MailboxId: ss.box.mailbox.GetId(), SinceModseq: modseq}
	for _, s := range spans {
		first, last := ordered(s, max(1, ss.box.mailbox.GetUidNext())-1)
		req.Uids = append(req.Uids, &v1.UIDRange{First: max(1, first), Last: last})
	}
	snapshot, err := ss.store.Snapshot(ctx, req)
	return snapshot.GetVanished(), err
}

// tellEarlier writes VANISHED (EARLIER) of what is not in the view.
func (ss *session) tellEarlier(gone []*v1.UIDRange) {
	ss.out.open()
	start := len(ss.out.b)
	ss.out.raw("* VANISHED (EARLIER) ")
	body := len(ss.out.b)
	for _, r := range gone {
		first := r.GetFirst()
		last := r.GetLast()
		if last == 0 {
			last = max(1, ss.box.mailbox.GetUidNext()) - 1
		}
		i, _ := slices.BinarySearch(ss.box.uids, first)
		for ; first <= last; i++ {
			end := last
			if i < len(ss.box.uids) && ss.box.uids[i] <= last {
				end = ss.box.uids[i] - 1
			}
			if first <= end {
				if len(ss.out.b) > body {
					ss.out.raw(",")
				}
				ss.out.number(uint64(first))
				if end > first {
					ss.out.raw(":")
					ss.out.number(uint64(end))
				}
			}
			if end == last {
				break
			}
			first = ss.box.uids[i] + 1
		}
	}
	if len(ss.out.b) == body {
		ss.out.b = ss.out.b[:start]
		return
	}
	ss.out.end()
}

// all sequence numbers.
func (v *view) all() []uint32 {
	out := make([]uint32, len(v.uids))
	for i := range out {
		out[i] = uint32(i) + 1
	}
	return out
}

// unselect is UNSELECT (RFC 9051 section 6.4.2).
func (ss *session) unselect(cmd *command) error {
	if err := cmd.end(); err != nil {
		return err
	}
	ss.leaveBox()
	return nil
}

// closeBox is CLOSE: what is marked as deleted goes, and nothing is told of it.
func (ss *session) closeBox(cmd *command) error {
	if err := cmd.end(); err != nil {
		return err
	}
	defer ss.leaveBox()
	if ss.readOnly {
		return nil
	}
	_, modseq, err := ss.expungeStore(ss.box.all())
	if err == nil && ss.qresync {
		ss.code = "HIGHESTMODSEQ " + formatUint(max(modseq, highest(ss.box.mailbox)))
	}
	return ss.refusal(err)
}

func (ss *session) leaveBox() {
	if ss.changes != nil {
		ss.s.feeds.leave(ss.changes)
		ss.s.shelf.put(ss.account, ss.box)
	}
	ss.box, ss.changes, ss.saved, ss.updating = nil, nil, nil, nil
}
