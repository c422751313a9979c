package local

import (
	"testing"

	"github.com/stagecoach-mta/stagecoach/sdk/conform"
	"github.com/stagecoach-mta/stagecoach/sdk/storage"
	"github.com/stagecoach-mta/stagecoach/sdk/storage/storagetest"
)

func open(t testing.TB, opts Options) *Store {
	t.Helper()
	s, err := New(opts)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestConformance(t *testing.T) {
	var current *Store
	reopen := func(t conform.T, dir string) storage.Storage {
		var err error
		if current, err = New(Options{Dir: dir}); err != nil {
			t.Fatalf("%v", err)
		}
		return current
	}
	storagetest.Run(conform.Test(t), func(t conform.T) storage.Storage {
		s := reopen(t, t.TempDir())
		t.Cleanup(func() { current.Close() })
		return s
	}, storagetest.Options{Added: true, OpenBackup: func(t conform.T, dir string) storage.Storage {
		s, err := New(Options{Dir: dir})
		if err != nil {
			t.Fatalf("%v", err)
		}
		t.Cleanup(func() { s.Close() })
		return s
	}, Reopen: func(t conform.T, s storage.Storage) storage.Storage {
		if err := s.(*Store).Close(); err != nil {
			t.Fatalf("%v", err)
		}
		return reopen(t, s.(*Store).opts.Dir)
	}})
}
