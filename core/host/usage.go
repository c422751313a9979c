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
	memory int64 // resident octets; what several share counts for each
	tasks  int   // processes and threads
}

// task is one process in a census.
type task struct{ parent, threads int }

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
			u.memory += residentSize(one)
		}
	}
	return u
}

// excess watches what the process takes until it is more than its Spec allows,
// and says so, or until ctx ends. The kernel's own limits stop a process at
// once; this one also counts what it started, and knows its name.
func (g *generation) excess(ctx context.Context, p *process) error {
	limit, most, every, own := machineMemory()/2, 0, g.h.timing.usage, "half of this machine's"
	tree := false
	if box := g.spec.Sandbox; box != nil {
		if box.Memory > 0 {
			limit, own, tree = box.Memory, "what its sandbox allows", true
		}
		if box.Processes > 0 {
			most, tree = box.Processes, true
		}
	}
	pid, err := strconv.Atoi(p.child.ID())
	if err != nil || limit <= 0 && most <= 0 {
		<-ctx.Done()
		return nil
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		u := usage{memory: residentSize(pid)}
		if tree {
			u = usageOf(pid, g.h.census.take(every/2))
		}
		switch {
		case limit > 0 && u.memory > limit:
			return fmt.Errorf("it used %d MB of memory, more than %s (%d MB)", u.memory>>20, own, limit>>20)
		case most > 0 && u.tasks > most:
			return fmt.Errorf("it had %d processes and threads, more than what its sandbox allows (%d)", u.tasks, most)
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

// tame puts on any process what harms none: no core dump, which would hold mail,
// and when the machine's memory is short the kernel ends it before the core. A
// process that is gone by now needs neither.
func tame(pid int) {
	_ = unix.Prlimit(pid, unix.RLIMIT_CORE, &unix.Rlimit{}, nil)
	_ = os.WriteFile("/proc/"+strconv.Itoa(pid)+"/oom_score_adj", []byte("500"), 0)
}
