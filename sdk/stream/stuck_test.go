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
