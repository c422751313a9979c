package queue

import (
	"context"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/stagecoach-mta/stagecoach/core/spool"
)

// BenchmarkOneShot is the life of most mails: put, claimed, delivered, gone.
func BenchmarkOneShot(b *testing.B) {
	e, err := Open(Options{Dir: "queue", FS: vfs.NewMem(), CacheSize: 8 << 20})
	if err != nil {
		b.Fatal(err)
	}
	defer e.Close()
	body := spool.FromBytes(make([]byte, 2048))
	ctx := context.Background()
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if err := e.Put(ctx, mailTo("meg@ryan.example"), body); err != nil {
				b.Error(err)
				return
			}
			cs, err := e.Claim(ctx, time.Now(), 1, time.Minute)
			if err != nil {
				b.Error(err)
				return
			}
			for _, c := range cs {
				if err := e.Commit(ctx, c, []Change{{Index: 0, State: Delivered, Attempt: &Attempt{Code: 250}}}, false); err != nil {
					b.Error(err)
					return
				}
			}
		}
	})
}
