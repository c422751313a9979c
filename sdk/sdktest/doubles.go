package sdktest

import (
	"context"
	"testing"

	"github.com/stagecoach-mta/stagecoach/sdk"
	"github.com/stagecoach-mta/stagecoach/sdk/directory"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
	"github.com/stagecoach-mta/stagecoach/sdk/storage"
)

// WithStorage grants an access plugin the storage s, for the role "storage": it
// is served over a data socket, as another plugin's. NewStorage makes a double.
func WithStorage(s storage.Storage) Option {
	return func(t testing.TB, req *v1.ConfigureRequest) {
		t.Helper()
		Grant("storage", Start(t, sdk.Plugin{
			Name: "double", Version: "1", Storage: func(context.Context, *sdk.Instance) (storage.Storage, error) { return s, nil },
		}, nil))(t, req)
	}
}

// WithDirectory grants an access plugin the directory d, for the role "auth".
func WithDirectory(d directory.Directory) Option {
	return func(t testing.TB, req *v1.ConfigureRequest) {
		t.Helper()
		Grant("auth", Start(t, sdk.Plugin{
			Name: "double", Version: "1", Directory: func(context.Context, *sdk.Instance) (directory.Directory, error) { return d, nil },
		}, nil))(t, req)
	}
}
