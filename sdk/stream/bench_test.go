package stream

import (
	"context"
	"fmt"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"

	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// bare echoes frames with no engine: what gRPC alone costs.
type bare struct{ v1.UnimplementedPeerServer }

func (bare) Session(s grpc.BidiStreamingServer[v1.Frame, v1.Frame]) error {
	for {
		f, err := s.Recv()
		if err != nil {
			return nil
		}
		reply := &v1.Frame{Id: f.GetId(), Body: &v1.Frame_Reply{Reply: answer(asked(f.GetCall()))}}
		if err := s.Send(reply); err != nil {
			return err
		}
	}
}

// engine serves the same with the engine.
type engine struct{ v1.UnimplementedPeerServer }

func (engine) Session(s grpc.BidiStreamingServer[v1.Frame, v1.Frame]) error {
	return Serve(s.Context(), s, 0, echo)
}

// bareCalls makes n calls, c at a time, each on a stream of its own in lockstep:
// the fastest way that gRPC has (one stream per caller).
func bareCalls(b *testing.B, cc *grpc.ClientConn, c, n int) time.Duration {
	return calls(b, c, n, func() (func(*v1.Call) error, func()) {
		ctx, cancel := context.WithCancel(context.Background())
		s, err := v1.NewPeerClient(cc).Session(ctx)
		if err != nil {
			b.Fatal(err)
		}
		return func(call *v1.Call) error {
			if err := s.Send(&v1.Frame{Id: 1, Body: &v1.Frame_Call{Call: call}}); err != nil {
				return err
			}
			_, err := s.Recv()
			return err
		}, cancel
	})
}

func calls(b *testing.B, c, n int, open func() (func(*v1.Call) error, func())) time.Duration {
	var all sync.WaitGroup
	begin := time.Now()
	for range c {
		call, stop := open()
		all.Go(func() {
			defer stop()
			for range n / c {
				if err := call(ask("meg@ryan.example")); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	all.Wait()
	return time.Since(begin)
}

// cpu is what this process has used.
func cpu(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkSession is a small call through the engine, and the ratio of its CPU
// and time to a bare gRPC stream's in the same run (alternating, so that noise of
// the machine falls on both).
func BenchmarkSession(b *testing.B) {
	for _, c := range []int{1, 16} {
		b.Run(fmt.Sprintf("c=%d", c), func(b *testing.B) {
			plain, ours := dialLocal(b, bare{}), dialLocal(b, engine{})
			s, err := v1.NewPeerClient(ours).Session(context.Background())
			if err != nil {
				b.Fatal(err)
			}
			conn := NewCaller(s)
			defer conn.Close()
			ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
			defer cancel()
			engineCalls := func(n int) time.Duration {
				return calls(b, c, n, func() (func(*v1.Call) error, func()) {
					return func(call *v1.Call) error { _, err := conn.Call(ctx, call); return err }, func() {}
				})
			}
			bareCalls(b, plain, c, 16*c)
			engineCalls(16 * c)
			b.ReportAllocs()
			b.ResetTimer()
			var bareTime, engineTime, bareCPU, engineCPU time.Duration
			for left := max(b.N, c); left > 0; left -= 2000 {
				n := max(min(left, 2000), c)
				begin := cpu(b)
				bareTime += bareCalls(b, plain, c, n)
				middle := cpu(b)
				engineTime += engineCalls(n)
				bareCPU += middle - begin
				engineCPU += cpu(b) - middle
			}
			n := float64(max(b.N, c))
			b.ReportMetric(float64(engineCPU.Microseconds())/n, "engine-cpu-µs/call")
			b.ReportMetric(float64(bareCPU.Microseconds())/n, "bare-cpu-µs/call")
			b.ReportMetric(float64(engineTime)/float64(bareTime), "time-ratio")
			b.ReportMetric(float64(engineCPU)/float64(bareCPU), "ratio")
			if c == 16 {
				b.ReportMetric(1.5, "limit")
			}
		})
	}
}
