package local

import (
	"bytes"
	"errors"
	"io"

	"github.com/cockroachdb/pebble/v2"
)

// near is how far the next key's number may be from the last one's to be a neighbour.
// An iterator steps through as many keys before it seeks, and where the values are
// bodies each step reads one: so it is used once that many neighbours were asked for,
// and what lies further apart is looked up by itself.
const near = 4

// reader reads values of one table, mostly by growing keys.
type reader struct {
	v          *view
	first, end []byte
	it         *pebble.Iterator // nil: not used so far
	last       uint64
	neighbours int       // in a row
	held       io.Closer // what the last value belongs to
}

// get returns the value of the key that has that number; nil if there is none. It is
// valid until the next call.
func (r *reader) get(key []byte, num uint64) ([]byte, error) {
	if err := r.release(); err != nil {
		return nil, err
	}
	if num-r.last <= near {
		r.neighbours++
	} else {
		r.neighbours = 0
	}
	r.last = num
	if r.neighbours < near {
		v, closer, err := r.v.Get(key)
		if errors.Is(err, pebble.ErrNotFound) {
			return nil, nil
		}
		r.held = closer
		return v, err
	}
	if r.it == nil {
		var err error
		if r.it, err = r.v.NewIter(&pebble.IterOptions{LowerBound: r.first, UpperBound: r.end}); err != nil {
			return nil, err
		}
	}
	if !r.it.SeekGE(key) || !bytes.Equal(r.it.Key(), key) {
		return nil, r.it.Error()
	}
	return r.it.ValueAndErr()
}

func (r *reader) release() error {
	held := r.held
	r.held = nil
	if held == nil {
		return nil
	}
	return held.Close()
}

func (r *reader) close() {
	_ = r.release()
	if r.it != nil {
		r.it.Close()
	}
}
