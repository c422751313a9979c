package imap

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"golang.org/x/text/unicode/norm"

	"github.com/stagecoach-mta/stagecoach/plugins/imap/wire"
	"github.com/stagecoach-mta/stagecoach/sdk/mime"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// sortKey is one of SORT's criteria.
type sortKey struct {
	name    string
	reverse bool
}

// sort is SORT (RFC 5256), with DISPLAYFROM and DISPLAYTO (RFC 5957) and RETURN
// (RFC 5267).
func (ss *session) sort(cmd *command) error {
	p := cmd.p
	r := returnOptions(p)
	p.SP()
	order := sortKeys(p)
	k := &keys{ss: ss, cmd: cmd, p: p, now: time.Now()}
	p.SP()
	k.charset()
	p.SP()
	criterion := k.program()
	if err := cmd.end(); err != nil {
		return err
	}
	found, err := k.find(criterion)
	if err == nil {
		found, err = ss.sorted(order, found)
	}
	if err != nil {
		return err
	}
	if r.save {
		ss.save(r, slices.Sorted(slices.Values(found)))
	}
	if !r.asked {
		ss.searchLine(cmd, "SORT", found, k.modseq)
		return nil
	}
	ss.esearch(cmd, r, found, k.modseq)
	if r.update {
		ss.keepUpdating(cmd, k, criterion, order, found)
	}
	return nil
}

func sortKeys(p *wire.Parser) []sortKey {
	var out []sortKey
	reverse := false
	p.List(func() {
		switch name := p.Word(); name {
		case "REVERSE":
			reverse = true
		case "ARRIVAL", "CC", "DATE", "FROM", "SIZE", "SUBJECT", "TO", "DISPLAYFROM", "DISPLAYTO":
			out = append(out, sortKey{name, reverse})
			reverse = false
		default:
			p.Fail("SORT does not know %s", name)
		}
	})
	if len(out) == 0 || reverse {
		p.Fail("SORT has at least one key, behind REVERSE too")
	}
	return out
}

// record is what of a message decides its place.
type record struct {
	seq  uint32
	size int64
	// received is when it arrived, sent when it was sent; both in milliseconds.
	received, sent int64
	summary        *v1.Summary
	texts          map[string]string
}

// records reads what sorting and threading need of some messages.
func (ss *session) records(seqs []uint32, summaries bool) ([]*record, error) {
	if len(seqs) == 0 {
		return nil, nil
	}
	out := make([]*record, 0, len(seqs))
	at := make(map[uint32]*record, len(seqs))
	ctx, cancel := ss.call()
	defer cancel()
	ranges := ss.box.ranges(seqs)
	snapshot, err := ss.store.Snapshot(ctx, &v1.SnapshotRequest{MailboxId: ss.box.mailbox.GetId(), Uids: ranges})
	if err != nil {
		return nil, ss.refusal(err)
	}
	for i, uid := range snapshot.GetUids() {
		if seq, ok := ss.box.seq(uid); ok && contained(seqs, seq) {
			r := &record{seq: seq, size: snapshot.GetSizes()[i], received: snapshot.GetReceivedMs()[i]}
			r.sent = r.received
			out, at[uid] = append(out, r), r
		}
	}
	if !summaries {
		return out, nil
	}
	err = ss.store.Fetch(ctx, &v1.FetchRequest{MailboxId: ss.box.mailbox.GetId(), Uids: ranges, Summary: true}, func(item *v1.FetchResponse_Item) error {
		if r := at[item.GetUid()]; r != nil {
			r.summary = item.GetSummary()
			if sent := item.GetSummary().GetSentMs(); sent != 0 {
				r.sent = sent
			}
		}
		return nil
	})
	return out, ss.refusal(err)
}

// sorted orders messages. Where the keys say nothing, the number does.
func (ss *session) sorted(order []sortKey, seqs []uint32) ([]uint32, error) {
	summaries := slices.ContainsFunc(order, func(k sortKey) bool { return k.name != "ARRIVAL" && k.name != "SIZE" })
	list, err := ss.records(seqs, summaries)
	if err != nil {
		return nil, err
	}
	for _, r := range list {
		r.texts = map[string]string{}
		for _, k := range order {
			r.texts[k.name] = r.text(k.name)
		}
	}
	slices.SortFunc(list, func(a, b *record) int {
		for _, k := range order {
			n := 0
			switch k.name {
			case "ARRIVAL":
				n = cmp.Compare(a.received, b.received)
			case "DATE":
				n = cmp.Compare(a.sent, b.sent)
			case "SIZE":
				n = cmp.Compare(a.size, b.size)
			default:
				n = strings.Compare(a.texts[k.name], b.texts[k.name])
			}
			if k.reverse {
				n = -n
			}
			if n != 0 {
				return n
			}
		}
		return cmp.Compare(a.seq, b.seq)
	})
	out := make([]uint32, len(list))
	for i, r := range list {
		out[i] = r.seq
	}
	return out, nil
}

// text that a key compares, in i;unicode-casemap (RFC 5051).
func (r *record) text(key string) string {
	switch key {
	case "SUBJECT":
		base, _ := baseSubject(mime.DecodeHeader(string(r.summary.GetSubject())))
		return casemap(base)
	case "FROM":
		return casemap(firstMailbox(r.summary.GetFrom()))
	case "TO":
		return casemap(firstMailbox(r.summary.GetTo()))
	case "CC":
		return casemap(firstMailbox(r.summary.GetCc()))
	case "DISPLAYFROM":
		return casemap(display(r.summary.GetFrom()))
	case "DISPLAYTO":
		return casemap(display(r.summary.GetTo()))
	}
	return ""
}

func casemap(s string) string {
	return norm.NFKD.String(strings.ToTitle(s))
}

// firstMailbox is the local part of the first address (RFC 5256 section 3); of a
// group its name.
func firstMailbox(list []*v1.MailAddress) string {
	if len(list) == 0 {
		return ""
	}
	return string(list[0].GetLocalPart())
}

// display is the first address as a client shows it (RFC 5957).
func display(list []*v1.MailAddress) string {
	if len(list) == 0 {
		return ""
	}
	a := list[0]
	if name := mime.DecodeHeader(string(a.GetName())); name != "" {
		return name
	}
	if a.GetGroup() == v1.MailAddress_START || len(a.GetDomain()) == 0 {
		return mime.DecodeHeader(string(a.GetLocalPart()))
	}
	return string(a.GetLocalPart()) + "@" + string(a.GetDomain())
}
