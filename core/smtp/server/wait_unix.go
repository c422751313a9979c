//go:build unix

package server

import (
	"io"
	"net"
	"syscall"
)

// waiter waits for input without holding a buffer: it takes one from the pool for
// each attempt to read, and gives it back when nothing is there. That is the
// system calls of an ordinary Read, no more.
type waiter struct {
	rc  syscall.RawConn
	try func(fd uintptr) bool // w.attempt, bound once
	in  *input
	n   int
	err error
}

// newWaiter returns nil where conn is not a plain socket.
func newWaiter(conn net.Conn) *waiter {
	var sc syscall.Conn
	switch conn := conn.(type) {
	case *net.TCPConn:
		sc = conn
	case *net.UnixConn:
		sc = conn
	default: // something that wraps a socket and wants to see its reads
		return nil
	}
	rc, err := sc.SyscallConn()
	if err != nil {
		return nil
	}
	w := &waiter{rc: rc}
	w.try = w.attempt
	return w
}

func (w *waiter) read(in *input) (int, error) {
	w.in, w.n, w.err = in, 0, nil
	if err := w.rc.Read(w.try); err != nil {
		return 0, err
	}
	if w.n == 0 && w.err == nil {
		return 0, io.EOF
	}
	return w.n, w.err
}

// poll reads what has come already.
func (w *waiter) poll(in *input) int {
	w.in, w.n, w.err = in, 0, nil
	_ = w.rc.Read(func(fd uintptr) bool { w.attempt(fd); return true })
	return w.n
}

func (w *waiter) attempt(fd uintptr) bool {
	w.in.takeBlock()
	for {
		n, err := syscall.Read(int(fd), w.in.block[w.in.w:])
		switch err {
		case nil:
			w.n = n
			return true
		case syscall.EINTR:
		case syscall.EAGAIN:
			if w.in.w == 0 {
				w.in.release()
			}
			return false
		default:
			w.err = err
			return true
		}
	}
}
