package storage

import (
	"context"

	"github.com/stagecoach-mta/stagecoach/sdk/fail"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// AccountLister is a Storage that can say whose mailboxes it keeps.
type AccountLister interface {
	// Accounts returns the next names in the order of their octets; none: there
	// are no more.
	Accounts(ctx context.Context, req *v1.AccountsRequest) (*v1.AccountsResponse, error)
}

// Checker is a Storage that can verify what it keeps, and mend it, while it serves.
type Checker interface {
	// Check calls progress now and then with the findings since the last time, and
	// returns the rest with the totals. An error of progress ends it.
	Check(ctx context.Context, req *v1.CheckRequest, progress func(*v1.CheckResponse) error) (*v1.CheckResponse, error)
}

// Backuper is a Storage that can make a copy of all that it keeps while it serves.
type Backuper interface {
	// Backup makes the copy, in place of an older one, or removes it.
	Backup(ctx context.Context, req *v1.BackupRequest) (*v1.BackupResponse, error)
}

// A client offers all of it; a storage that does not answers UNSUPPORTED.
var (
	_ AccountLister = (*client)(nil)
	_ Checker       = (*client)(nil)
	_ Backuper      = (*client)(nil)
)

// Accounts implements AccountLister.
func (s *client) Accounts(ctx context.Context, req *v1.AccountsRequest) (*v1.AccountsResponse, error) {
	r, err := s.c.Call(ctx, request(&v1.StorageCall{Op: &v1.StorageCall_Accounts{Accounts: req}}))
	return result(r.GetStorage().GetAccounts(), err)
}

// Check implements Checker.
func (s *client) Check(ctx context.Context, req *v1.CheckRequest, progress func(*v1.CheckResponse) error) (*v1.CheckResponse, error) {
	var last *v1.CheckResponse
	err := s.c.Stream(ctx, request(&v1.StorageCall{Op: &v1.StorageCall_Check{Check: req}}), func(r *v1.Reply) error {
		if last != nil {
			if err := progress(last); err != nil {
				return err
			}
		}
		last = r.GetStorage().GetCheck()
		return nil
	})
	return result(last, err)
}

// Backup implements Backuper.
func (s *client) Backup(ctx context.Context, req *v1.BackupRequest) (*v1.BackupResponse, error) {
	r, err := s.c.Call(ctx, request(&v1.StorageCall{Op: &v1.StorageCall_Backup{Backup: req}}))
	return result(r.GetStorage().GetBackup(), err)
}

// administer answers a call that concerns no account alone; done is false for any
// other.
func administer(ctx context.Context, s Storage, req *v1.StorageCall, send func(*v1.Reply) error) (r *v1.Reply, done bool, err error) {
	switch op := req.GetOp().(type) {
	case *v1.StorageCall_Accounts:
		a, ok := s.(AccountLister)
		if !ok {
			return nil, true, fail.New(fail.Unsupported, "this storage cannot say which accounts it has: name them")
		}
		resp, err := a.Accounts(ctx, op.Accounts)
		r, err = finish(&v1.StorageReply{Op: &v1.StorageReply_Accounts{Accounts: resp}}, err)
		return r, true, err
	case *v1.StorageCall_Check:
		c, ok := s.(Checker)
		if !ok {
			return nil, true, fail.New(fail.Unsupported, "this storage has no check of its own")
		}
		resp, err := c.Check(ctx, op.Check, func(p *v1.CheckResponse) error {
			return send(wrap(&v1.StorageReply{Op: &v1.StorageReply_Check{Check: p}}))
		})
		r, err = finish(&v1.StorageReply{Op: &v1.StorageReply_Check{Check: resp}}, err)
		return r, true, err
	case *v1.StorageCall_Backup:
		b, ok := s.(Backuper)
		if !ok {
			return nil, true, fail.New(fail.Unsupported, "this storage makes no backup of itself; copy its folder while the server is stopped")
		}
		resp, err := b.Backup(ctx, op.Backup)
		r, err = finish(&v1.StorageReply{Op: &v1.StorageReply_Backup{Backup: resp}}, err)
		return r, true, err
	}
	return nil, false, nil
}
