package storagetest_test

import (
	"context"

	"google.golang.org/protobuf/proto"

	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
	"github.com/stagecoach-mta/stagecoach/sdk/storage"
)

// hook stands in the place of a method: it gets the whole account and a request
// that it may change.
type hook[Q, R any] func(ctx context.Context, a storage.Account, req Q) (R, error)

// tampering is what is changed about a storage; what is nil is left as it is.
type tampering struct {
	// name of an account as the storage takes it.
	name    func(string) string
	deposit func(ctx context.Context, s storage.Storage, req *v1.DepositRequest) (*v1.DepositResponse, error)

	list           hook[*v1.ListMailboxesRequest, *v1.ListMailboxesResponse]
	create         hook[*v1.CreateMailboxRequest, *v1.Mailbox]
	rename         hook[*v1.RenameMailboxRequest, *v1.Mailbox]
	delete         hook[*v1.DeleteMailboxRequest, *v1.DeleteMailboxResponse]
	update         hook[*v1.UpdateMailboxRequest, *v1.Mailbox]
	snapshot       hook[*v1.SnapshotRequest, *v1.SnapshotResponse]
	append         hook[*v1.AppendRequest, *v1.AppendResponse]
	setFlags       hook[*v1.SetFlagsRequest, *v1.SetFlagsResponse]
	copy           hook[*v1.CopyRequest, *v1.CopyResponse]
	expunge        hook[*v1.ExpungeRequest, *v1.ExpungeResponse]
	search         hook[*v1.SearchRequest, *v1.SearchResponse]
	fetch          func(ctx context.Context, a storage.Account, req *v1.FetchRequest, item func(*v1.FetchResponse_Item) error) error
	annotations    hook[*v1.AnnotationsRequest, *v1.AnnotationsResponse]
	setAnnotations hook[*v1.SetAnnotationsRequest, *v1.SetAnnotationsResponse]

	// What a storage in memory does not offer.
	accounts func(req *v1.AccountsRequest) (*v1.AccountsResponse, error)
	check    func(req *v1.CheckRequest) (*v1.CheckResponse, error)
	backup   func(req *v1.BackupRequest) (*v1.BackupResponse, error)

	watch func(ctx context.Context, a storage.Account, req *v1.WatchRequest, event func(*v1.ChangeEvent) error) error
}

// tampered is a storage with one thing wrong.
type tampered struct {
	storage.Storage
	with tampering
}

// Open implements storage.Storage.
func (t *tampered) Open(ctx context.Context, name string) (storage.Account, error) {
	if t.with.name != nil {
		name = t.with.name(name)
	}
	a, err := t.Storage.Open(ctx, name)
	return &account{a, &t.with}, err
}

// Deposit implements storage.Storage.
func (t *tampered) Deposit(ctx context.Context, req *v1.DepositRequest) (*v1.DepositResponse, error) {
	if t.with.deposit == nil {
		return t.Storage.Deposit(ctx, req)
	}
	return t.with.deposit(ctx, t.Storage, proto.CloneOf(req))
}

type account struct {
	storage.Account
	with *tampering
}

// call goes through a hook, where there is one.
func call[Q proto.Message, R any](ctx context.Context, a *account, h hook[Q, R], plain func(context.Context, Q) (R, error), req Q) (R, error) {
	if h == nil {
		return plain(ctx, req)
	}
	return h(ctx, a.Account, proto.CloneOf(req))
}

func (a *account) List(ctx context.Context, req *v1.ListMailboxesRequest) (*v1.ListMailboxesResponse, error) {
	return call(ctx, a, a.with.list, a.Account.List, req)
}

func (a *account) Create(ctx context.Context, req *v1.CreateMailboxRequest) (*v1.Mailbox, error) {
	return call(ctx, a, a.with.create, a.Account.Create, req)
}

func (a *account) Rename(ctx context.Context, req *v1.RenameMailboxRequest) (*v1.Mailbox, error) {
	return call(ctx, a, a.with.rename, a.Account.Rename, req)
}

func (a *account) Delete(ctx context.Context, req *v1.DeleteMailboxRequest) (*v1.DeleteMailboxResponse, error) {
	return call(ctx, a, a.with.delete, a.Account.Delete, req)
}

func (a *account) Update(ctx context.Context, req *v1.UpdateMailboxRequest) (*v1.Mailbox, error) {
	return call(ctx, a, a.with.update, a.Account.Update, req)
}

func (a *account) Snapshot(ctx context.Context, req *v1.SnapshotRequest) (*v1.SnapshotResponse, error) {
	return call(ctx, a, a.with.snapshot, a.Account.Snapshot, req)
}

func (a *account) Append(ctx context.Context, req *v1.AppendRequest) (*v1.AppendResponse, error) {
	return call(ctx, a, a.with.append, a.Account.Append, req)
}

func (a *account) SetFlags(ctx context.Context, req *v1.SetFlagsRequest) (*v1.SetFlagsResponse, error) {
	return call(ctx, a, a.with.setFlags, a.Account.SetFlags, req)
}

func (a *account) Copy(ctx context.Context, req *v1.CopyRequest) (*v1.CopyResponse, error) {
	return call(ctx, a, a.with.copy, a.Account.Copy, req)
}

func (a *account) Expunge(ctx context.Context, req *v1.ExpungeRequest) (*v1.ExpungeResponse, error) {
	return call(ctx, a, a.with.expunge, a.Account.Expunge, req)
}

func (a *account) Search(ctx context.Context, req *v1.SearchRequest) (*v1.SearchResponse, error) {
	return call(ctx, a, a.with.search, a.Account.Search, req)
}

func (a *account) Fetch(ctx context.Context, req *v1.FetchRequest, item func(*v1.FetchResponse_Item) error) error {
	if a.with.fetch == nil {
		return a.Account.Fetch(ctx, req, item)
	}
	return a.with.fetch(ctx, a.Account, proto.CloneOf(req), item)
}

func (a *account) Watch(ctx context.Context, req *v1.WatchRequest, event func(*v1.ChangeEvent) error) error {
	if a.with.watch == nil {
		return a.Account.Watch(ctx, req, event)
	}
	return a.with.watch(ctx, a.Account, proto.CloneOf(req), event)
}
