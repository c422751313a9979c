package maildir

import (
	"context"
	"net/url"
	"os"
	"path/filepath"
	"slices"

	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
	"github.com/stagecoach-mta/stagecoach/sdk/storage"
)

var _ storage.AccountLister = (*Store)(nil)

// accountsPage names are given in one answer at most.
const accountsPage = 1000

// Accounts implements storage.AccountLister: the directories with a log. A Maildir
// that another program made becomes an account when it is first named.
func (s *Store) Accounts(ctx context.Context, req *v1.AccountsRequest) (*v1.AccountsResponse, error) {
	entries, err := os.ReadDir(s.opts.Dir)
	if err != nil {
		return nil, wrap(err)
	}
	var names []string
	for _, e := range entries {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		name, err := url.PathUnescape(e.Name())
		if err != nil || !e.IsDir() || name <= req.GetAfter() {
			continue
		}
		if _, err := os.Stat(filepath.Join(s.opts.Dir, e.Name(), logName)); err == nil {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	most := accountsPage
	if n := int(req.GetLimit()); n > 0 {
		most = min(n, most)
	}
	return &v1.AccountsResponse{Accounts: names[:min(len(names), most)]}, nil
}
