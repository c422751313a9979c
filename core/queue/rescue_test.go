package queue

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/stagecoach-mta/stagecoach/sdk/storage/simdisk"
)

// fileText is all of a file.
func fileText(fs vfs.FS, path string) (string, error) {
	f, err := fs.Open(path)
	if err != nil {
		return "", err
	}
	b, err := io.ReadAll(f)
	return string(b), errors.Join(err, f.Close())
}

// isAside tells whether a body was set aside whole, with what is known of it.
func isAside(fs vfs.FS, name, want string) error {
	got, err := fileText(fs, "queue/aside/"+name+".eml")
	if err != nil || got != want {
		return fmt.Errorf("set aside is %q, not %q: %w", got, want, err)
	}
	known, err := fileText(fs, "queue/aside/"+name+".json")
	var o Orphan
	if err = errors.Join(err, json.Unmarshal([]byte(known), &o)); err != nil || o.ID != name {
		return fmt.Errorf("what is known of it is %q: %w", known, err)
	}
	return nil
}

// TestABodyWithoutItsRecordIsSetAside: whatever way its record was lost, a body is
// reported with what is known of it, and a repair puts it where an operator finds it.
func TestABodyWithoutItsRecordIsSetAside(t *testing.T) {
	whole, names := furnished(t)
	for _, x := range []struct {
		name, mail, text string
		ended            bool
		plant            func(t *testing.T, d *simdisk.Disk)
	}{
		{"a small one's record is not there", "fresh", "small", false, func(t *testing.T, d *simdisk.Disk) {
			drop(t, d, messageKey(mustID(t, names["fresh"])))
		}},
		{"a small one's record is corrupt", "deferred", "small", false, func(t *testing.T, d *simdisk.Disk) {
			flip(t, d, messageKey(mustID(t, names["deferred"])))
		}},
		{"a large one's record is not there", "large", "large", false, func(t *testing.T, d *simdisk.Disk) {
			drop(t, d, messageKey(mustID(t, names["large"])))
		}},
		{"a large one's record is corrupt", "large", "large", false, func(t *testing.T, d *simdisk.Disk) {
			flip(t, d, messageKey(mustID(t, names["large"])))
		}},
		{"it ended", "large gone", "large too", true, func(t *testing.T, d *simdisk.Disk) {
			write(t, d, bodyFile(t, names["large gone"]), []byte("large too"))
		}},
	} {
		t.Run(x.name, func(t *testing.T) {
			d := whole.Clone()
			x.plant(t, d)
			id := names[x.mail]
			check(t, d.Clone(), false)
			fixed := check(t, d, true)
			if len(fixed.Orphans) != 1 || fixed.Leftover != (Leftover{1, int64(len(x.text))}) || fixed.Aside != fixed.Leftover {
				t.Fatalf("found %+v, leftover %+v, aside %+v", fixed.Orphans, fixed.Leftover, fixed.Aside)
			}
			o := fixed.Orphans[0]
			if o.ID != id || !o.Journal || o.Sender != "tom@hanks.example" || len(o.Recipients) != 2 || o.Recipients[0].Address != "meg@ryan.example" || o.Ended != x.ended {
				t.Errorf("known of it: %+v", o)
			}
			if err := isAside(d, id, x.text); err != nil {
				t.Error(err)
			}
			if f := check(t, d, true); len(f.Problems) > 0 || len(f.Orphans) > 0 || f.Aside != (Leftover{1, int64(len(x.text))}) {
				t.Errorf("again: %s %+v", f, f.Orphans)
			}
			e := open(t, Options{FS: d, Clock: (&fakeClock{start.Add(time.Hour)}).Now})
			if err := errors.Join(indexed(e), e.Close(), isAside(d, id, x.text)); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestAStartKeepsTheBodiesOfADamagedDatabase: the sweep does not take them for what has
// ended.
func TestAStartKeepsTheBodiesOfADamagedDatabase(t *testing.T) {
	d, names := furnished(t)
	lost := []string{"large", "fresh"}
	raw(t, d, func(db *pebble.DB) (err error) { // as a block that cannot be read
		for _, name := range lost {
			err = errors.Join(err, db.Delete(messageKey(mustID(t, names[name])), pebble.Sync))
		}
		return err
	})
	write(t, d, "queue/"+damagedMark, []byte("x"))
	e := open(t, Options{FS: d, Clock: (&fakeClock{start.Add(time.Hour)}).Now})
	<-e.swept
	if err := errors.Join(indexed(e), e.Close(), isAside(d, names["large"], "large"), isAside(d, names["fresh"], "small")); err != nil {
		t.Error(err)
	}
	if f := check(t, d, false); len(f.Problems) > 0 || f.Aside.Bodies != 2 {
		t.Errorf("after: %s, aside %+v", f, f.Aside)
	}
}
