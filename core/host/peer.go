package host

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"time"
)

// Refuse says why a process may not ask the core for what an operator may, and notes
// that it did: it is a plugin in a sandbox, or was started by one. "" for all others.
//
// A sandbox may not be able to keep its process away from the core's own socket: no
// version of Landlock that was tried denies that to the core's user. What was started
// in a process namespace has the plugin among its ancestors whatever it does; without
// one, what has no parent left, is out of the group and has another environment is
// nobody's.
func (h *Host) Refuse(pid int) string {
	p, err := h.ownerOf(pid)
	switch {
	case err != nil:
		return err.Error()
	case p == nil || p.spec.Sandbox == nil:
		return ""
	}
	p.troubles.note(Trespass, 1, 0, "")
	p.mu.Lock()
	now := time.Now()
	say := now.Sub(p.refused) >= noteInterval
	if say {
		p.refused = now
	}
	p.mu.Unlock()
	if say {
		p.log.Warn().Int("pid", pid).Msg("a process of this plugin reached for the server's admin socket, which is not in its sandbox, and was refused")
	}
	return fmt.Sprintf("this process is the plugin's %s, whose sandbox does not let it administer the server", p.spec.Instance)
}

// ownerOf finds the plugin that a process is or descends from; nil for others.
func (h *Host) ownerOf(pid int) (*process, error) {
	running := map[int]*process{}
	h.mu.Lock()
	for p := range h.running {
		if n := p.child.living(); n != 0 {
			running[n] = p
		}
	}
	h.mu.Unlock()
	// An ancestor that ends under our eyes leaves its children to another one.
	for range 10 {
		p, whole := ancestor(pid, running)
		if p != nil {
			return p, nil
		}
		if whole {
			for _, p := range running {
				if hasMark(pid, p.child.mark) {
					return p, nil
				}
			}
			return nil, nil
		}
	}
	return nil, fmt.Errorf("it cannot be told who process %d belongs to: it has ended, or its parents do", pid)
}

// ancestor goes up from a process to one of those that run, or to one whose group it
// is in. whole: it came to the top.
func ancestor(pid int, running map[int]*process) (p *process, whole bool) {
	// No plugin may have more processes than that, whatever their parents are.
	for range 2 * mostTasks {
		if pid <= 1 || pid == os.Getpid() {
			return nil, true
		}
		if p := running[pid]; p != nil {
			return p, true
		}
		parent, group, ok := family(pid)
		if !ok {
			return nil, false
		}
		if p := running[group]; p != nil {
			return p, true
		}
		pid = parent
	}
	return nil, false
}

// family of a process: its parent, and its group.
func family(pid int) (parent, group int, ok bool) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0, 0, false
	}
	// The name in brackets may hold anything (proc_pid_stat(5)).
	fields := bytes.Fields(b[bytes.LastIndexByte(b, ')')+1:])
	if len(fields) < 3 {
		return 0, 0, false
	}
	parent, err = strconv.Atoi(string(fields[1]))
	if err == nil {
		group, err = strconv.Atoi(string(fields[2]))
	}
	return parent, group, err == nil
}
