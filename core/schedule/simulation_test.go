package schedule

import (
	"flag"
	"fmt"
	"testing"
	"time"
)

var (
	simMails        = flag.Int("mails", 12000, "mails of the simulation")
	simDestinations = flag.Int("destinations", 100, "destinations of the simulation")
	simSeed         = flag.Uint64("seed", 1, "seed of the simulation")
	simVerbose      = flag.Bool("table", false, "print the simulation's outcome")
)

// shares of the kinds of destinations, of a hundred; and how much more of the
// mail goes to each of the kind than to a healthy one.
var shares = []struct {
	kind   string
	share  int
	weight int
	answer func(*world, *peer, *mail) (time.Duration, Result, time.Duration)
}{
	{"healthy", 78, 1, healthy},
	{"greylisting", 10, 1, greylisting},
	{"throttling", 2, 10, throttling},
	{"slow", 5, 1, sluggish},
	{"dead", 5, 1, dead},
}

// traffic has mails sent over an hour per 300,000, to all destinations alike;
// with only "healthy" the others' mails are left out.
func traffic(w *world, mails, destinations int, only string) {
	span := time.Duration(float64(mails)/300000*float64(time.Hour)) + time.Minute
	var lanes []string
	for i := range destinations {
		at := i * 100 / destinations
		for _, sh := range shares {
			if at < sh.share {
				name := fmt.Sprintf("d%d.%s.example", i, sh.kind)
				w.peers[name] = &peer{kind: sh.kind, answer: sh.answer}
				for range sh.weight {
					lanes = append(lanes, name)
				}
				break
			}
			at -= sh.share
		}
	}
	for range mails {
		lane := lanes[w.random.IntN(len(lanes))]
		at := w.now.Add(time.Duration(w.random.Int64N(int64(span))))
		source := fmt.Sprintf("sender%d@hanks.example", w.random.IntN(50))
		if only == "" || w.peers[lane].kind == only {
			w.put(at, lane, source)
		}
	}
}

func byKind(w *world, kind string) *outcome {
	for _, o := range w.outcomes() {
		if o.kind == kind {
			return o
		}
	}
	return &outcome{}
}

// Days of traffic, some of it to destinations that are dead, slow, greylist or
// throttle: what is healthy does not feel them.
func TestSimulation(t *testing.T) {
	cfg := Config{Limits: func(string) Limits { return Limits{AtOnce: 20} }}
	alone := newWorld(*simSeed, cfg)
	traffic(alone, *simMails, *simDestinations, "healthy")
	alone.run(time.Time{})

	began := time.Now()
	w := newWorld(*simSeed, cfg)
	traffic(w, *simMails, *simDestinations, "")
	from := w.now
	w.run(time.Time{})
	if *simVerbose {
		fmt.Printf("%d mails to %d destinations, seed %d: %s simulated in %s\n%s\nthe healthy ones alone:\n%s",
			*simMails, *simDestinations, *simSeed, w.now.Sub(from).Round(time.Minute), time.Since(began).Round(10*time.Millisecond), w.table(), alone.table())
	}
	with, without := byKind(w, "healthy"), byKind(alone, "healthy")
	if a, b := with.percentile(.99), without.percentile(.99); a > b+b/4+20*time.Millisecond {
		t.Errorf("healthy destinations: p99 %s, and %s without the others", a, b)
	}
	for _, o := range w.outcomes() {
		if o.open > 0 {
			t.Errorf("%s: %d mails are still open", o.kind, o.open)
		}
		if o.kind != "dead" && o.bounced > 0 || o.kind == "dead" && o.delivered > 0 {
			t.Errorf("%s: %d delivered, %d bounced", o.kind, o.delivered, o.bounced)
		}
		if o.top > 20 {
			t.Errorf("%s: %d at once, 20 are allowed", o.kind, o.top)
		}
	}
	if d := byKind(w, "dead"); d.attempts > d.peers*300 {
		t.Errorf("dead destinations were tried %d times in %s, %d of them", d.attempts, w.now.Sub(from), d.peers)
	}
	if w.maxWaiting > 4096 || w.maxRunning > 5*64 {
		t.Errorf("in memory: %d waiting, %d running", w.maxWaiting, w.maxRunning)
	}
}
