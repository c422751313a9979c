package queue

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/rs/zerolog"
)

var (
	// ErrInUse: a server has the queue.
	ErrInUse = errors.New("the queue is in use")
	// ErrNoQueue: there is none in that folder.
	ErrNoQueue = errors.New("there is no queue")
)

// CheckOptions of Check.
type CheckOptions struct {
	// Dir is the queue's directory; FS the disk, nil: the operating system's.
	Dir string
	FS  vfs.FS
	// Clock; nil: time.Now.
	Clock func() time.Time
	Log   zerolog.Logger
	// Repair what can be: no mail whose record is whole is lost by it.
	Repair bool
	// Progress hears what is being looked at and how many of it were seen, some
	// times a second at most; nil: nobody does.
	Progress func(what string, seen int64)
	// Tune is that of Options.
	Tune func(*pebble.Options)
}

// Findings of a Check.
type Findings struct {
	Format uint64 `json:"format"`
	// Checked is what was looked at, in that order.
	Checked []Checked `json:"checked"`
	// Problems, the first maxProblems of them.
	Problems []Problem `json:"problems"`
	// Unlisted are the problems beyond those.
	Unlisted int64 `json:"unlisted,omitempty"`
	// Left are the problems that were not repaired.
	Left int64 `json:"left"`
	// SetAside are the records that were set aside, now or before.
	SetAside []SetAside `json:"set_aside"`
	// MoreSetAside are those beyond the first maxProblems.
	MoreSetAside int64 `json:"more_set_aside,omitempty"`
	// Leftover are bodies whose message's record is lost, or that has ended; Orphans
	// tells of the first maxProblems of them. A repair sets them aside.
	Leftover Leftover `json:"leftover"`
	Orphans  []Orphan `json:"orphans"`
	// Aside are those that were set aside, now or before, and are still there.
	Aside Leftover `json:"aside"`
	// Notes are no problems, but worth knowing.
	Notes []string `json:"notes"`
}

// Leftover counts bodies.
type Leftover struct {
	Bodies int64 `json:"bodies"`
	Bytes  int64 `json:"bytes"`
}

// Checked is one kind of thing that was looked at.
type Checked struct {
	What  string `json:"what"`
	Count int64  `json:"count"`
	Wrong int64  `json:"wrong"`
}

// Problem is one thing that is wrong.
type Problem struct {
	// What kind: that of a Checked.
	What string `json:"what"`
	// Where: a message's id, a file, or a key in hexadecimal digits.
	Where string `json:"where"`
	Text  string `json:"text"`
	// Repair is what was done about it; "": nothing.
	Repair string `json:"repair,omitempty"`
}

// SetAside is a record that was found corrupt and moved out of the way, as it was.
type SetAside struct {
	// ID of the message that it is of; "" if it is of none.
	ID string `json:"id,omitempty"`
	// Key that it had, in hexadecimal digits.
	Key    string `json:"key"`
	Record []byte `json:"record"`
}

// maxProblems are listed.
const maxProblems = 1000

// The kinds of things that are checked.
const (
	ofLogs         = "logs of the database"
	ofTables       = "tables of the database"
	ofRecords      = "records"
	ofMessages     = "messages"
	ofResults      = "results in their journals"
	ofBodies       = "bodies"
	ofDue          = "places in the due index"
	ofLanes        = "places in lanes"
	ofDestinations = "places by destination"
	ofCounts       = "counts"
	ofFiles        = "body files"
	ofHistory      = "records of the mail journal"
)

// Check reads all of a stopped queue and says what is not as it must be. A crash in the middle of a repair leaves a queue that is no
// worse: each step is one commit, or one rename.
func Check(ctx context.Context, o CheckOptions) (*Findings, error) {
	if o.FS == nil {
		o.FS = vfs.Default
	}
	if o.Clock == nil {
		o.Clock = time.Now
	}
	c := &checker{o: o, ctx: ctx, at: map[string]int{}, e: &Engine{
		o: Options{Dir: o.Dir, FS: o.FS, Clock: o.Clock, Log: o.Log, CacheSize: 32 << 20, Tune: o.Tune}, stop: newStopper(), log: o.Log,
	}}
	c.e.fs = syncGuard{o.FS, c.e.stop}
	c.want.places = map[byte]int64{}
	c.f.Problems, c.f.SetAside, c.f.Orphans, c.f.Notes = []Problem{}, []SetAside{}, []Orphan{}, []string{}
	err := c.run()
	if c.e.db != nil && c.e.stop.err() == nil {
		err = errors.Join(err, guard(c.e.stop, c.e.db.Close))
	}
	if err != nil {
		return nil, fmt.Errorf("check the queue: %w", err)
	}
	return &c.f, nil
}

// checker is one Check. Its engine has a database and a disk, and is never started.
type checker struct {
	o   CheckOptions
	ctx context.Context
	e   *Engine
	f   Findings
	at  map[string]int // of a kind in f.Checked
	b   *pebble.Batch  // repairs that are not committed yet
	// told is when Progress was last called.
	told time.Time

	lost []lostBody // bodies that are nobody's

	// What the messages ask for; see check_records.go.
	want sums
}

func (c *checker) run() error {
	if err := c.unlocked(); err != nil {
		return err
	}
	if err := c.logs(); err != nil {
		return err
	}
	if err := c.pendingSalvage(); err != nil {
		return err
	}
	if err := c.tables(); err != nil || c.e.db == nil {
		return err
	}
	for _, step := range []func() error{c.format, c.shapes, c.messages, c.indexes, c.counts, c.bodyFiles, c.history, c.rescueAside, c.listAside} {
		if err := step(); err != nil {
			return err
		}
		if err := c.flush(); err != nil {
			return err
		}
	}
	return c.ctx.Err()
}

// unlocked refuses a queue that somebody uses, and a folder that is none.
func (c *checker) unlocked() error {
	db := c.o.FS.PathJoin(c.o.Dir, "db")
	if _, err := c.o.FS.Stat(db); errors.Is(err, os.ErrNotExist) {
		if _, err := c.o.FS.Stat(c.o.FS.PathJoin(c.o.Dir, damagedMark)); err == nil {
			return nil // a salvage was cut off between two renames
		}
		return fmt.Errorf("%w in %s: name the configuration with -c, or the data directory with --data-dir", ErrNoQueue, c.o.Dir)
	} else if err != nil {
		return err
	}
	l, err := pebble.LockDirectory(db, c.o.FS)
	switch {
	case err == nil:
		return l.Close()
	case errors.Is(err, syscall.EAGAIN), strings.Contains(err.Error(), "lock held"): // by another process, or this one
		return fmt.Errorf("%w: stop the server that runs on %s first, or check a copy of the folder", ErrInUse, c.o.Dir)
	}
	return err
}

// pendingSalvage is what a run left that met a damaged block.
func (c *checker) pendingSalvage() error {
	mark := c.o.FS.PathJoin(c.o.Dir, damagedMark)
	if _, err := c.o.FS.Stat(mark); errors.Is(err, os.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	c.see(ofTables, 0)
	p := Problem{What: ofTables, Where: mark, Text: "a run met a damaged block of the database; it is to be built anew"}
	if !c.o.Repair {
		c.problem(p)
		return nil
	}
	return c.rebuilt(p)
}

const rebuiltText = "the database was built anew from what could be read; the old one is db.damaged"

func (c *checker) rebuilt(ps ...Problem) error {
	if err := guard(c.e.stop, c.e.salvage); err != nil {
		return err
	}
	for _, p := range ps {
		p.Repair = rebuiltText
		c.problem(p)
	}
	return nil
}

// tables opens the database, only to read it, and compares each block of its tables
// with its checksum: those too that no record of now stands in. For a repair it is
// then opened to be written.
func (c *checker) tables() error {
	db := c.o.FS.PathJoin(c.o.Dir, "db")
	if _, err := c.o.FS.Stat(db); errors.Is(err, os.ErrNotExist) {
		return nil // a cut salvage, which was told; only a repair goes on
	}
	err := guard(c.e.stop, func() (err error) {
		c.e.db, err = pebble.Open(db, c.e.tuned(&pebble.Options{
			FS: c.e.dbFS(), ReadOnly: true, Logger: dbLog{c.e.log, c.e.stop},
			EventListener: &pebble.EventListener{DataCorruption: func(pebble.DataCorruptionInfo) {}},
		}))
		return err
	})
	if err != nil {
		if !pebble.IsCorruptionError(err) {
			return err
		}
		c.see(ofTables, 1)
		c.problem(Problem{What: ofTables, Where: db, Text: "the database does not open: " + err.Error() +
			". No repair is known for that; bring its folder back from a copy. Large bodies in body/ are whole files"})
		return nil
	}
	bad, err := c.damagedTables()
	if err != nil || !c.o.Repair {
		for _, p := range bad {
			c.problem(p)
		}
		return err
	}
	if err := guard(c.e.stop, c.e.db.Close); err != nil {
		return err
	}
	c.e.db = nil
	if len(bad) > 0 {
		if err := c.e.markDamaged("found by a check\n"); err != nil {
			return err
		}
		if err := c.rebuilt(bad...); err != nil {
			return err
		}
	}
	if err := c.e.openDB(); err != nil {
		return err
	}
	c.e.opened.Store(true)
	c.b = c.e.db.NewBatch()
	return nil
}

func (c *checker) damagedTables() (bad []Problem, err error) {
	levels, err := c.e.db.SSTables()
	if err != nil {
		return nil, err
	}
	seen := map[string]bool{}
	for _, level := range levels {
		for _, t := range level {
			path := c.o.FS.PathJoin(c.o.Dir, "db", fmt.Sprintf("%06d.sst", uint64(t.BackingSSTNum)))
			if seen[path] {
				continue // two parts of one file
			}
			seen[path] = true
			c.see(ofTables, 1)
			if err := c.ctx.Err(); err != nil {
				return nil, err
			}
			if err := c.table(path); err != nil {
				bad = append(bad, Problem{What: ofTables, Where: path, Text: err.Error()})
			}
		}
	}
	return bad, nil
}

func (c *checker) table(path string) error {
	f, err := c.o.FS.Open(path)
	if err != nil {
		return err
	}
	r, err := sstable.NewSimpleReadable(f)
	if err != nil {
		return errors.Join(err, f.Close())
	}
	t, err := sstable.NewReader(c.ctx, r, c.readerOptions())
	if err != nil {
		return errors.Join(err, r.Close())
	}
	return errors.Join(t.ValidateBlockChecksums(), t.Close())
}

func (c *checker) readerOptions() sstable.ReaderOptions {
	opts := &pebble.Options{Logger: dbLog{c.e.log, c.e.stop}}
	opts.EnsureDefaults()
	return opts.MakeReaderOptions()
}

// see counts what was looked at.
func (c *checker) see(what string, n int64) {
	k := c.kind(what)
	k.Count += n
	if c.o.Progress == nil || k.Count&1023 != 0 {
		return
	}
	if now := time.Now(); now.Sub(c.told) >= 200*time.Millisecond {
		c.told = now
		c.o.Progress(what, k.Count)
	}
}

func (c *checker) kind(what string) *Checked {
	n, ok := c.at[what]
	if !ok {
		n = len(c.f.Checked)
		c.at[what] = n
		c.f.Checked = append(c.f.Checked, Checked{What: what})
	}
	return &c.f.Checked[n]
}

func (c *checker) problem(p Problem) {
	c.kind(p.What).Wrong++
	if p.Repair == "" {
		c.f.Left++
	}
	if len(c.f.Problems) >= maxProblems {
		c.f.Unlisted++
		return
	}
	c.f.Problems = append(c.f.Problems, p)
}

// repair tells of a problem and, if that is asked for, does something about it in
// the batch. What is in one call is in one commit.
func (c *checker) repair(p Problem, done string, do func(b *pebble.Batch) error) error {
	if !c.o.Repair {
		c.problem(p)
		return nil
	}
	if err := do(c.b); err != nil {
		return err
	}
	p.Repair = done
	c.problem(p)
	if c.b.Len() >= maxGroup {
		return c.flush()
	}
	return nil
}

// flush commits the repairs so far.
func (c *checker) flush() error {
	if c.b == nil || c.b.Empty() {
		return nil
	}
	b := c.b
	c.b = c.e.db.NewBatch()
	if err := guard(c.e.stop, func() error { return b.Commit(pebble.Sync) }); err != nil {
		return err // the batch may be in use for ever
	}
	return b.Close()
}

func (c *checker) note(format string, args ...any) {
	if len(c.f.Notes) < maxProblems {
		c.f.Notes = append(c.f.Notes, fmt.Sprintf(format, args...))
	}
}
