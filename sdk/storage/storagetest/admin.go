package storagetest

import (
	"context"
	"fmt"
	"os"
	"slices"

	"github.com/stagecoach-mta/stagecoach/sdk/fail"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
	"github.com/stagecoach-mta/stagecoach/sdk/storage"
)

// accountsListed: what an administrator asks is a storage's own to offer; one that
// does must tell every account that got mail, page by page.
func accountsListed(f *fixture) {
	list := func(req *v1.AccountsRequest) ([]string, error) {
		l, ok := f.s.(storage.AccountLister)
		if !ok {
			return nil, fail.New(fail.Unsupported, "it does not list accounts")
		}
		r, err := l.Accounts(f.Context(), req)
		return r.GetAccounts(), err
	}
	if _, err := list(&v1.AccountsRequest{}); fail.Is(err, fail.Unsupported) {
		return
	}
	want := []string{"Zoe@ryan.example", "joe+x@ryan.example", meg, "meg.r@ryan.example", tom}
	slices.Sort(want)
	for n, name := range want {
		f.deposit("list"+name, ref(mailOf("for "+name, "x")), target(int32(n), name))
	}
	f.reopen()
	for _, limit := range []int32{0, 1, 2} {
		var got []string
		for after := ""; len(got) <= len(want); after = got[len(got)-1] {
			page, err := list(&v1.AccountsRequest{After: after, Limit: limit})
			f.must(err, "Accounts")
			if len(page) == 0 {
				break
			}
			if limit > 0 && len(page) > int(limit) {
				f.Errorf("Accounts with the limit %d gave %d names", limit, len(page))
			}
			got = append(got, page...)
		}
		equalSlices(f, "the accounts that got mail", got, want...)
	}
}

// checkFindsNothing in a storage that nobody damaged.
func checkFindsNothing(f *fixture) {
	check := func(req *v1.CheckRequest) (found []*v1.CheckResponse_Finding, err error) {
		c, ok := f.s.(storage.Checker)
		if !ok {
			return nil, fail.New(fail.Unsupported, "it has no check")
		}
		r, err := c.Check(f.Context(), req, func(p *v1.CheckResponse) error {
			found = append(found, p.GetFindings()...)
			return nil
		})
		return append(found, r.GetFindings()...), err
	}
	if _, err := check(&v1.CheckRequest{}); fail.Is(err, fail.Unsupported) {
		return
	}
	f.busy()
	for _, req := range []*v1.CheckRequest{{}, {Account: meg}, {Repair: true}, {}} {
		found, err := check(req)
		f.must(err, "Check")
		for _, x := range found {
			f.Errorf("Check(account %q, repair %v) of a storage that is whole found: %s %s: %s", req.GetAccount(), req.GetRepair(), x.GetWhat(), x.GetWhere(), x.GetText())
		}
	}
	_, err := check(&v1.CheckRequest{Account: "nobody@ryan.example"})
	f.kind(err, fail.NotFound, "Check of an account that there is not")
}

// busy leaves mail that was stored, flagged, moved and removed.
func (f *fixture) busy() {
	f.Helper()
	f.deposit("busy", ref(mailOf("for both", "x")), target(0, meg), target(1, tom))
	a := f.open(meg)
	in, folder := a.box("INBOX").GetId(), a.create("Letters/Tom").GetId()
	list := a.append(in, mailOf("one", "x"), mailOf("two", "x"), mailOf("three", "x"))
	large, _ := f.file(100_000)
	_, err := a.Append(f.Context(), &v1.AppendRequest{MailboxId: folder, Messages: []*v1.AppendRequest_Message{{Message: large}}})
	f.must(err, "Append of a file")
	a.flags(in, v1.SetFlagsRequest_ADD, list[0], `\Seen`, "$Work")
	_, err = a.Copy(f.Context(), &v1.CopyRequest{MailboxId: in, Uids: uids(list[1]), TargetMailboxId: folder, Move: true})
	f.must(err, "move")
	a.expunge(in, list[2])
}

// backupIsTheStorage: what a backup holds is what was there, and stays so.
func backupIsTheStorage(f *fixture) {
	backup := func(ctx context.Context, remove bool) (string, error) {
		b, ok := f.s.(storage.Backuper)
		if !ok {
			return "", fail.New(fail.Unsupported, "it makes no backup")
		}
		r, err := b.Backup(ctx, &v1.BackupRequest{Remove: remove})
		return r.GetPath(), err
	}
	f.busy()
	path, err := backup(f.Context(), false)
	if fail.Is(err, fail.Unsupported) {
		return
	}
	f.must(err, "Backup")
	if fi, err := os.Stat(path); err != nil || !fi.IsDir() {
		f.Errorf("Backup answered with %q, which is no directory (%v)", path, err)
		return
	}
	want := f.columns()
	copied := f.TempDir()
	f.must(os.CopyFS(copied, os.DirFS(path)), "copy of the backup")
	f.open(meg).append(f.open(meg).box("INBOX").GetId(), mailOf("later", "x"))
	path, err = backup(f.Context(), true)
	f.must(err, "Backup, remove")
	equal(f, "the path after the removal", path, "")
	if f.opts.OpenBackup == nil {
		return
	}
	f.s = f.opts.OpenBackup(f.T, copied)
	equalSlices(f, "what the backup holds", f.columns(), want...)
}

// columns of Meg's messages, by mailbox.
func (f *fixture) columns() (lines []string) {
	f.Helper()
	a := f.open(meg)
	for _, m := range a.list() {
		if m.GetContainer() {
			continue
		}
		s := a.snapshot(m.GetId(), 0)
		for n, uid := range s.GetUids() {
			lines = append(lines, fmt.Sprint(m.GetName(), " ", m.GetUidValidity(), " ", uid, " ", s.GetFlags()[n], " ", s.GetReceivedMs()[n], " ", a.message(m.GetId(), uid)))
		}
	}
	return lines
}
