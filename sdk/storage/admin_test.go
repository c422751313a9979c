package storage_test

import (
	"context"
	"errors"
	"testing"

	"github.com/stagecoach-mta/stagecoach/sdk/fail"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
	"github.com/stagecoach-mta/stagecoach/sdk/storage"
)

// kept is a storage that offers all that an administrator may ask.
type kept struct{ box }

func (k *kept) Accounts(_ context.Context, req *v1.AccountsRequest) (*v1.AccountsResponse, error) {
	if req.GetAfter() == "" {
		return &v1.AccountsResponse{Accounts: []string{"meg@ryan.example"}}, nil
	}
	return &v1.AccountsResponse{}, nil
}

func (k *kept) Check(_ context.Context, _ *v1.CheckRequest, progress func(*v1.CheckResponse) error) (*v1.CheckResponse, error) {
	for n := range 3 {
		if err := progress(&v1.CheckResponse{Checked: []*v1.CheckResponse_Checked{{What: "messages", Count: int64(n)}}}); err != nil {
			return nil, err
		}
	}
	return &v1.CheckResponse{Checked: []*v1.CheckResponse_Checked{{What: "messages", Count: 3}}}, nil
}

func (k *kept) Backup(context.Context, *v1.BackupRequest) (*v1.BackupResponse, error) {
	return &v1.BackupResponse{Path: "/backup"}, nil
}

// TestAdministration: what an administrator asks arrives, and a storage that does
// not offer it says so.
func TestAdministration(t *testing.T) {
	ask := func(s storage.Storage) (counts []int64, accounts, check, backup error) {
		p := serve(t, s)
		p.next()
		c := storage.NewClient(p.dial())
		ctx := minute(t)
		_, accounts = c.(storage.AccountLister).Accounts(ctx, &v1.AccountsRequest{})
		last, check := c.(storage.Checker).Check(ctx, &v1.CheckRequest{}, func(r *v1.CheckResponse) error {
			counts = append(counts, r.Checked[0].Count)
			return nil
		})
		if check == nil {
			counts = append(counts, last.Checked[0].Count)
		}
		_, backup = c.(storage.Backuper).Backup(ctx, &v1.BackupRequest{})
		return counts, accounts, check, backup
	}
	counts, accounts, check, backup := ask(&kept{})
	if err := errors.Join(accounts, check, backup); err != nil || len(counts) != 4 || counts[3] != 3 || counts[2] != 2 {
		t.Errorf("%v, progress %v", err, counts)
	}
	_, accounts, check, backup = ask(&box{})
	for _, err := range []error{accounts, check, backup} {
		if !fail.Is(err, fail.Unsupported) {
			t.Errorf("a storage without it answers %v", err)
		}
	}
}
