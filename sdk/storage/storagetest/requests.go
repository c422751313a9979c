package storagetest

import (
	"context"

	"google.golang.org/protobuf/proto"

	"github.com/stagecoach-mta/stagecoach/sdk/fail"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
	"github.com/stagecoach-mta/stagecoach/sdk/storage"
)

// repeated is a request that is made twice under one key.
type repeated struct {
	name string
	do   func(ctx context.Context, a *account) (proto.Message, error)
}

// requestKeys makes requests, opens the data again, and repeats them.
func requestKeys(f *fixture) {
	a := f.open(meg)
	in, archive := a.box("INBOX").GetId(), a.create("copies").GetId()
	list := a.append(in, mailOf("copied", "x"), mailOf("moved", "x"), mailOf("flagged", "x"), mailOf("gone", "x"))
	doomed, renamed := a.create("doomed").GetId(), a.create("before").GetId()
	since := a.snapshot(in, 0).GetModseq()
	requests := []repeated{
		{"Append", func(ctx context.Context, a *account) (proto.Message, error) {
			return a.Append(ctx, &v1.AppendRequest{MailboxId: in, Messages: []*v1.AppendRequest_Message{
				{Message: ref(mailOf("first", "x")), Flags: []string{"$Work"}},
			}})
		}},
		{"Copy", func(ctx context.Context, a *account) (proto.Message, error) {
			return a.Copy(ctx, &v1.CopyRequest{MailboxId: in, Uids: uids(list[0]), TargetMailboxId: archive})
		}},
		{"Copy that moves", func(ctx context.Context, a *account) (proto.Message, error) {
			return a.Copy(ctx, &v1.CopyRequest{MailboxId: in, Uids: uids(list[1]), TargetMailboxId: archive, Move: true})
		}},
		{"SetFlags on a condition", func(ctx context.Context, a *account) (proto.Message, error) {
			return a.SetFlags(ctx, &v1.SetFlagsRequest{MailboxId: in, Uids: uids(list[2]), Flags: []string{`\Seen`}, UnchangedSince: since})
		}},
		{"Expunge", func(ctx context.Context, a *account) (proto.Message, error) {
			return a.Expunge(ctx, &v1.ExpungeRequest{MailboxId: in, Uids: uids(list[3]), Force: true})
		}},
		{"Create", func(ctx context.Context, a *account) (proto.Message, error) {
			return a.Create(ctx, &v1.CreateMailboxRequest{Name: "new"})
		}},
		{"Rename", func(ctx context.Context, a *account) (proto.Message, error) {
			return a.Rename(ctx, &v1.RenameMailboxRequest{Id: renamed, Name: "after"})
		}},
		{"Delete", func(ctx context.Context, a *account) (proto.Message, error) {
			return a.Delete(ctx, &v1.DeleteMailboxRequest{Id: doomed})
		}},
	}
	ask := func(r repeated, key string) proto.Message {
		f.Helper()
		m, err := r.do(storage.WithRequestKey(f.Context(), key), a)
		f.must(err, r.name+" with a key")
		return proto.Clone(m)
	}
	first := []proto.Message{ask(requests[0], "key 0")}
	if !proto.Equal(first[0], ask(requests[0], "key 0")) {
		if f.opts.RequestKeys || f.opts.Added {
			f.Errorf("an Append is carried out again under its key")
		}
		return
	}
	for i, r := range requests[1:] {
		first = append(first, ask(r, "key "+string(rune('1'+i))))
	}
	after := a.snapshot(in, 0).GetModseq()
	f.reopen()
	a = f.open(meg)
	for i, r := range requests {
		m, err := r.do(storage.WithRequestKey(f.Context(), "key "+string(rune('0'+i))), a)
		if err != nil {
			f.Errorf("%s under the same key: %v", r.name, err)
		} else if !proto.Equal(m, first[i]) {
			f.Errorf("%s was answered with %v, and under the same key with %v", r.name, first[i], m)
		}
	}
	equal(f, "messages after all was repeated", a.box("INBOX").GetMessages(), 3)
	equal(f, "messages that were copied", a.box("copies").GetMessages(), 2)
	equal(f, "MODSEQ after all was repeated", a.snapshot(in, 0).GetModseq(), after)
	ask(requests[0], "another key")
	equal(f, "messages after an Append with another key", a.box("INBOX").GetMessages(), 4)
	_, err := requests[1].do(storage.WithRequestKey(f.Context(), "key 0"), a)
	f.kind(err, fail.Invalid, "Copy under the key of an Append")
	// Another account's key is another key.
	b := f.open(tom)
	_, err = b.Append(storage.WithRequestKey(f.Context(), "key 0"), &v1.AppendRequest{
		MailboxId: b.box("INBOX").GetId(), Messages: []*v1.AppendRequest_Message{{Message: ref(mailOf("first", "x"))}},
	})
	f.must(err, "Append in another account")
	equal(f, "messages in another account", b.box("INBOX").GetMessages(), 1)
}
