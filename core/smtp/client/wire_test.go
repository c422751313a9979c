package client

import (
	"errors"
	"net"
	"os"
	"testing"
	"time"
)

// slowSocket takes a few octets in each time-out, as often as left says.
type slowSocket struct {
	net.Conn
	got  []byte
	left int
}

func (s *slowSocket) SetWriteDeadline(time.Time) error { return nil }

func (s *slowSocket) Write(p []byte) (int, error) {
	if s.left == 0 {
		return 0, os.ErrDeadlineExceeded
	}
	s.left--
	n := min(3, len(p))
	s.got = append(s.got, p[:n]...)
	if n < len(p) {
		return n, os.ErrDeadlineExceeded
	}
	return n, nil
}

func TestSlowPeerIsServedAndStuckOneNoticed(t *testing.T) {
	slow := &slowSocket{left: 4}
	if n, err := (&progressConn{Conn: slow}).Write([]byte("0123456789")); n != 10 || err != nil || string(slow.got) != "0123456789" {
		t.Errorf("slow: %d, %v, %q", n, err, slow.got)
	}
	stuck := &slowSocket{left: 2}
	if n, err := (&progressConn{Conn: stuck}).Write([]byte("0123456789")); n != 6 || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("stuck: %d, %v", n, err)
	}
}
