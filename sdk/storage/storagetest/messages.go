package storagetest

import (
	"errors"
	"fmt"
	"strings"

	"github.com/stagecoach-mta/stagecoach/sdk/fail"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

func appendBytes(f *fixture) {
	a := f.open(meg)
	in := a.box("INBOX").GetId()
	texts := []string{mailOf("1", "x"), mailOf("2", "bin \x00\x01\xff"), "no header at all", ""}
	list := a.append(in, texts...)
	for i := 1; i < len(list); i++ {
		if list[i] <= list[i-1] {
			f.Errorf("UIDs of one Append do not grow: %v", list)
		}
	}
	resp, err := a.Append(f.Context(), &v1.AppendRequest{MailboxId: in, Messages: []*v1.AppendRequest_Message{
		{Message: ref(mailOf("3", "x")), Flags: []string{`\Seen`, `\Draft`, "$Work"}, ReceivedMs: 1234567890123},
	}})
	f.must(err, "Append")
	f.reopen()
	a = f.open(meg)
	equal(f, "uid_validity", resp.GetUidValidity(), a.box("INBOX").GetUidValidity())
	for i, uid := range list {
		if got := a.message(in, uid); got != texts[i] {
			f.Errorf("message %d came back as %q, want %q: a client's message gets no delivery fields", uid, got, texts[i])
		}
	}
	s := a.snapshot(in, 0)
	last := len(s.GetUids()) - 1
	equal(f, "flags", s.GetFlags()[last], uint32(v1.Flag_FLAG_SEEN|v1.Flag_FLAG_DRAFT))
	equal(f, "received_ms", s.GetReceivedMs()[last], 1234567890123)
	if s.GetReceivedMs()[0] == 0 {
		f.Errorf("received_ms 0 in the request means now")
	}
	equal(f, "modseq of the message", s.GetModseqs()[last], resp.GetModseq())
}

func appendQuota(f *fixture) {
	a := f.open(meg)
	in := a.box("INBOX").GetId()
	m := &v1.AppendRequest_Message{Message: ref(mailOf("m", strings.Repeat("x", 500)))}
	_, err := a.Append(f.Context(), &v1.AppendRequest{MailboxId: in, QuotaBytes: 1000, Messages: []*v1.AppendRequest_Message{m, m, m}})
	f.kind(err, fail.OverQuota, "Append over the quota")
	equal(f, "messages after an Append that failed", a.box("INBOX").GetMessages(), 0)
	bad := &v1.AppendRequest_Message{Message: ref("\r\n"), Flags: []string{`\Nonsense`}}
	_, err = a.Append(f.Context(), &v1.AppendRequest{MailboxId: in, Messages: []*v1.AppendRequest_Message{m, bad}})
	f.kind(err, fail.Invalid, "Append with an unknown system flag")
	equal(f, "messages after an Append that failed", a.box("INBOX").GetMessages(), 0)
	list := a.append(in, mailOf("m", "x"))
	equal(f, "messages", len(a.snapshot(in, 0).GetUids()), len(list))
}

func appendFile(f *fixture) {
	a := f.open(meg)
	in := a.box("INBOX").GetId()
	for _, size := range []int64{17 << 10, 300 << 10} {
		r, text := f.file(size)
		resp, err := a.Append(f.Context(), &v1.AppendRequest{MailboxId: in, Messages: []*v1.AppendRequest_Message{{Message: r}}})
		f.must(err, "Append of a file")
		f.reopen()
		a = f.open(meg)
		if got := a.message(in, resp.GetUids()[0]); got != text {
			f.Errorf("a file of %d octets came back with %d octets, or others", size, len(got))
		}
	}
	r, _ := f.file(100 << 10)
	r.Size--
	_, err := a.Append(f.Context(), &v1.AppendRequest{MailboxId: in, Messages: []*v1.AppendRequest_Message{{Message: r}}})
	f.kind(err, fail.Invalid, "Append of a file whose size is not what the reference says")
}

func malformed(f *fixture) {
	a := f.open(meg)
	in := a.box("INBOX").GetId()
	deep := strings.Repeat("Content-Type: multipart/mixed; boundary=x\r\n\r\n--x\r\n", 300)
	texts := []string{
		"\r\n", "\n", "\r", ":", "Subject", "Subject: no body", " folded first\r\n\r\nx",
		"Subject: bare lf\n\nbody\n", "\x00\x00\x00", "From: \xff\xfe <\xff@\xff>\r\nSubject: =?bad?x?=\r\nContent-Type: \xff/\xfe; \xfd=\xfc\r\n\r\nx",
		"Content-Type: multipart/mixed; boundary=\"\"\r\n\r\n--\r\n\r\nx\r\n----\r\n",
		"Content-Type: multipart/mixed; boundary=a\r\n\r\n--a", "Content-Type: message/rfc822\r\n\r\n", deep,
		strings.Repeat("x", 70000) + ": long\r\n\r\nbody",
	}
	for i, text := range texts {
		uid := a.append(in, text)[0]
		if got := a.message(in, uid); got != text {
			f.Errorf("malformed message %d came back with %d octets instead of %d, or others", i, len(got), len(text))
		}
		item := a.fetch(&v1.FetchRequest{MailboxId: in, Uids: uids(uid), Summary: true, Structure: true, Header: true, Preview: true})[0]
		if item.GetStructure() == nil || item.GetSummary() == nil {
			f.Errorf("malformed message %d has no structure or summary: degrade, do not fail", i)
			continue
		}
		checkPart(f, item.GetStructure(), int64(len(text)))
		if !strings.HasPrefix(text, string(item.GetHeader())) {
			f.Errorf("header of malformed message %d is not its beginning: %.80q", i, item.GetHeader())
		}
	}
}

func checkPart(f *fixture, p *v1.Part, size int64) {
	f.Helper()
	if p.GetHeaderOffset() < 0 || p.GetBodyOffset() < p.GetHeaderOffset() || p.GetSize() < 0 || p.GetBodyOffset()+p.GetSize() > size {
		f.Errorf("part %s/%s lies outside of the message: header %d body %d size %d of %d", p.GetType(), p.GetSubtype(), p.GetHeaderOffset(), p.GetBodyOffset(), p.GetSize(), size)
	}
	if p.GetType() == "multipart" && len(p.GetChildren()) == 0 {
		f.Errorf("a multipart without parts: degrade it to text/plain")
	}
	for _, c := range p.GetChildren() {
		checkPart(f, c, size)
	}
}

const nested = "From: Tom Hanks <tom@hanks.example>\r\nTo: friends: meg@ryan.example, nora@ryan.example;\r\nSubject: =?utf-8?q?caf=C3=A9?=\r\n" +
	"Date: Thu, 15 Feb 2007 01:02:03 +0200\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=\"b 1\"\r\n\r\n" +
	"preamble\r\n--b 1\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\nhello =C3=A4 world\r\n" +
	"--b 1\r\nContent-Type: message/rfc822\r\n\r\nSubject: inner\r\n\r\ninner body\r\n--b 1--\r\n"

func fetchParts(f *fixture) {
	a := f.open(meg)
	in := a.box("INBOX").GetId()
	uid := a.append(in, nested)[0]
	item := a.fetch(&v1.FetchRequest{MailboxId: in, Uids: uids(uid)})[0]
	if item.GetSummary() != nil || item.GetStructure() != nil || item.GetHeader() != nil || item.GetMessage() != nil || item.GetPreview() != "" || item.GetMessageId() != "" {
		f.Errorf("Fetch gave what nobody asked for: %v", item)
	}
	f.reopen()
	a = f.open(meg)
	item = a.fetch(&v1.FetchRequest{MailboxId: in, Summary: true, Structure: true, Header: true, Message: true, Preview: true, Ids: true})[0]
	s := item.GetSummary()
	equal(f, "subject, raw", string(s.GetSubject()), "=?utf-8?q?caf=C3=A9?=")
	equal(f, "sent_ms", s.GetSentMs(), 1171494123000)
	if len(s.GetFrom()) != 1 || string(s.GetFrom()[0].GetName()) != "Tom Hanks" || string(s.GetFrom()[0].GetLocalPart()) != "tom" || string(s.GetFrom()[0].GetDomain()) != "hanks.example" {
		f.Errorf("from is %v", s.GetFrom())
	}
	if len(s.GetTo()) != 4 || s.GetTo()[0].GetGroup() != v1.MailAddress_START || string(s.GetTo()[0].GetLocalPart()) != "friends" || s.GetTo()[3].GetGroup() != v1.MailAddress_END {
		f.Errorf("to is %v: a group begins with START, which has its name as local_part, and ends with END", s.GetTo())
	}
	p := item.GetStructure()
	checkPart(f, p, int64(len(nested)))
	if len(p.GetChildren()) != 2 {
		f.Fatalf("structure is %v: want two parts", p)
	}
	slice := func(p *v1.Part) string { return nested[p.GetBodyOffset() : p.GetBodyOffset()+p.GetSize()] }
	equal(f, "body of part 1", slice(p.GetChildren()[0]), "hello =C3=A4 world")
	equal(f, "encoding of part 1", strings.ToLower(p.GetChildren()[0].GetEncoding()), "quoted-printable")
	msg := p.GetChildren()[1]
	equal(f, "subject of the message within", string(msg.GetMessage().GetSubject()), "inner")
	equal(f, "body of part 2", slice(msg), "Subject: inner\r\n\r\ninner body")
	equal(f, "lines of part 2", msg.GetLines(), 2)
	if len(msg.GetChildren()) != 1 || slice(msg.GetChildren()[0]) != "inner body" {
		f.Errorf("structure of the message within is %v", msg.GetChildren())
	}
	equal(f, "header", string(item.GetHeader()), nested[:strings.Index(nested, "\r\n\r\n")+4])
	equal(f, "message", string(item.GetMessage().GetInline()), nested)
	equal(f, "preview", item.GetPreview(), "hello ä world")
	if item.GetMessageId() == "" || item.GetThreadId() == "" || item.GetSavedMs() == 0 {
		f.Errorf("ids lack something: %v", item)
	}
}

func fetchGone(f *fixture) {
	a := f.open(meg)
	in := a.box("INBOX").GetId()
	list := a.append(in, mailOf("1", "x"), mailOf("2", "x"), mailOf("3", "x"))
	a.expunge(in, list[1])
	var got []uint32
	for _, i := range a.fetch(&v1.FetchRequest{MailboxId: in, Summary: true}) {
		got = append(got, i.GetUid())
	}
	equalSlices(f, "UIDs fetched", got, list[0], list[2])
	got = nil
	overlapping := []*v1.UIDRange{{First: list[2], Last: 0}, {First: list[0], Last: list[2]}, {First: list[2], Last: list[2]}}
	for _, i := range a.fetch(&v1.FetchRequest{MailboxId: in, Uids: overlapping}) {
		got = append(got, i.GetUid())
	}
	equalSlices(f, "UIDs fetched by overlapping ranges out of order", got, list[0], list[2])
}

func fetchError(f *fixture) {
	a := f.open(meg)
	in := a.box("INBOX").GetId()
	a.append(in, mailOf("1", "x"), mailOf("2", "x"))
	stop := errors.New("enough")
	n := 0
	err := a.Fetch(f.Context(), &v1.FetchRequest{MailboxId: in, Message: true}, func(*v1.FetchResponse_Item) error { n++; return stop })
	if !errors.Is(err, stop) || n != 1 {
		f.Errorf("Fetch called item %d times and returned %v: item's error ends it and comes back", n, err)
	}
}

func snapshotColumns(f *fixture) {
	a := f.open(meg)
	in := a.box("INBOX").GetId()
	var want []uint32
	for i := range 300 {
		want = append(want, a.append(in, mailOf(fmt.Sprint(i), strings.Repeat("x", i)))...)
	}
	a.flags(in, v1.SetFlagsRequest_ADD, want[7], `\Seen`, "Zeta", "alpha")
	f.reopen()
	a = f.open(meg)
	s := a.snapshot(in, 0)
	equalSlices(f, "UIDs", s.GetUids(), want...)
	equal(f, "messages of the mailbox", s.GetMailbox().GetMessages(), 300)
	equal(f, "highest_modseq of the mailbox", s.GetMailbox().GetHighestModseq(), s.GetModseqs()[7])
	equal(f, "flags", s.GetFlags()[7], uint32(v1.Flag_FLAG_SEEN))
	if len(s.GetKeywords()) != 1 || s.GetKeywords()[0].GetUid() != want[7] || len(s.GetKeywords()[0].GetKeywords()) != 2 {
		f.Errorf("keywords are %v: sparse, who has any", s.GetKeywords())
	}
	if s.GetModseq() < s.GetMailbox().GetHighestModseq() {
		f.Errorf("the account's MODSEQ %d is lower than the mailbox's %d", s.GetModseq(), s.GetMailbox().GetHighestModseq())
	}
}

func snapshotSince(f *fixture) {
	a := f.open(meg)
	in := a.box("INBOX").GetId()
	list := a.append(in, mailOf("1", "x"), mailOf("2", "x"), mailOf("3", "x"), mailOf("4", "x"), mailOf("5", "x"))
	base := a.snapshot(in, 0)
	a.flags(in, v1.SetFlagsRequest_ADD, list[0], `\Seen`)
	a.expunge(in, list[1], list[2])
	mid := a.snapshot(in, base.GetModseq())
	equalSlices(f, "changed since", mid.GetUids(), list[0])
	equal(f, "vanished since", ranges(mid.GetVanished()), fmt.Sprintf("%d-%d", list[1], list[2]))
	a.expunge(in, list[3])
	f.reopen()
	a = f.open(meg)
	s := a.snapshot(in, mid.GetModseq())
	equalSlices(f, "changed since the second look", s.GetUids())
	equal(f, "vanished since the second look", ranges(s.GetVanished()), fmt.Sprintf("%d-%d", list[3], list[3]))
	s = a.snapshot(in, base.GetModseq())
	equal(f, "all that vanished", ranges(s.GetVanished()), fmt.Sprintf("%d-%d", list[1], list[3]))
	s = a.snapshot(in, base.GetModseq(), &v1.UIDRange{First: list[2], Last: list[4]})
	equal(f, "what vanished among some UIDs", ranges(s.GetVanished()), fmt.Sprintf("%d-%d", list[2], list[3]))
	equalSlices(f, "what changed among some UIDs", s.GetUids())
	equal(f, "nothing since now", len(a.snapshot(in, s.GetModseq()).GetUids()), 0)
	equal(f, "vanished without since_modseq", len(a.snapshot(in, 0).GetVanished()), 0)
}

func snapshotUIDs(f *fixture) {
	a := f.open(meg)
	in := a.box("INBOX").GetId()
	list := a.append(in, mailOf("1", "x"), mailOf("2", "x"), mailOf("3", "x"), mailOf("4", "x"))
	equalSlices(f, "some", a.snapshot(in, 0, uids(list[1], list[3])...).GetUids(), list[1], list[3])
	equalSlices(f, "to the end", a.snapshot(in, 0, &v1.UIDRange{First: list[2]}).GetUids(), list[2], list[3])
	equalSlices(f, "beyond the end", a.snapshot(in, 0, &v1.UIDRange{First: list[3] + 10, Last: list[3] + 20}).GetUids())
	equalSlices(f, "overlapping", a.snapshot(in, 0, &v1.UIDRange{First: list[1], Last: list[2]}, &v1.UIDRange{First: list[0], Last: list[1]}).GetUids(), list[0], list[1], list[2])
}
