package queue

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	mrand "math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/rs/zerolog"

	"github.com/stagecoach-mta/stagecoach/core/spool"
)

const damagedMails = 400

// damagedQueue is a disk with a queue of damagedMails mails, of which one stands
// in a block that is not what was written.
func damagedQueue(t *testing.T) *vfs.MemFS {
	t.Helper()
	fs := vfs.NewCrashableMem()
	e := open(t, Options{FS: fs, Clock: (&fakeClock{start}).Now})
	var subject string
	for n := range damagedMails {
		env := mailTo("meg@ryan.example", "kathleen@ryan.example")
		env.Subject = rand.Text() + rand.Text() + rand.Text() // which a block hardly compresses
		if n == damagedMails/2 {
			subject = env.Subject
		}
		put(t, e, env, spool.FromBytes([]byte("x")))
	}
	// Some have a journal, which stands elsewhere.
	if err := e.db.Flush(); err != nil {
		t.Fatal(err)
	}
	for _, c := range claim(t, e, start, damagedMails) {
		if err := e.Commit(context.Background(), c, []Change{{State: Delivered}}, false); err != nil {
			t.Fatal(err)
		}
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	damage(t, fs, subject)
	return fs
}

// TestADamagedBlockCostsItsOwnMessages: a bad sector below the database stops the
// queue, and the next start goes on with all that can be read.
func TestADamagedBlockCostsItsOwnMessages(t *testing.T) {
	ctx := context.Background()
	fs := damagedQueue(t)
	var log bytes.Buffer
	o := Options{FS: fs, Clock: (&fakeClock{start}).Now, Log: zerolog.New(zerolog.SyncWriter(&log)), CacheSize: 1 << 20}
	stopsAtTheBlock(t, o)
	fs = ended(fs)
	o.FS = fs

	e := open(t, o)
	cs := claim(t, e, start, damagedMails)
	checkSalvaged(t, e, cs)
	again := 0
	for _, c := range cs {
		again += len(c.Due) - 1
		changes := []Change{{Index: 0, State: Delivered}, {Index: 1, State: Delivered}}
		if err := e.Commit(ctx, c, changes, false); err != nil {
			t.Fatal(err)
		}
	}
	// Of the last message before the block the journal may have stood in it.
	if again > 1 {
		t.Errorf("the journals of %d messages are forgotten", again)
	}
	if s, err := e.Stats(ctx); err != nil || s.Messages != 0 || s.Recipients != 0 {
		t.Errorf("after all were delivered: %+v %v", s, err)
	}
	// More flushes than a database takes that cannot compact.
	for range 30 {
		put(t, e, mailTo("later@ryan.example"), spool.FromBytes([]byte("x")))
		if err := e.db.Flush(); err != nil {
			t.Fatal(err)
		}
	}
	if got := claim(t, e, start, 50); len(got) != 30 {
		t.Errorf("%d of 30 later mails are claimed", len(got))
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(log.String(), "built anew") {
		t.Errorf("the log does not say so: %.500s", log.String())
	}
	if _, err := fs.Stat("queue/db.damaged"); err != nil {
		t.Errorf("the damaged database is not kept: %v", err)
	}
	log.Reset()
	if err := open(t, o).Close(); err != nil || strings.Contains(log.String(), "built anew") {
		t.Errorf("the start after: %v %s", err, log.String())
	}
}

// stopsAtTheBlock: a compaction of the start meets the block, or the first reader.
func stopsAtTheBlock(t *testing.T, o Options) {
	t.Helper()
	o.Dir = "queue"
	e, err := Open(o)
	if err == nil {
		_, err = e.Claim(context.Background(), start, damagedMails, time.Minute)
		select {
		case reason := <-e.Failed():
			if !errors.Is(reason, ErrStopped) {
				t.Errorf("the reason is %v", reason)
			}
		case <-time.After(10 * time.Second):
			t.Error("nobody is told")
		}
	}
	if !errors.Is(err, ErrStopped) || !strings.Contains(err.Error(), "is damaged, the next start keeps what is whole") {
		t.Fatalf("a damaged block: %v", err)
	}
}

// ended is the disk when the process is gone, and its locks with it.
func ended(fs *vfs.MemFS) *vfs.MemFS { return fs.CrashClone(vfs.CrashCloneCfg{}) }

func checkSalvaged(t *testing.T, e *Engine, cs []*Claim) {
	t.Helper()
	if lost := damagedMails - len(cs); lost == 0 || lost > damagedMails/4 {
		t.Errorf("%d of %d mails are lost, want those of one block", lost, damagedMails)
	}
	for _, c := range cs {
		if got := octets(t, e, c.ID); string(got) != "x" {
			t.Errorf("the body of %s is %q", c.ID, got)
		}
	}
	due := 0
	for _, c := range cs {
		due += len(c.Due)
	}
	s, err := e.Stats(context.Background())
	if err != nil || s.Messages != int64(len(cs)) || s.Recipients != int64(due) {
		t.Errorf("stats %+v %v for %d messages", s, err, len(cs))
	}
}

// TestPowerCutInSalvage cuts the power while the database is built anew.
func TestPowerCutInSalvage(t *testing.T) {
	mem := damagedQueue(t)
	stopsAtTheBlock(t, Options{FS: mem, Clock: (&fakeClock{start}).Now, CacheSize: 1 << 20})
	mem = ended(mem)
	var mu sync.Mutex
	var cuts []*vfs.MemFS
	rng := mrand.New(mrand.NewPCG(newSeed(t), 4))
	fs := errorfs.Wrap(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind.ReadOrWrite() == errorfs.OpIsWrite && op.Kind != errorfs.OpFileClose {
			mu.Lock()
			defer mu.Unlock()
			cuts = append(cuts, powerCut(mem, rng.IntN(101), rng))
		}
		return nil
	}))
	e := open(t, Options{FS: fs, Clock: (&fakeClock{start}).Now, CacheSize: 1 << 20})
	want := claim(t, e, start, damagedMails)
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	defer mu.Unlock()
	for n := 0; n < len(cuts); n += 1 + rng.IntN(20) {
		e := open(t, Options{FS: cuts[n], Clock: (&fakeClock{start}).Now, CacheSize: 1 << 20})
		cs := claim(t, e, start, damagedMails)
		if len(cs) != len(want) {
			t.Fatalf("after a cut at write %d of %d %d mails are there, want %d", n, len(cuts), len(cs), len(want))
		}
		if err := e.Close(); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d power cuts", len(cuts))
}

// find looks for a piece of the text: what of it stood in the block before is not
// written out again.
func find(b []byte, text string) int {
	for ; len(text) >= 12; text = text[1:] {
		if at := bytes.Index(b, []byte(text[:12])); at >= 0 {
			return at
		}
	}
	return -1
}

// damage changes an octet of the text in whatever table of the database has it.
func damage(t *testing.T, fs vfs.FS, text string) {
	t.Helper()
	names, err := fs.List("queue/db")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if !strings.HasSuffix(name, ".sst") {
			continue
		}
		path := "queue/db/" + name
		f, err := fs.OpenReadWrite(path, vfs.WriteCategoryUnspecified)
		if err != nil {
			t.Fatal(err)
		}
		st, err := f.Stat()
		if err != nil {
			t.Fatal(err)
		}
		b := make([]byte, st.Size())
		if _, err := f.ReadAt(b, 0); err != nil {
			t.Fatal(err)
		}
		at := find(b, text)
		if at >= 0 {
			_, err = f.WriteAt([]byte{b[at] ^ 1}, int64(at))
		}
		if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
			t.Fatal(err)
		}
		if at >= 0 {
			return
		}
	}
	t.Fatal("no table has the text")
}
