package imap

import (
	"slices"
	"time"

	"github.com/stagecoach-mta/stagecoach/plugins/imap/wire"
	"github.com/stagecoach-mta/stagecoach/sdk/fail"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// returns is what RETURN asks for (RFC 4731, 5182, 5267, 9394).
type returns struct {
	asked                      bool
	min, max, count, all, save bool
	update                     bool
	partial                    partialRange
}

// returnOptions takes RETURN (…) if it is there.
func returnOptions(p *wire.Parser) returns {
	r := returns{}
	mark := p.Mark()
	p.SP()
	if c := p.Peek(); c != 'R' && c != 'r' || p.Word() != "RETURN" {
		p.Return(mark)
		return r
	}
	r.asked = true
	p.SP()
	p.List(func() {
		switch option := p.Word(); option {
		case "MIN":
			r.min = true
		case "MAX":
			r.max = true
		case "COUNT":
			r.count = true
		case "ALL":
			r.all = true
		case "SAVE":
			r.save = true
		case "UPDATE":
			r.update = true
		case "CONTEXT": // A hint that more will be asked of this result.
		case "PARTIAL":
			p.SP()
			r.partial = takePartial(p)
		default:
			p.Fail("SEARCH cannot return %s", option)
		}
	})
	if !r.min && !r.max && !r.count && !r.all && !r.save && !r.partial.set() && !r.update {
		r.all = true
	}
	if r.all && r.partial.set() {
		p.Fail("SEARCH returns ALL or PARTIAL, not both")
	}
	return r
}

// search is SEARCH.
func (ss *session) search(cmd *command) error {
	p := cmd.p
	r := returnOptions(p)
	k := &keys{ss: ss, cmd: cmd, p: p, now: time.Now()}
	p.SP()
	mark := p.Mark()
	if c := p.Peek(); (c == 'C' || c == 'c') && p.Word() == "CHARSET" {
		p.SP()
		k.charset()
		p.SP()
	} else {
		p.Return(mark)
	}
	criterion := k.program()
	if err := cmd.end(); err != nil {
		return err
	}
	found, err := k.find(criterion)
	if err != nil {
		if r.save {
			// RFC 5182 section 2.1: a search that failed leaves an empty result.
			ss.saved = nil
		}
		return err
	}
	if r.save {
		ss.save(r, found)
	}
	if !r.asked {
		ss.searchLine(cmd, "SEARCH", found, k.modseq)
		return nil
	}
	ss.esearch(cmd, r, found, k.modseq)
	if r.update {
		ss.keepUpdating(cmd, k, criterion, nil, found)
	}
	return nil
}

// matching runs a search and returns the sequence numbers, growing.
func (ss *session) matching(cmd *command, criterion *v1.Criterion) ([]uint32, error) {
	ctx, cancel := ss.call()
	defer cancel()
	req := &v1.SearchRequest{MailboxId: ss.box.mailbox.GetId(), Criterion: criterion}
	look := func() (*v1.SearchResponse, error) { return ss.store.Search(ctx, req) }
	answer, err := patiently(ss, cmd, look)
	if (fail.Is(err, fail.Invalid) || fail.Is(err, fail.Unsupported)) && byMoment(criterion) {
		answer, err = patiently(ss, cmd, look)
	}
	if err != nil {
		return nil, ss.refusal(err)
	}
	out := make([]uint32, 0, len(answer.GetUids()))
	for _, uid := range answer.GetUids() {
		if seq, ok := ss.box.seq(uid); ok {
			out = append(out, seq)
		}
	}
	return out, nil
}

// byMoment makes of tests of the Date field's day tests of its moment, for a storage
// that is older than sent_day: near midnight, in another zone, that is not the same.
func byMoment(c *v1.Criterion) (changed bool) {
	switch t := c.GetTest().(type) {
	case *v1.Criterion_SentDay:
		c.Test = &v1.Criterion_Sent{Sent: t.SentDay}
		return true
	case *v1.Criterion_Not:
		return byMoment(t.Not)
	case *v1.Criterion_AllOf:
		return anyByMoment(t.AllOf.GetCriteria())
	case *v1.Criterion_AnyOf:
		return anyByMoment(t.AnyOf.GetCriteria())
	}
	return false
}

func anyByMoment(list []*v1.Criterion) (changed bool) {
	for _, c := range list {
		changed = byMoment(c) || changed
	}
	return changed
}

// save keeps the result for "$": with MIN or MAX and nothing else, only those
// (RFC 9051 section 6.4.4.1).
func (ss *session) save(r returns, found []uint32) {
	ss.saved = nil
	if r.partial.set() && !r.all && !r.count && !r.min && !r.max {
		found = r.partial.of(found)
	}
	if len(found) > 0 && (r.min || r.max) && !r.all && !r.count {
		if r.min {
			ss.saved = append(ss.saved, ss.box.uids[found[0]-1])
		}
		if last := ss.box.uids[found[len(found)-1]-1]; r.max && !slices.Contains(ss.saved, last) {
			ss.saved = append(ss.saved, last)
		}
		return
	}
	for _, seq := range found {
		ss.saved = append(ss.saved, ss.box.uids[seq-1])
	}
}

// number is how a command names a message.
func (ss *session) number(cmd *command, seq uint32) uint32 {
	if cmd.byUID() {
		return ss.box.uids[seq-1]
	}
	return seq
}

func (ss *session) inNumbers(cmd *command, seqs []uint32) []uint32 {
	if !cmd.byUID() {
		return seqs
	}
	out := make([]uint32, len(seqs))
	for i, seq := range seqs {
		out[i] = ss.box.uids[seq-1]
	}
	return out
}

// searchLine is the reply of RFC 3501.
func (ss *session) searchLine(cmd *command, name string, found []uint32, modseq bool) {
	ss.out.raw("* " + name)
	for _, seq := range found {
		ss.out.raw(" ")
		ss.out.number(uint64(ss.number(cmd, seq)))
	}
	if modseq && len(found) > 0 {
		ss.out.raw(" (MODSEQ ")
		ss.out.number(ss.highestOf(found))
		ss.out.raw(")")
	}
	ss.out.end()
}

func (ss *session) highestOf(seqs []uint32) (n uint64) {
	for _, seq := range seqs {
		n = max(n, ss.box.modseqs[seq-1])
	}
	return n
}

// esearch is the reply of RFC 4731; found may be in any order (ESORT).
func (ss *session) esearch(cmd *command, r returns, found []uint32, modseq bool) {
	if !r.min && !r.max && !r.count && !r.all && !r.partial.set() && !r.update {
		return // SAVE alone: nothing is to be said (RFC 5182 section 2.1).
	}
	ss.esearchHead(cmd.tag, cmd.byUID())
	var told []uint32
	if len(found) > 0 {
		first, last := found[0], found[len(found)-1]
		if r.min {
			ss.out.raw(" MIN ")
			ss.out.number(uint64(ss.number(cmd, first)))
			told = append(told, first)
		}
		if r.max {
			ss.out.raw(" MAX ")
			ss.out.number(uint64(ss.number(cmd, last)))
			told = append(told, last)
		}
		if r.all {
			ss.out.raw(" ALL ")
			ss.out.b = wire.AppendSet(ss.out.b, ss.inNumbers(cmd, found))
		}
		if r.all || r.count {
			told = found
		}
	}
	if r.partial.set() {
		ss.out.raw(" PARTIAL (" + r.partial.text + " ")
		if part := r.partial.of(found); len(part) > 0 {
			ss.out.b = wire.AppendSet(ss.out.b, ss.inNumbers(cmd, part))
			told = found
		} else {
			ss.out.raw("NIL")
		}
		ss.out.raw(")")
	}
	if r.count {
		ss.out.printf(" COUNT %d", len(found))
	}
	if modseq && len(told) > 0 {
		ss.out.printf(" MODSEQ %d", ss.highestOf(told))
	}
	ss.out.end()
}

func (ss *session) esearchHead(tag string, uid bool) {
	ss.out.raw("* ESEARCH (TAG ")
	ss.out.text(tag)
	ss.out.raw(")")
	if uid {
		ss.out.raw(" UID")
	}
}
