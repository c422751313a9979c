package imap

import (
	"bytes"
	"errors"
	"slices"

	"github.com/stagecoach-mta/stagecoach/plugins/imap/wire"
	"github.com/stagecoach-mta/stagecoach/sdk/fail"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// noop is NOOP and CHECK: they always look for changes.
func (ss *session) noop(cmd *command) error { return cmd.end() }

// poll tells the client what changed, at the end of a command. NOOP and CHECK
// always look; the others when the stream has said that there is something.
func (ss *session) poll(cmd *command, expunges bool) {
	if w := ss.watching; w != nil && w.changes.pending.Swap(false) {
		ss.tellMailboxes(w)
	}
	ss.tellAnnotations()
	if ss.box == nil {
		return
	}
	if ss.changes.pending.Swap(false) || cmd.name == "NOOP" || cmd.name == "CHECK" {
		ss.refresh(expunges)
		return
	}
	ss.tell(change{}, expunges)
}

// refresh asks the storage what changed and tells it. A storage that cannot
// answer now is asked again at the next occasion.
func (ss *session) refresh(expunges bool) {
	ctx, cancel := ss.call()
	defer cancel()
	snapshot, err := ss.store.Snapshot(ctx, &v1.SnapshotRequest{MailboxId: ss.box.mailbox.GetId(), SinceModseq: ss.box.since})
	if fail.Is(err, fail.NotFound) || err == nil && snapshot.GetMailbox().GetUidValidity() != ss.box.mailbox.GetUidValidity() {
		// Its numbers mean nothing any more; RFC 9051 has no other way to say so.
		ss.hangUp("The mailbox is no longer there")
		return
	}
	if err != nil {
		if ss.ctx.Err() == nil {
			ss.log.Warn().Err(err).Str("account", ss.account).Msg("cannot look for changes")
		}
		ss.changes.pending.Store(true)
		return
	}
	what := ss.box.apply(snapshot)
	ss.box.mailbox = snapshot.GetMailbox()
	ss.box.since = snapshot.GetModseq()
	ss.tell(what, expunges)
}

// tell writes what changed. EXPUNGE comes before EXISTS, so that the number of
// messages never falls by an EXISTS (RFC 9051 section 7.4.1).
func (ss *session) tell(what change, expunges bool) {
	if what.keywords {
		ss.flagsLine()
	}
	for _, seq := range what.flags {
		if !ss.box.gone[ss.box.uids[seq-1]] {
			ss.flagsOf(seq, ss.qresync)
		}
	}
	if expunges {
		ss.expungeView()
	}
	if what.grown > 0 {
		ss.claimRecent()
		ss.out.line("* %d EXISTS", len(ss.box.uids))
		if !ss.rev2 {
			ss.out.line("* %d RECENT", ss.box.countRecent())
		}
	}
	if w := ss.watching; w != nil && w.fetch != nil && what.grown > 0 {
		if err := ss.runFetch(w.fetch, ss.box.all()[len(ss.box.uids)-what.grown:]); err != nil {
			ss.log.Warn().Err(err).Str("account", ss.account).Msg("cannot tell of new messages all that was asked for")
		}
	}
	ss.update()
}

// expungeView takes what is gone out of the view and tells it.
func (ss *session) expungeView() {
	ss.updateGone()
	ss.tellGone(ss.box.expunge())
}

// tellGone writes EXPUNGE, the highest first, so that none shifts another; or
// VANISHED (RFC 7162 section 3.2.10).
func (ss *session) tellGone(seqs, uids []uint32) {
	switch {
	case len(seqs) == 0:
	case ss.qresync || ss.uidOnly:
		ss.out.raw("* VANISHED ")
		ss.out.b = wire.AppendSet(ss.out.b, uids)
		ss.out.end()
	default:
		for _, seq := range slices.Backward(seqs) {
			ss.out.line("* %d EXPUNGE", seq)
		}
	}
}

// flagsOf writes one message's flags, unasked.
func (ss *session) flagsOf(seq uint32, uid bool) {
	ss.fetchHead(seq)
	if uid && !ss.uidOnly {
		ss.out.raw("UID ")
		ss.out.number(uint64(ss.box.uids[seq-1]))
		ss.out.raw(" ")
	}
	ss.out.raw("FLAGS ")
	ss.appendFlags(seq)
	if ss.condstore {
		ss.appendModseq(seq)
	}
	ss.out.raw(")")
	ss.out.end()
}

// fetchHead begins a FETCH response, or a UIDFETCH one (RFC 9586).
func (ss *session) fetchHead(seq uint32) {
	ss.out.raw("* ")
	if ss.uidOnly {
		ss.out.number(uint64(ss.box.uids[seq-1]))
		ss.out.raw(" UIDFETCH (")
		return
	}
	ss.out.number(uint64(seq))
	ss.out.raw(" FETCH (")
}

func (ss *session) appendFlags(seq uint32) {
	uid := ss.box.uids[seq-1]
	ss.out.b = appendFlags(ss.out.b, ss.box.flags[seq-1], ss.box.keywords[uid], !ss.rev2 && ss.box.isRecent(uid))
}

func (ss *session) appendModseq(seq uint32) {
	ss.out.raw(" MODSEQ (")
	ss.out.number(ss.box.modseqs[seq-1])
	ss.out.raw(")")
}

// flagsLine tells which flags messages of this mailbox have.
func (ss *session) flagsLine() {
	ss.out.raw("* FLAGS ")
	ss.out.b = appendFlags(ss.out.b, ^uint8(0), ss.box.known, false)
	ss.out.end()
}

// idle is RFC 9051 section 6.3.13. The session waits for the client and the
// change stream wakes it: an idle session costs no goroutine of its own.
func (ss *session) idle(cmd *command) error {
	if err := cmd.end(); err != nil {
		return err
	}
	ss.out.raw("+ idling\r\n")
	if ss.box != nil {
		ss.changes.listen()
		defer func() {
			ss.changes.deaf()
			ss.listenToBox()
		}()
	}
	if ss.annotations != nil {
		ss.annotations.changes.listen()
		defer func() {
			if ss.watching == nil || !ss.watching.wantsMetadata() {
				ss.annotations.changes.deaf()
			}
		}()
	}
	for {
		ss.tellIdle()
		line, err := ss.firstLine(maxContinuation)
		switch {
		case errors.Is(err, errWoken):
		case err != nil:
			ss.farewell(err)
			return nil
		case bytes.EqualFold(line, []byte("DONE")):
			return nil
		default:
			return bad("IDLE ends with DONE")
		}
	}
}

func (ss *session) tellIdle() {
	if ss.box != nil && ss.changes.pending.Swap(false) {
		ss.refresh(true)
	}
	ss.tellUnasked()
}

// useCondstore begins to keep MODSEQs: any use of CONDSTORE enables it
// (RFC 7162 section 3.1).
func (ss *session) useCondstore() error {
	if ss.condstore {
		return nil
	}
	if ss.box != nil && ss.box.modseqs == nil {
		ctx, cancel := ss.call()
		defer cancel()
		snapshot, err := ss.store.Snapshot(ctx, &v1.SnapshotRequest{MailboxId: ss.box.mailbox.GetId()})
		if err != nil {
			return ss.refusal(err)
		}
		ss.box.learnModseqs(snapshot)
		ss.out.line("* OK [HIGHESTMODSEQ %d] Highest", highest(ss.box.mailbox))
	}
	ss.condstore = true
	return nil
}

// highest MODSEQ of a mailbox; an empty new one has 1, as 0 is none
// (RFC 7162 section 7).
func highest(m *v1.Mailbox) uint64 { return max(1, m.GetHighestModseq()) }
