package sdktest

import (
	"context"

	"google.golang.org/protobuf/proto"

	"github.com/stagecoach-mta/stagecoach/sdk/fail"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
	"github.com/stagecoach-mta/stagecoach/sdk/storage"
)

// repeatable is an account that keeps its requests' keys.
type repeatable struct{ *account }

var _ storage.Account = repeatable{}

// answered is what a request was answered with.
type answered struct {
	kind  string
	reply proto.Message
}

// once does what a request asks for, unless its key says that this is done.
func once[Q any, R proto.Message](ctx context.Context, a *account, kind string, do func(context.Context, Q) (R, error), req Q) (R, error) {
	key := storage.RequestKey(ctx)
	if key == "" {
		return do(ctx, req)
	}
	a.keeping.Lock()
	defer a.keeping.Unlock()
	var none R
	if was, ok := a.answers[key]; ok {
		if was.kind != kind {
			return none, fail.New(fail.Invalid, "the request's key %q was another kind's", key)
		}
		return proto.Clone(was.reply).(R), nil
	}
	reply, err := do(ctx, req)
	if err != nil {
		return none, err
	}
	a.answers[key] = answered{kind, proto.Clone(reply)}
	return reply, nil
}

func (a repeatable) Create(ctx context.Context, req *v1.CreateMailboxRequest) (*v1.Mailbox, error) {
	return once(ctx, a.account, "Create", a.account.Create, req)
}

func (a repeatable) Rename(ctx context.Context, req *v1.RenameMailboxRequest) (*v1.Mailbox, error) {
	return once(ctx, a.account, "Rename", a.account.Rename, req)
}

func (a repeatable) Delete(ctx context.Context, req *v1.DeleteMailboxRequest) (*v1.DeleteMailboxResponse, error) {
	return once(ctx, a.account, "Delete", a.account.Delete, req)
}

func (a repeatable) Update(ctx context.Context, req *v1.UpdateMailboxRequest) (*v1.Mailbox, error) {
	return once(ctx, a.account, "Update", a.account.Update, req)
}

func (a repeatable) Append(ctx context.Context, req *v1.AppendRequest) (*v1.AppendResponse, error) {
	return once(ctx, a.account, "Append", a.account.Append, req)
}

func (a repeatable) SetFlags(ctx context.Context, req *v1.SetFlagsRequest) (*v1.SetFlagsResponse, error) {
	return once(ctx, a.account, "SetFlags", a.account.SetFlags, req)
}

func (a repeatable) Copy(ctx context.Context, req *v1.CopyRequest) (*v1.CopyResponse, error) {
	return once(ctx, a.account, "Copy", a.account.Copy, req)
}

func (a repeatable) Expunge(ctx context.Context, req *v1.ExpungeRequest) (*v1.ExpungeResponse, error) {
	return once(ctx, a.account, "Expunge", a.account.Expunge, req)
}
