package queue

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/stagecoach-mta/stagecoach/sdk/storage/simdisk"
)

// older is a queue that the last program of that format wrote: mails that are fresh,
// deferred, parked, held and large, and one that has ended.
func older(t *testing.T, format int) *simdisk.Disk {
	t.Helper()
	f, err := os.Open(fmt.Sprintf("testdata/format-%d.tar.gz", format))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	d := simdisk.New()
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return d
		}
		if err == nil && h.Typeflag == tar.TypeDir {
			err = d.MkdirAll(h.Name, 0o700)
		} else if err == nil {
			var b []byte
			if b, err = io.ReadAll(r); err == nil {
				write(t, d, h.Name, b)
			}
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// olderFormats have a queue in testdata.
var olderFormats = []int{2, 3, 4}

// TestAnOlderQueueIsRaised: what the older program wrote is all there, with its
// places in the new indexes, whether a start or a repair met it first.
func TestAnOlderQueueIsRaised(t *testing.T) {
	for _, format := range olderFormats {
		for _, way := range []string{"by a start", "by a repair", "by a start after one that was cut off"} {
			t.Run(fmt.Sprintf("%d %s", format, way), func(t *testing.T) { isRaised(t, format, way) })
		}
	}
}

func isRaised(t *testing.T, format int, way string) {
	d := older(t, format)
	if f := check(t, d.Clone(), false); f.Left > 0 || f.Format != uint64(format) || len(f.Notes) != 1 {
		t.Errorf("before: format %d, %s", f.Format, f)
	}
	switch way {
	case "by a repair":
		if f := check(t, d, true); f.Left > 0 || len(f.Problems) > 0 {
			t.Errorf("the repair: %s", f)
		}
	case "by a start after one that was cut off": // and the older program went on
		raw(t, d, func(db *pebble.DB) error {
			return errors.Join(
				db.Set((&destination{way: way2("reed.example"), id: 77, recipients: 1}).key(), nil, pebble.Sync),
				db.Set((&destination{way: way2("ryan.example"), id: 78, recipients: 1, first: true}).key(), nil, pebble.Sync),
				db.Set(laneDue{laneB, due{9, 200, 5, 78}}.key(), nil, pebble.Sync))
		})
	}
	e := open(t, Options{FS: d, Clock: (&fakeClock{start.Add(time.Hour)}).Now})
	if err := indexed(e); err != nil {
		t.Error(err)
	}
	var got []string
	if err := e.List(context.Background(), Filter{Domain: "ryan.example"}, func(env *Envelope) bool {
		got = append(got, env.Subject)
		return true
	}); err != nil || !slices.Equal(got, []string{"fresh", "parked", "held"}) {
		t.Errorf("listed %q, %v", got, err)
	}
	b, err := e.keptBreakdown(context.Background(), 0)
	if err != nil || b.Messages != 5 || b.Recipients != 7 || b.Held != 1 || b.Tried != 1 || len(b.Destinations) != 4 {
		t.Errorf("%+v %v", b, err)
	}
	if err := laned(e); err != nil {
		t.Error(err)
	}
	var due []string
	for _, c := range claim(t, e, start.Add(2*time.Hour), 10) {
		due = append(due, c.Subject)
		if c.Subject == "large" && len(octets(t, e, c.ID)) != 21000 {
			t.Error("the large body is another")
		}
		if err := e.Commit(context.Background(), c, []Change{{Index: c.Due[0], State: Delivered}}, false); err != nil {
			t.Fatal(err)
		}
	}
	if slices.Sort(due); !slices.Equal(due, []string{"deferred", "fresh", "large", "parked"}) {
		t.Errorf("claimed %q", due)
	}
	if err := errors.Join(indexed(e), e.Close()); err != nil {
		t.Error(err)
	}
	if f := check(t, d, false); f.Left > 0 || f.Format != formatVersion || len(f.Notes) > 0 {
		t.Errorf("after: format %d, %s", f.Format, f)
	}
}

// laned: what the older program parked is in its lanes, and nothing else is.
func laned(e *Engine) error {
	ctx := context.Background()
	got := 0
	err := e.EachLane(ctx, func(l Lane) bool { got++; return true })
	if err != nil || got < 1 {
		return fmt.Errorf("%d lanes: %w", got, err)
	}
	cs, rest, err := e.ClaimLane(ctx, laneA, start.Add(2*time.Hour), 10, time.Minute)
	if err != nil || len(cs) != 1 || cs[0].Subject != "parked" || !rest.Next.IsZero() {
		return fmt.Errorf("claimed in its lane %v, and then %v: %w", cs, rest.Next, err)
	}
	if other, _, err := e.ClaimLane(ctx, laneB, start.Add(2*time.Hour), 10, time.Minute); err != nil || len(other) > 0 {
		return fmt.Errorf("claimed twice: %v: %w", other, err)
	}
	return e.Release(ctx, cs[0])
}

func way2(domain string) way { return way{domain: domain} }

// TestAnUnknownFormatIsRefused by name, older and newer ones.
func TestAnUnknownFormatIsRefused(t *testing.T) {
	for _, format := range []byte{1, formatVersion + 1} {
		d, _ := furnished(t)
		set(t, d, metaFormat, seal(metaFormat, []byte{recordVersion, 0, 0, 0, 0, 0, 0, 0, format}))
		_, err := Open(Options{FS: d, Dir: "queue", Clock: (&fakeClock{start}).Now})
		_, cerr := Check(context.Background(), CheckOptions{FS: d, Dir: "queue"})
		for _, err := range []error{err, cerr} {
			if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("format %d, this program knows %d to %d", format, oldestFormat, formatVersion)) {
				t.Errorf("format %d: %v", format, err)
			}
		}
	}
}

// TestCrashInRaising cuts the power while an older queue is raised: the next start
// begins anew, and nothing is lost.
func TestCrashInRaising(t *testing.T) {
	c := simdisk.Checker{Command: "go test ./core/queue -run '^TestCrashInRaising$'", Most: 2, Sample: 2, Exhaust: 2, Again: 1 << 30}
	for _, format := range olderFormats {
		t.Run(fmt.Sprint(format), func(t *testing.T) {
			explore(t, c, func(uint64) (*simdisk.Trial, error) {
				d := older(t, format)
				log := d.Record()
				check := func(d *simdisk.Disk, _ int) error {
					e, err := recovered(d)
					if err != nil {
						return err
					}
					b, err := e.keptBreakdown(context.Background(), 0)
					if err == nil && (b.Messages != 5 || b.Recipients != 7) {
						err = fmt.Errorf("%+v", b)
					}
					return errors.Join(err, indexed(e), laned(e), e.Close())
				}
				return &simdisk.Trial{Log: log, Check: check, Recover: recoverQueue}, recoverQueue(d)
			})
		})
	}
}
