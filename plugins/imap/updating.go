package imap

import (
	"slices"

	"github.com/stagecoach-mta/stagecoach/plugins/imap/wire"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// maxUpdating searches are kept up to date for one session.
const maxUpdating = 20

// updating is a search or a sort whose result the client wants to hear changes of
// (RFC 5267).
type updating struct {
	tag       string
	uid       bool
	criterion *v1.Criterion
	order     []sortKey
	// members are the UIDs of the result: growing, or as sorted.
	members []uint32
}

// keepUpdating begins to keep a result up to date, or says that it will not be: a
// result by numbers or by age changes with everything and with nothing.
func (ss *session) keepUpdating(cmd *command, k *keys, criterion *v1.Criterion, order []sortKey, found []uint32) {
	if k.moving || len(ss.updating) >= maxUpdating {
		ss.out.raw("* NO [NOUPDATE ")
		ss.out.text(cmd.tag)
		ss.out.raw("] This result is not kept up to date")
		ss.out.end()
		return
	}
	u := &updating{tag: cmd.tag, uid: cmd.byUID(), criterion: criterion, order: order}
	for _, seq := range found {
		u.members = append(u.members, ss.box.uids[seq-1])
	}
	ss.updating = append(ss.updating, u)
	ss.box.track = true
}

// cancelUpdate is CANCELUPDATE.
func (ss *session) cancelUpdate(cmd *command) error {
	var tags []string
	for cmd.p.Try(' ') {
		tags = append(tags, cmd.p.String())
	}
	if len(tags) == 0 {
		cmd.p.SP()
	}
	if err := cmd.end(); err != nil {
		return err
	}
	for _, tag := range tags {
		if !slices.ContainsFunc(ss.updating, func(u *updating) bool { return u.tag == tag }) {
			return bad("No search of that tag is kept up to date")
		}
	}
	ss.updating = slices.DeleteFunc(ss.updating, func(u *updating) bool { return slices.Contains(tags, u.tag) })
	ss.box.track = len(ss.updating) > 0
	return nil
}

// updateGone tells which results lose the messages that are about to be told as
// gone: numbers still mean what they did.
func (ss *session) updateGone() {
	if len(ss.box.gone) == 0 {
		return
	}
	for _, u := range ss.updating {
		ss.dropMembers(u, func(uid uint32) bool { return ss.box.gone[uid] })
	}
}

// update tells what changed in the results, by the messages that did.
func (ss *session) update() {
	box := ss.box
	if !box.track || len(box.dirty) == 0 {
		return
	}
	var seqs []uint32
	for uid := range box.dirty {
		if seq, ok := box.seq(uid); ok && !box.gone[uid] {
			seqs = append(seqs, seq)
		}
	}
	clear(box.dirty)
	if len(seqs) == 0 {
		return
	}
	slices.Sort(seqs)
	for _, u := range ss.updating {
		if err := ss.updateOne(u, seqs); err != nil {
			ss.log.Warn().Err(err).Str("account", ss.account).Msg("cannot keep a search up to date")
			ss.out.raw("* NO [NOUPDATE ")
			ss.out.text(u.tag)
			ss.out.raw("] This result is no longer kept up to date")
			ss.out.end()
			u.tag = ""
		}
	}
	ss.updating = slices.DeleteFunc(ss.updating, func(u *updating) bool { return u.tag == "" })
}

func (ss *session) updateOne(u *updating, seqs []uint32) error {
	ctx, cancel := ss.call()
	defer cancel()
	answer, err := ss.store.Search(ctx, &v1.SearchRequest{
		MailboxId: ss.box.mailbox.GetId(), Criterion: u.criterion, Uids: ss.box.ranges(seqs),
	})
	if err != nil {
		return err
	}
	matching := answer.GetUids()
	ss.dropMembers(u, func(uid uint32) bool {
		seq, ok := ss.box.seq(uid)
		return ok && contained(seqs, seq) && !contained(matching, uid)
	})
	var fresh []uint32
	for _, uid := range matching {
		if seq, ok := ss.box.seq(uid); ok && contained(seqs, seq) && !slices.Contains(u.members, uid) {
			fresh = append(fresh, uid)
		}
	}
	if len(fresh) == 0 {
		return nil
	}
	if u.order == nil {
		u.members = append(u.members, fresh...)
		slices.Sort(u.members)
		ss.updateLine(u, "ADDTO", 0, fresh)
		return nil
	}
	all := ss.box.pickUIDs(points(append(slices.Clone(u.members), fresh...)))
	sorted, err := ss.sorted(u.order, all)
	if err != nil {
		return err
	}
	u.members = u.members[:0]
	for i, seq := range sorted {
		uid := ss.box.uids[seq-1]
		u.members = append(u.members, uid)
		if contained(fresh, uid) {
			ss.updateLine(u, "ADDTO", i+1, []uint32{uid})
		}
	}
	return nil
}

// dropMembers takes messages out of a result and says so: of a sorted one each at
// its place.
func (ss *session) dropMembers(u *updating, out func(uint32) bool) {
	var dropped []uint32
	kept := u.members[:0]
	for _, uid := range u.members {
		if !out(uid) {
			kept = append(kept, uid)
			continue
		}
		if u.order != nil {
			ss.updateLine(u, "REMOVEFROM", len(kept)+1, []uint32{uid})
		}
		dropped = append(dropped, uid)
	}
	u.members = kept
	if u.order == nil && len(dropped) > 0 {
		ss.updateLine(u, "REMOVEFROM", 0, dropped)
	}
}

// updateLine: place 0 is a search's, whose result has no order of its own.
func (ss *session) updateLine(u *updating, verb string, place int, uids []uint32) {
	numbers := uids
	if !u.uid {
		numbers = nil
		for _, uid := range uids {
			if seq, ok := ss.box.seq(uid); ok {
				numbers = append(numbers, seq)
			}
		}
	}
	ss.esearchHead(u.tag, u.uid)
	ss.out.printf(" %s (%d ", verb, place)
	ss.out.b = wire.AppendSet(ss.out.b, numbers)
	ss.out.raw(")")
	ss.out.end()
}
