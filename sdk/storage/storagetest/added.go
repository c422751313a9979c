package storagetest

import (
	"fmt"
	"strings"
	"time"

	"github.com/stagecoach-mta/stagecoach/sdk/fail"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// The cases of what the contract got after its first version. A storage may ignore
// such a field, as if there were none, unless Options.Added says otherwise; what it
// has, it has in full.

// ignores ends a case about something added, for a storage that does not know it.
func (f *fixture) ignores(field string) {
	f.Helper()
	if f.opts.Added {
		f.Errorf("%s is ignored", field)
	}
}

func createUnsubscribed(f *fixture) {
	a := f.open(meg)
	m, err := a.Create(f.Context(), &v1.CreateMailboxRequest{Name: "quiet/child", Unsubscribed: true})
	f.must(err, "Create, unsubscribed")
	if m.GetSubscribed() {
		f.ignores("CreateMailboxRequest.unsubscribed")
		return
	}
	a.create("loud")
	f.reopen()
	a = f.open(meg)
	for name, want := range map[string]bool{"quiet": false, "quiet/child": false, "loud": true, "INBOX": true} {
		equal(f, "subscription of "+name, a.box(name).GetSubscribed(), want)
	}
}

func keepSubscription(f *fixture) {
	a := f.open(meg)
	kept := func(when string, want ...string) bool {
		f.Helper()
		resp, err := a.List(f.Context(), &v1.ListMailboxesRequest{})
		f.must(err, "List")
		equalSlices(f, "kept_subscriptions "+when, resp.GetKeptSubscriptions(), want...)
		return len(resp.GetKeptSubscriptions()) > 0
	}
	remove := func(name string, keep bool) {
		f.Helper()
		_, err := a.Delete(f.Context(), &v1.DeleteMailboxRequest{Id: a.box(name).GetId(), KeepSubscription: keep})
		f.must(err, "Delete "+name)
	}
	a.create("b")
	remove("b", true)
	resp, err := a.List(f.Context(), &v1.ListMailboxesRequest{})
	f.must(err, "List")
	if len(resp.GetKeptSubscriptions()) == 0 {
		f.ignores("DeleteMailboxRequest.keep_subscription")
		return
	}
	for _, name := range []string{"a", "quiet", "gone", "renamed"} {
		a.create(name)
	}
	no := false
	_, err = a.Update(f.Context(), &v1.UpdateMailboxRequest{Name: "quiet", Subscribed: &no})
	f.must(err, "Update by name")
	equal(f, "subscription after Update by name", a.box("quiet").GetSubscribed(), false)
	remove("a", true)
	remove("quiet", true)
	remove("gone", false)
	f.reopen()
	a = f.open(meg)
	kept("after the mailboxes went", "a", "b")
	if a.hasBox("a") {
		f.Errorf("a mailbox is there still, for its subscription")
	}
	one, err := a.List(f.Context(), &v1.ListMailboxesRequest{Name: "b"})
	f.must(err, "List by name")
	equalSlices(f, "kept_subscriptions of one name", one.GetKeptSubscriptions(), "b")
	m, err := a.Create(f.Context(), &v1.CreateMailboxRequest{Name: "b", Unsubscribed: true})
	f.must(err, "Create of a name whose subscription was kept")
	equal(f, "subscription that waited for the mailbox", m.GetSubscribed(), true)
	_, err = a.Update(f.Context(), &v1.UpdateMailboxRequest{Name: "renamed", Subscribed: &no})
	f.must(err, "Update by name")
	m, err = a.Rename(f.Context(), &v1.RenameMailboxRequest{Id: a.box("renamed").GetId(), Name: "a"})
	f.must(err, "Rename to a name whose subscription was kept")
	equal(f, "subscription that waited for the name", m.GetSubscribed(), true)
	kept("when there are mailboxes again")
	remove("a", true)
	m, err = a.Update(f.Context(), &v1.UpdateMailboxRequest{Name: "a", Subscribed: &no})
	f.must(err, "Update of a name whose subscription was kept")
	equal(f, "name answered", m.GetName(), "a")
	f.reopen()
	a = f.open(meg)
	kept("after the subscription was ended")
	_, err = a.Update(f.Context(), &v1.UpdateMailboxRequest{Name: "nowhere", Subscribed: &no})
	f.kind(err, fail.NotFound, "Update of a name that neither a mailbox nor a subscription has")
}

func appendReplaces(f *fixture) {
	a := f.open(meg)
	in, drafts := a.box("INBOX").GetId(), a.box("Drafts").GetId()
	old := a.append(drafts, mailOf("first", strings.Repeat("x", 500)))[0]
	a.append(drafts, mailOf("other", "x"))
	since := a.snapshot(drafts, 0).GetModseq()
	req := func(mailbox string, uid uint32, messages ...string) *v1.AppendRequest {
		r := &v1.AppendRequest{MailboxId: in, Replaces: &v1.AppendRequest_Replaced{MailboxId: mailbox, Uid: uid}}
		for _, m := range messages {
			r.Messages = append(r.Messages, &v1.AppendRequest_Message{Message: ref(m)})
		}
		return r
	}
	used, err := a.Quota(f.Context())
	f.must(err, "Quota")
	second := req(drafts, old, mailOf("second", strings.Repeat("y", 500)))
	second.QuotaBytes = used.GetUsedBytes() + 100
	resp, err := a.Append(f.Context(), second)
	if fail.Is(err, fail.OverQuota) {
		f.ignores("AppendRequest.replaces, or the room that the replaced message leaves,")
		return
	}
	f.must(err, "Append that replaces")
	if !resp.GetReplaced() {
		f.ignores("AppendRequest.replaces")
		equal(f, "messages that a storage has that ignores replaces", a.box("Drafts").GetMessages(), 2)
		return
	}
	f.reopen()
	a = f.open(meg)
	equal(f, "messages after one was replaced", a.box("Drafts").GetMessages(), 1)
	equal(f, "messages where the new one is", a.box("INBOX").GetMessages(), 1)
	equal(f, "vanished", ranges(a.snapshot(drafts, since).GetVanished()), fmt.Sprintf("%d-%d", old, old))
	equal(f, "MODSEQ of both changes", a.box("Drafts").GetHighestModseq(), a.box("INBOX").GetHighestModseq())
	_, err = a.Append(f.Context(), req(drafts, old, mailOf("third", "x")))
	f.kind(err, fail.NotFound, "Append that replaces what is gone")
	_, err = a.Append(f.Context(), req("nonsense", 1, mailOf("third", "x")))
	f.kind(err, fail.NotFound, "Append that replaces something in no mailbox")
	_, err = a.Append(f.Context(), req(in, resp.GetUids()[0], mailOf("third", "x"), mailOf("fourth", "x")))
	f.kind(err, fail.Invalid, "Append of two that replace one")
	equal(f, "messages after refusals", a.box("INBOX").GetMessages(), 1)
	// In one mailbox.
	resp, err = a.Append(f.Context(), req(in, resp.GetUids()[0], mailOf("fifth", "x")))
	f.must(err, "Append that replaces in the same mailbox")
	equalSlices(f, "UIDs", a.snapshot(in, 0).GetUids(), resp.GetUids()...)
}

func searchSentDay(f *fixture) {
	a := f.open(meg)
	in := a.box("INBOX").GetId()
	date := func(s string) string { return "Date: " + s + "\r\nSubject: x\r\n\r\nx\r\n" }
	list := a.append(in,
		date("Thu, 15 Feb 2007 01:02:03 +0200"), // the 14th in UTC
		date("Thu, 15 Feb 2007 23:59:59 -1100"), // the 16th in UTC
		date("Fri, 16 Feb 2007 00:00:00 +0000"),
		"Subject: no date\r\n\r\nx\r\n",
	)
	day := func(from, to int) *v1.Criterion {
		r := &v1.TimeRange{}
		if from > 0 {
			r.FromMs = time.Date(2007, time.February, from, 0, 0, 0, 0, time.UTC).UnixMilli()
		}
		if to > 0 {
			r.ToMs = time.Date(2007, time.February, to, 0, 0, 0, 0, time.UTC).UnixMilli()
		}
		return &v1.Criterion{Test: &v1.Criterion_SentDay{SentDay: r}}
	}
	_, err := a.Search(f.Context(), &v1.SearchRequest{MailboxId: in, Criterion: day(15, 16)})
	if fail.Is(err, fail.Invalid) || fail.Is(err, fail.Unsupported) {
		f.ignores("Criterion.sent_day")
		return
	}
	a.queries(in, list, []query{
		{"by the 15th", day(15, 16), []int{0, 1}},
		{"before the 15th", day(0, 15), nil},
		{"since the 16th", day(16, 0), []int{2}},
		{"not by any day", not(day(0, 0)), []int{3}},
	})
}

func searchAddresses(f *fixture) {
	a := f.open(meg)
	in := a.box("INBOX").GetId()
	list := a.append(in,
		"From: Meg <meg (at home)@ (the shop) ryan.example>\r\nSubject: <a (b)@c>\r\n\r\nx\r\n",
		"From: meg@ryan.example\r\nTo: =?utf-8?q?Fr=C3=BCher?= friends: tom@\r\n hanks.example;\r\n\r\nx\r\n",
	)
	resp, err := a.Search(f.Context(), &v1.SearchRequest{MailboxId: in, Criterion: header("from", "meg@ryan.example")})
	f.must(err, "Search")
	if len(resp.GetUids()) == 1 {
		f.ignores("an address with comments in it")
		return
	}
	a.queries(in, list, []query{
		{"address, with comments or without", header("From", "MEG@ryan.example"), []int{0, 1}},
		{"a comment", header("from", "the shop"), []int{0}},
		{"folded address in a group", header("to", "tom@hanks.example"), []int{1}},
		{"name of a group", header("to", "früher friends"), []int{1}},
		{"no address field", header("subject", "a@c"), nil},
	})
}

func fetchRoute(f *fixture) {
	a := f.open(meg)
	in := a.box("INBOX").GetId()
	a.append(in, "From: Tom <@a.example, @b.example:tom@hanks.example>\r\n\r\nx\r\n")
	from := a.fetch(&v1.FetchRequest{MailboxId: in, Summary: true})[0].GetSummary().GetFrom()
	if len(from) != 1 || string(from[0].GetLocalPart()) != "tom" || string(from[0].GetDomain()) != "hanks.example" {
		f.Fatalf("from is %v: a route is no part of the address", from)
	}
	if len(from[0].GetRoute()) == 0 {
		f.ignores("MailAddress.route")
		return
	}
	equal(f, "route", string(from[0].GetRoute()), "@a.example,@b.example")
}
