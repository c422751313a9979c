package sdktest_test

import (
	"testing"

	"github.com/stagecoach-mta/stagecoach/sdk/conform"
	"github.com/stagecoach-mta/stagecoach/sdk/sdktest"
	"github.com/stagecoach-mta/stagecoach/sdk/storage"
	"github.com/stagecoach-mta/stagecoach/sdk/storage/storagetest"
)

// TestStorageIsOne: the double behaves as every storage must.
func TestStorageIsOne(t *testing.T) {
	storagetest.Run(conform.Test(t), func(t conform.T) storage.Storage {
		return sdktest.NewStorage(t.TempDir())
	}, storagetest.Options{LargeBytes: 1 << 20, Added: true})
}
