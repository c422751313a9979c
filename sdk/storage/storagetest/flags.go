package storagetest

import (
	"fmt"
	"slices"
	"strings"

	"github.com/stagecoach-mta/stagecoach/sdk/fail"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

const (
	add     = v1.SetFlagsRequest_ADD
	remove  = v1.SetFlagsRequest_REMOVE
	replace = v1.SetFlagsRequest_REPLACE
)

// flagsOf shows a message's flags as one string, keywords sorted.
func flagsOf(s *v1.SnapshotResponse, uid uint32) string {
	i := slices.Index(s.GetUids(), uid)
	if i < 0 {
		return "gone"
	}
	out := fmt.Sprint(s.GetFlags()[i])
	for _, k := range s.GetKeywords() {
		if k.GetUid() == uid {
			list := slices.Clone(k.GetKeywords())
			slices.Sort(list)
			out += " " + strings.Join(list, " ")
		}
	}
	return out
}

func setFlags(f *fixture) {
	a := f.open(meg)
	in := a.box("INBOX").GetId()
	uid := a.append(in, mailOf("1", "x"))[0]
	for _, c := range []struct {
		op    v1.SetFlagsRequest_Op
		flags []string
		want  string
	}{
		{add, []string{`\Seen`, "$Work"}, "1 $Work"},
		{add, []string{`\FLAGGED`}, "5 $Work"},
		{remove, []string{`\Seen`, "Other"}, "4 $Work"},
		{replace, []string{`\Answered`, `\Deleted`, `\Draft`, "New"}, "26 New"},
		{remove, []string{"New"}, "26"},
		{replace, nil, "0"},
	} {
		before := a.box("INBOX").GetHighestModseq()
		resp := a.flags(in, c.op, uid, c.flags...)
		equal(f, fmt.Sprintf("flags after %v %v, in the reply", c.op, c.flags), flagsOf(resp.GetChanged(), uid), c.want)
		s := a.snapshot(in, 0)
		equal(f, fmt.Sprintf("flags after %v %v", c.op, c.flags), flagsOf(s, uid), c.want)
		if s.GetModseqs()[0] <= before || s.GetModseqs()[0] != resp.GetChanged().GetModseqs()[0] {
			f.Errorf("MODSEQ is %d after the change, was %d, the reply says %v", s.GetModseqs()[0], before, resp.GetChanged().GetModseqs())
		}
	}
	before := a.snapshot(in, 0).GetModseq()
	a.flags(in, remove, uid, `\Seen`)
	equal(f, "MODSEQ after a change that changes nothing", a.snapshot(in, 0).GetModseq(), before)
	a.flags(in, add, uid, `\Answered`, "kept")
	f.reopen()
	equal(f, "flags after reopening", flagsOf(f.open(meg).snapshot(in, 0), uid), "2 kept")
}

func unchangedSince(f *fixture) {
	a := f.open(meg)
	in := a.box("INBOX").GetId()
	list := a.append(in, mailOf("1", "x"), mailOf("2", "x"))
	seen := a.snapshot(in, 0).GetModseq()
	a.flags(in, add, list[0], `\Seen`)
	resp, err := a.SetFlags(f.Context(), &v1.SetFlagsRequest{MailboxId: in, Op: add, Flags: []string{`\Flagged`}, UnchangedSince: seen})
	f.must(err, "SetFlags with unchanged_since")
	equalSlices(f, "conflicts", resp.GetConflicts(), list[0])
	equalSlices(f, "changed", resp.GetChanged().GetUids(), list[1])
	s := a.snapshot(in, 0)
	equal(f, "flags of the one in conflict", flagsOf(s, list[0]), "1")
	equal(f, "flags of the other", flagsOf(s, list[1]), "4")
}

func keywords(f *fixture) {
	a := f.open(meg)
	in := a.box("INBOX").GetId()
	uid := a.append(in, mailOf("1", "x"))[0]
	a.flags(in, add, uid, "$Junk", "Work")
	a.flags(in, add, uid, "WORK", "$junk")
	equal(f, "keywords after adding them in another case", flagsOf(a.snapshot(in, 0), uid), "0 $Junk Work")
	a.flags(in, remove, uid, "wORK")
	equal(f, "keywords after removing one in another case", flagsOf(a.snapshot(in, 0), uid), "0 $Junk")
}

func badFlags(f *fixture) {
	a := f.open(meg)
	in := a.box("INBOX").GetId()
	uid := a.append(in, mailOf("1", "x"))[0]
	for _, flag := range []string{"", `\Recent`, `\Nonsense`, "two words", "paren)", "ctl\x01", "ünï", strings.Repeat("x", 5000)} {
		_, err := a.SetFlags(f.Context(), &v1.SetFlagsRequest{MailboxId: in, Uids: uids(uid), Op: add, Flags: []string{flag}})
		f.kind(err, fail.Invalid, fmt.Sprintf("SetFlags %.20q", flag))
	}
	equal(f, "flags", flagsOf(a.snapshot(in, 0), uid), "0")
}

func copyMessages(f *fixture) {
	a := f.open(meg)
	in, to := a.box("INBOX").GetId(), a.create("to")
	r, large := f.file(200 << 10)
	f.ok(f.deposit("q1", r, target(0, meg))[0])
	list := append(a.snapshot(in, 0).GetUids(), a.append(in, mailOf("2", "x"), mailOf("3", "x"))...)
	a.append(to.GetId(), mailOf("before", "x"))
	a.flags(in, add, list[1], `\Seen`, "$Work")
	resp, err := a.Copy(f.Context(), &v1.CopyRequest{MailboxId: in, Uids: uids(list[0], list[1], list[2]+100), TargetMailboxId: to.GetId()})
	f.must(err, "Copy")
	equalSlices(f, "source UIDs", resp.GetSourceUids(), list[0], list[1])
	equal(f, "uid_validity", resp.GetUidValidity(), to.GetUidValidity())
	if len(resp.GetTargetUids()) != 2 || resp.GetTargetUids()[0] >= resp.GetTargetUids()[1] {
		f.Fatalf("target UIDs are %v", resp.GetTargetUids())
	}
	f.reopen()
	a = f.open(meg)
	equal(f, "flags of the copy", flagsOf(a.snapshot(to.GetId(), 0), resp.GetTargetUids()[1]), "1 $Work")
	from, copied := a.snapshot(in, 0, uids(list[1])...), a.snapshot(to.GetId(), 0, uids(resp.GetTargetUids()[1])...)
	equal(f, "received_ms of the copy", copied.GetReceivedMs()[0], from.GetReceivedMs()[0])
	equal(f, "messages in the source", a.box("INBOX").GetMessages(), 3)
	// The copy outlives the original.
	a.expunge(in, list...)
	f.reopen()
	a = f.open(meg)
	if got := a.message(to.GetId(), resp.GetTargetUids()[0]); got != deliveryFields+large {
		f.Errorf("after the original went the copy of a large message has %d octets, want %d", len(got), len(deliveryFields+large))
	}
	equal(f, "copy of a small message", a.message(to.GetId(), resp.GetTargetUids()[1]), mailOf("2", "x"))
	resp, err = a.Copy(f.Context(), &v1.CopyRequest{MailboxId: to.GetId(), Uids: uids(9999), TargetMailboxId: in})
	f.must(err, "Copy of nothing")
	equal(f, "copies of nothing", len(resp.GetTargetUids()), 0)
}

func copyWithin(f *fixture) {
	a := f.open(meg)
	in := a.box("INBOX").GetId()
	list := a.append(in, mailOf("1", "x"))
	for range 2 {
		_, err := a.Copy(f.Context(), &v1.CopyRequest{MailboxId: in, TargetMailboxId: in})
		f.must(err, "Copy within a mailbox")
	}
	all := a.snapshot(in, 0).GetUids()
	equal(f, "messages after copying all twice", len(all), 4)
	a.expunge(in, all[:3]...)
	f.reopen()
	a = f.open(meg)
	equal(f, "the last copy", a.message(in, all[3]), mailOf("1", "x"))
	if all[3] == list[0] {
		f.Errorf("a copy has its original's UID")
	}
}

func copyQuota(f *fixture) {
	a := f.open(meg)
	in, to := a.box("INBOX").GetId(), a.create("to").GetId()
	a.append(in, mailOf("1", "x"), mailOf("2", "x"))
	used, err := a.Quota(f.Context())
	f.must(err, "Quota")
	_, err = a.Copy(f.Context(), &v1.CopyRequest{MailboxId: in, TargetMailboxId: to, QuotaBytes: used.GetUsedBytes() + used.GetUsedBytes()/2 + 1})
	f.kind(err, fail.OverQuota, "Copy over the quota")
	equal(f, "messages after a Copy that failed", a.box("to").GetMessages(), 0)
	_, err = a.Copy(f.Context(), &v1.CopyRequest{MailboxId: in, TargetMailboxId: to, Move: true, QuotaBytes: 1})
	f.must(err, "moving takes no more room")
}

func moveMessages(f *fixture) {
	a := f.open(meg)
	in, to := a.box("INBOX").GetId(), a.create("to").GetId()
	list := a.append(in, mailOf("1", "x"), mailOf("2", "x"), mailOf("3", "x"))
	ids := a.fetch(&v1.FetchRequest{MailboxId: in, Uids: uids(list[1]), Ids: true})
	base := a.snapshot(in, 0).GetModseq()
	resp, err := a.Copy(f.Context(), &v1.CopyRequest{MailboxId: in, Uids: uids(list[1]), TargetMailboxId: to, Move: true})
	f.must(err, "move")
	f.reopen()
	a = f.open(meg)
	equalSlices(f, "left in the source", a.snapshot(in, 0).GetUids(), list[0], list[2])
	equal(f, "vanished from the source", ranges(a.snapshot(in, base).GetVanished()), fmt.Sprintf("%d-%d", list[1], list[1]))
	equal(f, "the moved message", a.message(to, resp.GetTargetUids()[0]), mailOf("2", "x"))
	moved := a.fetch(&v1.FetchRequest{MailboxId: to, Ids: true})
	equal(f, "message id after the move (RFC 8474 section 5.1)", moved[0].GetMessageId(), ids[0].GetMessageId())
	equal(f, "thread id after the move", moved[0].GetThreadId(), ids[0].GetThreadId())
}

func expunge(f *fixture) {
	a := f.open(meg)
	in := a.box("INBOX").GetId()
	list := a.append(in, mailOf("1", "x"), mailOf("2", "x"), mailOf("3", "x"), mailOf("4", "x"))
	for _, uid := range []uint32{list[0], list[1], list[3]} {
		a.flags(in, add, uid, `\Deleted`)
	}
	resp, err := a.Expunge(f.Context(), &v1.ExpungeRequest{MailboxId: in, Uids: []*v1.UIDRange{{First: list[1], Last: list[2]}}})
	f.must(err, "Expunge of some UIDs")
	equal(f, "expunged of UIDs where one is not deleted", ranges(resp.GetExpunged()), fmt.Sprintf("%d-%d", list[1], list[1]))
	resp, err = a.Expunge(f.Context(), &v1.ExpungeRequest{MailboxId: in})
	f.must(err, "Expunge of all")
	equal(f, "expunged", ranges(resp.GetExpunged()), fmt.Sprintf("%d-%d %d-%d", list[0], list[0], list[3], list[3]))
	resp, err = a.Expunge(f.Context(), &v1.ExpungeRequest{MailboxId: in})
	f.must(err, "Expunge of nothing")
	equal(f, "expunged of nothing", ranges(resp.GetExpunged()), "")
	f.reopen()
	a = f.open(meg)
	equalSlices(f, "left", a.snapshot(in, 0).GetUids(), list[2])
	equal(f, "expunged by force", ranges(a.expunge(in, list[2]).GetExpunged()), fmt.Sprintf("%d-%d", list[2], list[2]))
}

func uidsGrow(f *fixture) {
	a := f.open(meg)
	box := a.box("INBOX")
	in, last := box.GetId(), uint32(0)
	for range 5 {
		uid := a.append(in, mailOf("1", "x"))[0]
		if uid <= last {
			f.Fatalf("UID %d after %d: a UID is never used again, though the last message was expunged", uid, last)
		}
		last = uid
		a.expunge(in, uid)
		f.reopen()
		a = f.open(meg)
		m := a.box("INBOX")
		if m.GetUidNext() <= last || m.GetUidValidity() != box.GetUidValidity() {
			f.Fatalf("after expunging the last message and reopening, uid_next is %d (last UID %d), uid_validity %d (was %d)", m.GetUidNext(), last, m.GetUidValidity(), box.GetUidValidity())
		}
	}
}

func counters(f *fixture) {
	a := f.open(meg)
	in, to := a.box("INBOX").GetId(), a.create("to").GetId()
	check := func(after string) {
		f.Helper()
		var total, size int64
		for _, m := range a.list() {
			s := a.snapshot(m.GetId(), 0)
			var unseen, deleted uint32
			var sum int64
			for i := range s.GetUids() {
				if s.GetFlags()[i]&uint32(v1.Flag_FLAG_SEEN) == 0 {
					unseen++
				}
				if s.GetFlags()[i]&uint32(v1.Flag_FLAG_DELETED) != 0 {
					deleted++
				}
				sum += s.GetSizes()[i]
			}
			if m.GetMessages() != uint32(len(s.GetUids())) || m.GetUnseen() != unseen || m.GetDeleted() != deleted || m.GetSize() != sum {
				f.Errorf("after %s %q counts %d messages, %d unseen, %d deleted, %d octets; there are %d, %d, %d, %d", after, m.GetName(),
					m.GetMessages(), m.GetUnseen(), m.GetDeleted(), m.GetSize(), len(s.GetUids()), unseen, deleted, sum)
			}
			total += int64(len(s.GetUids()))
			size += sum
		}
		q, err := a.Quota(f.Context())
		f.must(err, "Quota")
		if q.GetUsedMessages() != total || q.GetUsedBytes() != size {
			f.Errorf("after %s the quota counts %d messages of %d octets; there are %d of %d", after, q.GetUsedMessages(), q.GetUsedBytes(), total, size)
		}
	}
	list := a.append(in, mailOf("1", "x"), mailOf("2", "xx"), mailOf("3", "xxx"))
	check("Append")
	a.flags(in, add, list[0], `\Seen`, `\Deleted`)
	a.flags(in, replace, list[1], `\Deleted`)
	check("SetFlags")
	_, err := a.Copy(f.Context(), &v1.CopyRequest{MailboxId: in, TargetMailboxId: to})
	f.must(err, "Copy")
	check("Copy")
	_, err = a.Copy(f.Context(), &v1.CopyRequest{MailboxId: in, Uids: uids(list[0]), TargetMailboxId: to, Move: true})
	f.must(err, "move")
	check("a move")
	_, err = a.Expunge(f.Context(), &v1.ExpungeRequest{MailboxId: to})
	f.must(err, "Expunge")
	check("Expunge")
	f.ok(f.deposit("q", ref(mailOf("4", "x")), target(0, meg))[0])
	f.reopen()
	a = f.open(meg)
	check("Deposit")
	_, err = a.Delete(f.Context(), &v1.DeleteMailboxRequest{Id: to})
	f.must(err, "Delete")
	check("Delete")
}
