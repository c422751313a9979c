package stream

import (
	"context"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/stagecoach-mta/stagecoach/sdk/fail"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// deaf opens a session and reads nothing.
type deaf struct{ v1.UnimplementedPeerServer }

func (deaf) Session(s grpc.BidiStreamingServer[v1.Frame, v1.Frame]) error {
	<-s.Context().Done()
	return nil
}

// dialLocal serves impl over gRPC and connects to it.
func dialLocal(t testing.TB, impl v1.PeerServer, opts ...grpc.ServerOption) *grpc.ClientConn {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	lis, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	g := grpc.NewServer(opts...)
	v1.RegisterPeerServer(g, impl)
	served := make(chan error, 1)
	go func() { served <- g.Serve(lis) }()
	cc, err := grpc.NewClient("unix:"+path, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cc.Close(); g.Stop(); <-served })
	return cc
}

// TestDeafPeerHoldsNobody: over gRPC callers write themselves, but never where they
// would have to wait for the other side to read. Many times what gRPC takes for it is
// asked, and everybody's deadline holds.
func TestDeafPeerHoldsNobody(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	s, err := v1.NewPeerClient(dialLocal(t, deaf{}, grpc.InitialWindowSize(64<<10))).Session(ctx)
	if err != nil {
		t.Fatal(err)
	}
	c := NewCaller(s, OnClose(cancel), Credits(10_000))
	defer c.Close()
	if !c.out.buffered {
		t.Fatal("callers do not write themselves over gRPC")
	}
	for _, k := range []struct{ calls, octets int }{{500, 10}, {150, 3000}, {10, 40_000}} {
		call := ask(strings.Repeat("x", k.octets))
		began := time.Now()
		var all sync.WaitGroup
		for range k.calls {
			all.Go(func() {
				ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
				defer cancel()
				if _, err := c.Call(ctx, call); !fail.Is(err, fail.Deadline) {
					t.Errorf("got %v, want DEADLINE", err)
				}
			})
		}
		all.Wait()
		if took := time.Since(began); took > 20*time.Second {
			t.Errorf("calls of %d octets were held for %v", k.octets, took)
		}
	}
}

// TestAnswerBeforeTheQuestion: a peer that guesses a call's id answers a call that
// nobody made, as long as the call was not written.
func TestAnswerBeforeTheQuestion(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	out, in := make(chan *v1.Frame), make(chan *v1.Frame)
	c := NewCaller(&pipe{out, in, ctx}, OnClose(cancel))
	defer c.Close()
	errs := make(chan error, 2)
	for _, what := range []string{"first", "second"} {
		go func() {
			r, err := c.Call(within(t, 10*time.Second), ask(what))
			if err == nil && answered(r) != "of "+what {
				err = fail.New(fail.Internal, "%s was answered %q", what, answered(r))
			}
			errs <- err
		}()
		eventually(t, "the call is queued", func() bool { return c.InFlight() > 0 && (what == "first" || c.InFlight() == 2) })
	}
	// The first one's frame is offered and nobody takes it: the second waits.
	in <- &v1.Frame{Id: 2, Body: &v1.Frame_Reply{Reply: answer("a guess")}}
	eventually(t, "the guess was read", func() bool { c.mu.Lock(); defer c.mu.Unlock(); return c.strays == 1 })
	if n := c.InFlight(); n != 2 {
		t.Errorf("%d calls under way after a guess, want 2", n)
	}
	for range 2 {
		f := <-out
		in <- &v1.Frame{Id: f.GetId(), Body: &v1.Frame_Reply{Reply: answer("of " + asked(f.GetCall()))}}
	}
	for range 2 {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.out.open != 0 {
		t.Errorf("%d octets are counted as not answered", c.out.open)
	}
}
