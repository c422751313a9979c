package queue

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/stagecoach-mta/stagecoach/core/spool"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// told is the feed in a form that a person can compare.
func told(t *testing.T, e *Engine, after uint64) (string, uint64) {
	t.Helper()
	os, err := e.Observations(context.Background(), after, 100)
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, o := range os {
		if o.GetSequence() <= after {
			t.Errorf("sequence %d after %d", o.GetSequence(), after)
		}
		after = o.GetSequence()
		var to []string
		for _, r := range o.GetEnvelope().GetRecipients() {
			to = append(to, r.GetAddress())
		}
		lines = append(lines, strings.TrimSpace(fmt.Sprintf("%s %s %s %s", o.GetWhat(), strings.Join(to, ","), o.GetBy(), o.GetResult().GetReply().GetText())))
	}
	return strings.Join(lines, "\n"), after
}

func TestFeedTellsWhatTheQueueDid(t *testing.T) {
	ctx := context.Background()
	fs, clock := vfs.NewCrashableMem(), &fakeClock{start}
	e := open(t, Options{FS: fs, Clock: clock.Now})
	put(t, e, mailTo("before@ryan.example"), spool.FromBytes([]byte("x")))
	if err := e.SetFeed(true); err != nil {
		t.Fatal(err)
	}
	id := put(t, e, mailTo("meg@ryan.example", "kathleen@ryan.example"), spool.FromBytes([]byte("x")))
	for _, c := range claim(t, e, start, 10) {
		if c.ID != id {
			continue
		}
		if err := e.Commit(ctx, c, []Change{
			{Index: 0, State: Delivered, Deliver: "deliver.storage.mail", Attempt: &Attempt{Code: 250, Text: "kept"}},
			{Index: 1, State: Waiting, Deliver: "deliver.smtp.internet", Next: start.Add(time.Hour), Attempt: &Attempt{Code: 451, Text: "busy"}},
		}, false); err != nil {
			t.Fatal(err)
		}
	}
	for _, op := range []Operation{{Kind: Hold}, {Kind: ReleaseHold}, {Kind: Retry}, {Kind: Remove}} {
		if err := e.Operate(ctx, id, op); err != nil {
			t.Fatal(err)
		}
	}
	if err := e.Observe(&v1.Observation{What: v1.Observation_REFUSED, By: "filter.greylist.calm", Envelope: &v1.Envelope{}}); err != nil {
		t.Fatal(err)
	}
	put(t, e, mailTo("last@ryan.example"), spool.FromBytes([]byte("x"))) // its sync carries the refusal along

	want := `QUEUED meg@ryan.example,kathleen@ryan.example receive.smtp.mx
DELIVERED meg@ryan.example deliver.storage.mail kept
DEFERRED kathleen@ryan.example deliver.smtp.internet busy
HELD kathleen@ryan.example operator
RELEASED kathleen@ryan.example operator
DISCARDED kathleen@ryan.example operator
REFUSED  filter.greylist.calm
QUEUED last@ryan.example receive.smtp.mx`
	got, last := told(t, e, 0)
	if got != want {
		t.Errorf("the feed says\n%s\nwant\n%s", got, want)
	}

	// A power cut loses none of it; a later run's observations come after.
	e = open(t, Options{FS: fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 0}), Clock: clock.Now})
	if again, _ := told(t, e, 0); again != want {
		t.Errorf("after a power cut it says\n%s", again)
	}
	if err := e.SetFeed(true); err != nil {
		t.Fatal(err)
	}
	put(t, e, mailTo("new@ryan.example"), spool.FromBytes([]byte("x")))
	if got, _ := told(t, e, last); got != "QUEUED new@ryan.example receive.smtp.mx" {
		t.Errorf("after the old ones comes %q", got)
	}

	if _, ok, err := e.Seen("filter.audit.log"); ok || err != nil {
		t.Errorf("a new observer has seen something: %v", err)
	}
	if err := e.SetSeen("filter.audit.log", last, last); err != nil {
		t.Fatal(err)
	}
	put(t, e, mailTo("sync@ryan.example"), spool.FromBytes([]byte("x")))
	if upto, ok, err := e.Seen("filter.audit.log"); upto != last || !ok || err != nil {
		t.Errorf("seen %d %v %v", upto, ok, err)
	}
	if got, _ := told(t, e, 0); got != "QUEUED new@ryan.example receive.smtp.mx\nQUEUED sync@ryan.example receive.smtp.mx" {
		t.Errorf("what everybody has seen is still there:\n%s", got)
	}
}

func TestFeedForgets(t *testing.T) {
	ctx := context.Background()
	clock := &fakeClock{start}
	e := open(t, Options{FS: vfs.NewMem(), Clock: clock.Now})
	if err := e.SetFeed(true); err != nil {
		t.Fatal(err)
	}
	put(t, e, mailTo("old@ryan.example"), spool.FromBytes([]byte("x")))
	clock.set(start.Add(8 * 24 * time.Hour))
	put(t, e, mailTo("young@ryan.example"), spool.FromBytes([]byte("x")))
	if _, any, err := e.ForgetFeed(ctx, clock.now.Add(-7*24*time.Hour)); err != nil || !any {
		t.Fatalf("nothing was forgotten: %v", err)
	}
	put(t, e, mailTo("sync@ryan.example"), spool.FromBytes([]byte("x")))
	if got, _ := told(t, e, 0); strings.Contains(got, "old@") || !strings.Contains(got, "young@") {
		t.Errorf("kept:\n%s", got)
	}
	if _, any, err := e.ForgetFeed(ctx, clock.now.Add(-7*24*time.Hour)); err != nil || any {
		t.Errorf("something was forgotten twice: %v", err)
	}
	if err := e.SetFeed(false); err != nil {
		t.Fatal(err)
	}
	put(t, e, mailTo("off@ryan.example"), spool.FromBytes([]byte("x")))
	if got, _ := told(t, e, 0); got != "" {
		t.Errorf("switched off it says\n%s", got)
	}
}
