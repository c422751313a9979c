package local

import (
	"context"
	"fmt"
	"testing"

	"github.com/cockroachdb/pebble/v2"
)

// TestReader reads keys in every kind of step, with gaps in the table, and expects of
// each what the database has.
func TestReader(t *testing.T) {
	s := open(t, Options{Dir: t.TempDir()})
	defer s.Close()
	value := func(n uint64) string { return fmt.Sprintf("value %d", n) }
	const tab = '~'
	for n := uint64(1); n <= 400; n++ {
		if n%7 == 0 {
			continue
		}
		if err := s.db.Set(key8(tab, n), []byte(value(n)), pebble.NoSync); err != nil {
			t.Fatal(err)
		}
		if n == 200 {
			if err := s.db.Flush(); err != nil {
				t.Fatal(err)
			}
		}
	}
	a, err := s.Open(context.Background(), "meg@ryan.example")
	if err != nil {
		t.Fatal(err)
	}
	v, err := a.(*handle).view(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	r := reader{v: v, first: []byte{tab}, end: []byte{tab + 1}}
	defer r.close()
	for _, step := range []int{1, 2, 3, 4, 5, 50, -1, -3, -60, 0} {
		for n := 200; n > 0 && n <= 410; n += step {
			got, err := r.get(key8(tab, uint64(n)), uint64(n))
			if err != nil {
				t.Fatal(err)
			}
			want := value(uint64(n))
			if n%7 == 0 || n > 400 {
				want = ""
			}
			if string(got) != want || (got == nil) != (want == "") {
				t.Fatalf("step %d: key %d has %q, not %q", step, n, got, want)
			}
			if step == 0 {
				break
			}
		}
	}
	if r.it == nil {
		t.Error("neighbours were not read by an iterator")
	}
}
