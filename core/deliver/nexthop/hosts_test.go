package nexthop_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stagecoach-mta/stagecoach/core/deliver/nexthop"
)

// Domains that share a mail exchanger that does not answer wait for it once, and
// go on to their next one at once.
func TestASilentHostIsPassedOver(t *testing.T) {
	zone := map[string][]string{"dead.ryan.example": {"A 127.0.0.2"}, "mx.ryan.example": {"A 127.0.0.1"}}
	for n := range 5 {
		zone[fmt.Sprintf("d%d.example", n)] = []string{"MX 10 dead.ryan.example."}
	}
	zone["both.example"] = []string{"MX 10 dead.ryan.example.", "MX 20 mx.ryan.example."}
	s := serve(t, "127.0.0.1:0", nil)
	w := newWorld(t, zone)
	var mu sync.Mutex
	now, dials, dead := time.Now(), 0, true
	tr := w.transport(nexthop.Options{
		Port: s.port, AllowLoopback: true,
		Clock: func() time.Time { mu.Lock(); defer mu.Unlock(); return now },
		Dial: func(ctx context.Context, network, addr string) (net.Conn, error) {
			mu.Lock()
			silent := dead && strings.HasPrefix(addr, "127.0.0.2:")
			if silent {
				dials++
				now = now.Add(10 * time.Second)
			}
			mu.Unlock()
			if silent {
				return nil, errors.New("i/o timeout")
			}
			return (&net.Dialer{}).DialContext(ctx, network, hostPort(s.port))
		},
	})
	after := func(d time.Duration) { mu.Lock(); now = now.Add(d); mu.Unlock() }
	look := func(domain, result string, dialled int) {
		t.Helper()
		out := deliver(t, tr, "meg@"+domain)
		want(t, out, result)
		mu.Lock()
		defer mu.Unlock()
		if dials != dialled {
			t.Fatalf("%s: %d connections were tried, want %d: %s", domain, dials, dialled, out[0].Text)
		}
	}
	look("d0.example", "deferred 451 4.4.1", 1)
	for n := range 5 {
		look(fmt.Sprintf("d%d.example", n), "deferred 451 4.4.1", 1)
	}
	look("both.example", "delivered 250 2.0.0", 1)
	tr.Revive()
	look("d0.example", "deferred 451 4.4.1", 2)
	after(61 * time.Second)
	look("d1.example", "deferred 451 4.4.1", 3) // one looks again
	look("d2.example", "deferred 451 4.4.1", 3)
	after(61 * time.Second)
	look("d2.example", "deferred 451 4.4.1", 3) // twice as long now
	after(61 * time.Second)
	mu.Lock()
	dead = false
	mu.Unlock()
	look("d3.example", "delivered 250 2.0.0", 3)
	look("d4.example", "delivered 250 2.0.0", 3)
}
