package storagetest

import (
	"context"
	"fmt"
	"strings"
	"sync"

	"github.com/stagecoach-mta/stagecoach/sdk/fail"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

const deliveryFields = "Return-Path: <tom@hanks.example>\r\nDelivered-To: meg@ryan.example\r\n"

func (f *fixture) ok(r *v1.DepositResponse_Result) *v1.DepositResponse_Result {
	f.Helper()
	if p := r.GetProblem(); p != nil {
		f.Fatalf("target %d got nothing: %v %s", r.GetKey(), p.GetKind(), p.GetText())
	}
	if r.GetMailboxId() == "" || r.GetUid() == 0 || r.GetMessageId() == "" {
		f.Fatalf("result lacks mailbox_id, uid or message_id: %v", r)
	}
	return r
}

func depositBytes(f *fixture) {
	text := mailOf("hello", "8-bit: \xe4\xf6\xfc")
	t := target(0, meg)
	t.Flags = []string{`\Flagged`, "$Label"}
	r := f.ok(f.deposit("q1", ref(text), t)[0])
	f.reopen()
	a := f.open(meg)
	equal(f, "mailbox of the message", r.GetMailboxId(), a.box("INBOX").GetId())
	if got, want := a.message(r.GetMailboxId(), r.GetUid()), deliveryFields+text; got != want {
		f.Errorf("stored message differs: RFC 5321 section 4.4 wants Return-Path, then come Delivered-To and the message unchanged.\n got %q\nwant %q", got, want)
	}
	s := a.snapshot(r.GetMailboxId(), 0)
	equal(f, "size", s.GetSizes()[0], int64(len(deliveryFields)+len(text)))
	equal(f, "received_ms", s.GetReceivedMs()[0], 1700000000000)
	equal(f, "flags", s.GetFlags()[0], uint32(v1.Flag_FLAG_FLAGGED))
	equal(f, "messages with keywords", len(s.GetKeywords()), 1)
	item := a.fetch(&v1.FetchRequest{MailboxId: r.GetMailboxId(), Structure: true, Header: true, Ids: true})[0]
	equal(f, "message_id", item.GetMessageId(), r.GetMessageId())
	equal(f, "header length by structure", item.GetStructure().GetBodyOffset(), int64(len(item.GetHeader())))
	if !strings.HasPrefix(string(item.GetHeader()), deliveryFields) || !strings.HasSuffix(string(item.GetHeader()), "\r\n\r\n") {
		f.Errorf("header is %q: it has the delivery fields and ends in an empty line", item.GetHeader())
	}
}

func depositTwice(f *fixture) {
	first := f.ok(f.deposit("q1", ref(mailOf("once", "x")), target(3, meg))[0])
	for range 2 {
		again := f.ok(f.deposit("q1", ref(mailOf("once", "x")), target(3, meg))[0])
		equal(f, "UID of the repeated deposit", again.GetUid(), first.GetUid())
		equal(f, "message id of the repeated deposit", again.GetMessageId(), first.GetMessageId())
		f.reopen()
	}
	a := f.open(meg)
	equal(f, "messages after three deposits with one key", a.box("INBOX").GetMessages(), 1)
	a.expunge(first.GetMailboxId(), first.GetUid())
	again := f.ok(f.deposit("q1", ref(mailOf("once", "x")), target(3, meg))[0])
	equal(f, "UID of the deposit repeated after the message was expunged", again.GetUid(), first.GetUid())
	equal(f, "messages: what was delivered and expunged does not come back", a.box("INBOX").GetMessages(), 0)
	// A crash of the caller in the middle repeats some of the targets.
	rs := f.deposit("q1", ref(mailOf("once", "x")), target(3, meg), target(4, "nora@ryan.example"))
	equal(f, "UID of the known target", f.ok(rs[0]).GetUid(), first.GetUid())
	f.ok(rs[1])
	equal(f, "messages of the new target", f.open("nora@ryan.example").box("INBOX").GetMessages(), 1)
}

func depositOtherKey(f *fixture) {
	for i, q := range []string{"q1", "q1", "q2"} {
		f.ok(f.deposit(q, ref(mailOf("m", "x")), target(int32(i), meg))[0])
	}
	equal(f, "messages after three keys", f.open(meg).box("INBOX").GetMessages(), 3)
}

func depositMany(f *fixture) {
	var targets []*v1.DepositRequest_Target
	for i := range 50 {
		targets = append(targets, target(int32(i), fmt.Sprintf("user%d@ryan.example", i%40)))
	}
	text := mailOf("to all", "x")
	rs := f.deposit("q1", ref(text), targets...)
	f.reopen()
	for i, r := range rs {
		f.ok(r)
		a := f.open(targets[i].GetAccount())
		want := "Return-Path: <tom@hanks.example>\r\nDelivered-To: " + targets[i].GetAccount() + "\r\n" + text
		if got := a.message(r.GetMailboxId(), r.GetUid()); got != want {
			f.Fatalf("message of target %d is %q, want %q", i, got, want)
		}
	}
	// One account's copy goes, the others stay.
	f.open("user11@ryan.example").expunge(rs[11].GetMailboxId(), rs[11].GetUid())
	f.reopen()
	if got := f.open("user12@ryan.example").message(rs[12].GetMailboxId(), rs[12].GetUid()); !strings.HasSuffix(got, text) {
		f.Errorf("after another account expunged its copy the message is %q", got)
	}
}

func depositFolder(f *fixture) {
	t := target(0, meg)
	t.Mailbox = "Lists/Go/Nuts"
	r := f.ok(f.deposit("q1", ref(mailOf("m", "x")), t)[0])
	a := f.open(meg)
	equal(f, "mailbox of the message", a.box("Lists/Go/Nuts").GetId(), r.GetMailboxId())
	equal(f, "messages there", a.box("Lists/Go/Nuts").GetMessages(), 1)
	t.Mailbox, t.Key = "inbox", 1
	r = f.ok(f.deposit("q1", ref(mailOf("m", "x")), t)[0])
	equal(f, "mailbox of a deposit to \"inbox\"", r.GetMailboxId(), a.box("INBOX").GetId())
}

func depositQuota(f *fixture) {
	full, free := target(0, meg), target(1, tom)
	full.QuotaBytes = 50
	text := mailOf("m", "x")
	rs := f.deposit("q1", ref(text), full, free)
	if k := rs[0].GetProblem(); k == nil || k.GetKind() != fail.OverQuota {
		f.Fatalf("target over its quota of 50 octets has problem %v, want OVER_QUOTA", k)
	}
	f.ok(rs[1])
	equal(f, "messages of the full account", f.open(meg).box("INBOX").GetMessages(), 0)
	// The queue tries again, and now there is room.
	full.QuotaBytes = 1 << 20
	rs = f.deposit("q1", ref(text), full, free)
	f.ok(rs[0])
	f.ok(rs[1])
	equal(f, "messages of the account that has room now", f.open(meg).box("INBOX").GetMessages(), 1)
	equal(f, "messages of the other", f.open(tom).box("INBOX").GetMessages(), 1)
	q, err := f.open(tom).Quota(f.Context())
	f.must(err, "Quota")
	equal(f, "used messages", q.GetUsedMessages(), 1)
	equal(f, "used bytes", q.GetUsedBytes(), f.open(tom).box("INBOX").GetSize())
}

func depositBadTarget(f *fixture) {
	bad := target(0, meg)
	bad.Mailbox = "a//b"
	rs := f.deposit("q1", ref(mailOf("m", "x")), bad, target(1, ""), target(2, tom))
	for i, r := range rs[:2] {
		if r.GetProblem().GetKind() != fail.Invalid {
			f.Errorf("bad target %d has problem %v, want INVALID", i, r.GetProblem())
		}
	}
	f.ok(rs[2])
	_, err := f.s.Deposit(f.Context(), &v1.DepositRequest{QueueId: "q2", Message: &v1.MessageRef{Size: 5, Where: &v1.MessageRef_Path{Path: f.TempDir() + "/missing"}}, Targets: []*v1.DepositRequest_Target{target(0, tom)}})
	f.kind(err, fail.Invalid, "Deposit of a file that is not there")
	equal(f, "messages", f.open(tom).box("INBOX").GetMessages(), 1)
}

func depositInjection(f *fixture) {
	t := target(0, meg)
	t.Recipient = "meg@ryan.example\r\nX-Evil: yes"
	resp, err := f.s.Deposit(f.Context(), &v1.DepositRequest{QueueId: "q1", Message: ref(mailOf("m", "x")), ReturnPath: "a\r\n\r\nb", Targets: []*v1.DepositRequest_Target{t}})
	if err != nil || resp.GetResults()[0].GetProblem() != nil {
		return // refused: as good
	}
	r := resp.GetResults()[0]
	for line := range strings.SplitSeq(f.open(meg).message(r.GetMailboxId(), r.GetUid()), "\r\n") {
		if line == "" {
			break
		}
		if strings.HasPrefix(line, "X-Evil") || line == "b>" {
			f.Errorf("an address wrote a header line of its own: %q", line)
		}
	}
}

func depositLarge(f *fixture) {
	for _, size := range []int64{20 << 10, 64 << 10, 64<<10 + 1, 200 << 10, f.opts.LargeBytes} {
		r, text := f.file(size)
		q := fmt.Sprintf("q%d", size)
		rs := f.deposit(q, r, target(0, meg), target(1, "nora@ryan.example"))
		f.reopen()
		for i, name := range []string{meg, "nora@ryan.example"} {
			a := f.open(name)
			f.ok(rs[i])
			want := "Return-Path: <tom@hanks.example>\r\nDelivered-To: " + name + "\r\n" + text
			for range 2 {
				if got := a.message(rs[i].GetMailboxId(), rs[i].GetUid()); got != want {
					f.Fatalf("message of %d octets in %s comes back with %d octets, or others", size, name, len(got))
				}
			}
			item := a.fetch(&v1.FetchRequest{MailboxId: rs[i].GetMailboxId(), Uids: uids(rs[i].GetUid()), Structure: true, Header: true})[0]
			equal(f, "size of the body by structure", item.GetStructure().GetSize(), int64(len(want)-len(item.GetHeader())))
		}
		f.open(meg).expunge(rs[0].GetMailboxId(), rs[0].GetUid())
		f.reopen()
		if got := f.open("nora@ryan.example").message(rs[1].GetMailboxId(), rs[1].GetUid()); !strings.HasSuffix(got, text) {
			f.Errorf("after the other account expunged its copy of %d octets the message has %d", size, len(got))
		}
	}
}

func depositParallel(f *fixture) {
	const workers, each = 8, 20
	type got struct {
		uid  uint32
		text string
	}
	var mu sync.Mutex
	var all []got
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for i := range each {
				text := mailOf(fmt.Sprintf("m%d-%d", w, i), "x")
				req := &v1.DepositRequest{QueueId: fmt.Sprintf("q%d-%d", w, i), Message: ref(text), ReturnPath: tom, Targets: []*v1.DepositRequest_Target{target(0, meg)}}
				var uid uint32
				for range 2 { // each is repeated, as a queue does after a crash
					resp, err := f.s.Deposit(context.Background(), req)
					if err != nil || resp.GetResults()[0].GetProblem() != nil {
						f.Errorf("Deposit: %v %v", resp, err)
						return
					}
					uid = resp.GetResults()[0].GetUid()
				}
				mu.Lock()
				all = append(all, got{uid, text})
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	f.reopen()
	a := f.open(meg)
	box := a.box("INBOX")
	equal(f, "messages", box.GetMessages(), workers*each)
	seen := map[uint32]bool{}
	for _, g := range all {
		if seen[g.uid] {
			f.Fatalf("two deposits got UID %d", g.uid)
		}
		seen[g.uid] = true
		if msg := a.message(box.GetId(), g.uid); msg != deliveryFields+g.text {
			f.Fatalf("UID %d holds %q, want %q", g.uid, msg, g.text)
		}
	}
}

func accounts(f *fixture) {
	for _, name := range []string{"", "a\x00b", "line\r\nbreak", strings.Repeat("x", 10000)} {
		a, err := f.s.Open(f.Context(), name)
		if err == nil { // over a session the first call tells
			_, err = a.List(f.Context(), &v1.ListMailboxesRequest{})
		}
		f.kind(err, fail.Invalid, fmt.Sprintf("Open(%.20q)", name))
	}
	for _, name := range []string{"../../etc/passwd", "a/b@ryan.example", ".", "..", "ünï@ryan.example", "a b", "%", "A@ryan.example", "a@ryan.example"} {
		a, err := f.s.Open(f.Context(), name)
		if fail.Is(err, fail.Invalid) {
			continue
		}
		f.must(err, "Open "+name)
		_, err = a.Create(f.Context(), &v1.CreateMailboxRequest{Name: "mine"})
		f.must(err, "Create in "+name+" (it must not share its mailboxes with another account)")
	}
}
