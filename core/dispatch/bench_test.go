package dispatch

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/stagecoach-mta/stagecoach/core/deliver"
	"github.com/stagecoach-mta/stagecoach/core/queue"
)

// instant takes every mail at once and remembers none.
type instant struct{ *transport }

func (i instant) Deliver(_ context.Context, job *deliver.Job) []deliver.Outcome {
	out := make([]deliver.Outcome, 0, len(job.Recipients))
	for _, r := range job.Recipients {
		out = append(out, deliver.Outcome{Index: r.Index, Hand: deliver.DutyPassed, Attempt: queue.Attempt{Code: 250, Enhanced: "2.0.0", Text: "ok"}})
	}
	return out
}

// BenchmarkDispatch is mail from its Put to its end, twenty at a time put, to a
// transport that takes it at once.
func BenchmarkDispatch(b *testing.B) {
	for _, to := range []string{"meg@ryan.example", "annie@reed.example"} {
		b.Run(Domain(to), func(b *testing.B) {
			r := newRig(b, twoRoutes)
			plan := *r.d.Plan()
			plan.PerDestination = 20
			plan.Transports = map[string]deliver.Transport{"deliver.smtp.here": instant{r.here}, "deliver.smtp.away": instant{r.away}}
			r.d = New(Options{Queue: r.q, Plan: func() *Plan { return &plan }, Workers: 64, Clock: r.clock.Now, Log: zerolog.Nop()})
			r.clock.add(time.Hour)
			ctx, cancel := context.WithCancel(context.Background())
			done := make(chan error, 1)
			go func() { done <- r.d.Run(ctx) }()
			b.ReportAllocs()
			b.ResetTimer()
			var wg sync.WaitGroup
			for n := range 20 {
				wg.Go(func() {
					for range b.N/20 + min(1, max(0, b.N%20-n)) {
						r.put("tom@hanks.example", to)
					}
				})
			}
			wg.Wait()
			for {
				if s, err := r.q.Stats(ctx); err != nil {
					b.Fatal(err)
				} else if s.Messages == 0 {
					break
				}
				time.Sleep(time.Millisecond)
			}
			b.StopTimer()
			cancel()
			if err := <-done; err != nil {
				b.Fatal(err)
			}
		})
	}
}
