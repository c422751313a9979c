package stream

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stagecoach-mta/stagecoach/sdk/fail"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// TestWhatCannotBeSentFailsAlone: over gRPC, a string that is no UTF-8 fails its
// own call, in either direction, and nobody else's.
func TestWhatCannotBeSentFailsAlone(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	const odd = "gr\xfc\xdfe"
	lis, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	handler := func(_ context.Context, call *v1.Call, send func(*v1.Reply) error) (*v1.Reply, error) {
		switch asked(call) {
		case "answer":
			return answer(odd), nil
		case "error":
			return nil, fail.New(fail.Denied, "%s", odd)
		case "plain error":
			return nil, errors.New(odd)
		case "stream":
			if err := send(answer("first")); err != nil {
				return nil, err
			}
			return nil, send(answer(odd))
		}
		return answer(asked(call)), nil
	}
	served := make(chan error, 1)
	go func() { served <- ServePeer(ctx, lis, NewTokens("t"), 8, handler) }()
	defer func() { cancel(); <-served }()
	c, err := DialPeer(ctx, lis.Addr().String(), "t")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for what, kind := range map[string]fail.Kind{"answer": fail.Internal, "error": fail.Denied, "plain error": fail.Internal, "stream": fail.Invalid, odd: fail.Invalid} {
		given := 0
		err := c.Stream(ctx, ask(what), func(*v1.Reply) error { given++; return nil })
		if !fail.Is(err, kind) {
			t.Errorf("%q: %v (kind %v), want kind %v", what, err, fail.KindOf(err), kind)
		}
		if want := map[string]int{"stream": 1}[what]; given != want {
			t.Errorf("%q: %d replies, want %d", what, given, want)
		}
	}
	if _, err := pack(ask(strings.Repeat("x", MaxMessage))); !fail.Is(err, fail.Invalid) {
		t.Errorf("a call of more than MaxMessage octets: %v", err)
	}
	if r, err := c.Call(ctx, ask("meg")); err != nil || answered(r) != "meg" {
		t.Errorf("after them: %v %v", r, err)
	}
}
