package queue

import (
	"context"
	"errors"
	"os"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// TestTheSweepLeavesWhatEndsMeanwhile: the end of a message is seen before it is on
// stable storage. Were its file swept then, a power cut would leave the message
// without its octets.
func TestTheSweepLeavesWhatEndsMeanwhile(t *testing.T) {
	fs := vfs.NewMem()
	o := Options{FS: fs, Clock: (&fakeClock{start}).Now}
	e := open(t, o)
	ended := put(t, e, mailTo("meg@ryan.example"), large(t, fs, "its octets"))
	path := e.bodyPath(mustID(t, ended))
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	e = open(t, o)
	<-e.swept
	before := e.db.NewSnapshot() // as a start takes it
	defer before.Close()
	for _, c := range claim(t, e, start, 1) {
		if err := e.Commit(context.Background(), c, []Change{{State: Delivered}}, false); err != nil {
			t.Fatal(err)
		}
	}
	put(t, e, mailTo("meg@ryan.example"), large(t, fs, "another's")) // behind which the file is gone
	if _, err := fs.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("the file of an ended message: %v", err)
	}
	f, err := fs.Create(path, vfs.WriteCategoryUnspecified) // as it lies there until the end is synced
	if err == nil {
		err = f.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	e.sweep(before)
	if _, err := fs.Stat(path); err != nil {
		t.Errorf("the sweep has removed the file of a message that ended since the start: %v", err)
	}
	after := e.db.NewSnapshot()
	defer after.Close()
	e.sweep(after)
	if _, err := fs.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the sweep leaves an orphan: %v", err)
	}
}
