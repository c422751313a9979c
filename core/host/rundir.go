package host

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"
)

// maxSocketPath is the shortest limit of sun_path among the systems we run on,
// without the final NUL.
const maxSocketPath = 103

// processSocketRoom is what a process adds to its instance's directory: a
// number and the socket's name as go-plugin makes it.
const processSocketRoom = len("/9999999/plugin4294967295")

const (
	lockName     = "lock"
	describeName = "describe"
	socketDirEnv = "PLUGIN_UNIX_SOCKET_DIR"
)

// claimRunDir makes dir this process's own: it takes the lock, ends plugins of
// an earlier owner that died without doing so, and sweeps what it left.
func claimRunDir(dir string, log zerolog.Logger) (*os.File, error) {
	if !filepath.IsAbs(dir) {
		return nil, fmt.Errorf("run directory %q: give an absolute path", dir)
	}
	if n := len(dir) + len("/~4294967295") + processSocketRoom; n > maxSocketPath {
		return nil, fmt.Errorf("run directory %s: its sockets' paths would be %d octets long and the system allows %d; choose one that is at least %d shorter",
			dir, n, maxSocketPath, n-maxSocketPath)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("run directory: %w", err)
	}
	lock, err := os.OpenFile(filepath.Join(dir, lockName), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("run directory: %w", err)
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		lock.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("run directory %s is in use by another process; stop that one or choose another directory", dir)
		}
		return nil, fmt.Errorf("run directory %s: lock: %w", dir, err)
	}
	killOrphans(dir, log)
	entries, err := os.ReadDir(dir)
	if err != nil {
		lock.Close()
		return nil, fmt.Errorf("run directory: %w", err)
	}
	for _, e := range entries {
		if e.Name() == lockName || e.Name() == describeName {
			continue
		}
		if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
			lock.Close()
			return nil, fmt.Errorf("run directory: %w", err)
		}
	}
	return lock, nil
}

// killOrphans kills processes that an earlier host's plugins started and that
// outlived it (the plugins themselves die with the host). They are known by the
// socket directory in their environment, so that no pid can be mistaken.
func killOrphans(dir string, log zerolog.Logger) {
	mark := []byte(socketDirEnv + "=" + dir + "/")
	for _, pid := range marked(mark) {
		log.Warn().Int("pid", pid).Msg("ending a process that an earlier run's plugin left behind")
		killMarked(pid, mark)
	}
}

// marked lists the processes, this one left out, that have a variable in their
// environment which is the mark, or goes on after it if the mark ends in a slash.
func marked(mark []byte) []int {
	var pids []int
	environs, _ := filepath.Glob("/proc/[0-9]*/environ")
	for _, path := range environs {
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		if err == nil && pid != os.Getpid() && hasMark(pid, mark) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// hasMark is false for a process that is dead, or not ours to see.
func hasMark(pid int, mark []byte) bool {
	env, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
	if err != nil {
		return false
	}
	return slices.ContainsFunc(bytes.Split(env, []byte{0}), func(v []byte) bool {
		return bytes.Equal(v, mark) || bytes.HasSuffix(mark, []byte("/")) && bytes.HasPrefix(v, mark)
	})
}

// killMarked kills the process if it is still the one with the mark: its number
// may be another's by now.
func killMarked(pid int, mark []byte) {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return // it has ended
	}
	defer unix.Close(fd)
	if hasMark(pid, mark) {
		_ = unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0)
	}
}

// place is what an instance keeps over all its processes: its directory and,
// if others may call it, the listening data socket. Its backlog holds the calls
// that come while no process serves.
type place struct {
	dir  string
	data *os.File
}

// dataSocket is the path that grants name.
func (p *place) dataSocket() string { return filepath.Join(p.dir, "data.sock") }

// instanceDir is where the instance's sockets live: under its own name, or
// under a short one where that would be too long for a socket.
func instanceDir(runDir, instance string) string {
	dir := filepath.Join(runDir, instance)
	if len(dir)+processSocketRoom <= maxSocketPath {
		return dir
	}
	sum := sha256.Sum256([]byte(instance))
	return filepath.Join(runDir, "~"+hex.EncodeToString(sum[:4]))
}

func newPlace(runDir string, s *Spec) (*place, error) {
	p := &place{dir: instanceDir(runDir, s.Instance)}
	if err := os.MkdirAll(p.dir, 0o700); err != nil {
		return nil, err
	}
	if !servesData(s.Kind) {
		return p, nil
	}
	os.Remove(p.dataSocket())
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: p.dataSocket(), Net: "unix"})
	if err != nil {
		os.RemoveAll(p.dir)
		return nil, fmt.Errorf("data socket: %w", err)
	}
	l.SetUnlinkOnClose(false)
	defer l.Close()
	if p.data, err = inheritable(l); err != nil {
		os.RemoveAll(p.dir)
		return nil, fmt.Errorf("data socket: %w", err)
	}
	return p, nil
}

func (p *place) close() {
	if p.data != nil {
		p.data.Close()
	}
	os.RemoveAll(p.dir)
}

// inheritable duplicates a listening socket for passing on. The duplicate is in
// blocking mode before os.File sees it: otherwise each exec would switch the
// shared socket to blocking under the process that is accepting on it.
func inheritable(l interface {
	SyscallConn() (syscall.RawConn, error)
}) (*os.File, error) {
	raw, err := l.SyscallConn()
	if err != nil {
		return nil, err
	}
	var fd int
	var dupErr error
	err = raw.Control(func(orig uintptr) {
		syscall.ForkLock.RLock()
		defer syscall.ForkLock.RUnlock()
		if fd, dupErr = syscall.Dup(int(orig)); dupErr == nil {
			syscall.CloseOnExec(fd)
		}
	})
	if err = errors.Join(err, dupErr); err != nil {
		return nil, err
	}
	if err := syscall.SetNonblock(fd, false); err != nil {
		syscall.Close(fd)
		return nil, err
	}
	return os.NewFile(uintptr(fd), "listener"), nil
}

// listener is a bound TCP socket; the plugins that serve it have duplicates.
type listener struct {
	file *os.File
	// addr as bound: with the port that ":0" became.
	addr string
}

func (l *listener) close() { l.file.Close() }

// listenerKey names a listener over reloads: the address, wherever it moves.
// Port 0 is another port for everybody who asks.
func listenerKey(instance string, n int, address string) string {
	if _, port, err := net.SplitHostPort(address); err == nil && port == "0" {
		return fmt.Sprintf("%s#%d#%s", instance, n, address)
	}
	return address
}

func bind(address string) (*listener, error) {
	l, err := net.Listen("tcp", address)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("listen on %s: another program has this port; stop it or choose another address", address)
	case errors.Is(err, syscall.EACCES):
		return nil, fmt.Errorf("listen on %s: ports below 1024 need the capability CAP_NET_BIND_SERVICE, or root", address)
	case err != nil:
		return nil, fmt.Errorf("listen on %s: %w", address, err)
	}
	defer l.Close()
	file, err := inheritable(l.(*net.TCPListener))
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", address, err)
	}
	return &listener{file: file, addr: l.Addr().String()}, nil
}
