package queue

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/rs/zerolog"

	"github.com/stagecoach-mta/stagecoach/core/spool"
	"github.com/stagecoach-mta/stagecoach/sdk/storage/simdisk"
)

const damagedMails = 400

// damagedQueue is a disk with a queue of so many mails, of which one stands
// in a block that is not what was written.
func damagedQueue(t *testing.T, mails int) *simdisk.Disk {
	t.Helper()
	fs := simdisk.New()
	e := open(t, Options{FS: fs, Clock: (&fakeClock{start}).Now})
	var subject string
	for n := range mails {
		env := mailTo("meg@ryan.example", "kathleen@ryan.example")
		env.Subject = rand.Text() + rand.Text() + rand.Text() // which a block hardly compresses
		if n == mails/2 {
			subject = env.Subject
		}
		put(t, e, env, spool.FromBytes([]byte("x")))
	}
	// Some have a journal, which stands elsewhere.
	if err := e.db.Flush(); err != nil {
		t.Fatal(err)
	}
	for _, c := range claim(t, e, start, mails) {
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
	fs := damagedQueue(t, damagedMails)
	var log lines // which the stopped engine's compactions write to as well
	o := Options{FS: fs, Clock: (&fakeClock{start}).Now, Log: zerolog.New(&log), CacheSize: 1 << 20}
	stopsAtTheBlock(t, o)
	fs = fs.Clone() // the process is gone, and its locks with it
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

// TestCrashInSalvage cuts the power while the database is built anew.
func TestCrashInSalvage(t *testing.T) {
	d := damagedQueue(t, 100)
	stopsAtTheBlock(t, Options{FS: d, Clock: (&fakeClock{start}).Now, CacheSize: 1 << 20})
	d = d.Clone()
	log := d.Record()
	count := func(d *simdisk.Disk) (int, error) {
		e, err := recovered(d)
		if err != nil {
			return 0, err
		}
		cs, err := e.Claim(context.Background(), start, damagedMails, time.Minute)
		return len(cs), errors.Join(err, e.Close())
	}
	want, err := count(d)
	if err != nil || want == 0 {
		t.Fatalf("%d mails are salvaged: %v", want, err)
	}
	c := simdisk.Checker{Command: "go test ./core/queue -run '^TestCrashInSalvage$'", Most: 2, Sample: 2, Exhaust: 2, Again: 1 << 30}
	c, err = c.Env()
	if err != nil {
		t.Fatal(err)
	}
	all := c.States > 0 || c.At != ""
	c.States = 0
	r, err := c.Run(func(seed uint64) (*simdisk.Trial, error) {
		return &simdisk.Trial{Log: log, Oracle: func(int) uint64 { return 0 }, Check: func(d *simdisk.Disk, at int) error {
			if !all && at%20 != int(seed%20) {
				return nil // a look past a damaged block is slow
			}
			n, err := count(d)
			if err == nil && n != want {
				err = fmt.Errorf("%d mails are there, want %d", n, want)
			}
			return err
		}}, nil
	})
	t.Logf("\n%s\n%s", simdisk.ReportHead, r)
	if err != nil {
		t.Fatal(err)
	}
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
