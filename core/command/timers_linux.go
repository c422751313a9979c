package command

import (
	"os"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	// kernelSlack is by how many nanoseconds Linux may delay a timer of a process
	// that asked for nothing else, ours what the server asks for.
	kernelSlack = 50_000
	ourSlack    = 1_000_000
)

// CoarseTimers lets the kernel wake a server's threads, and those of its plugins,
// up to a millisecond late. Go's runtime has a thread that looks every 20 µs
// for goroutines in a system call, as long as it finds some; with the fsyncs of a
// mail server it always does, and a fifth of the CPU time of a mail went there
// (docs/decisions/0014-cost-of-local-delivery.md).
//
// A thread inherits the slack, but the runtime's is there before main: so the
// process becomes the same program again, with the same pid. Where somebody has
// set another slack (systemd's TimerSlackNSec), that holds.
func CoarseTimers(args []string) {
	if len(args) == 0 || args[0] != "serve" {
		return
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if now, err := unix.PrctlRetInt(unix.PR_GET_TIMERSLACK, 0, 0, 0, 0); err != nil || now != kernelSlack {
		return
	}
	self, err := os.Executable()
	if err != nil || unix.Prctl(unix.PR_SET_TIMERSLACK, ourSlack, 0, 0, 0) != nil {
		return
	}
	// Should it fail, the server runs as it is.
	_ = syscall.Exec(self, os.Args, os.Environ())
}
