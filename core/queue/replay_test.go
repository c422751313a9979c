package queue

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"slices"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/stagecoach-mta/stagecoach/sdk/storage/simdisk"
)

// replayed runs a workload three times and compares what the queue wrote: what a seed
// does is done again (promise 7), or a failure could not be. The octets of the
// database's files tell, beside that, when they were synced.
func replayed(t *testing.T, l workload) error {
	first := ""
	for range 3 {
		l.disk = simdisk.New()
		if _, err := l.run(t, 3); err != nil {
			return err
		}
		e, err := recovered(l.disk)
		if err != nil {
			return err
		}
		content, err := written(e, l.disk)
		if err = errors.Join(err, e.Close()); err != nil {
			return err
		}
		if first == "" {
			first = content
		}
		if content != first {
			return fmt.Errorf("the queue holds %s, and the first time %s", content, first)
		}
	}
	return nil
}

// written is a sum of all records and body files.
func written(e *Engine, d *simdisk.Disk) (string, error) {
	sum, records, files := sha256.New(), 0, 0
	it, err := e.db.NewIter(nil)
	if err != nil {
		return "", err
	}
	defer it.Close()
	for it.First(); it.Valid(); it.Next() {
		v, err := it.ValueAndErr()
		if err != nil {
			return "", err
		}
		fmt.Fprintf(sum, "%x %x\n", it.Key(), v)
		records++
	}
	for c := range idDigits {
		dir := "queue/body/" + idDigits[c:c+1]
		names, err := d.List(dir)
		if err != nil {
			return "", err
		}
		slices.Sort(names)
		for _, name := range names {
			fmt.Fprintf(sum, "%s %x\n", name, file(e.o.FS, dir+"/"+name))
			files++
		}
	}
	return fmt.Sprintf("%d records and %d files, sum %x", records, files, sum.Sum(nil)[:8]), it.Error()
}

func file(fs vfs.FS, path string) []byte {
	f, err := fs.Open(path)
	if err != nil {
		return nil
	}
	defer f.Close()
	b, err := io.ReadAll(f)
	if err != nil {
		return nil
	}
	return b
}

func TestASeedRepeatsWhatIsWritten(t *testing.T) {
	if err := replayed(t, workload{steps: 40}); err != nil {
		t.Fatal(err)
	}
	err := replayed(t, workload{steps: 40, clock: time.Now})
	if err == nil {
		t.Fatal("nobody noticed the planted bug, a queue with a clock of its own")
	}
	t.Logf("the planted bug was found, as it must be: %s", err)
}
