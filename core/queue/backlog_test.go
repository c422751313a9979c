package queue

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stagecoach-mta/stagecoach/core/spool"
)

var (
	backlogFlag    = flag.Int("backlog", 3000, "mails of 2 KiB in TestBacklog")
	backlogDirFlag = flag.String("backlog-dir", "", "folder of its queue; one that has a queue is measured as it is")
)

// backlogDestinations are where the mails go, all alike.
const backlogDestinations = 1000

// TestBacklog fills a queue, parks all of it, starts it again and says what that took:
//
//	go test ./core/queue -run '^TestBacklog$' -v -timeout 2h -args -backlog 1000000 -backlog-dir DIR
//
// Run again on the same DIR it measures what is there, in a process that did not
// write it.
func TestBacklog(t *testing.T) {
	dir, mails := *backlogDirFlag, *backlogFlag
	if dir == "" {
		dir = t.TempDir()
	}
	o := Options{Dir: filepath.Join(dir, "queue")}
	if _, err := os.Stat(o.Dir); errors.Is(err, os.ErrNotExist) {
		fillBacklog(t, o, mails)
	}
	debug.FreeOSMemory()
	began := time.Now()
	e := open(t, o)
	opened := time.Since(began)
	ctx := context.Background()
	var name string
	if err := e.EachLane(ctx, func(l Lane) bool { name = l.Name; return false }); err != nil {
		t.Fatal(err)
	}
	cs, _, err := e.ClaimLane(ctx, name, time.Now().Add(time.Hour), 1, time.Minute)
	if err != nil || len(cs) != 1 {
		t.Fatalf("%d claimed in %q: %v", len(cs), name, err)
	}
	t.Logf("opened after %v, the first claim in a lane after %v, resident %s", opened, time.Since(began), resident(t))
	if err := e.stocked(ctx); err != nil {
		t.Fatal(err)
	}
	t.Logf("the stock was taken after %v, resident %s", time.Since(began), resident(t))

	st, err := e.Stats(ctx)
	if err != nil || st.Messages == 0 {
		t.Fatal(st, err)
	}
	each := st.Messages / backlogDestinations
	for range 2 {
		n, f := int64(0), Filter{Destination: fmt.Sprintf("d%d.example", rand.IntN(backlogDestinations))}
		began = time.Now()
		if err := e.List(ctx, f, func(*Envelope) bool { n++; return true }); err != nil {
			t.Fatal(err)
		}
		t.Logf("listed %d messages for %s in %v", n, f.Destination, time.Since(began))
		if n < each || n > each+1 {
			t.Errorf("%d messages for %s, want %d", n, f.Destination, each)
		}
	}
	for range 2 {
		began = time.Now()
		b, err := e.Breakdown(ctx, Filter{}, 10, false)
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("stats of %d messages in %v, %d read", b.Messages, time.Since(began), b.Sample)
		if b.Messages != st.Messages || len(b.Destinations) != 10 || b.Destinations[0].Messages < each || b.Destinations[0].Messages > each+1 {
			t.Errorf("%+v", b)
		}
	}
	t.Logf("resident %s", resident(t))
}

func fillBacklog(t *testing.T, o Options, mails int) {
	e, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	began := time.Now()
	var next atomic.Int64
	var wg sync.WaitGroup
	for range 128 {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(next.Load()), 1))
			for n := next.Add(1) - 1; n < int64(mails); n = next.Add(1) - 1 {
				body := make([]byte, 2048)
				for i := range body { // as text: a table shrinks it to three quarters
					body[i] = ' ' + byte(rng.Uint32()&63)
				}
				env := mailTo(fmt.Sprintf("user%d@d%d.example", n, n%backlogDestinations))
				env.Sender = fmt.Sprintf("user%d@hanks.example", n%5000)
				env.MessageID, env.From = fmt.Sprintf("<%d@hanks.example>", n), "Tom <"+env.Sender+">"
				if err := e.Put(ctx, env, spool.FromBytes(body)); err != nil {
					t.Error(err)
					return
				}
				if (n+1)%100_000 == 0 {
					t.Logf("%d mails after %v, resident %s", n+1, time.Since(began).Round(time.Second), resident(t))
				}
			}
		})
	}
	wg.Wait()
	for parked := 0; ; {
		cs, err := e.Claim(ctx, time.Now(), 1000, time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range cs {
			ch := Change{
				State: Waiting, Deliver: "deliver.smtp.internet", Route: "elsewhere",
				Lane: "deliver.smtp.internet " + domainOf(c.Recipients[0].Address), Recheck: time.Now().Add(4 * time.Hour),
			}
			if err := e.Park(ctx, c, []Change{ch}, false); err != nil {
				t.Fatal(err)
			}
		}
		if parked += len(cs); len(cs) == 0 {
			t.Logf("%d parked after %v, resident %s", parked, time.Since(began).Round(time.Second), resident(t))
			break
		}
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
}

// resident is what the process has of the machine's memory, and how much of that is
// Go's heap.
func resident(t *testing.T) string {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	text := fmt.Sprintf("unknown (heap %d MB)", m.HeapInuse>>20)
	if b, err := os.ReadFile("/proc/self/status"); err == nil {
		_, line, _ := strings.Cut(string(b), "VmRSS:")
		if kb, err := strconv.Atoi(strings.Fields(line)[0]); err == nil {
			text = fmt.Sprintf("%d MB (heap %d MB)", kb>>10, m.HeapInuse>>20)
		}
	} else if runtime.GOOS == "linux" {
		t.Error(err)
	}
	return text
}
