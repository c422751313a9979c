package nexthop

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"
	"testing"
)

// TestUnreachableIsTold: once, and without our own words for it.
func TestUnreachableIsTold(t *testing.T) {
	call := os.NewSyscallError("connect", syscall.ECONNREFUSED)
	for want, err := range map[string]error{
		"connection refused":    fmt.Errorf("once more: %w", &net.OpError{Op: "dial", Net: "tcp", Err: call}),
		"no suitable address":   &net.OpError{Op: "dial", Net: "tcp", Err: errors.New("no suitable address")},
		"no connection in time": &net.OpError{Op: "dial", Net: "tcp", Err: context.DeadlineExceeded},
		"out of sockets":        errors.New("out of sockets"),
	} {
		if got := unconnected(err); got != want {
			t.Errorf("%v: %q, want %q", err, got, want)
		}
	}
	if _, err := net.Dial("unix", t.TempDir()+"/none"); unconnected(err) != "no such file or directory" {
		t.Errorf("%q", unconnected(err))
	}
}
