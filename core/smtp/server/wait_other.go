//go:build !unix

package server

import "net"

// waiter is for unix only; elsewhere each connection has a small buffer to wait with.
type waiter struct{}

func newWaiter(net.Conn) *waiter { return nil }

func (*waiter) read(*input) (int, error) { panic("unreachable") }

func (*waiter) poll(*input) int { return 0 }
