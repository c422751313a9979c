package queue

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/stagecoach-mta/stagecoach/core/spool"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

const (
	laneA = "deliver.smtp.internet hanks.example"
	laneB = "deliver.smtp.internet hanks.example.net"
)

func claimLane(t *testing.T, e *Engine, lane string, now time.Time, most int) ([]*Claim, Lane) {
	t.Helper()
	cs, rest, err := e.ClaimLane(context.Background(), lane, now, most, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	return cs, rest
}

// parked is a mail of two recipients: the first waits in laneA, the second in none.
func parked(t *testing.T, e *Engine, next, recheck time.Time) string {
	t.Helper()
	id := put(t, e, mailTo("tom@hanks.example", "meg@ryan.example"), spool.FromBytes([]byte("x")))
	for _, c := range claim(t, e, start, 10) {
		if c.ID != id {
			continue
		}
		err := e.Park(context.Background(), c, []Change{
			{Index: 0, State: Waiting, Next: next, Lane: laneA, Recheck: recheck},
			{Index: 1, State: Waiting, Next: next.Add(time.Hour)},
		}, false)
		if err != nil {
			t.Fatal(err)
		}
	}
	return id
}

// settled waits until what was written without waiting is committed.
func settled(t *testing.T, e *Engine) {
	t.Helper()
	var g *group
	if err := e.inGroup(func(in *group) error {
		g = in
		return in.batch.Set([]byte{keyMeta, 't'}, nil, nil)
	}); err != nil {
		t.Fatal(err)
	}
	if err := e.wait(g); err != nil {
		t.Fatal(err)
	}
}

func TestARecipientWaitsInItsLane(t *testing.T) {
	ctx := context.Background()
	e := open(t, Options{FS: vfs.NewMem(), Clock: (&fakeClock{start}).Now})
	next, recheck := start.Add(10*time.Minute), start.Add(4*time.Hour)
	id := parked(t, e, next, recheck)

	if cs := claim(t, e, next, 10); len(cs) != 0 {
		t.Errorf("Claim gives out what waits in a lane: %v", cs[0].Due)
	}
	if cs, rest := claimLane(t, e, laneA, start, 10); len(cs) != 0 || !rest.Next.Equal(next) || rest.Priority != 0 {
		t.Errorf("before its time %d are claimed, next %+v", len(cs), rest)
	}
	if cs, rest := claimLane(t, e, laneB, next, 10); len(cs) != 0 || !rest.Next.IsZero() {
		t.Errorf("another lane has it: %d, %+v", len(cs), rest)
	}
	cs, rest := claimLane(t, e, laneA, next, 10)
	if len(cs) != 1 || cs[0].ID != id || fmt.Sprint(cs[0].Due) != "[0]" || !rest.Next.IsZero() {
		t.Fatalf("claimed %v, next %+v", cs, rest)
	}
	// One lease per message: its other recipient has to wait.
	if cs := claim(t, e, next.Add(2*time.Hour), 10); len(cs) != 1 {
		t.Fatalf("the lease ran out and %d are claimed", len(cs))
	} else if fmt.Sprint(cs[0].Due) != "[1]" {
		t.Errorf("%v are due", cs[0].Due)
	} else if err := e.Commit(ctx, cs[0], []Change{{Index: 1, State: Delivered}}, false); err != nil {
		t.Fatal(err)
	}
	if err := e.Commit(ctx, cs[0], []Change{{Index: 0, State: Delivered}}, false); !errors.Is(err, ErrLeaseLost) {
		t.Errorf("the lane's old claim commits: %v", err)
	}
	at, ok, err := e.NextDue(ctx)
	if err != nil || !ok || !at.Equal(recheck) {
		t.Errorf("next due %v %v %v, want the recheck at %v", at, ok, err, recheck)
	}
	if cs := claim(t, e, recheck, 10); len(cs) != 1 || fmt.Sprint(cs[0].Due) != "[0]" || cs[0].Recipients[0].Lane != laneA {
		t.Errorf("at its recheck claimed %v", cs)
	} else if err := e.Commit(ctx, cs[0], []Change{{Index: 0, State: Failed}}, false); err != nil {
		t.Fatal(err)
	}
	if err := e.EachLane(ctx, func(l Lane) bool { t.Errorf("the lane %q stays", l.Name); return true }); err != nil {
		t.Error(err)
	}
}

// What a lane's claim gives back is claimable there, although the scan has passed it.
func TestAReleasedClaimIsInItsLaneAgain(t *testing.T) {
	ctx := context.Background()
	e := open(t, Options{FS: vfs.NewMem(), Clock: (&fakeClock{start}).Now})
	for range 4 {
		parked(t, e, start, time.Time{})
	}
	cs, _ := claimLane(t, e, laneA, start, 2)
	if len(cs) != 2 {
		t.Fatalf("%d claimed", len(cs))
	}
	if err := e.Release(ctx, cs[0]); err != nil {
		t.Fatal(err)
	}
	if err := e.Commit(ctx, cs[1], []Change{{Index: 1, State: Delivered}}, false); err != nil {
		t.Fatal(err)
	}
	again, rest := claimLane(t, e, laneA, start, 10)
	if len(again) != 4 || again[0].ID != cs[0].ID || again[1].ID != cs[1].ID || !rest.Next.IsZero() {
		t.Errorf("%d claimed, next %+v; want all four, those given back first", len(again), rest)
	}
}

func TestEachLane(t *testing.T) {
	ctx := context.Background()
	e := open(t, Options{FS: vfs.NewMem(), Clock: (&fakeClock{start}).Now})
	lanes := []string{laneA, laneB, "deliver.smtp.internet reed.example"}
	for n := range 60 {
		env := mailTo("x@y.example")
		env.Priority = n % 5
		put(t, e, env, spool.FromBytes([]byte("x")))
	}
	for _, c := range claim(t, e, start, 60) {
		var n int
		fmt.Sscanf(c.Subject, "%d", &n)
		lane := lanes[c.Priority%3]
		if err := e.Park(ctx, c, []Change{{State: Waiting, Next: start.Add(time.Duration(10-c.Priority) * time.Minute), Lane: lane}}, false); err != nil {
			t.Fatal(err)
		}
	}
	var got []string
	if err := e.EachLane(ctx, func(l Lane) bool {
		got = append(got, fmt.Sprintf("%s %d %s", l.Name, l.Priority, l.Next.Sub(start)))
		return true
	}); err != nil {
		t.Fatal(err)
	}
	want := []string{laneA + " 3 7m0s", laneB + " 4 6m0s", "deliver.smtp.internet reed.example 2 8m0s"}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("lanes\n%v, want\n%v", got, want)
	}
	// By priority, then by time; what is left is told.
	cs, rest := claimLane(t, e, laneA, start.Add(time.Hour), 15)
	if len(cs) != 15 || cs[0].Priority != 3 || cs[14].Priority != 0 || rest.Priority != 0 || !rest.Next.Equal(start.Add(10*time.Minute)) {
		t.Errorf("%d claimed, %+v is left", len(cs), rest)
	}
}

// A power cut takes a Park back whole, or keeps it, and what is synced later
// keeps it too.
func TestAParkIsLostWhole(t *testing.T) {
	for _, synced := range []bool{false, true} {
		fs := vfs.NewCrashableMem()
		e := open(t, Options{FS: fs, Clock: (&fakeClock{start}).Now})
		id := parked(t, e, start.Add(time.Minute), start.Add(time.Hour))
		if synced {
			put(t, e, mailTo("annie@reed.example"), spool.FromBytes([]byte("x")))
		}
		after := open(t, Options{FS: fs.CrashClone(vfs.CrashCloneCfg{}), Clock: (&fakeClock{start}).Now})
		fresh := map[string]string{}
		for _, c := range claim(t, after, start, 10) {
			fresh[c.ID] = fmt.Sprint(c.Due)
		}
		cs, _ := claimLane(t, after, laneA, start.Add(time.Minute), 10)
		if lost := fresh[id] == "[0 1]"; lost == synced || lost == (len(cs) == 1) {
			t.Errorf("synced %v: fresh %v, %d in the lane", synced, fresh, len(cs))
		}
	}
}

func TestAnOperatorTakesARecipientOutOfItsLane(t *testing.T) {
	ctx := context.Background()
	for _, op := range []Operation{{Kind: Retry}, {Kind: Hold}, {Kind: Remove}} {
		e := open(t, Options{FS: vfs.NewMem(), Clock: (&fakeClock{start}).Now})
		id := parked(t, e, start.Add(time.Hour), time.Time{})
		if err := e.Operate(ctx, id, op); err != nil {
			t.Fatal(err)
		}
		if err := e.EachLane(ctx, func(l Lane) bool { t.Errorf("after %v it is still in %q", op, l.Name); return true }); err != nil {
			t.Fatal(err)
		}
		if cs := claim(t, e, start, 10); op.Kind == Retry && (len(cs) != 1 || len(cs[0].Due) != 2) {
			t.Errorf("after a retry claimed %v", cs)
		}
	}
}

// What a corrupt record said of times and lanes is not known any more: the
// message is claimable all the same, and its old places are gone.
func TestAfterACorruptDeferralItIsTriedAgain(t *testing.T) {
	ctx := context.Background()
	fs := vfs.NewMem()
	o := Options{FS: fs, Clock: (&fakeClock{start}).Now}
	e := open(t, o)
	id := parked(t, e, start.Add(time.Minute), start.Add(time.Hour))
	spoil(t, e, journalKey(mustID(t, id), 0))
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	e = open(t, o)
	later := start.Add(2 * time.Hour)
	claimLane(t, e, laneA, later, 10)
	settled(t, e)
	got := claim(t, e, later, 10)
	if len(got) != 1 || fmt.Sprint(got[0].Due) != "[0 1]" {
		t.Fatalf("claimed %v, want the message and both of its recipients", got)
	}
	if err := e.Commit(ctx, got[0], []Change{{Index: 0, State: Delivered}, {Index: 1, State: Delivered}}, false); err != nil {
		t.Fatal(err)
	}
	if cs, rest := claimLane(t, e, laneA, later, 10); len(cs) != 0 || !rest.Next.IsZero() {
		t.Errorf("the lane still has %d, %+v", len(cs), rest)
	}
	if at, ok, err := e.NextDue(ctx); ok || err != nil {
		t.Errorf("an ended message is due at %v, %v", at, err)
	}
}

// A message that is set aside leaves no place behind that is scanned for ever.
func TestASetAsideMessageLeavesItsLanes(t *testing.T) {
	fs := vfs.NewMem()
	o := Options{FS: fs, Clock: (&fakeClock{start}).Now}
	e := open(t, o)
	id := parked(t, e, start.Add(time.Minute), start.Add(time.Hour))
	spoil(t, e, messageKey(mustID(t, id)))
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	e = open(t, o)
	later := start.Add(2 * time.Hour)
	claimLane(t, e, laneA, later, 10)
	settled(t, e)
	claim(t, e, later, 10)
	settled(t, e)
	if !e.quarantined(mustID(t, id)) {
		t.Error("the corrupt message is not set aside")
	}
	if err := e.EachLane(context.Background(), func(l Lane) bool { t.Errorf("%q has something", l.Name); return true }); err != nil {
		t.Error(err)
	}
	if cs := claim(t, e, later, 10); len(cs) != 0 {
		t.Errorf("claimed %v", cs)
	}
	if at, ok, err := e.NextDue(context.Background()); ok || err != nil {
		t.Errorf("something is due at %v, %v", at, err)
	}
}

func TestASalvagedQueueHasItsLanes(t *testing.T) {
	fs := vfs.NewMem()
	o := Options{FS: fs, Clock: (&fakeClock{start}).Now}
	e := open(t, o)
	parked(t, e, start.Add(time.Minute), start.Add(time.Hour))
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	f, err := fs.Create("queue/"+damagedMark, vfs.WriteCategoryUnspecified)
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	e = open(t, o)
	if cs := claim(t, e, start, 10); len(cs) != 0 {
		t.Errorf("claimed fresh: %v", cs)
	}
	if cs, _ := claimLane(t, e, laneA, start.Add(time.Minute), 10); len(cs) != 1 {
		t.Errorf("%d claimed in its lane", len(cs))
	}
}

// A lane of many is drained without meeting the ended ones again.
func TestALongLaneIsScannedOnce(t *testing.T) {
	ctx := context.Background()
	e := open(t, Options{FS: vfs.NewMem(), Clock: (&fakeClock{start}).Now})
	const mails = 3000
	for range mails {
		env := mailTo("tom@hanks.example")
		put(t, e, env, spool.FromBytes([]byte("x")))
	}
	for {
		cs := claim(t, e, start, 200)
		if len(cs) == 0 {
			break
		}
		for _, c := range cs {
			if err := e.Park(ctx, c, []Change{{State: Waiting, Next: start, Lane: laneA}}, false); err != nil {
				t.Fatal(err)
			}
		}
	}
	for n := 0; n < mails; n += 50 {
		cs, rest := claimLane(t, e, laneA, start, 50)
		if len(cs) != 50 || rest.Next.IsZero() != (n+50 == mails) {
			t.Fatalf("%d claimed after %d, next %+v", len(cs), n, rest)
		}
		e.mu.Lock()
		from := e.lanes.of[laneA]
		e.mu.Unlock()
		if want := mustID(t, cs[49].ID); n+50 < mails && (from == nil || len(from.heads) != 1 || from.heads[0].id <= want) {
			t.Fatalf("the next scan begins at %+v, not behind %s", from, want)
		}
		for _, c := range cs {
			if err := e.Commit(ctx, c, []Change{{State: Delivered}}, false); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// One sender's backlog, however large, does not delay what another sends there: not in
// one claim of many, not over claims of one each, not after a restart. Nor before routing.
func TestOneSendersBacklogDelaysNoOther(t *testing.T) {
	for name, lane := range map[string]string{"in a lane": laneA, "in none": fresh} {
		t.Run(name, func(t *testing.T) { takesTurns(t, lane) })
	}
}

func takesTurns(t *testing.T, lane string) {
	ctx := context.Background()
	fs := vfs.NewMem()
	o := Options{FS: fs, Clock: (&fakeClock{start}).Now}
	e := open(t, o)
	park := func(n int, sender string) {
		for range n {
			env := mailTo("meg@ryan.example")
			env.Sender, env.Subject = sender, sender
			put(t, e, env, spool.FromBytes([]byte("x")))
		}
		if lane == fresh {
			return
		}
		for _, c := range claim(t, e, start, n) {
			if err := e.Park(ctx, c, []Change{{State: Waiting, Next: start, Lane: lane}}, false); err != nil {
				t.Fatal(err)
			}
		}
	}
	backlog := *backlogFlag
	park(backlog, "bulk@hanks.example")
	cs, _ := claimLane(t, e, lane, start, 5)
	for _, single := range []string{"tom@reed.example", "joe@fox.example"} {
		park(1, single)
		began := time.Now()
		seen := 0
		for n := range 3 {
			cs, rest := claimLane(t, e, lane, start, 1)
			if len(cs) != 1 || rest.Next.IsZero() {
				t.Fatalf("claim %d: %d, next %v", n, len(cs), rest.Next)
			}
			if cs[0].Sender == single {
				seen = n + 1
			}
		}
		if t.Logf("behind %d: given out by claim %d, three claims took %v", backlog, seen, time.Since(began)); seen == 0 || seen > 2 {
			t.Errorf("%s is given out by claim %d of 3", single, seen)
		}
		if err := e.Close(); err != nil {
			t.Fatal(err)
		}
		e = open(t, o)
		cs, _ = claimLane(t, e, lane, start, 8)
		if got := slices.IndexFunc(cs, func(c *Claim) bool { return c.Sender == single }); len(cs) != 8 || got < 0 || got > 2 {
			t.Errorf("of %d claimed after a restart, %s is number %d", len(cs), single, got+1)
		}
	}
	for _, c := range cs {
		if err := e.Release(ctx, c); err != nil {
			t.Fatal(err)
		}
	}
}

// Who logged in has a bucket of its own; else a domain has, whatever the address.
func TestBucketsAreOfUsersAndDomains(t *testing.T) {
	of := func(sender, user string) byte {
		return bucketOf(&Envelope{Sender: sender, Client: &v1.Client{User: user}})
	}
	if of("list+1@hanks.example", "") != of("list+2@HANKS.example", "") || of("a@x.example", "Tom") != of("b@y.example", "tom") {
		t.Error("one sender has two buckets")
	}
	if of("tom@hanks.example", "") == of("tom@reed.example", "") || of("a@x.example", "tom") == of("a@x.example", "meg") || of("", "") == of("tom@reed.example", "") {
		t.Error("two senders share a bucket")
	}
	hit := map[byte]bool{}
	for n := range 2000 {
		hit[of(fmt.Sprintf("tom@d%d.example", n), "")] = true
	}
	if len(hit) < 250 {
		t.Errorf("2000 domains are in %d of 256 buckets", len(hit))
	}
}
