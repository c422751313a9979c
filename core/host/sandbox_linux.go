package host

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"slices"
	"strconv"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Landlock's rights by the version of its interface that brought them
// (landlock(7)).
const (
	fsRead  = unix.LANDLOCK_ACCESS_FS_READ_FILE | unix.LANDLOCK_ACCESS_FS_READ_DIR
	fsWrite = fsRead | unix.LANDLOCK_ACCESS_FS_WRITE_FILE | unix.LANDLOCK_ACCESS_FS_TRUNCATE | unix.LANDLOCK_ACCESS_FS_REFER |
		unix.LANDLOCK_ACCESS_FS_MAKE_REG | unix.LANDLOCK_ACCESS_FS_MAKE_DIR | unix.LANDLOCK_ACCESS_FS_MAKE_SYM |
		unix.LANDLOCK_ACCESS_FS_MAKE_SOCK | unix.LANDLOCK_ACCESS_FS_MAKE_FIFO |
		unix.LANDLOCK_ACCESS_FS_REMOVE_FILE | unix.LANDLOCK_ACCESS_FS_REMOVE_DIR
	fsHandled = fsWrite | unix.LANDLOCK_ACCESS_FS_EXECUTE | unix.LANDLOCK_ACCESS_FS_MAKE_CHAR | unix.LANDLOCK_ACCESS_FS_MAKE_BLOCK |
		unix.LANDLOCK_ACCESS_FS_IOCTL_DEV
	// fsOfFiles are the rights that a rule for a single file may name.
	fsOfFiles = unix.LANDLOCK_ACCESS_FS_EXECUTE | unix.LANDLOCK_ACCESS_FS_WRITE_FILE | unix.LANDLOCK_ACCESS_FS_READ_FILE |
		unix.LANDLOCK_ACCESS_FS_TRUNCATE | unix.LANDLOCK_ACCESS_FS_IOCTL_DEV
)

var rights = map[string]uint64{
	mayRead:  fsRead,
	mayRun:   fsRead | unix.LANDLOCK_ACCESS_FS_EXECUTE,
	mayWrite: fsWrite,
	mayLink: fsRead | unix.LANDLOCK_ACCESS_FS_WRITE_FILE | unix.LANDLOCK_ACCESS_FS_TRUNCATE |
		unix.LANDLOCK_ACCESS_FS_REFER,
	mayDevice: unix.LANDLOCK_ACCESS_FS_READ_FILE | unix.LANDLOCK_ACCESS_FS_WRITE_FILE | unix.LANDLOCK_ACCESS_FS_IOCTL_DEV,
}

// keptCapabilities stay with a plugin that runs as root: those that make
// permissions of files no obstacle, because the rules on paths are its limit.
var keptCapabilities = []uintptr{unix.CAP_CHOWN, unix.CAP_DAC_OVERRIDE, unix.CAP_DAC_READ_SEARCH, unix.CAP_FOWNER, unix.CAP_FSETID}

// EnterSandbox is the whole life of the process that SandboxCommand starts: it
// gives up what the policy does not name and becomes the plugin. It returns only
// with the reason why it could not. Nothing that matters is left half done: an
// error ends the process before a line of the plugin has run.
func EnterSandbox(args []string) error {
	if len(args) != 1 {
		return errors.New("this command is the core's own: it needs a descriptor to read its orders from")
	}
	fd, err := strconv.Atoi(args[0])
	if err != nil || fd < 3 {
		return fmt.Errorf("%q is no descriptor", args[0])
	}
	unix.CloseOnExec(fd)
	orders := os.NewFile(uintptr(fd), "orders")
	line, err := bufio.NewReader(orders).ReadBytes('\n')
	if err != nil {
		return fmt.Errorf("read the sandbox's orders: %w", err)
	}
	var p policy
	if err := json.Unmarshal(line, &p); err != nil {
		return fmt.Errorf("read the sandbox's orders: %w", err)
	}
	if p.Program > 0 {
		unix.CloseOnExec(p.Program)
	}
	// Landlock, no_new_privs and capabilities belong to a thread; exec keeps those
	// of the thread that calls it.
	runtime.LockOSThread()
	// The signal at the core's death is a thread's too, and the fork asked for it on
	// the first one.
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0); err != nil {
		return fmt.Errorf("sandbox: to end with the core: %w", err)
	}
	missing, err := p.enter()
	if err != nil {
		return err
	}
	b, err := json.Marshal(report{Missing: missing})
	if err == nil {
		_, err = orders.Write(b)
	}
	if err != nil {
		return fmt.Errorf("the core that gave the sandbox's orders is gone: %w", err)
	}
	path := p.Path
	if p.Program > 0 && (p.Pinned || unix.Access(path, unix.X_OK) != nil) {
		path = "/proc/self/fd/" + strconv.Itoa(p.Program)
	}
	err = syscall.Exec(path, p.Args, os.Environ())
	if errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("run %s in its sandbox: %w; may its user and its sandbox reach it, and its interpreter?", p.Path, err)
	}
	return fmt.Errorf("run %s in its sandbox: %w", p.Path, err)
}

// enter gives up everything; missing is what cannot be given up here.
func (p *policy) enter() (missing []string, err error) {
	for _, l := range []struct {
		name     string
		resource int
		limit    uint64
		set      bool
	}{
		{"core dumps", unix.RLIMIT_CORE, 0, true},
		{"files", unix.RLIMIT_NOFILE, p.Files, p.Files > 0},
		{"processes", unix.RLIMIT_NPROC, p.Processes, p.Processes > 0},
		{"memory", unix.RLIMIT_DATA, p.Data, p.Data > 0},
	} {
		if !l.set {
			continue
		}
		if err := limit(l.resource, l.limit); err != nil {
			missing = append(missing, fmt.Sprintf("%s (%v)", l.name, err))
		}
	}
	for c := uintptr(0); c <= unix.CAP_LAST_CAP; c++ {
		if !slices.Contains(keptCapabilities, c) {
			// Only root has any to give up; one that the kernel does not know is none.
			_ = unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0)
		}
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return missing, fmt.Errorf("sandbox: no_new_privs: %w", err)
	}
	more, err := p.landlock()
	return append(missing, more...), err
}

func limit(resource int, n uint64) error {
	var now syscall.Rlimit
	if err := syscall.Getrlimit(resource, &now); err != nil {
		return err
	}
	n = min(n, now.Max)
	// Not by prlimit: syscall.Exec gives back the limit of open files that the
	// runtime found, unless it was set in this way.
	return syscall.Setrlimit(resource, &syscall.Rlimit{Cur: n, Max: n})
}

// landlock restricts this thread to the rules.
func (p *policy) landlock() (missing []string, err error) {
	abi, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	if errno != 0 {
		abi = 0
	}
	attr, missing := p.restrictions(int(abi))
	if abi == 0 {
		return missing, nil
	}
	ruleset, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr), 0)
	if errno != 0 {
		return missing, fmt.Errorf("sandbox: landlock: %w", errno)
	}
	defer unix.Close(int(ruleset))
	for _, r := range p.Rules {
		if err := allow(int(ruleset), r, attr.Handled_access_fs); err != nil {
			return missing, fmt.Errorf("sandbox: landlock: %s: %w", r.Path, err)
		}
	}
	if p.Program > 0 {
		if err := allow(int(ruleset), rule{mayRun, "/proc/self/fd/" + strconv.Itoa(p.Program)}, attr.Handled_access_fs); err != nil {
			return missing, fmt.Errorf("sandbox: landlock: %s: %w", p.Path, err)
		}
	}
	if _, _, errno := unix.Syscall(unix.SYS_LANDLOCK_RESTRICT_SELF, ruleset, 0, 0); errno != 0 {
		return missing, fmt.Errorf("sandbox: landlock: %w", errno)
	}
	return missing, nil
}

// restrictions are what Landlock's version abi is asked for (0: the kernel has
// none), and the limits that hold neither by it nor by the namespaces.
func (p *policy) restrictions(abi int) (attr unix.LandlockRulesetAttr, missing []string) {
	attr.Handled_access_fs = fsHandled
	switch {
	case abi < 1:
		attr.Handled_access_fs = 0
		missing = append(missing, "paths (this kernel has no Landlock)")
	case abi < 2:
		attr.Handled_access_fs &^= unix.LANDLOCK_ACCESS_FS_REFER
		fallthrough
	case abi < 3:
		attr.Handled_access_fs &^= unix.LANDLOCK_ACCESS_FS_TRUNCATE
		missing = append(missing, "truncating files outside (Landlock before Linux 6.2)")
		fallthrough
	case abi < 5:
		attr.Handled_access_fs &^= unix.LANDLOCK_ACCESS_FS_IOCTL_DEV
	}
	if abi >= 4 && !p.Network {
		attr.Handled_access_net = unix.LANDLOCK_ACCESS_NET_BIND_TCP | unix.LANDLOCK_ACCESS_NET_CONNECT_TCP
	}
	switch {
	case p.Network || p.NetNamespace:
	case abi >= 4:
		missing = append(missing, "network other than TCP (this process may make no network namespace)")
	default:
		missing = append(missing, "network (this process may make no network namespace, and Landlock before Linux 6.7 does not limit TCP)")
	}
	if abi >= 6 {
		attr.Scoped = unix.LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET | unix.LANDLOCK_SCOPE_SIGNAL
		return attr, missing
	}
	if !p.PIDNamespace {
		missing = append(missing, "signals to others (this process may make no process namespace; Landlock before Linux 6.12)")
	}
	if !p.NetNamespace {
		missing = append(missing, "abstract sockets of others (no network namespace; Landlock before Linux 6.12)")
	}
	return attr, missing
}

// allow adds a rule. A path that is not there, or that this user cannot reach,
// needs none.
func allow(ruleset int, r rule, handled uint64) error {
	fd, err := unix.Open(r.Path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil
	}
	defer unix.Close(fd)
	access := rights[r.May] & handled
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		access &= fsOfFiles
	}
	beneath := unix.LandlockPathBeneathAttr{Allowed_access: access, Parent_fd: int32(fd)}
	_, _, errno := unix.Syscall6(unix.SYS_LANDLOCK_ADD_RULE, uintptr(ruleset), unix.LANDLOCK_RULE_PATH_BENEATH,
		uintptr(unsafe.Pointer(&beneath)), 0, 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}
