package admin

import (
	"context"
	"errors"
	"net"
	"net/http"

	"golang.org/x/sys/unix"
)

// Guard says why a process may not ask anything; "" if it may. It is told the
// number of a process that was there a moment ago.
type Guard func(pid int) string

// refused is the context's value of a connection whose process may not ask.
type refused struct{}

// admit asks the guard about the process that opened a connection.
func (g Guard) admit(ctx context.Context, c net.Conn) context.Context {
	if why := g.refuses(c); why != "" {
		return context.WithValue(ctx, refused{}, why)
	}
	return ctx
}

func (g Guard) refuses(c net.Conn) (why string) {
	conn, ok := c.(*net.UnixConn)
	if !ok {
		return "this is no unix socket"
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return err.Error()
	}
	var peer *unix.Ucred
	var process int
	var noProcess error
	failed := raw.Control(func(fd uintptr) {
		peer, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
		process, noProcess = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_PEERPIDFD)
	})
	if err = errors.Join(failed, err); err != nil {
		return err.Error()
	}
	if noProcess == unix.ENOPROTOOPT { // before Linux 6.5
		process, noProcess = unix.PidfdOpen(int(peer.Pid), 0)
	}
	if noProcess == nil {
		defer unix.Close(process)
	}
	switch {
	case peer.Pid == 0:
		return "" // from outside of this container: none of what the server started
	case peer.Uid == 0 && unix.Geteuid() != 0:
		return "" // root, whose processes this one may not be able to see
	}
	if why := g(int(peer.Pid)); why != "" {
		return why
	}
	// Who has ended has passed the connection on, and its number may be another's.
	if noProcess != nil || unix.PidfdSendSignal(process, 0, nil, 0) == unix.ESRCH {
		return "the process that opened this connection has ended"
	}
	return ""
}

// guarded answers those who may not ask, and all others by next.
func guarded(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		why, ok := r.Context().Value(refused{}).(string)
		if !ok {
			next.ServeHTTP(w, r)
			return
		}
		w.Header().Set("Connection", "close")
		reject(w, http.StatusForbidden, why)
	})
}
