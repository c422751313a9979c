package main

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"
)

const askTimers = "STAGECOACH_TEST_TIMERS"

// tellTimers has the program end with its timer slack, for TestCoarseTimers.
func tellTimers() {
	if os.Getenv(askTimers) == "" {
		return
	}
	slack, err := unix.PrctlRetInt(unix.PR_GET_TIMERSLACK, 0, 0, 0, 0)
	fmt.Println(os.Getpid(), slack, err)
	os.Exit(0)
}

// TestCoarseTimers: a server has coarse timers, in the process that was started,
// unless whoever started it chose; a plugin and what else is not a server is left
// alone.
func TestCoarseTimers(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		word      string
		set, want int
	}{{"serve", 50_000, 1_000_000}, {"serve", 70_000, 70_000}, {"plugin", 50_000, 50_000}} {
		cmd := exec.Command(self, c.word)
		cmd.Env = append(os.Environ(), askTimers+"=1")
		got := make(chan string, 1)
		go func() {
			// A process has the slack of the thread that starts it; the thread ends
			// with the goroutine that does not unlock it.
			runtime.LockOSThread()
			err := unix.Prctl(unix.PR_SET_TIMERSLACK, uintptr(c.set), 0, 0, 0)
			out, runErr := cmd.Output()
			got <- fmt.Sprint(string(out), err, runErr)
		}()
		if g, want := <-got, fmt.Sprintf("%s %d <nil>\n<nil> <nil>", strconv.Itoa(cmd.Process.Pid), c.want); g != want {
			t.Errorf("%s, started with %d ns: %q, want %q", c.word, c.set, g, want)
		}
	}
}
