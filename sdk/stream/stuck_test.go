package stream

import (
	"context"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stagecoach-mta/stagecoach/sdk/fail"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// A stopped process neither reads nor answers: its callers keep their deadlines,
// also those whose frames were never taken.
func TestPeerThatDoesNotReadHoldsNobody(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	c := NewCaller(&pipe{make(chan *v1.Frame), make(chan *v1.Frame), ctx}, OnClose(cancel))
	for range 10 {
		began := time.Now()
		if _, err := c.Call(within(t, 20*time.Millisecond), ask("")); !fail.Is(err, fail.Deadline) {
			t.Fatalf("got %v, want DEADLINE", err)
		}
		if took := time.Since(began); took > 5*time.Second {
			t.Fatalf("held for %v", took)
		}
	}
	c.Close()
}

// Calls given up and not ended are counted until they end, and the time runs from
// the first of them or from what ended last.
func TestAbandonedCallsAreCounted(t *testing.T) {
	release := make(chan struct{})
	c, stop := session(t, context.Background(), 0, func(_ context.Context, call *v1.Call, _ func(*v1.Reply) error) (*v1.Reply, error) {
		if asked(call) == "hang" {
			<-release
		}
		return answer("tom"), nil
	})
	defer stop()
	began := time.Now()
	for range 3 {
		if _, err := c.Call(within(t, 20*time.Millisecond), ask("hang")); !fail.Is(err, fail.Deadline) {
			t.Fatalf("got %v, want DEADLINE", err)
		}
	}
	n, first := c.Abandoned()
	if n != 3 || first.Before(began) {
		t.Errorf("%d abandoned since %v, want 3 since the first", n, first)
	}
	if _, err := c.Call(within(t, 10*time.Second), ask("")); err != nil {
		t.Fatal(err)
	}
	if n, since := c.Abandoned(); n != 3 || !since.After(first) {
		t.Errorf("%d abandoned since %v, want 3 since the call that ended", n, since)
	}
	close(release)
	eventually(t, "all have ended", func() bool { n, _ := c.Abandoned(); return n == 0 })
}

// One answer to a call that nobody made is passed over; who goes on so is cut off.
func TestAnswersToNoCallEndTheSession(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	in := make(chan *v1.Frame)
	c := NewCaller(&pipe{make(chan *v1.Frame, 1), in, ctx}, OnClose(cancel))
	defer c.Close()
	stray := &v1.Frame{Id: 7, Body: &v1.Frame_Reply{Reply: answer("tom")}}
	for range maxStray {
		in <- stray
	}
	select {
	case <-c.Done():
		t.Fatalf("cut off too early: %v", c.Err())
	default:
	}
	in <- stray
	select {
	case <-c.Done():
	case <-time.After(10 * time.Second):
		t.Fatal("not cut off")
	}
	if err := c.Err(); !fail.Is(err, fail.Unavailable) || !strings.Contains(err.Error(), "id 7") {
		t.Errorf("%v, want UNAVAILABLE with the id", err)
	}
}

func TestRefusedTokenIsNamed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	lis, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	tokens := NewTokens("right")
	p := NewPeerServer(context.Background(), tokens, 0, echo)
	go p.Serve(lis)
	defer p.Stop()
	r := Redial(func(ctx context.Context) (*Conn, error) { return DialPeer(ctx, path, "late") })
	defer r.Close()
	_, err = r.Call(within(t, 200*time.Millisecond), ask(""))
	if !fail.Is(err, fail.Deadline) || !strings.Contains(err.Error(), "token") {
		t.Errorf("got %v, want DEADLINE that names the token", err)
	}
	// A grant can arrive before the token that belongs to it: the call waits.
	done := make(chan error, 1)
	go func() { _, err := r.Call(within(t, 10*time.Second), ask("")); done <- err }()
	tokens.Add("late")
	if err := <-done; err != nil {
		t.Errorf("after the token was added: %v", err)
	}
	// The other side moved: calls go on over a new session.
	r.Renew()
	if _, err := r.Call(within(t, 10*time.Second), ask("")); err != nil {
		t.Errorf("after Renew: %v", err)
	}
}
