//go:build linux && !race

package server

import "testing"

// An idle connection holds no buffer: a block is taken when octets come.
func TestIdleConnectionCosts12KBAtMost(t *testing.T) {
	if got := idleConnections(t, "ours", 1000); got > 12<<10 {
		t.Errorf("%.0f octets of resident memory per idle connection", got)
	}
}
