package accesstest

import (
	"context"
	"sync/atomic"

	"github.com/stagecoach-mta/stagecoach/sdk/directory"
	"github.com/stagecoach-mta/stagecoach/sdk/fail"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
	"github.com/stagecoach-mta/stagecoach/sdk/storage"
)

// Directory knows User with Password and nobody else.
type Directory struct {
	asked atomic.Int64
}

var _ directory.Directory = (*Directory)(nil)

// Asked counts the passwords that were to be checked.
func (d *Directory) Asked() int { return int(d.asked.Load()) }

// Resolve implements directory.Directory.
func (d *Directory) Resolve(_ context.Context, req *v1.ResolveRequest) (*v1.ResolveResponse, error) {
	if req.GetAddress() == User {
		return &v1.ResolveResponse{Result: v1.ResolveResponse_MAILBOX, Account: User}, nil
	}
	return &v1.ResolveResponse{Result: v1.ResolveResponse_NO_SUCH_USER}, nil
}

// Authenticate implements directory.Directory.
func (d *Directory) Authenticate(_ context.Context, req *v1.AuthenticateRequest) (*v1.AuthenticateResponse, error) {
	d.asked.Add(1)
	if req.GetUsername() != User || req.GetPassword() != Password {
		return nil, fail.New(fail.Denied, "wrong user name or password")
	}
	return &v1.AuthenticateResponse{Account: User, Addresses: []string{User}}, nil
}

// Credentials implements directory.Directory.
func (d *Directory) Credentials(context.Context, *v1.CredentialsRequest) (*v1.CredentialsResponse, error) {
	return nil, fail.New(fail.Unsupported, "no verifiers here")
}

// Domains implements directory.Directory.
func (d *Directory) Domains(context.Context, *v1.DomainsRequest) (*v1.DomainsResponse, error) {
	return &v1.DomainsResponse{Domains: []string{"ryan.example"}}, nil
}

// Storage has one empty INBOX for everybody and takes no mail: enough to log in.
type Storage struct{}

var (
	_ storage.Storage = Storage{}
	_ storage.Account = empty{}
)

// Deposit implements storage.Storage.
func (Storage) Deposit(context.Context, *v1.DepositRequest) (*v1.DepositResponse, error) {
	return nil, errReadOnly
}

// Open implements storage.Storage.
func (Storage) Open(context.Context, string) (storage.Account, error) { return empty{}, nil }

var errReadOnly = fail.New(fail.Unsupported, "this storage is a double that holds no mail")

type empty struct{}

func inbox() *v1.Mailbox {
	return &v1.Mailbox{Id: "1", Name: "INBOX", Role: "inbox", Subscribed: true, UidValidity: 1, UidNext: 1, HighestModseq: 1}
}

func (empty) List(_ context.Context, req *v1.ListMailboxesRequest) (*v1.ListMailboxesResponse, error) {
	out := &v1.ListMailboxesResponse{Modseq: 1}
	if (req.GetId() == "" || req.GetId() == "1") && (req.GetName() == "" || req.GetName() == "INBOX") {
		out.Mailboxes = []*v1.Mailbox{inbox()}
	}
	return out, nil
}

func (empty) Create(context.Context, *v1.CreateMailboxRequest) (*v1.Mailbox, error) {
	return nil, errReadOnly
}

func (empty) Rename(context.Context, *v1.RenameMailboxRequest) (*v1.Mailbox, error) {
	return nil, errReadOnly
}

func (empty) Delete(context.Context, *v1.DeleteMailboxRequest) (*v1.DeleteMailboxResponse, error) {
	return nil, errReadOnly
}

func (empty) Update(context.Context, *v1.UpdateMailboxRequest) (*v1.Mailbox, error) {
	return nil, errReadOnly
}

func (empty) Snapshot(_ context.Context, req *v1.SnapshotRequest) (*v1.SnapshotResponse, error) {
	if req.GetMailboxId() != "1" {
		return nil, fail.New(fail.NotFound, "no mailbox %q", req.GetMailboxId())
	}
	return &v1.SnapshotResponse{Mailbox: inbox(), Modseq: 1}, nil
}

func (empty) Fetch(context.Context, *v1.FetchRequest, func(*v1.FetchResponse_Item) error) error {
	return nil
}

func (empty) Append(context.Context, *v1.AppendRequest) (*v1.AppendResponse, error) {
	return nil, errReadOnly
}

func (empty) SetFlags(context.Context, *v1.SetFlagsRequest) (*v1.SetFlagsResponse, error) {
	return &v1.SetFlagsResponse{Changed: &v1.SnapshotResponse{Mailbox: inbox(), Modseq: 1}}, nil
}

func (empty) Copy(context.Context, *v1.CopyRequest) (*v1.CopyResponse, error) {
	return &v1.CopyResponse{UidValidity: 1, Modseq: 1}, nil
}

func (empty) Expunge(context.Context, *v1.ExpungeRequest) (*v1.ExpungeResponse, error) {
	return &v1.ExpungeResponse{Modseq: 1}, nil
}

func (empty) Search(context.Context, *v1.SearchRequest) (*v1.SearchResponse, error) {
	return &v1.SearchResponse{Modseq: 1}, nil
}

func (empty) Quota(context.Context) (*v1.QuotaResponse, error) { return &v1.QuotaResponse{}, nil }

func (empty) Watch(ctx context.Context, _ *v1.WatchRequest, event func(*v1.ChangeEvent) error) error {
	if err := event(&v1.ChangeEvent{Modseq: 1}); err != nil {
		return err
	}
	<-ctx.Done()
	return ctx.Err()
}
