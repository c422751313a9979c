package host

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/hashicorp/go-plugin/runner"

	"github.com/stagecoach-mta/stagecoach/sdk/stream"
)

// passedEnv are the variables of the host that a plugin sees. All others may
// hold secrets that are none of its business.
var passedEnv = []string{"PATH", "HOME", "TMPDIR", "LANG", "LC_ALL", "TZ", "GOCOVERDIR"}

// command builds what is executed for a Spec, before its sandbox (confine). env
// is go-plugin's part of the environment, dir the process's own directory for
// sockets.
func (h *Host) command(s *Spec, dir string, env []string, files []*os.File) *exec.Cmd {
	argv := s.Command
	if len(argv) == 0 {
		argv = []string{h.opts.Executable, "plugin", "serve", s.Plugin}
	}
	cmd := exec.Command(argv[0], argv[1:]...)
	// Not nil: exec takes nil for the whole of the host's environment.
	cmd.Env = []string{}
	for _, name := range passedEnv {
		if v, ok := os.LookupEnv(name); ok {
			cmd.Env = append(cmd.Env, name+"="+v)
		}
	}
	cmd.Env = append(cmd.Env, s.Env...)
	cmd.Env = append(cmd.Env, env...)
	if len(s.callers) > 0 {
		cmd.Env = append(cmd.Env, stream.CallersEnv+"="+strings.Trim(fmt.Sprint(s.callers), "[]"))
	}
	// Of two values the last one counts: ours, not the directory that go-plugin made.
	cmd.Env = append(cmd.Env, socketDirEnv+"="+dir)
	cmd.ExtraFiles = files
	cmd.SysProcAttr = processAttributes()
	return cmd
}

// forker starts processes from one locked thread that lives as long as the
// host: Linux sends Pdeathsig when the *thread* that forked ends.
type forker struct {
	jobs chan func()
	done chan struct{}
}

func newForker() *forker {
	f := &forker{jobs: make(chan func()), done: make(chan struct{})}
	go func() {
		defer close(f.done)
		runtime.LockOSThread()
		for job := range f.jobs {
			job()
		}
	}()
	return f
}

func (f *forker) start(cmd *exec.Cmd) error {
	started := make(chan error, 1)
	f.jobs <- func() { started <- cmd.Start() }
	return <-started
}

func (f *forker) stop() {
	close(f.jobs)
	<-f.done
}

// child is one process with its group, as go-plugin's handshake sees it. Unlike
// go-plugin's own runner it knows of the process's end at once, whoever else
// holds the pipes, and takes the whole group along.
type child struct {
	cmd    *exec.Cmd
	forker *forker
	// confine puts a sandbox around cmd, with namespaces or without; nil: none.
	confine func(cmd *exec.Cmd, namespaces bool) (*confinement, error)
	begin   func() // called when it runs: reads stderr
	stdout  *os.File
	stderr  *os.File
	// exited is closed when the process has ended; reaped when its group is
	// killed and its status is known.
	exited chan struct{}
	reaped chan struct{}
	// mark is in the environment of all that it starts. orphans are how many of
	// those outlived it; only after reaped.
	mark    []byte
	orphans int

	mu        sync.Mutex
	pid       int
	gone      bool
	condemned bool // killed before it was started
	missing   []string
}

var _ runner.Runner = (*child)(nil)

func newChild(f *forker, begin func()) *child {
	return &child{forker: f, begin: begin, exited: make(chan struct{}), reaped: make(chan struct{})}
}

// Start implements runner.Runner.
func (c *child) Start(context.Context) error {
	outRead, outWrite, err := os.Pipe()
	if err != nil {
		return err
	}
	errRead, errWrite, err := os.Pipe()
	if err != nil {
		outRead.Close()
		outWrite.Close()
		return err
	}
	c.cmd.Stdout, c.cmd.Stderr = outWrite, errWrite
	box, err := c.fork()
	outWrite.Close()
	errWrite.Close()
	if err != nil {
		outRead.Close()
		errRead.Close()
		return err
	}
	c.stdout, c.stderr = outRead, errRead
	c.mu.Lock()
	c.pid = c.cmd.Process.Pid
	condemned := c.condemned
	c.mu.Unlock()
	tame(c.cmd.Process.Pid)
	c.begin()
	go c.reap()
	if condemned {
		c.kill()
	}
	if box != nil {
		missing := box.hear()
		c.mu.Lock()
		c.missing = missing
		c.mu.Unlock()
	}
	return nil
}

// fork starts the process, in its sandbox if it has one. Where namespaces are
// refused (a container, a hardened kernel) it does without.
func (c *child) fork() (*confinement, error) {
	if c.confine == nil {
		return nil, c.forker.start(c.cmd)
	}
	var failed error
	for _, namespaces := range []bool{true, false} {
		cmd := *c.cmd
		attr := *c.cmd.SysProcAttr
		cmd.SysProcAttr, cmd.ExtraFiles = &attr, slices.Clone(c.cmd.ExtraFiles)
		box, err := c.confine(&cmd, namespaces)
		if err != nil {
			return nil, err
		}
		if err = box.tell(); err == nil {
			err = c.forker.start(&cmd)
		}
		if err == nil {
			c.cmd = &cmd
			box.passed()
			return box, nil
		}
		box.close()
		if failed == nil {
			failed = err
		}
		if errors.Is(err, fs.ErrNotExist) {
			break
		}
	}
	return nil, failed
}

// reap waits for the end. The process stays a zombie while its group is
// killed, so that the group's number cannot be another's by then.
func (c *child) reap() {
	waitExit(c.cmd.Process.Pid)
	close(c.exited)
	c.orphans = c.sweep()
	c.mu.Lock()
	_ = c.cmd.Wait()
	c.gone = true
	c.mu.Unlock()
	// A process that left the group may still hold the pipes: what is in them
	// is read, but nobody waits for more.
	soon := time.Now().Add(100 * time.Millisecond)
	_ = c.stdout.SetReadDeadline(soon)
	_ = c.stderr.SetReadDeadline(soon)
	close(c.reaped)
}

// sweep kills what the process has started and left, in its group or out of it,
// and tells how many those were. In a process namespace nothing is left.
func (c *child) sweep() int {
	if c.cmd.SysProcAttr.Cloneflags&syscall.CLONE_NEWPID != 0 {
		c.killGroup()
		return 0
	}
	seen := map[int]bool{}
	// Those that are just being forked are there at the next look.
	for range 5 {
		left := marked(c.mark)
		c.killGroup()
		for _, pid := range left {
			seen[pid] = true
			killMarked(pid, c.mark)
		}
		if len(left) == 0 {
			break
		}
	}
	return len(seen)
}

// kill ends the whole process group. What a process that has ended by itself left
// behind is the sweep's, which counts it.
func (c *child) kill() {
	c.mu.Lock()
	c.condemned = true
	byItself := c.pid == 0 || c.gone || exited(c.pid)
	c.mu.Unlock()
	if !byItself {
		c.killGroup()
	}
}

// killGroup is for as long as the group's number is ours.
func (c *child) killGroup() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.pid != 0 && !c.gone {
		syscall.Kill(-c.pid, syscall.SIGKILL)
	}
}

// started tells whether there ever was a process.
func (c *child) started() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.pid != 0
}

// living is the process's number for as long as it is its own; 0 before and after.
func (c *child) living() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.gone {
		return 0
	}
	return c.pid
}

// status says how the process ended; only after reaped.
func (c *child) status() string {
	if c.cmd.ProcessState == nil {
		return "unknown"
	}
	return c.cmd.ProcessState.String()
}

// killed tells whether it ended by kill, or as if by it; only after reaped.
func (c *child) killed() bool {
	if c.cmd.ProcessState == nil {
		return false
	}
	status, ok := c.cmd.ProcessState.Sys().(syscall.WaitStatus)
	return ok && status.Signaled() && status.Signal() == syscall.SIGKILL
}

// Wait implements runner.Runner.
func (c *child) Wait(context.Context) error {
	<-c.reaped
	return nil
}

// Kill implements runner.Runner.
func (c *child) Kill(context.Context) error {
	c.kill()
	return nil
}

// Stdout implements runner.Runner: go-plugin reads the handshake from it.
func (c *child) Stdout() io.ReadCloser { return c.stdout }

// Stderr implements runner.Runner. go-plugin gets none of it: readLines does.
func (c *child) Stderr() io.ReadCloser { return io.NopCloser(strings.NewReader("")) }

// Name implements runner.Runner.
func (c *child) Name() string { return c.cmd.Path }

// ID implements runner.Runner.
func (c *child) ID() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.pid == 0 {
		return ""
	}
	return strconv.Itoa(c.pid)
}

// Diagnose implements runner.Runner; the process's own last words say more.
func (c *child) Diagnose(context.Context) string { return "" }

// PluginToHost implements runner.AddrTranslator.
func (c *child) PluginToHost(network, addr string) (string, string, error) {
	return network, addr, nil
}

// HostToPlugin implements runner.AddrTranslator.
func (c *child) HostToPlugin(network, addr string) (string, string, error) {
	return network, addr, nil
}
