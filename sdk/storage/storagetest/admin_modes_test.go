package storagetest_test

import (
	"context"

	"github.com/stagecoach-mta/stagecoach/sdk/fail"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
	"github.com/stagecoach-mta/stagecoach/sdk/storage"
)

func (t *tampered) Accounts(_ context.Context, req *v1.AccountsRequest) (*v1.AccountsResponse, error) {
	if t.with.accounts == nil {
		return nil, fail.New(fail.Unsupported, "not offered")
	}
	return t.with.accounts(req)
}

func (t *tampered) Check(_ context.Context, req *v1.CheckRequest, _ func(*v1.CheckResponse) error) (*v1.CheckResponse, error) {
	if t.with.check == nil {
		return nil, fail.New(fail.Unsupported, "not offered")
	}
	return t.with.check(req)
}

func (t *tampered) Backup(_ context.Context, req *v1.BackupRequest) (*v1.BackupResponse, error) {
	if t.with.backup == nil {
		return nil, fail.New(fail.Unsupported, "not offered")
	}
	return t.with.backup(req)
}

var (
	_ storage.AccountLister = (*tampered)(nil)
	_ storage.Checker       = (*tampered)(nil)
	_ storage.Backuper      = (*tampered)(nil)
)

// adminModes break what an administrator asks.
var adminModes = []mode{
	{"lists the same page of accounts for ever", []string{"the accounts that got mail are listed"}, func() tampering {
		return tampering{accounts: func(*v1.AccountsRequest) (*v1.AccountsResponse, error) {
			return &v1.AccountsResponse{Accounts: []string{"Zoe@ryan.example", "joe+x@ryan.example"}}, nil
		}}
	}},
	{"finds fault with what is whole", []string{"a check of a storage that is whole finds nothing"}, func() tampering {
		return tampering{check: func(req *v1.CheckRequest) (*v1.CheckResponse, error) {
			if req.GetAccount() == "nobody@ryan.example" {
				return nil, fail.New(fail.NotFound, "no account")
			}
			return &v1.CheckResponse{Findings: []*v1.CheckResponse_Finding{{What: "message", Where: "here", Text: "looks odd"}}}, nil
		}}
	}},
	{"checks accounts that there are not", []string{"a check of a storage that is whole finds nothing"}, func() tampering {
		return tampering{check: func(*v1.CheckRequest) (*v1.CheckResponse, error) { return &v1.CheckResponse{}, nil }}
	}},
	{"names a backup that it did not make", []string{"a backup is the storage as it was"}, func() tampering {
		return tampering{backup: func(*v1.BackupRequest) (*v1.BackupResponse, error) {
			return &v1.BackupResponse{Path: "/nowhere/at/all"}, nil
		}}
	}},
}
