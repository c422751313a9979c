package queue

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/stagecoach-mta/stagecoach/core/spool"
	"github.com/stagecoach-mta/stagecoach/sdk/storage/simdisk"
)

// furnished is a stopped queue that has one of everything. names are the ids by
// what the mail is there for.
func furnished(t *testing.T) (d *simdisk.Disk, names map[string]string) {
	t.Helper()
	ctx := context.Background()
	d, clock := simdisk.New(), &fakeClock{start}
	e := open(t, Options{FS: d, Clock: clock.Now})
	if err := errors.Join(e.SetFeed(true), e.SetHistory(24*time.Hour, 0)); err != nil {
		t.Fatal(err)
	}
	names = map[string]string{}
	add := func(name string, body spool.Body) {
		names[name] = put(t, e, mailTo("meg@ryan.example", "kathleen@ryan.example"), body)
	}
	small := spool.FromBytes([]byte("small"))
	for _, name := range []string{"fresh", "deferred", "parked", "held", "gone"} {
		add(name, small)
	}
	add("large", large(t, d, "large"))
	add("large gone", large(t, d, "large too"))
	for _, c := range claim(t, e, start, 10) {
		var changes []Change
		switch c.ID {
		case names["deferred"]:
			changes = []Change{{Index: 0, State: Delivered}, {Index: 1, State: Waiting, Next: start.Add(time.Hour), Deliver: "deliver.smtp.internet", Attempt: &Attempt{At: start, Code: 451, Text: "later"}}}
		case names["parked"]:
			changes = []Change{
				{Index: 0, State: Waiting, Next: start.Add(time.Minute), Lane: laneA, Recheck: start.Add(time.Hour), Deliver: "deliver.smtp.internet"},
				{Index: 1, State: Waiting, Next: start.Add(time.Minute), Lane: laneB, Deliver: "deliver.smtp.internet"},
			}
		case names["gone"], names["large gone"]:
			changes = []Change{{Index: 0, State: Delivered}, {Index: 1, State: Failed}}
		default:
			if err := e.Release(ctx, c); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if err := e.Commit(ctx, c, changes, false); err != nil {
			t.Fatal(err)
		}
	}
	if err := e.Operate(ctx, names["held"], Operation{Kind: Hold, Reason: "asked"}); err != nil {
		t.Fatal(err)
	}
	if err := e.SetSeen("filter.audit.book", e.Latest()-2, e.Latest()-3); err != nil {
		t.Fatal(err)
	}
	clock.set(clock.now.Add(2 * time.Hour)) // another pair of the mail journal
	names["late"] = put(t, e, mailTo("joe@reed.example"), small)
	e.history.mu.Lock()
	e.history.end() // as a restart does not; here the names are to be written
	e.history.mu.Unlock()
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	return d, names
}

func check(t testing.TB, fs vfs.FS, repair bool) *Findings {
	t.Helper()
	f, err := Check(context.Background(), CheckOptions{FS: fs, Dir: "queue", Clock: (&fakeClock{start}).Now, Repair: repair})
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func (f *Findings) String() string {
	var b strings.Builder
	for _, p := range f.Problems {
		fmt.Fprintf(&b, "%s | %s | %s | %s\n", p.What, p.Where, p.Text, p.Repair)
	}
	fmt.Fprintf(&b, "left %d, aside %d, notes %q\n", f.Left, len(f.SetAside), f.Notes)
	return b.String()
}

// raw changes a stopped queue's database past the queue.
func raw(t *testing.T, fs vfs.FS, do func(db *pebble.DB) error) {
	t.Helper()
	db, err := pebble.Open("queue/db", &pebble.Options{FS: fs, FormatMajorVersion: pebble.FormatNewest, Logger: dbLog{s: newStopper()}})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(do(db), db.Close()); err != nil {
		t.Fatal(err)
	}
}

// flip changes an octet of a record.
func flip(t *testing.T, fs vfs.FS, key []byte) {
	t.Helper()
	raw(t, fs, func(db *pebble.DB) error {
		v, c, err := db.Get(key)
		if err != nil {
			return fmt.Errorf("%x: %w", key, err)
		}
		b := slices.Clone(v)
		b[len(b)/2] ^= 1
		return errors.Join(c.Close(), db.Set(key, b, pebble.Sync))
	})
}

func drop(t *testing.T, fs vfs.FS, key []byte) {
	t.Helper()
	raw(t, fs, func(db *pebble.DB) error { return db.Delete(key, pebble.Sync) })
}

func set(t *testing.T, fs vfs.FS, key, value []byte) {
	t.Helper()
	raw(t, fs, func(db *pebble.DB) error { return db.Set(key, value, pebble.Sync) })
}

// first is the first key of a space.
func first(t *testing.T, fs vfs.FS, space byte) (key []byte) {
	t.Helper()
	raw(t, fs, func(db *pebble.DB) error {
		it, err := db.NewIter(&pebble.IterOptions{LowerBound: []byte{space}, UpperBound: []byte{space + 1}})
		if err != nil {
			return err
		}
		if !it.First() {
			return fmt.Errorf("there is no key with %q", space)
		}
		key = slices.Clone(it.Key())
		return it.Close()
	})
	return key
}

func write(t *testing.T, fs vfs.FS, path string, b []byte) {
	t.Helper()
	f, err := fs.Create(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.Write(b)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		t.Fatal(err)
	}
}

// bodyFile is where a large message's body is.
func bodyFile(t *testing.T, name string) string {
	e := &Engine{o: Options{Dir: "queue"}, fs: vfs.Default}
	return e.bodyPath(mustID(t, name))
}

// flipFile changes an octet of a file in the queue's mail journal: the oldest one.
func flipFile(t *testing.T, fs vfs.FS, suffix string, at int64) {
	t.Helper()
	names, err := fs.List("queue/history")
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(names)
	for _, name := range names {
		if !strings.HasSuffix(name, suffix) {
			continue
		}
		f, err := fs.OpenReadWrite("queue/history/"+name, vfs.WriteCategoryUnspecified)
		if err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 1)
		_, err = f.ReadAt(b, at)
		b[0] ^= 0x10
		_, werr := f.WriteAt(b, at)
		if err = errors.Join(err, werr, f.Sync(), f.Close()); err != nil {
			t.Fatal(err)
		}
		return
	}
	t.Fatalf("there is no file %s", suffix)
}

// damages of a furnished queue: what is planted, of which kind the problems must be,
// and the mails that may be gone from the queue after a repair.
var damages = []struct {
	name  string
	what  []string
	lost  string
	plant func(t *testing.T, d *simdisk.Disk, names map[string]string)
}{
	{"a message's record is corrupt", []string{ofMessages}, "deferred", func(t *testing.T, d *simdisk.Disk, names map[string]string) {
		flip(t, d, messageKey(mustID(t, names["deferred"])))
	}},
	{"a held message's record is corrupt", []string{ofMessages}, "held", func(t *testing.T, d *simdisk.Disk, names map[string]string) {
		flip(t, d, messageKey(mustID(t, names["held"])))
	}},
	{"a message's record is not there", []string{ofMessages}, "deferred", func(t *testing.T, d *simdisk.Disk, names map[string]string) {
		drop(t, d, messageKey(mustID(t, names["deferred"])))
	}},
	{"a message without a journal is not there", []string{ofBodies, ofDue, ofCounts}, "fresh", func(t *testing.T, d *simdisk.Disk, names map[string]string) {
		drop(t, d, messageKey(mustID(t, names["fresh"])))
	}},
	{"a large message's record is corrupt", []string{ofMessages}, "large", func(t *testing.T, d *simdisk.Disk, names map[string]string) {
		flip(t, d, messageKey(mustID(t, names["large"])))
	}},
	{"a result is corrupt", []string{ofResults}, "", func(t *testing.T, d *simdisk.Disk, names map[string]string) {
		flip(t, d, journalKey(mustID(t, names["deferred"]), 0))
	}},
	{"a hold is corrupt", []string{ofResults}, "", func(t *testing.T, d *simdisk.Disk, names map[string]string) {
		flip(t, d, journalKey(mustID(t, names["held"]), 0))
	}},
	{"a small body is corrupt", []string{ofBodies}, "", func(t *testing.T, d *simdisk.Disk, names map[string]string) {
		flip(t, d, bodyKey(mustID(t, names["parked"])))
	}},
	{"a small body is not there", []string{ofBodies}, "", func(t *testing.T, d *simdisk.Disk, names map[string]string) {
		drop(t, d, bodyKey(mustID(t, names["fresh"])))
	}},
	{"a small body of nobody", []string{ofBodies}, "", func(t *testing.T, d *simdisk.Disk, _ map[string]string) {
		set(t, d, bodyKey(77), seal(bodyKey(77), []byte{recordVersion, 'x'}))
	}},
	{"a large body is not there", []string{ofBodies}, "", func(t *testing.T, d *simdisk.Disk, names map[string]string) {
		if err := d.Remove(bodyFile(t, names["large"])); err != nil {
			t.Fatal(err)
		}
	}},
	{"a large body is short", []string{ofBodies}, "", func(t *testing.T, d *simdisk.Disk, names map[string]string) {
		write(t, d, bodyFile(t, names["large"]), []byte("lar"))
	}},
	{"a large body is another", []string{ofBodies}, "", func(t *testing.T, d *simdisk.Disk, names map[string]string) {
		write(t, d, bodyFile(t, names["large"]), []byte("lorge"))
	}},
	{"a large body of nobody", []string{ofFiles}, "", func(t *testing.T, d *simdisk.Disk, names map[string]string) {
		write(t, d, "queue/body/0/"+names["gone"], []byte("x"))
	}},
	{"a file that is no body", []string{ofFiles}, "", func(t *testing.T, d *simdisk.Disk, _ map[string]string) {
		write(t, d, "queue/body/0/core", []byte("x"))
	}},
	{"a place in the due index is not there", []string{ofDue}, "", func(t *testing.T, d *simdisk.Disk, _ map[string]string) {
		drop(t, d, first(t, d, keyDue))
	}},
	{"a place in the due index is of nobody", []string{ofDue}, "", func(t *testing.T, d *simdisk.Disk, _ map[string]string) {
		set(t, d, due{9, 7, 5, 77}.key(), nil)
	}},
	{"a place in the due index is another", []string{ofDue, ofDue}, "", func(t *testing.T, d *simdisk.Disk, _ map[string]string) {
		at, _ := parseDue(first(t, d, keyDue))
		drop(t, d, at.key())
		at.at++
		set(t, d, at.key(), nil)
	}},
	{"a place in a lane is not there", []string{ofLanes}, "", func(t *testing.T, d *simdisk.Disk, _ map[string]string) {
		drop(t, d, first(t, d, keyLane))
	}},
	{"a place in a lane is of a message that waits elsewhere", []string{ofLanes}, "", func(t *testing.T, d *simdisk.Disk, names map[string]string) {
		set(t, d, laneDue{"elsewhere", due{9, 7, 5, mustID(t, names["fresh"])}}.key(), nil)
	}},
	{"a place by destination is not there", []string{ofDestinations}, "", func(t *testing.T, d *simdisk.Disk, _ map[string]string) {
		drop(t, d, first(t, d, keyDestination))
	}},
	{"a place by destination is of nobody", []string{ofDestinations}, "", func(t *testing.T, d *simdisk.Disk, _ map[string]string) {
		set(t, d, (&destination{way: way{"ryan.example", ""}, id: 77, recipients: 1}).key(), nil)
	}},
	{"a place by destination counts wrong", []string{ofDestinations, ofDestinations}, "", func(t *testing.T, d *simdisk.Disk, _ map[string]string) {
		at, _ := parseDestination(first(t, d, keyDestination))
		drop(t, d, at.key())
		at.recipients++
		set(t, d, at.key(), nil)
	}},
	{"a place by destination is not whole", []string{ofRecords}, "", func(t *testing.T, d *simdisk.Disk, _ map[string]string) {
		set(t, d, []byte("tryan.example"), nil)
	}},
	{"the counts are corrupt", []string{ofCounts}, "", func(t *testing.T, d *simdisk.Disk, _ map[string]string) {
		flip(t, d, metaCounts)
	}},
	{"the counts are wrong", []string{ofCounts}, "", func(t *testing.T, d *simdisk.Disk, _ map[string]string) {
		set(t, d, metaCounts, counts{100, 200, 3, 4, 5}.record())
	}},
	{"the version is corrupt", []string{ofRecords}, "", func(t *testing.T, d *simdisk.Disk, _ map[string]string) {
		flip(t, d, metaFormat)
	}},
	{"the number of starts is not there", []string{ofRecords}, "", func(t *testing.T, d *simdisk.Disk, _ map[string]string) {
		drop(t, d, metaEpoch)
	}},
	{"an observation is corrupt", []string{ofRecords}, "", func(t *testing.T, d *simdisk.Disk, _ map[string]string) {
		flip(t, d, first(t, d, keyFeed))
	}},
	{"what an observer has seen is corrupt", []string{ofRecords}, "", func(t *testing.T, d *simdisk.Disk, _ map[string]string) {
		flip(t, d, observerKey("filter.audit.book"))
	}},
	{"a key of no kind", []string{ofRecords}, "", func(t *testing.T, d *simdisk.Disk, _ map[string]string) {
		set(t, d, []byte("zebra"), []byte("x"))
	}},
	{"a message's key is short", []string{ofRecords}, "", func(t *testing.T, d *simdisk.Disk, _ map[string]string) {
		set(t, d, []byte("m123"), []byte("x"))
	}},
	{"a record of the mail journal is corrupt", []string{ofHistory}, "", func(t *testing.T, d *simdisk.Disk, _ map[string]string) {
		flipFile(t, d, logSuffix, 12)
	}},
	{"a length in the mail journal is corrupt", []string{ofHistory}, "", func(t *testing.T, d *simdisk.Disk, _ map[string]string) {
		flipFile(t, d, logSuffix, 3)
	}},
	{"the mail journal's names are corrupt", []string{ofHistory}, "", func(t *testing.T, d *simdisk.Disk, _ map[string]string) {
		flipFile(t, d, namesSuffix, 18)
	}},
	{"the mail journal's names are not there", []string{ofHistory}, "", func(t *testing.T, d *simdisk.Disk, _ map[string]string) {
		names, err := d.List("queue/history")
		if err != nil {
			t.Fatal(err)
		}
		slices.Sort(names)
		if err := d.Remove("queue/history/" + names[1]); err != nil {
			t.Fatal(err)
		}
	}},
	{"much at once", []string{ofMessages, ofResults, ofBodies, ofDue, ofLanes, ofRecords, ofFiles}, "deferred", func(t *testing.T, d *simdisk.Disk, names map[string]string) {
		flip(t, d, messageKey(mustID(t, names["deferred"])))
		flip(t, d, journalKey(mustID(t, names["parked"]), 0))
		drop(t, d, bodyKey(mustID(t, names["late"])))
		drop(t, d, due{classOf(0), bucketOf(mailTo()), 0, mustID(t, names["fresh"])}.key())
		flip(t, d, first(t, d, keyFeed))
		flip(t, d, metaCounts)
		write(t, d, "queue/body/0/"+names["gone"], []byte("x"))
	}},
}

// TestCheckFindsAndRepairs plants each kind of damage: a check finds it and changes
// nothing, a repair ends it and loses no mail whose record is whole, a second check
// is clean, and the queue goes on.
func TestCheckFindsAndRepairs(t *testing.T) {
	d, names := furnished(t)
	if f := check(t, d.Clone(), false); len(f.Problems) > 0 || len(f.Notes) > 0 || f.Format != formatVersion {
		t.Fatalf("a queue that is whole: %s", f)
	}
	if f := check(t, d.Clone(), true); len(f.Problems) > 0 {
		t.Fatalf("a repair of a queue that is whole: %s", f)
	}
	for _, x := range damages {
		t.Run(x.name, func(t *testing.T) {
			d := d.Clone()
			x.plant(t, d, names)
			found := check(t, d, false)
			if again := check(t, d, false); found.String() != again.String() {
				t.Errorf("a check changed something:\n%s\n%s", found, again)
			}
			for _, what := range x.what {
				if !slices.ContainsFunc(found.Problems, func(p Problem) bool { return p.What == what }) {
					t.Errorf("nothing is found of %s:\n%s", what, found)
				}
			}
			if n := int64(len(found.Problems)); found.Left != n {
				t.Errorf("%d of %d problems are left by a check", found.Left, n)
			}
			fixed := check(t, d, true)
			if fixed.Left != 0 || len(fixed.Problems) < len(found.Problems) {
				t.Errorf("found\n%s\nrepaired\n%s", found, fixed)
			}
			if f := check(t, d, false); len(f.Problems) > 0 {
				t.Errorf("after the repair: %s", f)
			}
			if err := goesOn(d, names, x.lost); err != nil {
				t.Error(err)
			}
		})
	}
}

// goesOn tells whether a queue has all of its mails but one, and each of them to be
// claimed, in a lane or held.
func goesOn(d *simdisk.Disk, names map[string]string, lost string) error {
	ctx := context.Background()
	e, err := Open(Options{FS: d, Dir: "queue", Clock: (&fakeClock{start}).Now})
	if err != nil {
		return err
	}
	defer e.Close()
	later := start.Add(48 * time.Hour)
	found := map[string]bool{}
	err = e.List(ctx, Filter{}, func(env *Envelope) bool {
		held := true
		for _, r := range env.Recipients {
			held = held && r.State != Waiting
		}
		found[env.ID] = held
		return true
	})
	cs, cerr := e.Claim(ctx, later, 100, time.Minute)
	for _, c := range cs {
		found[c.ID] = true
	}
	for _, lane := range []string{laneA, laneB} {
		cs, _, lerr := e.ClaimLane(ctx, lane, later, 100, time.Minute)
		cerr = errors.Join(cerr, lerr)
		for _, c := range cs {
			found[c.ID] = true
		}
	}
	if err = errors.Join(err, cerr); err != nil {
		return err
	}
	for name, i := range names {
		waits, there := found[i]
		switch {
		case strings.HasSuffix(name, "gone"):
		case name == lost:
			if there {
				err = errors.Join(err, fmt.Errorf("the mail %q is there", name))
			}
		case !there:
			err = errors.Join(err, fmt.Errorf("the mail %q is lost", name))
		case !waits:
			err = errors.Join(err, fmt.Errorf("the mail %q would wait for ever", name))
		}
	}
	return err
}

// TestCheckOfADamagedTable: a block that is not what was written is found in place,
// and repaired as a start would.
func TestCheckOfADamagedTable(t *testing.T) {
	d := damagedQueue(t, 100)
	found := check(t, d, false)
	if len(found.Problems) == 0 || found.Problems[0].What != ofTables || !strings.Contains(found.Problems[0].Where, ".sst") {
		t.Fatalf("found %s", found)
	}
	fixed := check(t, d, true)
	if fixed.Left != 0 || fixed.Problems[0].Repair != rebuiltText {
		t.Errorf("repaired %s", fixed)
	}
	if f := check(t, d, false); len(f.Problems) > 0 {
		t.Errorf("after the repair: %s", f)
	}
	if _, err := d.Stat("queue/db.damaged"); err != nil {
		t.Error(err)
	}
	e := open(t, Options{FS: d, Clock: (&fakeClock{start}).Now})
	if n := len(claim(t, e, start, 100)); n < 50 || n == 100 {
		t.Errorf("%d of 100 mails are there", n)
	}
}

// TestCheckGoesOnWithACutSalvage: the mark of a run that met a damaged block.
func TestCheckGoesOnWithACutSalvage(t *testing.T) {
	d, names := furnished(t)
	write(t, d, "queue/"+damagedMark, []byte("x"))
	if err := d.Rename("queue/db", "queue/db.new"); err != nil {
		t.Fatal(err)
	}
	if f := check(t, d, false); f.Left != 1 || f.Problems[0].What != ofTables {
		t.Errorf("found %s", f)
	}
	if f := check(t, d, true); f.Left != 0 || len(f.Problems) != 1 {
		t.Errorf("repaired %s", f)
	}
	if f := check(t, d, false); len(f.Problems) > 0 {
		t.Errorf("after the repair: %s", f)
	}
	if err := goesOn(d, names, ""); err != nil {
		t.Error(err)
	}
}

func TestCheckIsRefused(t *testing.T) {
	ctx := context.Background()
	d, _ := furnished(t)
	e := open(t, Options{FS: d, Clock: (&fakeClock{start}).Now})
	for _, repair := range []bool{false, true} {
		if _, err := Check(ctx, CheckOptions{FS: d, Dir: "queue", Repair: repair}); !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), "stop the server") {
			t.Errorf("of a queue in use: %v", err)
		}
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := Check(ctx, CheckOptions{FS: d, Dir: "nowhere"}); !errors.Is(err, ErrNoQueue) || !strings.Contains(err.Error(), "--data-dir") {
		t.Errorf("of nothing: %v", err)
	}
	set(t, d, metaFormat, seal(metaFormat, binary.BigEndian.AppendUint64([]byte{recordVersion}, 99)))
	if _, err := Check(ctx, CheckOptions{FS: d, Dir: "queue", Repair: true}); err == nil || !strings.Contains(err.Error(), "format 99") {
		t.Errorf("of a newer format: %v", err)
	}
	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	d, _ = furnished(t)
	if _, err := Check(cancelled, CheckOptions{FS: d, Dir: "queue"}); !errors.Is(err, context.Canceled) {
		t.Errorf("of an impatient caller: %v", err)
	}
}

// TestWhatIsSetAsideCanBeLookedAt: the record is there as it was found.
func TestWhatIsSetAsideCanBeLookedAt(t *testing.T) {
	d, names := furnished(t)
	key := messageKey(mustID(t, names["fresh"]))
	flip(t, d, key)
	var want []byte
	raw(t, d, func(db *pebble.DB) error {
		v, c, err := db.Get(key)
		want = slices.Clone(v)
		return errors.Join(err, c.Close())
	})
	f := check(t, d, true)
	if len(f.SetAside) != 1 || f.SetAside[0].ID != names["fresh"] || !slices.Equal(f.SetAside[0].Record, want) {
		t.Fatalf("set aside: %+v", f.SetAside)
	}
	if !strings.Contains(string(want), "hanks.example") || f.SetAside[0].Key != fmt.Sprintf("%x", key) {
		t.Errorf("the record has no sender: %q, key %s", want, f.SetAside[0].Key)
	}
}

// TestCrashInRepair cuts the power within a repair: another repair after it ends
// clean, and loses no more.
func TestCrashInRepair(t *testing.T) {
	d, names := furnished(t)
	at := len(damages) - 1 // much at once
	damages[at].plant(t, d, names)
	flipFile(t, d, logSuffix, 12)
	log := d.Record()
	check(t, d, true)
	c := simdisk.Checker{Command: "go test ./core/queue -run '^TestCrashInRepair$'", Most: 2, Sample: 3, Exhaust: 3, Again: 1 << 30}
	c, err := c.Env()
	if err != nil {
		t.Fatal(err)
	}
	c.States = 0
	r, err := c.Run(func(uint64) (*simdisk.Trial, error) {
		return &simdisk.Trial{Log: log, Oracle: func(int) uint64 { return 0 }, Check: func(d *simdisk.Disk, _ int) error {
			for _, repair := range []bool{true, false} {
				f, err := Check(context.Background(), CheckOptions{FS: d, Dir: "queue", Clock: (&fakeClock{start}).Now, Repair: repair})
				if err != nil {
					return err
				}
				if f.Left > 0 {
					return fmt.Errorf("repair %t: %s", repair, f)
				}
			}
			if err := errors.Join(isAside(d, names["deferred"], "small"), isAside(d, names["gone"], "x")); err != nil {
				return err
			}
			return goesOn(d, names, damages[at].lost)
		}}, nil
	})
	t.Logf("\n%s\n%s", simdisk.ReportHead, r)
	if err != nil {
		t.Fatal(err)
	}
}
