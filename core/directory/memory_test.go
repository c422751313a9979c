package directory

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// counting says for how long its answers are fresh, and counts them.
type counting struct {
	table
	fresh time.Duration
	asked int
}

func (c *counting) Resolve(ctx context.Context, r *v1.ResolveRequest) (*v1.ResolveResponse, error) {
	c.asked++
	answer, err := c.table.Resolve(ctx, r)
	if answer != nil {
		answer.FreshMs = c.fresh.Milliseconds()
	}
	return answer, err
}

func TestRemember(t *testing.T) {
	for _, c := range []struct {
		says, wait time.Duration
		asked      int
	}{
		{0, 0, 2},
		{time.Second, 0, 1},
		{time.Second, 999 * time.Millisecond, 1},
		{time.Second, time.Second, 2},
		{365 * 24 * time.Hour, 59 * time.Second, 1},
		{365 * 24 * time.Hour, time.Minute, 2},
	} {
		synctest.Test(t, func(t *testing.T) {
			d := &counting{table: table{"meg": "="}, fresh: c.says}
			m := Remember(d)
			for range 2 {
				r, err := m.Resolve(t.Context(), &v1.ResolveRequest{Address: "meg@ryan.example"})
				if err != nil || r.GetAccount() != "meg@ryan.example" {
					t.Fatalf("%v, %v", r, err)
				}
				time.Sleep(c.wait)
			}
			if d.asked != c.asked {
				t.Errorf("fresh for %v, %v later: asked %d times, want %d", c.says, c.wait, d.asked, c.asked)
			}
		})
	}
}

// TestRememberNoFailure: a directory that is down is asked again.
func TestRememberNoFailure(t *testing.T) {
	d := &counting{table: table{"down": "!"}, fresh: time.Minute}
	m := Remember(d)
	for range 2 {
		if _, err := m.Resolve(t.Context(), &v1.ResolveRequest{Address: "down@ryan.example"}); err == nil {
			t.Fatal("no error")
		}
	}
	if d.asked != 2 {
		t.Errorf("asked %d times", d.asked)
	}
}

// TestRememberIsBounded: addresses that a stranger makes up fill no memory.
func TestRememberIsBounded(t *testing.T) {
	m := Remember(&counting{table: table{}, fresh: time.Minute}).(*memory)
	for i := range 2*mostRemembered + 1 {
		if _, err := m.Resolve(t.Context(), &v1.ResolveRequest{Address: fmt.Sprintf("no%d@ryan.example", i)}); err != nil {
			t.Fatal(err)
		}
	}
	if len(m.known) > mostRemembered {
		t.Errorf("%d answers are remembered", len(m.known))
	}
}
