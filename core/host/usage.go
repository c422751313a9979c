package host

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// usage is what a process and all that it started take.
type usage struct {
	memory    int64 // resident octets; what several share counts for each
	tasks     int   // processes and threads
	processes int
}

// task is one process in a census.
type task struct{ parent, threads int }

// mostTasks are the processes and threads that an instance may have if nobody has
// said another number: far more than any needs, and less than a machine dies of.
// treeEvery is after how many looks they are counted then: a census costs more
// than a look.
const (
	mostTasks = 2048
	treeEvery = 2
)

// census is a look at all processes of the machine, shared by those who ask at
// about the same time: it costs milliseconds.
type census struct {
	mu    sync.Mutex
	at    time.Time
	tasks map[int]task
}

func (c *census) take(fresh time.Duration) map[int]task {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.tasks != nil && time.Since(c.at) < fresh {
		return c.tasks
	}
	tasks := map[int]task{}
	paths, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, path := range paths {
		b, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		// The name in brackets may hold anything (proc_pid_stat(5)).
		fields := bytes.Fields(b[bytes.LastIndexByte(b, ')')+1:])
		if len(fields) < 18 {
			continue
		}
		pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		parent, _ := strconv.Atoi(string(fields[1]))
		threads, _ := strconv.Atoi(string(fields[17]))
		tasks[pid] = task{parent, threads}
	}
	c.tasks, c.at = tasks, time.Now()
	return tasks
}

// usageOf adds up a process and its descendants.
func usageOf(pid int, tasks map[int]task) (u usage) {
	for one, t := range tasks {
		ancestor := one
		for range len(tasks) { // pids that are used again could make a circle
			if ancestor == pid || ancestor <= 1 {
				break
			}
			ancestor = tasks[ancestor].parent
		}
		if ancestor == pid {
			u.tasks += t.threads
			u.processes++
			u.memory += residentSize(one)
		}
	}
	return u
}

// excess watches what the process takes until it is more than its Spec allows,
// and says so, or until ctx ends. The kernel's own limits stop a process at
// once; this one also counts what it started, and knows its name.
func (g *generation) excess(ctx context.Context, p *process) error {
	limit, most, every := machineMemory()/2, mostTasks, g.h.timing.usage
	own, allowed, tree := "half of this machine's", "a plugin may have that has no limit of its own", false
	if box := g.spec.Sandbox; box != nil {
		if box.Memory > 0 {
			limit, own, tree = box.Memory, "what its sandbox allows", true
		}
		if box.Processes > 0 {
			most, allowed, tree = box.Processes, "what its sandbox allows", true
		}
	}
	pid, err := strconv.Atoi(p.child.ID())
	if err != nil {
		<-ctx.Done()
		return nil
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for look := 0; ; look++ {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		u := usage{memory: residentSize(pid)}
		if tree || look%treeEvery == 0 {
			all := usageOf(pid, g.h.census.take(every/2))
			if u.tasks = all.tasks; tree {
				u.memory = all.memory
			}
			crowd := ""
			if u.tasks == most {
				// Where the kernel holds the limit it is never more.
				crowd = fmt.Sprintf("has %d processes and threads, all that its sandbox allows", most)
			}
			if g.inst.troubles.state(Processes, crowd) {
				p.log.Warn().Msg("plugin " + crowd)
			}
		}
		switch {
		case limit > 0 && u.memory > limit:
			return endedFor(Memory, "it used %d MB of memory, more than %s (%d MB)", u.memory>>20, own, limit>>20)
		case u.tasks > most:
			return endedFor(Processes, "it had %d processes and threads, more than %s (%d)", u.tasks, allowed, most)
		}
	}
}

// machineMemory in octets; 0 if it is not known.
func machineMemory() int64 {
	b, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0
	}
	var kib int64
	if _, err := fmt.Sscanf(string(b), "MemTotal: %d kB", &kib); err != nil {
		return 0
	}
	return kib << 10
}

// standstill says, in brackets, if it is a signal or a debugger that holds the
// process up.
func standstill(pid int) string {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return ""
	}
	fields := bytes.Fields(b[bytes.LastIndexByte(b, ')')+1:])
	if len(fields) == 0 {
		return ""
	}
	switch fields[0][0] {
	case 'T':
		return " (a signal has stopped it, as SIGSTOP does)"
	case 't':
		return " (a debugger holds it)"
	}
	return ""
}

// tame puts on any process what harms none: no core dump, which would hold mail,
// and when the machine's memory is short the kernel ends it before the core. A
// process that is gone by now needs neither.
func tame(pid int) {
	_ = unix.Prlimit(pid, unix.RLIMIT_CORE, &unix.Rlimit{}, nil)
	_ = os.WriteFile("/proc/"+strconv.Itoa(pid)+"/oom_score_adj", []byte("500"), 0)
}
