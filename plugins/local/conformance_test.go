package local

import (
	"testing"

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
	storagetest.Run(t, func(t *testing.T) storage.Storage {
		current = open(t, Options{Dir: t.TempDir()})
		t.Cleanup(func() { current.Close() })
		return current
	}, storagetest.Options{Reopen: func(t *testing.T, s storage.Storage) storage.Storage {
		if err := s.(*Store).Close(); err != nil {
			t.Fatal(err)
		}
		current = open(t, Options{Dir: s.(*Store).opts.Dir})
		return current
	}})
}
