package queue

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/rs/zerolog"

	"github.com/stagecoach-mta/stagecoach/core/spool"
)

var errDisk = errors.New("the disk is on fire")

// syncFault fails one sync of the files whose path holds a text, and counts what
// is done to that file afterwards.
type syncFault struct {
	sync.Mutex
	path   string // "" until it is armed
	failed string // the file
	again  int    // syncs of it after the failure
}

func (f *syncFault) arm(path string) {
	f.Lock()
	defer f.Unlock()
	f.path = path
}

func (f *syncFault) inject(op errorfs.Op) error {
	switch op.Kind {
	case errorfs.OpFileSync, errorfs.OpFileSyncData, errorfs.OpFileSyncTo:
	default:
		return nil
	}
	f.Lock()
	defer f.Unlock()
	switch {
	case f.failed != "" && op.Path == f.failed:
		f.again++ // it would succeed now, and be a lie
	case f.failed == "" && f.path != "" && strings.Contains(op.Path, f.path):
		f.failed = op.Path
		return errDisk
	}
	return nil
}

// TestNothingIsTriedAgainAfterAFailedSync is promise 2: whichever file it is, the
// queue stops, says why, and what it acknowledged before is there.
func TestNothingIsTriedAgainAfterAFailedSync(t *testing.T) {
	ctx := context.Background()
	for _, c := range []struct {
		name, path string
		large      bool
	}{
		{"the log", ".log", false},
		{"a large body", "spool", true},
		{"the directory of bodies", "body", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			mem, fault := vfs.NewCrashableMem(), &syncFault{}
			fs := errorfs.Wrap(mem, errorfs.InjectorFunc(fault.inject))
			e := open(t, Options{FS: fs, Clock: (&fakeClock{start}).Now})
			kept := put(t, e, mailTo("meg@ryan.example"), spool.FromBytes([]byte("kept")))
			claimed := claim(t, e, start, 1)[0]
			body := func() spool.Body {
				if c.large {
					return large(t, fs, "lost")
				}
				return spool.FromBytes([]byte("lost"))
			}
			lost := body()
			fault.arm(c.path)
			if err := e.Put(ctx, mailTo("kathleen@ryan.example"), lost); !errors.Is(err, ErrStopped) || !strings.Contains(err.Error(), errDisk.Error()) {
				t.Fatalf("the Put whose sync failed says %v", err)
			}
			select {
			case err := <-e.Failed():
				if !errors.Is(err, ErrStopped) || !strings.Contains(err.Error(), errDisk.Error()) {
					t.Errorf("the reason is %v", err)
				}
			case <-time.After(10 * time.Second):
				t.Fatal("nobody is told")
			}
			for what, err := range map[string]error{
				"Put":     e.Put(ctx, mailTo("joe@ryan.example"), spool.FromBytes([]byte("x"))),
				"Commit":  e.Commit(ctx, claimed, []Change{{State: Delivered}}, false),
				"Release": e.Release(ctx, claimed),
				"Operate": e.Operate(ctx, kept, Operation{Kind: Remove}),
				"List":    e.List(ctx, Filter{}, func(*Envelope) bool { return true }),
				"Close":   e.Close(),
			} {
				if !errors.Is(err, ErrStopped) {
					t.Errorf("%s of a stopped queue: %v", what, err)
				}
			}
			if _, err := e.Claim(ctx, start, 1, time.Minute); !errors.Is(err, ErrStopped) {
				t.Errorf("Claim of a stopped queue: %v", err)
			}
			fault.Lock()
			if fault.again != 0 {
				t.Errorf("%s was synced %d times after a sync of it had failed", fault.failed, fault.again)
			}
			fault.Unlock()

			after := open(t, Options{FS: mem.CrashClone(vfs.CrashCloneCfg{}), Clock: (&fakeClock{start}).Now})
			if got := octets(t, after, kept); string(got) != "kept" {
				t.Errorf("what was acknowledged is %q", got)
			}
		})
	}
}

// TestAFullDiskRefusesAndGoesOn: no space is no failed sync. Results can still be
// recorded, and there is no trace of what was refused.
func TestAFullDiskRefusesAndGoesOn(t *testing.T) {
	ctx := context.Background()
	mem := vfs.NewMem()
	var mu sync.Mutex
	full := false
	set := func(v bool) {
		mu.Lock()
		defer mu.Unlock()
		full = v
	}
	fs := errorfs.Wrap(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
		mu.Lock()
		defer mu.Unlock()
		if full && op.Kind == errorfs.OpLink || full && op.Kind == errorfs.OpRename && strings.Contains(op.Path, "spool") {
			return syscall.ENOSPC
		}
		return nil
	}))
	e := open(t, Options{FS: fs, Clock: (&fakeClock{start}).Now})
	put(t, e, mailTo("meg@ryan.example"), spool.FromBytes([]byte("x")))
	body := large(t, fs, "large")
	set(true)
	if err := e.Put(ctx, mailTo("kathleen@ryan.example"), body); !errors.Is(err, ErrFull) {
		t.Fatalf("Put on a full disk: %v", err)
	}
	if err := e.Commit(ctx, claim(t, e, start, 1)[0], []Change{{State: Delivered}}, false); err != nil {
		t.Errorf("a result on a full disk: %v", err)
	}
	set(false)
	if s, err := e.Stats(ctx); err != nil || s.Messages != 0 || len(bodyFiles(t, mem)) != 0 {
		t.Errorf("%+v %v, files %v", s, err, bodyFiles(t, mem))
	}
	if err := e.Put(ctx, mailTo("kathleen@ryan.example"), large(t, fs, "large")); err != nil {
		t.Errorf("Put when there is room again: %v", err)
	}

	// Before the disk is full, what is kept for results refuses.
	low := open(t, Options{FS: lowDisk{vfs.NewMem()}, Clock: (&fakeClock{start}).Now, MinFree: 10 << 20})
	if err := low.Put(ctx, mailTo("meg@ryan.example"), spool.FromBytes([]byte("x"))); !errors.Is(err, ErrFull) || !strings.Contains(err.Error(), "MiB are free") {
		t.Errorf("Put below min_free: %v", err)
	}
}

type lowDisk struct{ vfs.FS }

func (lowDisk) GetDiskUsage(string) (vfs.DiskUsage, error) {
	return vfs.DiskUsage{AvailBytes: 9 << 20, TotalBytes: 1 << 30}, nil
}

// spoil changes one octet of a record, as a bad disk does.
func spoil(t *testing.T, e *Engine, key []byte) {
	t.Helper()
	rec, err := e.get(key)
	if err != nil {
		t.Fatalf("%q: %v", key, err)
	}
	rec[len(rec)/2] ^= 1
	if err := e.db.Set(key, rec, pebble.Sync); err != nil {
		t.Fatal(err)
	}
}

// TestCorruptRecordsAreSetAside is promise 4.
func TestCorruptRecordsAreSetAside(t *testing.T) {
	ctx := context.Background()
	fs := vfs.NewMem()
	var log lines
	o := Options{FS: fs, Clock: (&fakeClock{start}).Now, Log: zerolog.New(&log)}
	e := open(t, o)
	if err := e.SetFeed(true); err != nil {
		t.Fatal(err)
	}
	whole := put(t, e, mailTo("whole@ryan.example"), spool.FromBytes([]byte("whole")))
	envelope := put(t, e, mailTo("envelope@ryan.example"), large(t, fs, "its envelope"))
	result := put(t, e, mailTo("result@ryan.example", "other@ryan.example"), spool.FromBytes([]byte("its result")))
	body := put(t, e, mailTo("body@ryan.example"), spool.FromBytes([]byte("its body")))
	gone := put(t, e, mailTo("gone@ryan.example"), large(t, fs, "its file"))
	for _, c := range claim(t, e, start, 10) {
		if c.ID == result {
			if err := e.Commit(ctx, c, []Change{{State: Delivered}}, false); err != nil {
				t.Fatal(err)
			}
		}
	}
	spoil(t, e, messageKey(mustID(t, envelope)))
	spoil(t, e, journalKey(mustID(t, result), 0))
	spoil(t, e, bodyKey(mustID(t, body)))
	spoil(t, e, metaCounts)
	spoil(t, e, feedKey(e.Latest()))
	if err := fs.Remove(e.bodyPath(mustID(t, gone))); err != nil {
		t.Fatal(err)
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}

	e = open(t, o)
	got := map[string]*Claim{}
	for _, c := range claim(t, e, start, 10) {
		got[c.ID] = c
	}
	if len(got) != 4 || got[whole] == nil || got[result] == nil {
		t.Errorf("claimed %v, want all but %s", got, envelope)
	}
	if text := octets(t, e, whole); string(text) != "whole" {
		t.Errorf("the whole one is %q", text)
	}
	// What became of the recipient is not known: it is tried again.
	if c := got[result]; fmt.Sprint(c.Due) != "[0 1]" {
		t.Errorf("after a corrupt result %v are due", c.Due)
	}
	for _, id := range []string{body, gone} {
		if _, err := e.Body(ctx, id); !errors.Is(err, ErrCorrupt) {
			t.Errorf("a corrupt body: %v", err)
		}
		if err := e.Release(ctx, got[id]); err != nil {
			t.Error(err)
		}
		env, err := e.Get(ctx, id)
		if err != nil || env.Recipients[0].State != Held || !strings.Contains(env.Recipients[0].Reason, "corrupt") {
			t.Errorf("the message of a corrupt body: %+v %v", env, err)
		}
	}
	if cs := claim(t, e, start, 10); len(cs) != 0 {
		t.Errorf("what cannot be sent is claimed again: %v", cs)
	}
	if e.Corrupted() != 4 {
		t.Errorf("%d corrupt records are counted, want 4", e.Corrupted())
	}
	put(t, e, mailTo("sync@ryan.example"), spool.FromBytes([]byte("x"))) // its sync carries what was set aside
	if !e.quarantined(mustID(t, envelope)) {
		t.Error("the corrupt envelope is not kept for whoever repairs it")
	}
	if s, err := e.Stats(ctx); err != nil || s.Messages != 5 || s.Recipients != 6 || s.Held != 2 {
		t.Errorf("stats %+v %v", s, err)
	}
	if os, err := e.Observations(ctx, 0, 100); err != nil || len(os) != 5 {
		t.Errorf("%d observations, want all but one: %v", len(os), err)
	}
	for _, id := range []string{envelope, result, body, gone} {
		if !strings.Contains(log.String(), id) {
			t.Errorf("the log does not name %s", id)
		}
	}
	// The file of what was set aside outlives the sweep of the next start.
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	e = open(t, o)
	if err := e.Close(); err != nil { // which waits for the sweep
		t.Fatal(err)
	}
	if _, err := fs.Stat(e.bodyPath(mustID(t, envelope))); err != nil {
		t.Errorf("the body of what was set aside: %v", err)
	}
}

// lines is a log that an engine's goroutines write while a test reads it.
type lines struct {
	mu sync.Mutex
	b  []byte
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.b = append(l.b, b...)
	return len(b), nil
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return string(l.b)
}

func (l *lines) Reset() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.b = nil
}
