package failover

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"
)

type server struct {
	Record
	name string
}

func (s *server) String() string { return s.name }

// TestAsk: the first that answers; who failed comes last for a while, but not for a
// context that ended.
func TestAsk(t *testing.T) {
	a, b := &server{name: "a"}, &server{name: "b"}
	both, down := []*server{a, b}, map[*server]bool{a: true}
	var asked []string
	ask := func(s *server) (string, error) {
		asked = append(asked, s.name)
		if down[s] {
			return "half", errors.New("down")
		}
		return "answer of " + s.name, nil
	}
	try := func(want string, whom ...string) {
		t.Helper()
		asked = nil
		if got, err := Ask(t.Context(), both, ask); got != want || (err == nil) != (want != "") || !slices.Equal(asked, whom) {
			t.Errorf("%q %v of %v, want %q of %v", got, err, asked, want, whom)
		}
	}
	try("answer of b", "a", "b")
	try("answer of b", "b")
	down[b] = true
	try("", "b", "a")
	if got := order(both, time.Now().Add(avoided)); !slices.Equal(got, both) {
		t.Errorf("later the order is %v", got)
	}

	c := &server{name: "c"}
	ctx, cancel := context.WithCancel(t.Context())
	_, err := Ask(ctx, []*server{c, a}, func(*server) (int, error) {
		cancel()
		return 0, ctx.Err()
	})
	if !errors.Is(err, context.Canceled) || !strings.HasPrefix(err.Error(), "c: ") || c.failed.Load() != 0 {
		t.Errorf("given up: %v, failed %d", err, c.failed.Load())
	}
}
