package host

import (
	"syscall"
	"testing"
)

func BenchmarkCall(b *testing.B) {
	h, err := New(Options{RunDir: b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	defer h.Close(b.Context())
	if _, err := provision(h, filterSpec("filter.test.a", "")); err != nil {
		b.Fatal(err)
	}
	i := h.Instance("filter.test.a")
	b.SetParallelism(8)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := i.Call(b.Context(), callNamed("pid")); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkCrashToAnswer is from SIGKILL to the first answer of the next process.
func BenchmarkCrashToAnswer(b *testing.B) {
	h, err := New(Options{RunDir: b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	defer h.Close(b.Context())
	h.timing.quick = 0 // no breaker
	if _, err := provision(h, filterSpec("filter.test.a", "")); err != nil {
		b.Fatal(err)
	}
	i := h.Instance("filter.test.a")
	for b.Loop() {
		restarts := i.Info().Restarts
		syscall.Kill(i.Info().PID, syscall.SIGKILL)
		for i.Info().Restarts == restarts {
			i.Call(b.Context(), callNamed("pid"))
		}
		if _, err := i.Call(b.Context(), callNamed("pid")); err != nil {
			b.Fatal(err)
		}
	}
}
