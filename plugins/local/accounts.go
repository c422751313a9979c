package local

import (
	"context"
	"errors"

	"github.com/cockroachdb/pebble/v2"

	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
	"github.com/stagecoach-mta/stagecoach/sdk/storage"
)

var _ storage.AccountLister = (*Store)(nil)

// accountsPage names are given in one answer at most.
const accountsPage = 1000

// Accounts implements storage.AccountLister.
func (s *Store) Accounts(ctx context.Context, req *v1.AccountsRequest) (*v1.AccountsResponse, error) {
	if err := s.gate.enter(); err != nil {
		return nil, err
	}
	defer s.gate.leave()
	most := accountsPage
	if n := int(req.GetLimit()); n > 0 {
		most = min(n, most)
	}
	resp := &v1.AccountsResponse{}
	from := append(keyAccountName(req.GetAfter()), 0)
	if req.GetAfter() == "" {
		from = []byte{tabAccountName}
	}
	err := scanRange(s.db, from, []byte{tabAccountName + 1}, func(k, _ []byte) error {
		if len(resp.Accounts) == most {
			return errEnough
		}
		resp.Accounts = append(resp.Accounts, string(k[1:]))
		return ctx.Err()
	})
	if err != nil && !errors.Is(err, errEnough) {
		return nil, s.wrap(err, "list accounts")
	}
	return resp, nil
}

// errEnough ends a scan early.
var errEnough = errors.New("enough")

// existing finds an account that there is, and makes none; nil: there is none.
func (s *Store) existing(r pebble.Reader, name string) (*account, error) {
	if err := checkAccount(name); err != nil {
		return nil, err
	}
	v, err := get(r, keyAccountName(name))
	if err != nil || v == nil {
		return nil, err
	}
	return s.account(name)
}
