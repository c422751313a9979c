package filter

import (
	"bytes"
	"errors"
	"os"
	"testing"
	"time"

	"github.com/stagecoach-mta/stagecoach/sdk/mail"
)

// A large body is a file until the filter ends; the process that follows on a
// reload leaves it alone as long as the core may copy it.
func TestBodies(t *testing.T) {
	dir := t.TempDir()
	b, err := NewBodies(dir)
	if err != nil {
		t.Fatal(err)
	}
	replaced := func(body []byte) *mail.Message {
		t.Helper()
		v := Accept()
		if err := b.Replace(v, body); err != nil {
			t.Fatal(err)
		}
		m := mail.FromRef(v.Reply().GetEdits()[0].GetReplaceBody().GetBody())
		if got, err := m.Bytes(0); err != nil || !bytes.Equal(got, body) || m.Size() != int64(len(body)) {
			t.Fatalf("%d octets of %d, size %d: %v", len(got), len(body), m.Size(), err)
		}
		return m
	}
	if m := replaced(make([]byte, mail.InlineLimit)); m.Path() != "" {
		t.Errorf("a small one is the file %s", m.Path())
	}
	large, other := replaced(make([]byte, mail.InlineLimit+1)), replaced(make([]byte, mail.InlineLimit+2))
	old := time.Now().Add(-2 * bodyKept)
	if err := os.Chtimes(other.Path(), old, old); err != nil {
		t.Fatal(err)
	}
	if _, err := NewBodies(dir); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(large.Path()); err != nil {
		t.Errorf("the next process removed what the one before it still needs: %v", err)
	}
	if _, err := os.Stat(other.Path()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("an old body stays: %v", err)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(large.Path()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a body outlives its filter: %v", err)
	}
}
