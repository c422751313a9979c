package storagetest

import (
	"fmt"

	"github.com/stagecoach-mta/stagecoach/sdk/fail"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

func header(name, value string) *v1.Criterion {
	return &v1.Criterion{Test: &v1.Criterion_Header{Header: &v1.HeaderTest{Name: name, Value: value}}}
}
func body(s string) *v1.Criterion { return &v1.Criterion{Test: &v1.Criterion_Body{Body: s}} }
func text(s string) *v1.Criterion { return &v1.Criterion{Test: &v1.Criterion_Text{Text: s}} }
func flag(s string) *v1.Criterion { return &v1.Criterion{Test: &v1.Criterion_Flag{Flag: s}} }
func not(c *v1.Criterion) *v1.Criterion {
	return &v1.Criterion{Test: &v1.Criterion_Not{Not: c}}
}
func all(c ...*v1.Criterion) *v1.Criterion {
	return &v1.Criterion{Test: &v1.Criterion_AllOf{AllOf: &v1.CriterionList{Criteria: c}}}
}
func any(c ...*v1.Criterion) *v1.Criterion {
	return &v1.Criterion{Test: &v1.Criterion_AnyOf{AnyOf: &v1.CriterionList{Criteria: c}}}
}
func sent(from, to int64) *v1.Criterion {
	return &v1.Criterion{Test: &v1.Criterion_Sent{Sent: &v1.TimeRange{FromMs: from, ToMs: to}}}
}

type query struct {
	name string
	c    *v1.Criterion
	want []int // indexes of the messages
}

func (a *account) queries(box string, list []uint32, qs []query) {
	a.f.Helper()
	for _, q := range qs {
		resp, err := a.Search(a.f.Context(), &v1.SearchRequest{MailboxId: box, Criterion: q.c})
		if err != nil {
			a.f.Errorf("search %s: %v", q.name, err)
			continue
		}
		var want []uint32
		for _, i := range q.want {
			want = append(want, list[i])
		}
		if fmt.Sprint(resp.GetUids()) != fmt.Sprint(want) {
			a.f.Errorf("search %s found UIDs %v, want %v", q.name, resp.GetUids(), want)
		}
	}
}

func search(f *fixture) {
	a := f.open(meg)
	in := a.box("INBOX").GetId()
	list := a.append(in,
		mailOf("hello beautiful world", "needle in the body"),
		"From: nora@ryan.example\r\nX-Extra: one\r\nX-Extra: another\r\nDate: Fri, 16 Feb 2007 12:00:00 +0000\r\n\r\n"+mailOf("not a header", "more text that makes it larger"),
		mailOf("third", "nothing"),
	)
	a.flags(in, add, list[1], `\Seen`, "$Work")
	item := a.fetch(&v1.FetchRequest{MailboxId: in, Uids: uids(list[2]), Ids: true})[0]
	snap := a.snapshot(in, 0)
	larger := snap.GetSizes()[0]
	everything := &v1.Criterion{Test: &v1.Criterion_Everything{Everything: true}}
	a.queries(in, list, []query{
		{"without a criterion", nil, []int{0, 1, 2}},
		{"everything", everything, []int{0, 1, 2}},
		{"header", header("Subject", "BEAUTIFUL w"), []int{0}},
		{"header name in another case", header("sUBJECT", "third"), []int{2}},
		{"second field of that name", header("X-Extra", "another"), []int{1}},
		{"a field that exists", header("x-extra", ""), []int{1}},
		{"no such field", not(header("x-extra", "")), []int{0, 2}},
		{"a header's words are not the body's", body("beautiful"), nil},
		{"body", body("NEEDLE in"), []int{0}},
		{"text in the header", text("beautiful"), []int{0}},
		{"text in the body", text("needle"), []int{0}},
		{"address", header("from", "nora@RYAN"), []int{1}},
		{"larger", &v1.Criterion{Test: &v1.Criterion_Larger{Larger: larger}}, []int{1}},
		{"smaller", &v1.Criterion{Test: &v1.Criterion_Smaller{Smaller: larger}}, []int{2}},
		{"flag", flag(`\seen`), []int{1}},
		{"not flag", not(flag(`\Seen`)), []int{0, 2}},
		{"keyword", flag("$work"), []int{1}},
		{"sent from", sent(1171584000000, 0), []int{1}},
		{"sent before", sent(0, 1171584000000), []int{0, 2}},
		{"received from now on", &v1.Criterion{Test: &v1.Criterion_Received{Received: &v1.TimeRange{FromMs: snap.GetReceivedMs()[2] + 1}}}, nil},
		{"received up to now", &v1.Criterion{Test: &v1.Criterion_Received{Received: &v1.TimeRange{ToMs: snap.GetReceivedMs()[2] + 1}}}, []int{0, 1, 2}},
		{"saved", &v1.Criterion{Test: &v1.Criterion_Saved{Saved: &v1.TimeRange{FromMs: 1}}}, []int{0, 1, 2}},
		{"modseq", &v1.Criterion{Test: &v1.Criterion_ModseqAtLeast{ModseqAtLeast: snap.GetModseqs()[1]}}, []int{1}},
		{"uids", &v1.Criterion{Test: &v1.Criterion_Uids{Uids: &v1.UIDRanges{Ranges: uids(list[0], list[2])}}}, []int{0, 2}},
		{"message id", &v1.Criterion{Test: &v1.Criterion_MessageId{MessageId: item.GetMessageId()}}, []int{2}},
		{"thread id", &v1.Criterion{Test: &v1.Criterion_ThreadId{ThreadId: item.GetThreadId()}}, []int{2}},
		{"all of", all(flag(`\Seen`), header("from", "nora")), []int{1}},
		{"all of, one fails", all(flag(`\Seen`), body("needle")), nil},
		{"any of", any(flag(`\Seen`), body("needle")), []int{0, 1}},
		{"any of nothing", any(), nil},
		{"all of nothing", all(), []int{0, 1, 2}},
		{"nested", all(not(any(flag(`\Seen`), header("subject", "third"))), text("needle")), []int{0}},
	})
	resp, err := a.Search(f.Context(), &v1.SearchRequest{MailboxId: in, Uids: uids(list[1], list[2])})
	f.must(err, "Search among UIDs")
	equalSlices(f, "search among UIDs", resp.GetUids(), list[1], list[2])
	deep := everything
	for range 5000 {
		deep = not(deep)
	}
	_, err = a.Search(f.Context(), &v1.SearchRequest{MailboxId: in, Criterion: deep})
	f.kind(err, fail.Invalid, "a search that nests 5,000 deep")
	_, err = a.Search(f.Context(), &v1.SearchRequest{MailboxId: in, Criterion: &v1.Criterion{}})
	f.kind(err, fail.Invalid, "a criterion without a test")
}

func searchDecodes(f *fixture) {
	a := f.open(meg)
	in := a.box("INBOX").GetId()
	list := a.append(in,
		"Subject: =?iso-8859-1?q?Gr=FC=DFe?= =?utf-8?b?IMOEw7Y=?=\r\n\r\nx\r\n",
		"Subject: qp\r\nContent-Type: text/plain; charset=iso-8859-1\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\nsoft=\r\nbreak and =FCber\r\n",
		"Subject: b64\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: base64\r\n\r\nw4RwZmVsIHVuZCBCaXJu\r\nZW4=\r\n",
		"Subject: multi\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\nfirst part\r\n--b\r\nContent-Type: application/x-zip\r\n\r\nbinarypart\r\n--b\r\nContent-Type: message/rfc822\r\n\r\nSubject: =?utf-8?q?innersubj=65ct?=\r\n\r\ninner body\r\n--b--\r\n",
		"Subject: koi\r\nContent-Type: text/plain; charset=koi8-r\r\n\r\n\xf0\xd2\xc9\xd7\xc5\xd4\r\n",
		"Subject: unknown\r\nContent-Type: text/plain; charset=x-unknown\r\n\r\nstill found\r\n",
	)
	a.queries(in, list, []query{
		{"encoded words", header("subject", "grüße äö"), []int{0}},
		{"encoded words, other case", header("subject", "GRÜ"), []int{0}},
		{"not the raw form", header("subject", "iso-8859"), nil},
		{"quoted-printable soft break", body("softbreak"), []int{1}},
		{"quoted-printable, iso-8859-1", body("ÜBER"), []int{1}},
		{"base64 over a line end", body("äpfel und birnen"), []int{2}},
		{"part of a multipart", body("first part"), []int{3}},
		{"delimiters are no text", body("--b"), nil},
		{"binary parts are no text", body("binarypart"), nil},
		{"header of a message within", body("innersubject"), []int{3}},
		{"body of a message within", body("inner body"), []int{3}},
		{"koi8-r", body("привет"), []int{4}},
		{"unknown charset", body("still found"), []int{5}},
	})
}

func threads(f *fixture) {
	a := f.open(meg)
	in := a.box("INBOX").GetId()
	a.append(in,
		"Message-ID: <1@x>\r\n\r\nx", "Message-ID: <2@x>\r\nIn-Reply-To: <1@x>\r\n\r\nx",
		"Message-ID: <3@x>\r\nReferences: <0@x> <1@x>\r\n\r\nx", "Message-ID: <4@x>\r\n\r\nx")
	items := a.fetch(&v1.FetchRequest{MailboxId: in, Ids: true})
	for i := 1; i < 3; i++ {
		equal(f, fmt.Sprintf("thread of reply %d", i), items[i].GetThreadId(), items[0].GetThreadId())
	}
	if items[3].GetThreadId() == items[0].GetThreadId() {
		f.Errorf("a message that refers to nothing is in another's thread")
	}
	if items[0].GetMessageId() == items[1].GetMessageId() {
		f.Errorf("two messages have one message id")
	}
}
