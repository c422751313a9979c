// Package storagetest is the conformance suite that every storage must pass: a
// factory and a call of Run is a plugin's test file. It is not a benchmark and
// not a test of the disk: what survives a power cut needs a file system that
// forgets. Each case's name is what it asks; cases has them all, with the place
// in the contract and the remedy.
package storagetest

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/stagecoach-mta/stagecoach/sdk/conform"
	"github.com/stagecoach-mta/stagecoach/sdk/fail"
	"github.com/stagecoach-mta/stagecoach/sdk/mail"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
	"github.com/stagecoach-mta/stagecoach/sdk/storage"
)

// Options of a run.
type Options struct {
	// Reopen closes the storage and opens the same data again; the cases that
	// end in it check that what was answered is there still. Nil: they end
	// without.
	Reopen func(t conform.T, s storage.Storage) storage.Storage
	// OpenBackup opens the data that a Backup holds, copied to dir, as a storage of its
	// own, which it closes by t.Cleanup. Nil: what is in a backup is not looked at.
	OpenBackup func(t conform.T, dir string) storage.Storage
	// LargeBytes is the size of the largest message; 0: 50 MiB.
	LargeBytes int64
	// Prefix of the checks' names: "storage: ".
	Prefix string
	// Added: the storage must also have what the contract got after its first
	// version. Without it, it may ignore that as the contract's rules of versions
	// say; what it has of it, it has in full.
	Added bool
	// RequestKeys: the storage says that it keeps requests' keys.
	RequestKeys bool
}

// Run makes a check of every case, each on a storage of its own. open returns an
// empty storage and closes it by t.Cleanup. Under `go test`:
//
//	storagetest.Run(conform.Test(t), func(t conform.T) storage.Storage { … }, storagetest.Options{})
func Run(t conform.T, open func(t conform.T) storage.Storage, opts Options) {
	if opts.LargeBytes == 0 {
		opts.LargeBytes = 50 << 20
	}
	for _, c := range cases {
		t.Run(conform.Check{
			Name: opts.Prefix + c.name, Contract: "storage.proto, " + c.contract, Remedy: c.remedy,
			Do: func(t conform.T) { c.run(&fixture{T: t, s: open(t), opts: opts}) },
		})
	}
}

// fixture is one case's storage with helpers that fail the test.
type fixture struct {
	conform.T
	s    storage.Storage
	opts Options
	seq  int
}

const (
	meg = "meg@ryan.example"
	tom = "tom@hanks.example"
)

// reopen closes and opens the storage, where the plugin's test can.
func (f *fixture) reopen() {
	f.Helper()
	if f.opts.Reopen != nil {
		f.s = f.opts.Reopen(f.T, f.s)
	}
}

func (f *fixture) must(err error, doing string) {
	f.Helper()
	if err != nil {
		f.Fatalf("%s: %v (kind %v)", doing, err, fail.KindOf(err))
	}
}

func (f *fixture) kind(err error, want fail.Kind, doing string) {
	f.Helper()
	if err == nil {
		f.Errorf("%s: no error, want one of kind %v", doing, want)
	} else if got := fail.KindOf(err); got != want {
		f.Errorf("%s: error %q is of kind %v, want %v; storages return *fail.Error", doing, err, got, want)
	}
}

func (f *fixture) open(name string) *account {
	f.Helper()
	a, err := f.s.Open(f.Context(), name)
	f.must(err, "Open "+name)
	return &account{Account: a, f: f, name: name}
}

// account is an open account with helpers.
type account struct {
	storage.Account
	f    *fixture
	name string
}

func (a *account) list() []*v1.Mailbox {
	a.f.Helper()
	resp, err := a.List(a.f.Context(), &v1.ListMailboxesRequest{})
	a.f.must(err, "List")
	return resp.GetMailboxes()
}

func (a *account) box(name string) *v1.Mailbox {
	a.f.Helper()
	resp, err := a.List(a.f.Context(), &v1.ListMailboxesRequest{Name: name})
	a.f.must(err, "List by name")
	if len(resp.GetMailboxes()) != 1 {
		a.f.Fatalf("List(name %q) gave %d mailboxes, want 1", name, len(resp.GetMailboxes()))
	}
	return resp.GetMailboxes()[0]
}

func (a *account) hasBox(name string) bool {
	for _, m := range a.list() {
		if m.GetName() == name && !m.GetContainer() {
			return true
		}
	}
	return false
}

func (a *account) create(name string) *v1.Mailbox {
	a.f.Helper()
	m, err := a.Create(a.f.Context(), &v1.CreateMailboxRequest{Name: name})
	a.f.must(err, "Create "+name)
	return m
}

func (a *account) append(box string, messages ...string) []uint32 {
	a.f.Helper()
	req := &v1.AppendRequest{MailboxId: box}
	for _, m := range messages {
		req.Messages = append(req.Messages, &v1.AppendRequest_Message{Message: ref(m)})
	}
	resp, err := a.Append(a.f.Context(), req)
	a.f.must(err, "Append")
	if len(resp.GetUids()) != len(messages) {
		a.f.Fatalf("Append of %d messages answered with UIDs %v", len(messages), resp.GetUids())
	}
	return resp.GetUids()
}

func (a *account) snapshot(box string, since uint64, uids ...*v1.UIDRange) *v1.SnapshotResponse {
	a.f.Helper()
	resp, err := a.Snapshot(a.f.Context(), &v1.SnapshotRequest{MailboxId: box, SinceModseq: since, Uids: uids})
	a.f.must(err, "Snapshot")
	n := len(resp.GetUids())
	for name, l := range map[string]int{"flags": len(resp.GetFlags()), "modseqs": len(resp.GetModseqs()), "sizes": len(resp.GetSizes()), "received_ms": len(resp.GetReceivedMs())} {
		if l != n {
			a.f.Fatalf("Snapshot has %d UIDs but %d %s: the arrays are parallel", n, l, name)
		}
	}
	for i := 1; i < n; i++ {
		if resp.Uids[i-1] >= resp.Uids[i] {
			a.f.Fatalf("Snapshot's UIDs do not grow: %v", resp.Uids)
		}
	}
	return resp
}

func (a *account) flags(box string, op v1.SetFlagsRequest_Op, uid uint32, flags ...string) *v1.SetFlagsResponse {
	a.f.Helper()
	resp, err := a.SetFlags(a.f.Context(), &v1.SetFlagsRequest{MailboxId: box, Uids: uids(uid), Op: op, Flags: flags})
	a.f.must(err, "SetFlags")
	return resp
}

func (a *account) expunge(box string, list ...uint32) *v1.ExpungeResponse {
	a.f.Helper()
	resp, err := a.Expunge(a.f.Context(), &v1.ExpungeRequest{MailboxId: box, Uids: uids(list...), Force: true})
	a.f.must(err, "Expunge")
	return resp
}

// fetch returns the items; messages in files are read and put inline.
func (a *account) fetch(req *v1.FetchRequest) []*v1.FetchResponse_Item {
	a.f.Helper()
	var out []*v1.FetchResponse_Item
	err := a.Fetch(a.f.Context(), req, func(i *v1.FetchResponse_Item) error {
		if i.GetMessage() != nil {
			b, err := readRef(i.GetMessage())
			if err != nil {
				return err
			}
			i.Message = &v1.MessageRef{Size: i.GetMessage().GetSize(), Where: &v1.MessageRef_Inline{Inline: b}}
		}
		out = append(out, i)
		return nil
	})
	a.f.must(err, "Fetch")
	return out
}

func readRef(r *v1.MessageRef) ([]byte, error) {
	m, err := mail.FromRef(r).Open()
	if err != nil {
		return nil, fmt.Errorf("the file of a fetched message must be readable until item returns: %w", err)
	}
	defer m.Close()
	b, err := io.ReadAll(m)
	if err == nil && int64(len(b)) != r.GetSize() {
		err = fmt.Errorf("message reference says %d octets, there are %d", r.GetSize(), len(b))
	}
	return b, err
}

// message returns the bytes of one message.
func (a *account) message(box string, uid uint32) string {
	a.f.Helper()
	items := a.fetch(&v1.FetchRequest{MailboxId: box, Uids: uids(uid), Message: true})
	if len(items) != 1 || items[0].GetUid() != uid || items[0].GetMessage() == nil {
		a.f.Fatalf("Fetch of the message with UID %d gave %d items", uid, len(items))
	}
	return string(items[0].GetMessage().GetInline())
}

func (f *fixture) deposit(queueID string, message *v1.MessageRef, targets ...*v1.DepositRequest_Target) []*v1.DepositResponse_Result {
	f.Helper()
	resp, err := f.s.Deposit(f.Context(), &v1.DepositRequest{
		QueueId: queueID, Message: message, ReturnPath: tom, ReceivedMs: 1700000000000, Targets: targets,
	})
	f.must(err, "Deposit")
	if len(resp.GetResults()) != len(targets) {
		f.Fatalf("Deposit to %d targets gave %d results", len(targets), len(resp.GetResults()))
	}
	for i, r := range resp.GetResults() {
		if r.GetKey() != targets[i].GetKey() {
			f.Fatalf("result %d of Deposit has key %d, want %d: results stand in the order of the targets", i, r.GetKey(), targets[i].GetKey())
		}
	}
	return resp.GetResults()
}

func target(key int32, account string) *v1.DepositRequest_Target {
	return &v1.DepositRequest_Target{Key: key, Account: account, Recipient: account}
}

func ref(s string) *v1.MessageRef {
	return &v1.MessageRef{Size: int64(len(s)), Where: &v1.MessageRef_Inline{Inline: []byte(s)}}
}

// file writes a message of that size to a file of its own.
func (f *fixture) file(size int64) (*v1.MessageRef, string) {
	f.Helper()
	f.seq++
	path := filepath.Join(f.TempDir(), fmt.Sprintf("upload-%d.eml", f.seq))
	line := fmt.Sprintf("line of the large message number %d, 8-bit: \xe9\r\n", f.seq)
	text := "Subject: large\r\nContent-Type: text/plain; charset=iso-8859-1\r\n\r\n"
	text += strings.Repeat(line, int(size)/len(line)+1)
	text = text[:size-2] + "\r\n"
	f.must(os.WriteFile(path, []byte(text), 0o600), "write the test's file")
	return &v1.MessageRef{Size: size, Where: &v1.MessageRef_Path{Path: path}}, text
}

func uids(list ...uint32) []*v1.UIDRange {
	var out []*v1.UIDRange
	for _, u := range list {
		out = append(out, &v1.UIDRange{First: u, Last: u})
	}
	return out
}

// mailOf makes a small message.
func mailOf(subject, body string) string {
	return "From: Tom <tom@hanks.example>\r\nTo: meg@ryan.example\r\nSubject: " + subject +
		"\r\nDate: Thu, 15 Feb 2007 01:02:03 +0200\r\nMessage-ID: <" + strings.ReplaceAll(subject, " ", ".") + "@hanks.example>\r\n\r\n" + body + "\r\n"
}

func equal[T comparable](f *fixture, what string, got, want T) {
	f.Helper()
	if got != want {
		f.Errorf("%s is %v, want %v", what, got, want)
	}
}

func equalSlices[T comparable](f *fixture, what string, got []T, want ...T) {
	f.Helper()
	if fmt.Sprint(got) != fmt.Sprint(want) {
		f.Errorf("%s: got %v, want %v", what, got, want)
	}
}

func ranges(list []*v1.UIDRange) string {
	var s []string
	for _, r := range list {
		s = append(s, fmt.Sprintf("%d-%d", r.GetFirst(), r.GetLast()))
	}
	return strings.Join(s, " ")
}
