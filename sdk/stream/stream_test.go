package stream

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"go.uber.org/goleak"

	"github.com/stagecoach-mta/stagecoach/sdk/fail"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// pipe is a FrameStream without gRPC: what one end sends the other receives.
type pipe struct {
	out chan<- *v1.Frame
	in  <-chan *v1.Frame
	ctx context.Context
}

func (p *pipe) Send(f *v1.Frame) error {
	select {
	case p.out <- f:
		return nil
	case <-p.ctx.Done():
		return io.EOF
	}
}

func (p *pipe) Recv() (*v1.Frame, error) {
	select {
	case f := <-p.in:
		return f, nil
	case <-p.ctx.Done():
		return nil, errors.New("pipe broken")
	}
}

// session joins a caller to h and returns a function that breaks the pipe.
func session(t testing.TB, ctx context.Context, max int, h Handler, opts ...Option) (*Conn, func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(ctx)
	a, b := make(chan *v1.Frame), make(chan *v1.Frame)
	served := make(chan struct{})
	go func() {
		defer close(served)
		Serve(ctx, &pipe{b, a, ctx}, max, h)
	}()
	c := NewCaller(&pipe{a, b, ctx}, append(opts, OnClose(cancel))...)
	stop := func() { cancel(); <-served; <-c.Done() }
	t.Cleanup(stop)
	return c, stop
}

func ask(address string) *v1.Call {
	return &v1.Call{Request: &v1.Call_Directory{Directory: &v1.DirectoryCall{
		Op: &v1.DirectoryCall_Resolve{Resolve: &v1.ResolveRequest{Address: address}},
	}}}
}

func asked(c *v1.Call) string { return c.GetDirectory().GetResolve().GetAddress() }

func answer(account string) *v1.Reply {
	return &v1.Reply{Response: &v1.Reply_Directory{Directory: &v1.DirectoryReply{
		Op: &v1.DirectoryReply_Resolve{Resolve: &v1.ResolveResponse{Account: account}},
	}}}
}

func answered(r *v1.Reply) string { return r.GetDirectory().GetResolve().GetAccount() }

func echo(_ context.Context, c *v1.Call, _ func(*v1.Reply) error) (*v1.Reply, error) {
	return answer(asked(c)), nil
}

func within(t testing.TB, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

// eventually polls until ok or fails after ten seconds.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("never happened: " + what)
		}
	}
}

func TestRepliesFindTheirCalls(t *testing.T) {
	c, _ := session(t, context.Background(), 0, echo)
	var all sync.WaitGroup
	for i := range 500 {
		all.Go(func() {
			want := strings.Repeat("x", i)
			r, err := c.Call(within(t, 10*time.Second), ask(want))
			if err != nil || answered(r) != want {
				t.Errorf("call %d: %v, %d octets", i, err, len(answered(r)))
			}
		})
	}
	all.Wait()
	if n := c.InFlight(); n != 0 {
		t.Errorf("%d calls left", n)
	}
}

func TestSlowCallBlocksNobody(t *testing.T) {
	release := make(chan struct{})
	c, _ := session(t, context.Background(), 0, func(_ context.Context, call *v1.Call, _ func(*v1.Reply) error) (*v1.Reply, error) {
		if asked(call) == "slow" {
			<-release
		}
		return answer(asked(call)), nil
	})
	slow := make(chan error, 1)
	go func() {
		_, err := c.Call(within(t, 10*time.Second), ask("slow"))
		slow <- err
	}()
	eventually(t, "the slow call is under way", func() bool { return c.InFlight() == 1 })
	for range 100 {
		if _, err := c.Call(within(t, 5*time.Second), ask("fast")); err != nil {
			t.Fatal(err)
		}
	}
	close(release)
	if err := <-slow; err != nil {
		t.Fatal(err)
	}
}

func TestCreditsBoundTheCallsAndAWaiterMayGiveUp(t *testing.T) {
	var now, most atomic.Int32
	release := make(chan struct{})
	c, _ := session(t, context.Background(), 3, func(context.Context, *v1.Call, func(*v1.Reply) error) (*v1.Reply, error) {
		if n := now.Add(1); n > most.Load() {
			most.Store(n)
		}
		<-release
		now.Add(-1)
		return answer(""), nil
	}, Credits(3))
	var all sync.WaitGroup
	for range 10 {
		all.Go(func() {
			if _, err := c.Call(within(t, 10*time.Second), ask("")); err != nil {
				t.Error(err)
			}
		})
	}
	eventually(t, "three run", func() bool { return now.Load() == 3 })
	if _, err := c.Call(within(t, 20*time.Millisecond), ask("")); !fail.Is(err, fail.Deadline) {
		t.Errorf("without a credit: %v, want DEADLINE", err)
	}
	if n := c.InFlight(); n != 3 {
		t.Errorf("%d calls under way with 3 credits", n)
	}
	close(release)
	all.Wait()
	if most.Load() != 3 {
		t.Errorf("%d ran at once, want 3", most.Load())
	}
}

func TestDeadlineTravels(t *testing.T) {
	left := make(chan time.Duration, 1)
	c, _ := session(t, context.Background(), 0, func(ctx context.Context, _ *v1.Call, _ func(*v1.Reply) error) (*v1.Reply, error) {
		d, _ := ctx.Deadline()
		left <- time.Until(d)
		<-ctx.Done()
		return nil, ctx.Err()
	})
	_, err := c.Call(within(t, 300*time.Millisecond), ask(""))
	if !fail.Is(err, fail.Deadline) {
		t.Errorf("got %v, want DEADLINE", err)
	}
	if d := <-left; d <= 0 || d > 301*time.Millisecond {
		t.Errorf("the handler had %v", d)
	}
	eventually(t, "the credit came back", func() bool { return c.InFlight() == 0 })
}

func TestCancelReachesTheHandler(t *testing.T) {
	started, stopped := make(chan struct{}), make(chan struct{})
	c, _ := session(t, context.Background(), 0, func(ctx context.Context, _ *v1.Call, _ func(*v1.Reply) error) (*v1.Reply, error) {
		close(started)
		<-ctx.Done()
		close(stopped)
		return nil, ctx.Err()
	})
	ctx, cancel := context.WithCancel(context.Background())
	go func() { <-started; cancel() }()
	if _, err := c.Call(ctx, ask("")); !fail.Is(err, fail.Cancelled) {
		t.Errorf("got %v, want CANCELLED", err)
	}
	select {
	case <-stopped:
	case <-time.After(10 * time.Second):
		t.Fatal("the handler went on")
	}
}

func TestPanicFailsOnlyItsCall(t *testing.T) {
	var log bytes.Buffer
	ctx := zerolog.New(zerolog.SyncWriter(&log)).WithContext(context.Background())
	c, stop := session(t, ctx, 0, func(_ context.Context, call *v1.Call, _ func(*v1.Reply) error) (*v1.Reply, error) {
		if asked(call) == "bomb" {
			panic("wheel came off")
		}
		return answer("ok"), nil
	})
	if _, err := c.Call(within(t, 5*time.Second), ask("bomb")); !fail.Is(err, fail.Internal) || !strings.Contains(err.Error(), "wheel came off") {
		t.Errorf("got %v, want INTERNAL", err)
	}
	if _, err := c.Call(within(t, 5*time.Second), ask("")); err != nil {
		t.Errorf("after the panic: %v", err)
	}
	stop()
	if s := log.String(); !strings.Contains(s, "wheel came off") || !strings.Contains(s, "stream_test.go") {
		t.Errorf("no stack in the log: %s", s)
	}
}

func TestProblemKeepsKindAndReply(t *testing.T) {
	c, _ := session(t, context.Background(), 0, func(context.Context, *v1.Call, func(*v1.Reply) error) (*v1.Reply, error) {
		return nil, &fail.Error{Kind: fail.OverQuota, Text: "full", Reply: &v1.SMTPReply{Code: 452}}
	})
	_, err := c.Call(within(t, 5*time.Second), ask(""))
	if !fail.Is(err, fail.OverQuota) || fail.Reply(err).GetCode() != 452 {
		t.Errorf("got %v", err)
	}
}

func TestBrokenSessionFailsAllCalls(t *testing.T) {
	c, stop := session(t, context.Background(), 0, func(ctx context.Context, _ *v1.Call, _ func(*v1.Reply) error) (*v1.Reply, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	})
	errs := make(chan error, 10)
	for range 10 {
		go func() { _, err := c.Call(within(t, 10*time.Second), ask("")); errs <- err }()
	}
	eventually(t, "ten under way", func() bool { return c.InFlight() == 10 })
	stop()
	for range 10 {
		if err := <-errs; !fail.Is(err, fail.Unavailable) {
			t.Errorf("got %v, want UNAVAILABLE", err)
		}
	}
	if _, err := c.Call(within(t, time.Second), ask("")); !fail.Is(err, fail.Unavailable) {
		t.Errorf("after the end: %v", err)
	}
	if c.Err() == nil {
		t.Error("Err is nil after the end")
	}
}

func TestStreamKeepsOrderAndASlowReaderIsTold(t *testing.T) {
	big := strings.Repeat("m", 64<<10)
	c, _ := session(t, context.Background(), 0, func(_ context.Context, call *v1.Call, send func(*v1.Reply) error) (*v1.Reply, error) {
		for i := range 200 {
			body := string(rune('a' + i%26))
			if asked(call) == "big" {
				body += big
			}
			if err := send(answer(body)); err != nil {
				return nil, err
			}
		}
		return nil, nil
	})
	n := 0
	err := c.Stream(within(t, 10*time.Second), ask("small"), func(r *v1.Reply) error {
		if want := string(rune('a' + n%26)); answered(r) != want {
			t.Errorf("reply %d is %q, want %q", n, answered(r), want)
		}
		n++
		return nil
	})
	if err != nil || n != 200 {
		t.Fatalf("%d replies, %v", n, err)
	}
	// A reader that waits until the engine gave its call up gets what had come
	// and ErrBehind; the session is as before.
	n = 0
	err = c.Stream(within(t, 10*time.Second), ask("big"), func(*v1.Reply) error {
		if n++; n == 1 {
			eventually(t, "the call was given up", func() bool { return c.InFlight() == 0 })
		}
		return nil
	})
	if !errors.Is(err, ErrBehind) || n < maxBacklog/len(big) || n >= 200 {
		t.Errorf("%d replies, %v", n, err)
	}
	if _, err := c.Call(within(t, 5*time.Second), ask("small")); err != nil {
		t.Error(err)
	}
}

func TestPeerSocketWantsAToken(t *testing.T) {
	path := filepath.Join(t.TempDir(), "data.sock")
	lis, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- ServePeer(ctx, lis, NewTokens("secret"), 128, echo) }()
	defer func() {
		cancel()
		if err := <-served; err != nil {
			t.Error(err)
		}
	}()
	for token, good := range map[string]bool{"secret": true, "guess": false, "": false} {
		c, err := DialPeer(within(t, 5*time.Second), path, token)
		if err != nil {
			t.Fatal(err)
		}
		_, err = c.Call(within(t, 5*time.Second), ask("x"))
		if good != (err == nil) {
			t.Errorf("token %q: %v", token, err)
		}
		if good {
			c.mu.Lock()
			if c.credits != 128 {
				t.Errorf("%d credits, want the 128 the server has", c.credits)
			}
			c.mu.Unlock()
		}
		c.Close()
	}
}

func TestRedialWaitsForTheRestart(t *testing.T) {
	path := filepath.Join(t.TempDir(), "data.sock")
	lis, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	// The core keeps the socket; each process gets a copy of it.
	core, err := lis.(*net.UnixListener).File()
	if err != nil {
		t.Fatal(err)
	}
	lis.(*net.UnixListener).SetUnlinkOnClose(false)
	lis.Close()
	defer core.Close()
	tokens := NewTokens("t")
	var appends atomic.Int32
	process := func() *PeerServer {
		l, err := net.FileListener(core)
		if err != nil {
			t.Fatal(err)
		}
		p := NewPeerServer(context.Background(), tokens, 0, func(ctx context.Context, c *v1.Call, _ func(*v1.Reply) error) (*v1.Reply, error) {
			if c.GetStorage().GetAppend() != nil {
				appends.Add(1)
				<-ctx.Done() // dies with it under way
				return nil, ctx.Err()
			}
			return answer("ok"), nil
		})
		go p.Serve(l)
		return p
	}
	first := process()
	r := Redial(func(ctx context.Context) (*Conn, error) { return DialPeer(ctx, path, "t") })
	defer r.Close()
	if _, err := r.Call(within(t, 5*time.Second), ask("")); err != nil {
		t.Fatal(err)
	}
	// An append under way when the process dies is not repeated.
	appended := make(chan error, 1)
	go func() {
		_, err := r.Call(within(t, 10*time.Second), &v1.Call{Request: &v1.Call_Storage{Storage: &v1.StorageCall{
			Op: &v1.StorageCall_Append{Append: &v1.AppendRequest{}},
		}}})
		appended <- err
	}()
	eventually(t, "the append is under way", func() bool { return appends.Load() == 1 })
	first.Stop()
	if err := <-appended; !fail.Is(err, fail.Unavailable) {
		t.Errorf("append that died: %v", err)
	}
	// A question asked while nobody serves waits in the backlog.
	done := make(chan error, 1)
	go func() { _, err := r.Call(within(t, 10*time.Second), ask("")); done <- err }()
	if _, err := r.Call(within(t, 30*time.Millisecond), ask("")); !fail.Is(err, fail.Deadline) {
		t.Errorf("nobody there: %v, want DEADLINE", err)
	}
	second := process()
	if err := <-done; err != nil {
		t.Errorf("across the restart: %v", err)
	}
	if n := appends.Load(); n != 1 {
		t.Errorf("append was carried out %d times", n)
	}
	// A drain loses no call of a busy caller.
	stop := make(chan struct{})
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if _, err := r.Call(within(t, 10*time.Second), ask("")); err != nil {
					t.Errorf("during the drain: %v", err)
					return
				}
			}
		})
	}
	second.Drain(within(t, 5*time.Second))
	second.Stop()
	third := process()
	if _, err := r.Call(within(t, 10*time.Second), ask("")); err != nil {
		t.Error(err)
	}
	close(stop)
	all.Wait()
	third.Stop()
}
