package admin

import (
	"bufio"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestMain lets the test binary be a process that connects its descriptor 3 to a
// socket, and ends.
func TestMain(m *testing.M) {
	if path := os.Getenv("ADMIN_TEST_CONNECT"); path != "" {
		if err := unix.Connect(3, &unix.SockaddrUnix{Name: path}); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

func guardedBy(t *testing.T, guard Guard) (s *Server, path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "s")
	s, err := Listen(path, &backend{}, guard)
	if err != nil {
		t.Fatal(err)
	}
	return s, path
}

func begin(t *testing.T, s *Server) {
	done := make(chan error, 1)
	go func() { done <- s.Serve() }()
	t.Cleanup(func() {
		if err := errors.Join(s.Close(), <-done); err != nil {
			t.Error(err)
		}
	})
}

// The guard is asked about the process that connects, and its word counts.
func TestGuard(t *testing.T) {
	for _, test := range []struct{ why, want string }{
		{"", "<nil>"},
		{"this process is a plugin's", "this process is a plugin's"},
	} {
		s, path := guardedBy(t, func(pid int) string {
			if pid != os.Getpid() {
				t.Errorf("asked about %d", pid)
			}
			return test.why
		})
		begin(t, s)
		err := NewClient(path).Call(t.Context(), "POST", "/plugins/filter.test.a/reload", nil, &struct{}{})
		if fmt.Sprint(err) != test.want {
			t.Errorf("%v, want %s", err, test.want)
		}
	}
}

// A connection whose process has ended is nobody's, even if the guard sees nothing
// wrong in the number that it had.
func TestConnectionOfAProcessThatHasEnded(t *testing.T) {
	s, path := guardedBy(t, func(int) string { return "" })
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	conn := os.NewFile(uintptr(fd), "connection")
	defer conn.Close()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	child := exec.Command(self)
	child.Env, child.ExtraFiles = append(os.Environ(), "ADMIN_TEST_CONNECT="+path), []*os.File{conn}
	if out, err := child.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	begin(t, s) // it accepts what has waited
	if _, err := fmt.Fprint(conn, "POST /reload HTTP/1.1\r\nHost: stagecoach\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := bufio.NewReader(resp.Body).ReadString('\n')
	if err != nil || resp.StatusCode != http.StatusForbidden || !strings.Contains(text, "has ended") {
		t.Errorf("%s %q, %v", resp.Status, text, err)
	}
}
