package host

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Sandbox is what a process may do beyond its own: run its program, call the
// core and those that its Spec grants, read the messages' files, and write to
// its data directory. The zero value is the least.
type Sandbox struct {
	// User to run as; empty: the core's own. Only a core that runs as root can
	// give a process to somebody else.
	User     string
	UID, GID int
	// Network: it may talk to others than the core's sockets. Listeners that the
	// core bound serve without.
	Network bool
	// Read and Write are paths, with all below them. What is written may be read.
	Read, Write []string
	// Programs: it may run the system's programs.
	Programs bool
	// Memory in octets, of the process and those that it starts; 0: half of the
	// machine's.
	Memory int64
	// Files open at once in one process; 0: as the core.
	Files int
	// Processes and threads at once; 0: no limit.
	Processes int
}

// SandboxCommand are the words with which the core's executable becomes the
// process that locks itself in and then runs a plugin: EnterSandbox does it.
var SandboxCommand = []string{"plugin", "sandbox"}

// What a process may do with a path.
const (
	mayRead  = "read"
	mayRun   = "run"
	mayWrite = "write"
	// mayLink: open for reading and writing what is there, and give a file
	// another name elsewhere. Landlock lets a file move only to where no more
	// may be done with it.
	mayLink   = "link"
	mayDevice = "device"
)

type rule struct {
	May  string `json:"may"`
	Path string `json:"path"`
}

// policy is what EnterSandbox is told.
type policy struct {
	Path  string   `json:"path"`
	Args  []string `json:"args"`
	Rules []rule   `json:"rules"`
	// Program is the descriptor of the program's open file, for a user who cannot
	// reach its path; 0: none. Pinned: it is run in any case, not the path.
	Program int  `json:"program,omitempty"`
	Pinned  bool `json:"pinned,omitempty"`
	// NetNamespace and PIDNamespace: it is in one of its own already.
	NetNamespace bool `json:"net_namespace,omitempty"`
	PIDNamespace bool `json:"pid_namespace,omitempty"`

	Network   bool   `json:"network,omitempty"`
	Files     uint64 `json:"files,omitempty"`
	Processes uint64 `json:"processes,omitempty"`
	Data      uint64 `json:"data,omitempty"`
}

// report is what it answers before it becomes the plugin.
type report struct {
	// Missing are the limits that this system cannot enforce, and why.
	Missing []string `json:"missing,omitempty"`
}

// The system's files that programs read to run at all. Not among them: other
// people's homes, /root, /var, /srv, /opt, /run, /tmp and the rest of /etc.
var (
	libraryPaths = []string{"/lib", "/lib32", "/lib64", "/libx32", "/usr/lib", "/usr/lib32", "/usr/lib64", "/usr/local/lib"}
	programPaths = []string{"/bin", "/sbin", "/usr", "/nix/store"}
	systemPaths  = []string{
		"/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/ld.so.preload",
		"/etc/localtime", "/etc/timezone", "/usr/share/zoneinfo", "/usr/share/locale", "/etc/locale.alias",
		"/etc/resolv.conf", "/etc/hosts", "/etc/host.conf", "/etc/nsswitch.conf", "/etc/gai.conf", "/etc/services", "/etc/protocols",
		"/etc/passwd", "/etc/group", "/etc/mime.types",
		"/etc/ssl/certs", "/etc/ssl/openssl.cnf", "/etc/ssl/cert.pem", "/etc/pki/tls", "/etc/ca-certificates",
		"/usr/share/ca-certificates", "/usr/local/share/ca-certificates", "/etc/alternatives", "/etc/python3", "/etc/crypto-policies",
		// systemd-resolved: /etc/resolv.conf points there.
		"/run/systemd/resolve",
		"/proc/self", "/proc/sys", "/proc/meminfo", "/proc/cpuinfo", "/proc/stat", "/proc/version", "/proc/uptime",
		"/proc/loadavg", "/proc/filesystems", "/sys/devices/system/cpu", "/sys/kernel/mm", "/sys/fs/cgroup",
	}
	devicePaths = []string{"/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty"}
)

// openSockets is what no version of Landlock denies that was tried (ABI 7).
const openSockets = "sockets of other programs in the file system (it runs as the core's user; give its sandbox a user of its own)"

// confinement is one process's way into its sandbox.
type confinement struct {
	policy policy
	// ours and theirs are the ends over which the policy goes and the report
	// comes.
	ours, theirs *os.File
	programs     []*os.File
	missing      []string
}

// confine makes cmd start the core's executable, which then becomes the plugin:
// program, if that is pinned.
func (h *Host) confine(cmd *exec.Cmd, s *Spec, program *pinned, dir string, namespaces bool) (*confinement, error) {
	box := s.Sandbox
	c := &confinement{policy: policy{
		Path: cmd.Path, Args: cmd.Args, Network: box.Network,
		Files: uint64(max(0, box.Files)), Processes: uint64(max(0, box.Processes)),
	}}
	if box.Memory > 0 {
		// What a process maps for writing, not what it uses: the runtimes of Go
		// and Node map 50 to 150 MB before they do anything.
		c.policy.Data = uint64(box.Memory)*2 + 512<<20
	}
	c.policy.Rules = h.rules(s, cmd, dir)
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("sandbox: %w", err)
	}
	c.ours, c.theirs = os.NewFile(uintptr(fds[0]), "sandbox"), os.NewFile(uintptr(fds[1]), "sandbox")

	if program != nil && program.file != nil {
		cmd.ExtraFiles = append(cmd.ExtraFiles, program.file)
		c.policy.Program, c.policy.Pinned = 2+len(cmd.ExtraFiles), true
	}
	cmd.Path = h.opts.Executable
	attr := cmd.SysProcAttr
	root := os.Geteuid() == 0
	if box.UID != 0 && box.UID != os.Geteuid() {
		if root {
			attr.Credential = &syscall.Credential{Uid: uint32(box.UID), Gid: uint32(box.GID)}
			// That user may reach neither file by its path.
			if cmd.Path, err = c.pass(cmd, h.opts.Executable); err == nil && !c.policy.Pinned && !script(c.policy.Path) {
				_, err = c.pass(cmd, c.policy.Path)
				c.policy.Program = 2 + len(cmd.ExtraFiles)
			}
			if err != nil {
				c.close()
				return nil, fmt.Errorf("sandbox: %w", err)
			}
		} else {
			c.missing = append(c.missing, fmt.Sprintf("user %s (the core does not run as root)", box.User))
		}
	}
	if len(s.Command) > 0 && attr.Credential == nil {
		// Not told of bundled ones: they are the core's own program.
		c.missing = append(c.missing, openSockets)
	}
	c.isolate(attr, box, root, namespaces)
	cmd.ExtraFiles = append(cmd.ExtraFiles, c.theirs)
	cmd.Args = append(append([]string{h.opts.Executable}, SandboxCommand...), strconv.Itoa(2+len(cmd.ExtraFiles)))
	// What a program would put into the system's places goes into its own.
	home := s.DataDir
	if home == "" {
		home = dir
	}
	cmd.Env = append(cmd.Env, "TMPDIR="+dir, "HOME="+home)
	if box.Memory > 0 {
		cmd.Env = append(cmd.Env, "GOMEMLIMIT="+strconv.FormatInt(box.Memory*9/10, 10))
		if !slices.ContainsFunc(s.Env, func(v string) bool { return strings.HasPrefix(v, "NODE_OPTIONS=") }) {
			cmd.Env = append(cmd.Env, fmt.Sprintf("NODE_OPTIONS=--max-old-space-size=%d", max(16, box.Memory*3/4>>20)))
		}
	}
	return c, nil
}

// isolate asks for namespaces: no network but the sockets that it is given, and
// no process that outlives it.
func (c *confinement) isolate(attr *syscall.SysProcAttr, box *Sandbox, root, namespaces bool) {
	if !namespaces {
		c.missing = append(c.missing, "the end of all that it starts (this process may make no process namespace)")
		if root && box.UID == 0 && box.Processes > 0 {
			c.missing = append(c.missing, "processes (root's are not limited; the plugin is ended when it has more)")
		}
		return
	}
	attr.Cloneflags = syscall.CLONE_NEWPID
	c.policy.PIDNamespace = true
	if !box.Network {
		attr.Cloneflags |= syscall.CLONE_NEWNET
		c.policy.NetNamespace = true
	}
	switch {
	case !root:
		attr.Cloneflags |= syscall.CLONE_NEWUSER
		attr.UidMappings = []syscall.SysProcIDMap{{ContainerID: os.Geteuid(), HostID: os.Geteuid(), Size: 1}}
		attr.GidMappings = []syscall.SysProcIDMap{{ContainerID: os.Getegid(), HostID: os.Getegid(), Size: 1}}
	case box.UID == 0 && box.Processes > 0:
		c.missing = append(c.missing, "processes (root's are not limited; the plugin is ended when it has more)")
	}
}

// pass hands an open program on and returns the path under which cmd sees it.
func (c *confinement) pass(cmd *exec.Cmd, path string) (string, error) {
	path, err := exec.LookPath(path)
	if err != nil {
		return "", err
	}
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	c.programs = append(c.programs, f)
	cmd.ExtraFiles = append(cmd.ExtraFiles, f)
	return "/proc/self/fd/" + strconv.Itoa(2+len(cmd.ExtraFiles)), nil
}

// tell sends the policy; the socket's buffer holds it until somebody reads.
func (c *confinement) tell() error {
	b, err := json.Marshal(c.policy)
	if err != nil {
		return err
	}
	_, err = c.ours.Write(append(b, '\n'))
	return err
}

// hear waits for the answer: it ends when the process is the plugin, or dead.
func (c *confinement) hear() []string {
	b, _ := io.ReadAll(io.LimitReader(c.ours, 64<<10))
	c.ours.Close()
	var r report
	_ = json.Unmarshal(b, &r)
	return append(c.missing, r.Missing...)
}

// complain logs which of an instance's limits are not in force, once.
func (h *Host) complain(p *process) {
	missing := p.child.unenforced()
	text := strings.Join(missing, "; ")
	h.mu.Lock()
	before := h.unenforced[p.spec.Instance]
	h.unenforced[p.spec.Instance] = text
	h.mu.Unlock()
	if text != before && text != "" {
		p.log.Warn().Strs("limits", missing).Msg("this system cannot enforce all of the plugin's sandbox: " + text)
	}
}

func (c *child) unenforced() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.missing
}

// passed closes the ends that the child has.
func (c *confinement) passed() {
	c.theirs.Close()
	for _, f := range c.programs {
		f.Close()
	}
}

func (c *confinement) close() {
	c.ours.Close()
	c.passed()
}

// rules list what the process may reach in the file system.
func (h *Host) rules(s *Spec, cmd *exec.Cmd, dir string) []rule {
	box := s.Sandbox
	var rules []rule
	add := func(may string, paths ...string) {
		for _, p := range paths {
			if p != "" {
				rules = append(rules, rule{may, p})
			}
		}
	}
	add(mayRun, libraryPaths...)
	switch {
	case box.Programs || script(cmd.Path):
		add(mayRun, programPaths...)
	case len(s.Command) > 0:
		add(mayRead, "/usr")
	}
	add(mayRead, systemPaths...)
	add(mayDevice, devicePaths...)
	add(mayRun, programFiles(cmd.Path, cmd.Args)...)
	add(mayWrite, dir, s.DataDir)
	spool := mayRead
	if servesData(s.Kind) {
		spool = mayLink
	}
	add(spool, s.SpoolDirs...)
	for _, g := range s.Grants {
		add(mayWrite, g.UploadDir)
		add(mayRead, g.MessageDirs...)
	}
	add(mayRead, box.Read...)
	add(mayWrite, box.Write...)
	if box.Programs {
		add(mayRun, box.Read...)
	}
	return rules
}

// programFiles are the program and, for one that an interpreter reads, the
// folders of its files: what lies beside them is part of it.
func programFiles(path string, args []string) []string {
	files := []string{path}
	if script(path) {
		files = append(files, filepath.Dir(path))
	}
	for _, a := range args[1:] {
		if info, err := os.Stat(a); err == nil && filepath.IsAbs(a) {
			if info.IsDir() {
				files = append(files, a)
			} else {
				files = append(files, filepath.Dir(a))
			}
		}
	}
	return files
}

// script tells a program that needs its path from one that is complete in
// itself.
func script(path string) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	magic := make([]byte, 2)
	_, err = io.ReadFull(f, magic)
	return err == nil && bytes.Equal(magic, []byte("#!"))
}
