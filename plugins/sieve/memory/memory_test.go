package memory

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestKeysAreRememberedForTheirTimeAndOverARestart(t *testing.T) {
	now := time.Unix(1e9, 0)
	dir := t.TempDir()
	clock := func() time.Time { return now }
	m, err := Open(dir, clock)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Remember("meg", "q1:0", []Key{{"away tom", time.Hour}, {"id 1", time.Minute}}); err != nil {
		t.Fatal(err)
	}
	check := func(when string, account, key, delivery string, want bool) {
		t.Helper()
		if got := m.Seen(account, key, delivery); got != want {
			t.Errorf("%s: %s's %q, asked by %s: %v", when, account, key, delivery, got)
		}
	}
	check("at once", "meg", "away tom", "q2:0", true)
	check("at once", "meg", "away tom", "q1:0", false)
	check("at once", "joe", "away tom", "q2:0", false)
	now = now.Add(2 * time.Minute)
	check("later", "meg", "id 1", "q2:0", false)
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	// A torn record at the end, and a damaged one before it.
	f, err := os.OpenFile(filepath.Join(dir, "memory"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write(make([]byte, recordLen+5)); err != nil {
		t.Fatal(err)
	}
	f.Close()
	if m, err = Open(dir, clock); err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	check("after a restart", "meg", "away tom", "q2:0", true)
	if m.Len() != 1 {
		t.Errorf("%d keys", m.Len())
	}
	now = now.Add(time.Hour)
	check("an hour later", "meg", "away tom", "q2:0", false)
}

func TestMemoryIsBounded(t *testing.T) {
	now := time.Unix(1e9, 0)
	dir := t.TempDir()
	m, err := open(dir, 100, func() time.Time { return now })
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	for i := range 300 {
		if err := m.Remember("meg", "q", []Key{{fmt.Sprint(i), time.Duration(i+1) * time.Hour}}); err != nil {
			t.Fatal(err)
		}
		if m.Len() > 100 {
			t.Fatalf("%d keys", m.Len())
		}
	}
	if !m.Seen("meg", "299", "other") || m.Seen("meg", "0", "other") {
		t.Error("not the oldest were forgotten")
	}
	if fi, err := os.Stat(filepath.Join(dir, "memory")); err != nil || fi.Size() > 200*recordLen {
		t.Errorf("%v %v", fi.Size(), err)
	}
}
