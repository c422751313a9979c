package local

import (
	"slices"
	"sync"

	"github.com/cockroachdb/pebble/v2"
)

// recentDeposits is how many keys of deposits are in memory, at most. A queue's ids
// grow, and those of its deposits under way are near each other.
const recentDeposits = 2048

// fresh knows of most keys of deposits that nothing is stored by them: beyond the
// floor, the database has only what is in recent. To ask the database costs a block of
// a table, for its lowest level is read without filters.
//
// It may name a key that is not stored, and never leaves one out that is.
type fresh struct {
	mu     sync.Mutex
	floor  string
	recent map[string]struct{}
}

// open takes the largest key that is stored for the floor.
func (f *fresh) open(db *pebble.DB) error {
	it, err := db.NewIter(&pebble.IterOptions{LowerBound: []byte{tabDeposit}, UpperBound: []byte{tabDeposit + 1}})
	if err != nil {
		return err
	}
	f.floor, f.recent = "", map[string]struct{}{}
	if it.Last() {
		f.floor = string(it.Key())
	}
	return it.Close()
}

// has tells whether something may be stored by the key.
func (f *fresh) has(key []byte) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if string(key) <= f.floor {
		return true
	}
	_, ok := f.recent[string(key)]
	return ok
}

// add is called before the key is in a batch that is applied.
func (f *fresh) add(key []byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if string(key) <= f.floor {
		return
	}
	f.recent[string(key)] = struct{}{}
	if len(f.recent) < recentDeposits {
		return
	}
	keys := make([]string, 0, len(f.recent))
	for k := range f.recent {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	keys = keys[:len(keys)/2]
	for _, k := range keys {
		delete(f.recent, k)
	}
	f.floor = keys[len(keys)-1]
}
