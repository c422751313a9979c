package metrics

import (
	"bytes"
	"os"
	"runtime"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// collectProcess puts what Prometheus's client libraries tell of a process on the
// page, under their names, so that dashboards find it. What /proc does not tell
// is absent.
func collectProcess(p *page, since time.Time) {
	p.put("process_start_time_seconds", gauge, "When the process began, in seconds since 1970.", float64(since.UnixMilli())/1000)
	p.put("go_goroutines", gauge, "Goroutines.", float64(runtime.NumGoroutine()))
	var u unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &u) == nil {
		p.put("process_cpu_seconds_total", counter, "CPU time, in seconds.",
			time.Duration(unix.TimevalToNsec(u.Utime)+unix.TimevalToNsec(u.Stime)).Seconds())
	}
	if b, err := os.ReadFile("/proc/self/statm"); err == nil {
		if f := bytes.Fields(b); len(f) > 1 {
			if pages, err := strconv.ParseInt(string(f[1]), 10, 64); err == nil {
				p.put("process_resident_memory_bytes", gauge, "Resident memory.", float64(pages*int64(os.Getpagesize())))
			}
		}
	}
	if fds, err := os.ReadDir("/proc/self/fd"); err == nil {
		p.put("process_open_fds", gauge, "Open file descriptors.", float64(len(fds)))
	}
	var limit unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &limit) == nil {
		p.put("process_max_fds", gauge, "How many file descriptors may be open.", float64(limit.Cur))
	}
}
