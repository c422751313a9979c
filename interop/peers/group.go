package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// group is a control group: what is started in it is measured and stopped by
// it, with all that it starts in turn.
type group struct{ dir string }

// groupRoot finds where groups that count CPU time can be made.
func groupRoot() (string, error) {
	for _, at := range []string{"/sys/fs/cgroup/cpuacct", "/sys/fs/cgroup"} {
		for _, file := range []string{"cpuacct.usage", "cpu.stat"} {
			if _, err := os.Stat(filepath.Join(at, file)); err != nil {
				continue
			}
			root := filepath.Join(at, fmt.Sprintf("peers-%d", os.Getpid()))
			if err := os.Mkdir(root, 0o755); err == nil {
				return root, nil
			}
		}
	}
	return "", fmt.Errorf("no control group can be made below /sys/fs/cgroup, which counts the servers' CPU time: run this as root, outside of a container that forbids it")
}

func newGroup(root, name string) (*group, error) {
	g := &group{dir: filepath.Join(root, name)}
	return g, os.Mkdir(g.dir, 0o755)
}

// start runs a program in the group; its output goes to log.
func (g *group) start(log *os.File, argv ...string) (*exec.Cmd, error) {
	// The shell enters the group and becomes the program.
	script := `echo $$ > "$0"/cgroup.procs && exec "$@"`
	cmd := exec.Command("sh", append([]string{"-c", script, g.dir}, argv...)...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	return cmd, cmd.Start()
}

func (g *group) run(log *os.File, argv ...string) error {
	cmd, err := g.start(log, argv...)
	if err == nil {
		err = cmd.Wait()
	}
	if err != nil {
		return fmt.Errorf("%s: %w", strings.Join(argv, " "), err)
	}
	return nil
}

func (g *group) pids() (list []int) {
	b, _ := os.ReadFile(filepath.Join(g.dir, "cgroup.procs"))
	for _, f := range strings.Fields(string(b)) {
		if pid, err := strconv.Atoi(f); err == nil {
			list = append(list, pid)
		}
	}
	return list
}

// cpu is the time that the group's processes have used, the ended ones too.
func (g *group) cpu() time.Duration {
	if b, err := os.ReadFile(filepath.Join(g.dir, "cpuacct.usage")); err == nil {
		n, _ := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
		return time.Duration(n)
	}
	b, _ := os.ReadFile(filepath.Join(g.dir, "cpu.stat"))
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, "usage_usec "); ok {
			n, _ := strconv.ParseInt(strings.TrimSpace(v), 10, 64)
			return time.Duration(n) * time.Microsecond
		}
	}
	return 0
}

// memory is what the group's processes have in memory, shared pages counted once.
func (g *group) memory() (octets int64) {
	for _, pid := range g.pids() {
		octets += memoryOf(pid, "Pss:")
	}
	return octets
}

// memoryOf reads one line of a process's smaps_rollup; 0 if it has ended.
func memoryOf(pid int, line string) int64 {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	for l := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(l, line); ok {
			kib, _ := strconv.ParseInt(strings.Fields(v)[0], 10, 64)
			return kib << 10
		}
	}
	return 0
}

// stop ends every process of the group: by SIGTERM, and what is still there
// after the grace by SIGKILL.
func (g *group) stop(grace time.Duration) error {
	began := time.Now()
	for told := map[int]bool{}; time.Since(began) < grace+10*time.Second; time.Sleep(50 * time.Millisecond) {
		pids := g.pids()
		if len(pids) == 0 {
			return nil
		}
		for _, pid := range pids {
			switch {
			case time.Since(began) > grace:
				syscall.Kill(pid, syscall.SIGKILL)
			case !told[pid]:
				syscall.Kill(pid, syscall.SIGTERM)
			}
			told[pid] = true
		}
	}
	return fmt.Errorf("processes %v of %s do not end", g.pids(), filepath.Base(g.dir))
}

func (g *group) remove() { os.Remove(g.dir) }

// machine is the time that all of the machine's processors were busy.
func machine() time.Duration {
	b, _ := os.ReadFile("/proc/stat")
	first, _, _ := strings.Cut(string(b), "\n")
	var ticks int64
	for i, f := range strings.Fields(first) {
		if n, err := strconv.ParseInt(f, 10, 64); err == nil && i != 4 && i != 5 && i < 9 { // neither idle nor waiting
			ticks += n
		}
	}
	return time.Duration(ticks) * (time.Second / 100)
}
