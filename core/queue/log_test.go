package queue

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/rs/zerolog"

	"github.com/stagecoach-mta/stagecoach/core/spool"
	"github.com/stagecoach-mta/stagecoach/sdk/storage/simdisk"
)

// newestLog is the log of a database with the highest number.
func newestLog(t *testing.T, fs *simdisk.Disk) (name string, size int64) {
	t.Helper()
	names, err := fs.List("queue/db")
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range names {
		if strings.HasSuffix(n, ".log") {
			name = "queue/db/" + n
		}
	}
	st, err := fs.Stat(name)
	if err != nil {
		t.Fatal(err)
	}
	return name, st.Size()
}

// loggedMails is a disk with a queue of so many mails, all of them in the log.
func loggedMails(t *testing.T, mails int) *simdisk.Disk {
	t.Helper()
	fs := simdisk.New()
	e := open(t, Options{FS: fs, Clock: (&fakeClock{start}).Now})
	for n := range mails {
		put(t, e, mailTo("meg@ryan.example"), spool.FromBytes([]byte(fmt.Sprint("mail ", n, strings.Repeat(" x", 300)))))
	}
	return fs.Clone() // the process is gone
}

// TestADamagedLogCostsItsOwnRecords: a bit that the disk changed in the midst of
// the log costs what stood there, is told, and nothing behind it is lost.
func TestADamagedLogCostsItsOwnRecords(t *testing.T) {
	const mails = 200
	whole := loggedMails(t, mails)
	name, size := newestLog(t, whole)
	for percent := int64(1); percent < 100; percent += 7 {
		for _, bits := range []int64{1, 40000} {
			if size*percent/100+bits > size*99/100 {
				continue
			}
			if end := size*percent/100 + bits; bits > 1 && end/logBlock == size/logBlock {
				bits -= end % logBlock // without the last block's first header nothing there tells what was synced
			}
			t.Run(fmt.Sprintf("%d octets at %d%%", bits, percent), func(t *testing.T) {
				fs := whole.Clone()
				for n := range bits {
					if err := fs.Damage(name, size*percent/100+n); err != nil {
						t.Fatal(err)
					}
				}
				var log lines
				o := Options{FS: fs, Clock: (&fakeClock{start}).Now, Log: zerolog.New(&log)}
				e := open(t, o)
				cs := claim(t, e, start, mails)
				most := 1 + int(bits/600)
				if bits > 1 {
					most += 2 * logBlock / 600 // the next block is where it goes on
				}
				if lost := mails - len(cs); lost < 0 || lost > most {
					t.Errorf("%d of %d mails are lost, want at most %d", lost, mails, most)
				}
				if s, err := e.Stats(t.Context()); err != nil || s.Messages != int64(len(cs)) {
					t.Errorf("%d messages are counted, %d are there: %v", s.Messages, len(cs), err)
				}
				for _, c := range cs {
					if got := octets(t, e, c.ID); !strings.HasSuffix(string(got), strings.Repeat(" x", 300)) {
						t.Errorf("the body of %s is %.40q", c.ID, got)
					}
				}
				if err := e.Close(); err != nil {
					t.Fatal(err)
				}
				if !strings.Contains(log.String(), "damaged the log") {
					t.Errorf("nobody is told: %s", log.String())
				}
				if _, err := fs.Stat("queue/db.damaged" + strings.TrimPrefix(name, "queue/db") + ".damaged"); err != nil {
					t.Errorf("the damaged log is not kept: %v", err)
				}
				log.Reset()
				if err := open(t, o).Close(); err != nil || strings.Contains(log.String(), "damaged") {
					t.Errorf("the start after: %v %s", err, log.String())
				}
			})
		}
	}
}

// TestADamagedHeaderCostsItsBlock: without the length of a chunk nobody knows where
// the next one begins but at the next block.
func TestADamagedHeaderCostsItsBlock(t *testing.T) {
	const mails = 200
	fs := loggedMails(t, mails)
	name, size := newestLog(t, fs)
	b := make([]byte, size)
	f, err := fs.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.ReadAt(b, 0); err != nil {
		t.Fatal(err)
	}
	var num uint32
	if _, err := fmt.Sscanf(name, "queue/db/%d.log", &num); err != nil {
		t.Fatal(err)
	}
	var chunks []int64
	if err := eachChunk(bytes.NewReader(b), num, func(c chunk) { chunks = append(chunks, c.at) }, func(int64) {}); err != nil || len(chunks) < mails {
		t.Fatalf("%d chunks: %v", len(chunks), err)
	}
	if err := fs.Damage(name, chunks[len(chunks)/3]+5); err != nil {
		t.Fatal(err)
	}
	e := open(t, Options{FS: fs, Clock: (&fakeClock{start}).Now})
	cs := claim(t, e, start, mails)
	if lost := mails - len(cs); lost == 0 || lost > logBlock/600 {
		t.Errorf("%d of %d mails are lost, want those of one block", lost, mails)
	}
}

// TestCheckOfADamagedLog: the check tells of it, and the repair does what a start
// would do.
func TestCheckOfADamagedLog(t *testing.T) {
	fs := loggedMails(t, 100)
	name, size := newestLog(t, fs)
	if err := fs.Damage(name, size/2); err != nil {
		t.Fatal(err)
	}
	if f := check(t, fs, false); f.Left == 0 || f.Problems[0].What != ofLogs || f.Problems[0].Where != name {
		t.Errorf("found %s", f)
	}
	if f := check(t, fs, true); f.Left != 0 || f.Problems[0].Repair != rebuiltText {
		t.Errorf("repaired %s", f)
	}
	if f := check(t, fs, false); len(f.Problems) > 0 {
		t.Errorf("after the repair: %s", f)
	}
	e := open(t, Options{FS: fs, Clock: (&fakeClock{start}).Now})
	if n := len(claim(t, e, start, 100)); n != 99 {
		t.Errorf("%d of 100 mails are there, want all but one", n)
	}
}

// TestCrashInMending cuts the power while a damaged log is written anew.
func TestCrashInMending(t *testing.T) {
	d := loggedMails(t, 100)
	name, size := newestLog(t, d)
	if err := d.Damage(name, size/3); err != nil {
		t.Fatal(err)
	}
	log := d.Record()
	count := func(d *simdisk.Disk) (int64, error) {
		e, err := recovered(d)
		if err != nil {
			return 0, err
		}
		s, err := e.Stats(context.Background())
		return s.Messages, errors.Join(err, e.Close())
	}
	want, err := count(d)
	if err != nil || want != 99 {
		t.Fatalf("%d of 100 mails are kept: %v", want, err)
	}
	c := simdisk.Checker{Command: "go test ./core/queue -run '^TestCrashInMending$'", Most: 3, Sample: 3, Exhaust: 2, Again: 1 << 30}
	if c, err = c.Env(); err != nil {
		t.Fatal(err)
	}
	c.States = 0
	r, err := c.Run(func(uint64) (*simdisk.Trial, error) {
		return &simdisk.Trial{Log: log, Oracle: func(int) uint64 { return 0 }, Check: func(d *simdisk.Disk, _ int) error {
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
