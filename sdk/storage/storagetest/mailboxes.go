package storagetest

import (
	"fmt"
	"strings"

	"github.com/stagecoach-mta/stagecoach/sdk/fail"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

func newAccount(f *fixture) {
	f.open(meg)
	f.reopen()
	a := f.open(meg)
	roles := map[string]string{}
	for _, m := range a.list() {
		roles[m.GetRole()] = m.GetName()
		if m.GetId() == "" || m.GetUidValidity() == 0 || m.GetUidNext() == 0 || m.GetHighestModseq() == 0 {
			f.Errorf("mailbox %q lacks id, uid_validity, uid_next or highest_modseq: %v", m.GetName(), m)
		}
	}
	for _, role := range []string{"inbox", "drafts", "sent", "trash", "junk", "archive"} {
		if roles[role] == "" {
			f.Errorf("no mailbox has the role %q", role)
		}
	}
	equal(f, "the inbox", roles["inbox"], "INBOX")
}

func createList(f *fixture) {
	a := f.open(meg)
	before, err := a.List(f.Context(), &v1.ListMailboxesRequest{})
	f.must(err, "List")
	m := a.create("Projects/Größe/日本")
	equal(f, "name", m.GetName(), "Projects/Größe/日本")
	_, err = a.Create(f.Context(), &v1.CreateMailboxRequest{Name: "Projects/Größe/日本"})
	f.kind(err, fail.Exists, "Create of a name that is there")
	// NFD of the same name is the same name.
	_, err = a.Create(f.Context(), &v1.CreateMailboxRequest{Name: "Projects/Gro\u0308ße/日本"})
	f.kind(err, fail.Exists, "Create of the same name in another Unicode normal form")
	f.reopen()
	a = f.open(meg)
	for _, name := range []string{"Projects", "Projects/Größe"} {
		if m := a.box(name); m.GetName() != name {
			f.Errorf("the parent %q did not come into being", name)
		}
	}
	after, err := a.List(f.Context(), &v1.ListMailboxesRequest{})
	f.must(err, "List")
	if after.GetModseq() <= before.GetModseq() {
		f.Errorf("MODSEQ %d after Create, %d before: every change gets the next one", after.GetModseq(), before.GetModseq())
	}
	byID, err := a.List(f.Context(), &v1.ListMailboxesRequest{Id: m.GetId()})
	f.must(err, "List by id")
	if len(byID.GetMailboxes()) != 1 || byID.GetMailboxes()[0].GetName() != m.GetName() {
		f.Errorf("List by id gave %v", byID.GetMailboxes())
	}
	no, yes := false, true
	for _, want := range []*bool{&no, &yes} {
		u, err := a.Update(f.Context(), &v1.UpdateMailboxRequest{Id: m.GetId(), Subscribed: want})
		f.must(err, "Update subscribed")
		equal(f, "subscribed", u.GetSubscribed(), *want)
		equal(f, "subscribed in List", a.box(m.GetName()).GetSubscribed(), *want)
	}
}

func badNames(f *fixture) {
	a := f.open(meg)
	for _, name := range []string{"", "/", "a/", "/a", "a//b", "a\x00b", "a\nb", "bad \xff utf8", strings.Repeat("x", 5000)} {
		_, err := a.Create(f.Context(), &v1.CreateMailboxRequest{Name: name})
		f.kind(err, fail.Invalid, fmt.Sprintf("Create(%.20q)", name))
	}
	_, err := a.Create(f.Context(), &v1.CreateMailboxRequest{Name: "x", Role: "king"})
	f.kind(err, fail.Invalid, "Create with an unknown role")
	// Names that only look dangerous.
	for _, name := range []string{"..", ".", "a.b", "../up", "&-", "~", "%2F", `back\slash`, " space ", "new", "cur", "tmp"} {
		m := a.create(name)
		a.append(m.GetId(), mailOf(name, "x"))
	}
	f.reopen()
	a = f.open(meg)
	for _, name := range []string{"..", ".", "a.b", "../up", "&-", "~", "%2F", `back\slash`, " space ", "new", "cur", "tmp"} {
		if m := a.box(name); m.GetMessages() != 1 {
			f.Errorf("mailbox %q has %d messages after reopening, want 1", name, m.GetMessages())
		}
	}
}

func inboxCase(f *fixture) {
	a := f.open(meg)
	_, err := a.Create(f.Context(), &v1.CreateMailboxRequest{Name: "inBox"})
	f.kind(err, fail.Exists, "Create of inBox (INBOX is without case)")
	equal(f, "INBOX by another case", a.box("inbox").GetName(), "INBOX")
	equal(f, "name of a child", a.create("Inbox/child").GetName(), "INBOX/child")
}

func renameChildren(f *fixture) {
	a := f.open(meg)
	for _, n := range []string{"a", "a/b", "a/b/c", "ab"} {
		a.append(a.create(n).GetId(), mailOf(n, "x"))
	}
	m := a.box("a")
	_, err := a.Rename(f.Context(), &v1.RenameMailboxRequest{Id: m.GetId(), Name: "ab"})
	f.kind(err, fail.Exists, "Rename to a name that is there")
	_, err = a.Rename(f.Context(), &v1.RenameMailboxRequest{Id: m.GetId(), Name: "a/b/x"})
	f.kind(err, fail.Invalid, "Rename below itself")
	child := a.box("a/b/c")
	got, err := a.Rename(f.Context(), &v1.RenameMailboxRequest{Id: m.GetId(), Name: "deep/z"})
	f.must(err, "Rename")
	equal(f, "id after Rename", got.GetId(), m.GetId())
	equal(f, "name after Rename", got.GetName(), "deep/z")
	f.reopen()
	a = f.open(meg)
	for _, n := range []string{"deep", "deep/z", "deep/z/b", "deep/z/b/c", "ab"} {
		if !a.hasBox(n) {
			f.Errorf("after Rename of a to deep/z there is no %q", n)
		}
	}
	for _, n := range []string{"a", "a/b", "a/b/c"} {
		if a.hasBox(n) {
			f.Errorf("after Rename of a to deep/z there is %q still", n)
		}
	}
	moved := a.box("deep/z/b/c")
	equal(f, "id of the child", moved.GetId(), child.GetId())
	equal(f, "UIDVALIDITY of the child", moved.GetUidValidity(), child.GetUidValidity())
	equal(f, "messages of the child", moved.GetMessages(), 1)
	a.message(moved.GetId(), 1)
	a.create("a")
}

// renameOnto: a name may be free and its children's not, where only they were left
// when it was deleted.
func renameOnto(f *fixture) {
	a := f.open(meg)
	ids := map[string]string{}
	for _, n := range []string{"a", "a/x", "b", "b/x", "b/y"} {
		m := a.create(n)
		a.append(m.GetId(), mailOf(n, "x"))
		ids[n] = m.GetId()
	}
	remove := func(name string) {
		f.Helper()
		_, err := a.Delete(f.Context(), &v1.DeleteMailboxRequest{Id: ids[name]})
		f.must(err, "Delete "+name)
		delete(ids, name)
	}
	// In any order, as a storage's list may have one.
	same := func(when string) {
		f.Helper()
		for n, id := range ids {
			if !a.hasBox(n) {
				f.Errorf("%s there is no %q", when, n)
			} else if m := a.box(n); m.GetId() != id || m.GetMessages() != 1 {
				f.Errorf("%s %q has the id %q and %d messages, want %q and 1", when, n, m.GetId(), m.GetMessages(), id)
			}
		}
	}
	remove("b")
	_, err := a.Rename(f.Context(), &v1.RenameMailboxRequest{Id: ids["a"], Name: "b"})
	f.kind(err, fail.Exists, "Rename of a to b, with a child of a name that is there below b")
	f.reopen()
	a = f.open(meg)
	same("after a Rename that was refused")
	remove("b/x")
	got, err := a.Rename(f.Context(), &v1.RenameMailboxRequest{Id: ids["a"], Name: "b"})
	f.must(err, "Rename of a to b, which has children and is no mailbox")
	equal(f, "name after Rename", got.GetName(), "b")
	ids = map[string]string{"b": ids["a"], "b/x": ids["a/x"], "b/y": ids["b/y"]}
	f.reopen()
	a = f.open(meg)
	same("after Rename of a to b")
	longNames(f, a)
}

// longNames: what Create would refuse, Rename does not make of a child. How long a
// name may be is the storage's.
func longNames(f *fixture, a *account) {
	f.Helper()
	top := a.create("l")
	for _, n := range []int{600, 150} {
		child, err := a.Create(f.Context(), &v1.CreateMailboxRequest{Name: "l/" + strings.Repeat("x", n)})
		if err != nil {
			continue
		}
		want := child.GetName()
		to := strings.Repeat("y", n)
		if _, err = a.Rename(f.Context(), &v1.RenameMailboxRequest{Id: top.GetId(), Name: to}); err == nil {
			want = to + want[len("l"):]
		} else {
			f.kind(err, fail.Invalid, "Rename that makes a child's name too long")
		}
		list, err := a.List(f.Context(), &v1.ListMailboxesRequest{Id: child.GetId()})
		f.must(err, "List")
		if len(list.GetMailboxes()) != 1 {
			f.Fatalf("after Rename of its parent List has %d mailboxes of the child's id", len(list.GetMailboxes()))
		}
		if name := list.GetMailboxes()[0].GetName(); name != want {
			f.Errorf("a child is named %.10q…, %d octets, and its parent's Rename says %.10q…, %d octets", name, len(name), want, len(want))
		}
		_, err = a.Create(f.Context(), &v1.CreateMailboxRequest{Name: want})
		f.kind(err, fail.Exists, fmt.Sprintf("Create of a name of %d octets that a child has", len(want)))
		return
	}
}

func renameInbox(f *fixture) {
	a := f.open(meg)
	in := a.box("INBOX")
	list := a.append(in.GetId(), mailOf("1", "x"), mailOf("2", "x"))
	a.create("INBOX/sub")
	to, err := a.Rename(f.Context(), &v1.RenameMailboxRequest{Id: in.GetId(), Name: "Old"})
	f.must(err, "Rename INBOX")
	equal(f, "messages moved", to.GetMessages(), 2)
	if to.GetId() == in.GetId() {
		f.Errorf("INBOX's messages go to a mailbox of its own; INBOX keeps its id")
	}
	f.reopen()
	a = f.open(meg)
	equal(f, "messages left in INBOX", a.box("INBOX").GetMessages(), 0)
	if !a.hasBox("INBOX/sub") {
		f.Errorf("INBOX's children stay (RFC 9051 section 6.3.6)")
	}
	equal(f, "vanished from INBOX", ranges(a.snapshot(in.GetId(), in.GetHighestModseq()).GetVanished()), fmt.Sprintf("%d-%d", list[0], list[1]))
}

func deleteMailbox(f *fixture) {
	a := f.open(meg)
	_, err := a.Delete(f.Context(), &v1.DeleteMailboxRequest{Id: a.box("INBOX").GetId()})
	f.kind(err, fail.Invalid, "Delete of INBOX")
	parent := a.create("p")
	a.append(a.create("p/c").GetId(), mailOf("kept", "x"))
	a.append(parent.GetId(), mailOf("gone", "x"))
	before, _ := a.Quota(f.Context())
	resp, err := a.Delete(f.Context(), &v1.DeleteMailboxRequest{Id: parent.GetId()})
	f.must(err, "Delete")
	if resp.GetModseq() == 0 {
		f.Errorf("Delete answered with MODSEQ 0")
	}
	f.reopen()
	a = f.open(meg)
	_, err = a.Snapshot(f.Context(), &v1.SnapshotRequest{MailboxId: parent.GetId()})
	f.kind(err, fail.NotFound, "Snapshot of a deleted mailbox")
	equal(f, "messages of the child", a.box("p/c").GetMessages(), 1)
	equal(f, "container p", a.box("p").GetContainer(), true)
	after, _ := a.Quota(f.Context())
	equal(f, "messages used", after.GetUsedMessages(), before.GetUsedMessages()-1)
	again := a.create("p")
	if again.GetId() == parent.GetId() {
		f.Errorf("mailbox id %q was used again", again.GetId())
	}
	if again.GetUidValidity() <= parent.GetUidValidity() {
		f.Errorf("UIDVALIDITY of the new mailbox of that name is %d, was %d: it must grow (RFC 9051 section 2.3.1.1)", again.GetUidValidity(), parent.GetUidValidity())
	}
}

func roles(f *fixture) {
	a := f.open(meg)
	_, err := a.Create(f.Context(), &v1.CreateMailboxRequest{Name: "Sent too", Role: "sent"})
	f.kind(err, fail.Exists, "Create with a role that another mailbox has")
	m, err := a.Create(f.Context(), &v1.CreateMailboxRequest{Name: "Everything", Role: "all"})
	f.must(err, "Create with a role")
	equal(f, "role", m.GetRole(), "all")
	none, flagged := "", "flagged"
	_, err = a.Update(f.Context(), &v1.UpdateMailboxRequest{Id: m.GetId(), Role: &none})
	f.must(err, "Update role")
	_, err = a.Update(f.Context(), &v1.UpdateMailboxRequest{Id: m.GetId(), Role: &flagged})
	f.must(err, "Update role")
	f.reopen()
	equal(f, "role after reopening", f.open(meg).box("Everything").GetRole(), "flagged")
}

func unknownIDs(f *fixture) {
	a := f.open(meg)
	ctx := f.Context()
	for _, id := range []string{"", "nonsense", "F999999", "../x"} {
		_, err := a.Snapshot(ctx, &v1.SnapshotRequest{MailboxId: id})
		f.kind(err, fail.NotFound, "Snapshot of "+id)
		err = a.Fetch(ctx, &v1.FetchRequest{MailboxId: id}, func(*v1.FetchResponse_Item) error { return nil })
		f.kind(err, fail.NotFound, "Fetch of "+id)
		_, err = a.Append(ctx, &v1.AppendRequest{MailboxId: id, Messages: []*v1.AppendRequest_Message{{Message: ref("\r\n")}}})
		f.kind(err, fail.NotFound, "Append to "+id)
		_, err = a.SetFlags(ctx, &v1.SetFlagsRequest{MailboxId: id})
		f.kind(err, fail.NotFound, "SetFlags in "+id)
		_, err = a.Expunge(ctx, &v1.ExpungeRequest{MailboxId: id})
		f.kind(err, fail.NotFound, "Expunge in "+id)
		_, err = a.Search(ctx, &v1.SearchRequest{MailboxId: id})
		f.kind(err, fail.NotFound, "Search in "+id)
		_, err = a.Copy(ctx, &v1.CopyRequest{MailboxId: a.box("INBOX").GetId(), TargetMailboxId: id})
		f.kind(err, fail.NotFound, "Copy to "+id)
		_, err = a.Rename(ctx, &v1.RenameMailboxRequest{Id: id, Name: "x"})
		f.kind(err, fail.NotFound, "Rename of "+id)
		_, err = a.Delete(ctx, &v1.DeleteMailboxRequest{Id: id})
		f.kind(err, fail.NotFound, "Delete of "+id)
		_, err = a.Update(ctx, &v1.UpdateMailboxRequest{Id: id})
		f.kind(err, fail.NotFound, "Update of "+id)
	}
}
