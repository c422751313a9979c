package storage

import (
	"context"
	"crypto/rand"
	"errors"

	"github.com/stagecoach-mta/stagecoach/sdk/fail"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
	"github.com/stagecoach-mta/stagecoach/sdk/stream"
)

// NewClient makes a Storage of the calling end of a session to one.
//
// Open makes no call: an account name that the storage refuses is refused by
// the first method. Fetch and Watch go on after a reader that was too slow for
// the session; over a stream.Redialer they go on after a restart too, and what
// changes something is repeated then, by its request's key.
func NewClient(c stream.Caller) Storage { return &client{c} }

type client struct{ c stream.Caller }

var _ Storage = (*client)(nil)

// Deposit implements Storage.
func (s *client) Deposit(ctx context.Context, req *v1.DepositRequest) (*v1.DepositResponse, error) {
	r, err := s.c.Call(ctx, request(&v1.StorageCall{Op: &v1.StorageCall_Deposit{Deposit: req}}))
	return result(r.GetStorage().GetDeposit(), err)
}

// Open implements Storage.
func (s *client) Open(_ context.Context, account string) (Account, error) {
	if account == "" {
		return nil, fail.New(fail.Invalid, "empty account name")
	}
	return &remote{s.c, account}, nil
}

// remote is an Account at the other end of a session.
type remote struct {
	c    stream.Caller
	name string
}

var _ Account = (*remote)(nil)

func (a *remote) call(ctx context.Context, c *v1.StorageCall) (*v1.StorageReply, error) {
	c.Account = a.name
	r, err := a.c.Call(ctx, request(c))
	return r.GetStorage(), err
}

// change is call for what changes something: what may not be repeated as it is, may
// be by its key.
func (a *remote) change(ctx context.Context, c *v1.StorageCall) (*v1.StorageReply, error) {
	c.RequestKey = ownRequestKey(ctx)
	if c.RequestKey == "" && !stream.Repeatable(request(c)) {
		c.RequestKey = rand.Text()
	}
	return a.call(ctx, c)
}

// List implements Account.
func (a *remote) List(ctx context.Context, req *v1.ListMailboxesRequest) (*v1.ListMailboxesResponse, error) {
	r, err := a.call(ctx, &v1.StorageCall{Op: &v1.StorageCall_ListMailboxes{ListMailboxes: req}})
	return result(r.GetListMailboxes(), err)
}

// Create implements Account.
func (a *remote) Create(ctx context.Context, req *v1.CreateMailboxRequest) (*v1.Mailbox, error) {
	r, err := a.change(ctx, &v1.StorageCall{Op: &v1.StorageCall_CreateMailbox{CreateMailbox: req}})
	return result(r.GetCreateMailbox(), err)
}

// Rename implements Account.
func (a *remote) Rename(ctx context.Context, req *v1.RenameMailboxRequest) (*v1.Mailbox, error) {
	r, err := a.change(ctx, &v1.StorageCall{Op: &v1.StorageCall_RenameMailbox{RenameMailbox: req}})
	return result(r.GetRenameMailbox(), err)
}

// Delete implements Account.
func (a *remote) Delete(ctx context.Context, req *v1.DeleteMailboxRequest) (*v1.DeleteMailboxResponse, error) {
	r, err := a.change(ctx, &v1.StorageCall{Op: &v1.StorageCall_DeleteMailbox{DeleteMailbox: req}})
	return result(r.GetDeleteMailbox(), err)
}

// Update implements Account.
func (a *remote) Update(ctx context.Context, req *v1.UpdateMailboxRequest) (*v1.Mailbox, error) {
	r, err := a.change(ctx, &v1.StorageCall{Op: &v1.StorageCall_UpdateMailbox{UpdateMailbox: req}})
	return result(r.GetUpdateMailbox(), err)
}

// Snapshot implements Account.
func (a *remote) Snapshot(ctx context.Context, req *v1.SnapshotRequest) (*v1.SnapshotResponse, error) {
	r, err := a.call(ctx, &v1.StorageCall{Op: &v1.StorageCall_Snapshot{Snapshot: req}})
	return result(r.GetSnapshot(), err)
}

// Append implements Account.
func (a *remote) Append(ctx context.Context, req *v1.AppendRequest) (*v1.AppendResponse, error) {
	r, err := a.change(ctx, &v1.StorageCall{Op: &v1.StorageCall_Append{Append: req}})
	return result(r.GetAppend(), err)
}

// SetFlags implements Account.
func (a *remote) SetFlags(ctx context.Context, req *v1.SetFlagsRequest) (*v1.SetFlagsResponse, error) {
	r, err := a.change(ctx, &v1.StorageCall{Op: &v1.StorageCall_SetFlags{SetFlags: req}})
	return result(r.GetSetFlags(), err)
}

// Copy implements Account.
func (a *remote) Copy(ctx context.Context, req *v1.CopyRequest) (*v1.CopyResponse, error) {
	r, err := a.change(ctx, &v1.StorageCall{Op: &v1.StorageCall_Copy{Copy: req}})
	return result(r.GetCopy(), err)
}

// Expunge implements Account.
func (a *remote) Expunge(ctx context.Context, req *v1.ExpungeRequest) (*v1.ExpungeResponse, error) {
	r, err := a.change(ctx, &v1.StorageCall{Op: &v1.StorageCall_Expunge{Expunge: req}})
	return result(r.GetExpunge(), err)
}

// Search implements Account.
func (a *remote) Search(ctx context.Context, req *v1.SearchRequest) (*v1.SearchResponse, error) {
	r, err := a.call(ctx, &v1.StorageCall{Op: &v1.StorageCall_Search{Search: req}})
	return result(r.GetSearch(), err)
}

// Quota implements Account.
func (a *remote) Quota(ctx context.Context) (*v1.QuotaResponse, error) {
	r, err := a.call(ctx, &v1.StorageCall{Op: &v1.StorageCall_Quota{Quota: &v1.QuotaRequest{}}})
	return result(r.GetQuota(), err)
}

// Fetch implements Account. Items come by growing UID, so that a fetch that was
// interrupted goes on after the last one given.
func (a *remote) Fetch(ctx context.Context, req *v1.FetchRequest, item func(*v1.FetchResponse_Item) error) error {
	var last uint32
	var failed error
	for {
		before := last
		err := a.c.Stream(ctx, request(&v1.StorageCall{Account: a.name, Op: &v1.StorageCall_Fetch{Fetch: req}}), func(r *v1.Reply) error {
			for _, it := range r.GetStorage().GetFetch().GetItems() {
				if failed = item(it); failed != nil {
					return failed
				}
				last = it.GetUid()
			}
			return nil
		})
		if err == nil || failed != nil || ctx.Err() != nil || last == before || !interrupted(a.c, err) {
			return err
		}
		rest := after(req.GetUids(), last)
		if rest == nil {
			return nil
		}
		req = &v1.FetchRequest{
			MailboxId: req.GetMailboxId(), Uids: rest, Summary: req.GetSummary(), Structure: req.GetStructure(),
			Header: req.GetHeader(), Message: req.GetMessage(), Preview: req.GetPreview(), Ids: req.GetIds(),
		}
	}
}

// after leaves of the ranges what is above uid; nil if nothing is.
func after(ranges []*v1.UIDRange, uid uint32) []*v1.UIDRange {
	if uid == ^uint32(0) {
		return nil
	}
	if len(ranges) == 0 {
		return []*v1.UIDRange{{First: uid + 1}}
	}
	var out []*v1.UIDRange
	for _, r := range ranges {
		switch {
		case r.GetFirst() > uid:
			out = append(out, r)
		case r.GetLast() == 0 || r.GetLast() > uid:
			out = append(out, &v1.UIDRange{First: uid + 1, Last: r.GetLast()})
		}
	}
	return out
}

// Watch implements Account.
func (a *remote) Watch(ctx context.Context, req *v1.WatchRequest, event func(*v1.ChangeEvent) error) error {
	since := req.GetSinceModseq()
	var failed error
	// A watch has no deadline on the wire: that is how the storage knows that a
	// drain must not wait for it.
	endless, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	defer context.AfterFunc(ctx, cancel)()
	for {
		progress := false
		err := a.c.Stream(endless, request(&v1.StorageCall{
			Account: a.name, Op: &v1.StorageCall_Watch{Watch: &v1.WatchRequest{SinceModseq: since}},
		}), func(r *v1.Reply) error {
			ev := r.GetStorage().GetWatch()
			if ev == nil {
				return nil
			}
			if failed = event(ev); failed != nil {
				return failed
			}
			progress, since = true, max(since, ev.GetModseq())
			return nil
		})
		switch {
		case failed != nil:
			return failed
		case ctx.Err() != nil:
			return ctx.Err()
		case !progress || !interrupted(a.c, err):
			return err
		}
	}
}

// interrupted tells whether err ended a stream that may be asked to go on.
func interrupted(c stream.Caller, err error) bool {
	if errors.Is(err, stream.ErrBehind) {
		return true
	}
	_, redials := c.(*stream.Redialer)
	return redials && fail.Is(err, fail.Unavailable)
}

func request(c *v1.StorageCall) *v1.Call {
	return &v1.Call{Request: &v1.Call_Storage{Storage: c}}
}

// result guards against a storage that answers another question.
func result[T any](r *T, err error) (*T, error) {
	if err == nil && r == nil {
		return nil, fail.New(fail.Internal, "the storage sent no answer")
	}
	return r, err
}
