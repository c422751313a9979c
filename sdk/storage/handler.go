package storage

import (
	"context"

	"github.com/stagecoach-mta/stagecoach/sdk/fail"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
	"github.com/stagecoach-mta/stagecoach/sdk/stream"
)

// Handler answers a session's calls with s.
func Handler(s Storage) stream.Handler {
	return func(ctx context.Context, call *v1.Call, send func(*v1.Reply) error) (*v1.Reply, error) {
		req := call.GetStorage()
		if req == nil {
			return nil, fail.New(fail.Unsupported, "this plugin is a storage: the call is for another kind")
		}
		if d := req.GetDeposit(); d != nil {
			resp, err := s.Deposit(ctx, d)
			return finish(&v1.StorageReply{Op: &v1.StorageReply_Deposit{Deposit: resp}}, err)
		}
		if r, done, err := administer(ctx, s, req, send); done {
			return r, err
		}
		ctx, err := received(ctx, req.GetRequestKey())
		if err != nil {
			return nil, err
		}
		account, err := s.Open(ctx, req.GetAccount())
		if err != nil {
			return nil, err
		}
		return dispatch(ctx, account, req, send)
	}
}

func dispatch(ctx context.Context, a Account, req *v1.StorageCall, send func(*v1.Reply) error) (*v1.Reply, error) {
	switch op := req.GetOp().(type) {
	case *v1.StorageCall_ListMailboxes:
		r, err := a.List(ctx, op.ListMailboxes)
		return finish(&v1.StorageReply{Op: &v1.StorageReply_ListMailboxes{ListMailboxes: r}}, err)
	case *v1.StorageCall_CreateMailbox:
		r, err := a.Create(ctx, op.CreateMailbox)
		return finish(&v1.StorageReply{Op: &v1.StorageReply_CreateMailbox{CreateMailbox: r}}, err)
	case *v1.StorageCall_RenameMailbox:
		r, err := a.Rename(ctx, op.RenameMailbox)
		return finish(&v1.StorageReply{Op: &v1.StorageReply_RenameMailbox{RenameMailbox: r}}, err)
	case *v1.StorageCall_DeleteMailbox:
		r, err := a.Delete(ctx, op.DeleteMailbox)
		return finish(&v1.StorageReply{Op: &v1.StorageReply_DeleteMailbox{DeleteMailbox: r}}, err)
	case *v1.StorageCall_UpdateMailbox:
		r, err := a.Update(ctx, op.UpdateMailbox)
		return finish(&v1.StorageReply{Op: &v1.StorageReply_UpdateMailbox{UpdateMailbox: r}}, err)
	case *v1.StorageCall_Snapshot:
		r, err := a.Snapshot(ctx, op.Snapshot)
		return finish(&v1.StorageReply{Op: &v1.StorageReply_Snapshot{Snapshot: r}}, err)
	case *v1.StorageCall_Append:
		r, err := a.Append(ctx, op.Append)
		return finish(&v1.StorageReply{Op: &v1.StorageReply_Append{Append: r}}, err)
	case *v1.StorageCall_SetFlags:
		r, err := a.SetFlags(ctx, op.SetFlags)
		return finish(&v1.StorageReply{Op: &v1.StorageReply_SetFlags{SetFlags: r}}, err)
	case *v1.StorageCall_Copy:
		r, err := a.Copy(ctx, op.Copy)
		return finish(&v1.StorageReply{Op: &v1.StorageReply_Copy{Copy: r}}, err)
	case *v1.StorageCall_Expunge:
		r, err := a.Expunge(ctx, op.Expunge)
		return finish(&v1.StorageReply{Op: &v1.StorageReply_Expunge{Expunge: r}}, err)
	case *v1.StorageCall_Search:
		r, err := a.Search(ctx, op.Search)
		return finish(&v1.StorageReply{Op: &v1.StorageReply_Search{Search: r}}, err)
	case *v1.StorageCall_Quota:
		r, err := a.Quota(ctx)
		return finish(&v1.StorageReply{Op: &v1.StorageReply_Quota{Quota: r}}, err)
	case *v1.StorageCall_Annotations:
		r, err := Annotations(ctx, a, op.Annotations)
		return finish(&v1.StorageReply{Op: &v1.StorageReply_Annotations{Annotations: r}}, err)
	case *v1.StorageCall_SetAnnotations:
		r, err := SetAnnotations(ctx, a, op.SetAnnotations)
		return finish(&v1.StorageReply{Op: &v1.StorageReply_SetAnnotations{SetAnnotations: r}}, err)
	case *v1.StorageCall_Fetch:
		return fetch(ctx, a, op.Fetch, send)
	case *v1.StorageCall_Watch:
		err := a.Watch(ctx, op.Watch, func(ev *v1.ChangeEvent) error {
			return send(wrap(&v1.StorageReply{Op: &v1.StorageReply_Watch{Watch: ev}}))
		})
		return nil, err
	}
	return nil, fail.New(fail.Unsupported, "this storage does not know the call %T", req.GetOp())
}

func wrap(r *v1.StorageReply) *v1.Reply {
	return &v1.Reply{Response: &v1.Reply_Storage{Storage: r}}
}

func finish(r *v1.StorageReply, err error) (*v1.Reply, error) {
	if err != nil {
		return nil, err
	}
	return wrap(r), nil
}
