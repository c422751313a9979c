package host

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stagecoach-mta/stagecoach/sdk/fail"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// escape is what the test plugin tries when it is told to; nil: it worked.
func escape(how, with string) error {
	switch how {
	case "read":
		_, err := os.ReadFile(with)
		return err
	case "list":
		_, err := os.ReadDir(with)
		return err
	case "write":
		return os.WriteFile(with, []byte("x"), 0o600)
	case "link":
		from, to, _ := strings.Cut(with, ",")
		return os.Link(from, to)
	case "temp":
		f, err := os.CreateTemp("", "any")
		if err == nil {
			f.Close()
		}
		return err
	case "dial":
		network, address, _ := strings.Cut(with, ",")
		c, err := net.DialTimeout(network, address, 2*time.Second)
		if err == nil {
			_, err = c.Write([]byte("x"))
			c.Close()
		}
		return err
	case "run":
		return exec.Command(with).Run()
	case "setuid":
		return syscall.Setuid(0)
	case "signal":
		pid, _ := strconv.Atoi(with)
		return syscall.Kill(pid, 0)
	case "mount":
		return syscall.Mount("none", with, "tmpfs", 0, "")
	case "open":
		n, _ := strconv.Atoi(with)
		var files []*os.File
		defer func() {
			for _, f := range files {
				f.Close()
			}
		}()
		for range n {
			f, err := os.Open("/dev/null")
			if err != nil {
				return err
			}
			files = append(files, f)
		}
	case "fork":
		n, _ := strconv.Atoi(with)
		for range n {
			c := exec.Command("/bin/sleep", "3600")
			if err := c.Start(); err != nil {
				return err
			}
			go c.Wait()
		}
	case "daemon":
		// Out of the process group, with the pipes, and with no parent left.
		c := exec.Command("/bin/sh", "-c", "setsid sleep 3600 & echo $!")
		return c.Run()
	case "allocate":
		n, _ := strconv.Atoi(with)
		for ; n > 0; n -= 8 {
			b := make([]byte, 8<<20)
			for i := range b {
				b[i] = 1
			}
			hoard = append(hoard, b)
			time.Sleep(2 * time.Millisecond)
		}
	default:
		return errors.New("unknown way out")
	}
	return nil
}

var hoard [][]byte

func boxed(instance, behaviour string, box Sandbox) Spec {
	s := filterSpec(instance, behaviour)
	s.Sandbox = &box
	return s
}

func try(t *testing.T, i *Instance, what string) string {
	t.Helper()
	return mustAsk(t, i, "try="+what)
}

// outside is a directory that no test plugin is granted, reachable by everybody.
func outside(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for d := dir; d != os.TempDir() && d != "/"; d = filepath.Dir(d) {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "secret"), []byte("sleepless"), 0o644); err != nil {
		t.Fatal(err)
	}
	return dir
}

// Each way out is tried by a plugin in a sandbox, where it is denied, and by one
// without, where it works: so a denial is the sandbox's doing. After each the
// plugin in the sandbox still serves.
func TestEscapes(t *testing.T) {
	h, log := testHost(t)
	dir, other := outside(t), outside(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	u, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	box := boxed("filter.test.box", "", Sandbox{Files: 64, Read: []string{other}})
	box.DataDir = filepath.Join(dir, "data")
	free := filterSpec("filter.test.free", "")
	if _, err := provision(h, box, free); err != nil {
		t.Fatal(err)
	}
	in, out := h.Instance(box.Instance), h.Instance(free.Instance)
	secret := filepath.Join(dir, "secret")
	for _, way := range []string{
		"read:" + secret,
		"read:/etc/fstab",
		"list:" + dir,
		"list:/var",
		"write:" + filepath.Join(dir, "new"),
		"write:" + secret,
		"dial:tcp," + l.Addr().String(),
		"dial:udp," + u.LocalAddr().String(),
		"signal:" + strconv.Itoa(os.Getpid()),
		"open:200",
	} {
		if got := try(t, in, way); got == "done" {
			t.Errorf("%s: not denied", way)
		}
		if got := try(t, out, way); got != "done" && way != "read:/etc/fstab" {
			t.Errorf("%s: denied without a sandbox: %s; the test shows nothing", way, got)
		}
	}
	for _, way := range []string{
		"read:" + filepath.Join(other, "secret"),
		"write:" + filepath.Join(box.DataDir, "mine"),
		"write:/dev/null",
		"temp:",
		"open:40",
	} {
		if got := try(t, in, way); got != "done" {
			t.Errorf("%s: %s, want it allowed", way, got)
		}
	}
	if got := try(t, in, "write:"+filepath.Join(other, "new")); got == "done" {
		t.Error("a path to read was written to")
	}
	if info := in.Info(); !info.Sandboxed || info.Restarts != 0 || !slices.Equal(info.Unenforced, []string{openSockets}) {
		t.Errorf("info %+v\n%s", info, log)
	}
	if out.Info().Sandboxed {
		t.Error("a plugin without a sandbox is shown in one")
	}
}

// asRoot runs what only root can set up. Elsewhere the same limit is reported as
// one that is not in force, and that is checked instead.
func asRoot() bool { return os.Geteuid() == 0 }

func TestUserOfItsOwn(t *testing.T) {
	h, log := testHost(t)
	const uid = 1
	dir := outside(t)
	spool := filepath.Join(dir, "spool")
	if err := os.Mkdir(spool, 0o700); err != nil {
		t.Fatal(err)
	}
	old := filepath.Join(spool, "old")
	if err := os.WriteFile(old, []byte("mail"), 0o600); err != nil {
		t.Fatal(err)
	}
	storage := filterSpec("storage.test.mail", "kind=storage")
	storage.Kind = v1.Kind_KIND_STORAGE
	box := boxed("filter.test.box", "", Sandbox{User: "daemon", UID: uid, GID: uid, Processes: 64})
	box.DataDir, box.SpoolDirs = filepath.Join(dir, "data"), []string{spool}
	box.Grants = []GrantSpec{{Role: "storage", Instance: "storage.test.mail", UploadDir: filepath.Join(dir, "upload")}}
	for _, d := range []string{box.DataDir, box.Grants[0].UploadDir} {
		if err := os.Mkdir(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(box.DataDir, "before"), []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := provision(h, storage, box); err != nil {
		t.Fatal(err)
	}
	i := h.Instance(box.Instance)
	if !asRoot() {
		if !strings.Contains(strings.Join(i.Info().Unenforced, ";"), "user daemon") || !strings.Contains(log.String(), "user daemon") {
			t.Errorf("not said that the user is not in force: %v", i.Info().Unenforced)
		}
		return
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", i.Info().PID))
	if err != nil || !strings.Contains(string(status), "Uid:\t1\t1\t1\t1") {
		t.Errorf("%v\n%s", err, status)
	}
	if !strings.Contains(string(status), "NoNewPrivs:\t1") || !strings.Contains(string(status), "CapEff:\t0000000000000000") {
		t.Errorf("privileges:\n%s", status)
	}
	// Mail that comes later, in the mode in which the spool writes it.
	late := filepath.Join(spool, "late")
	if err := os.WriteFile(late, []byte("mail"), 0o666); err != nil {
		t.Fatal(err)
	}
	for _, way := range []string{
		"read:" + old, "read:" + late,
		"read:" + filepath.Join(box.DataDir, "before"),
		"write:" + filepath.Join(box.DataDir, "new"),
		"write:" + filepath.Join(box.Grants[0].UploadDir, "append"),
		"temp:",
	} {
		if got := try(t, i, way); got != "done" {
			t.Errorf("%s: %s", way, got)
		}
	}
	for _, way := range []string{"setuid:", "write:" + late, "write:" + filepath.Join(spool, "new"), "mount:" + box.DataDir} {
		if got := try(t, i, way); got == "done" {
			t.Errorf("%s: not denied", way)
		}
	}
	// Nobody else got in.
	if info, err := os.Stat(late); err != nil || info.Mode().Perm()&0o007 != 0 {
		t.Errorf("%v, %v: readable by all", info.Mode(), err)
	}
	if got := mustAsk(t, i, "env"); strings.Contains(got, "HOME=/root") {
		t.Error("HOME is the core's")
	}
	// The kernel counts the processes of a user: the plugin or its threads may be
	// what fails.
	if got, err := ask(t, i, "try=fork:200"); err == nil && got == "done" {
		t.Error("200 processes: not denied")
	}
	// Without its user again, the data is the core's again.
	box.Sandbox = &Sandbox{}
	if _, err := provision(h, storage, box); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(filepath.Join(box.DataDir, "before")); err != nil || info.Sys().(*syscall.Stat_t).Uid != 0 {
		t.Errorf("%v: the data is still the user's", err)
	}
}

// A client as another user than its storage reaches the storage's data socket,
// and that user alone.
func TestDataSocketAcrossUsers(t *testing.T) {
	if !asRoot() {
		return // only root can give a process another user; TestUserOfItsOwn has that case
	}
	h, _ := testHost(t)
	dir := sdkSpec("directory.pids.d", v1.Kind_KIND_DIRECTORY, "directory", "pids")
	dir.Sandbox = &Sandbox{User: "mail", UID: 8, GID: 8}
	acc := sdkSpec("access.asking.a", v1.Kind_KIND_ACCESS, "access", "asking")
	acc.Grants = []GrantSpec{{Role: "auth", Instance: "directory.pids.d"}}
	acc.Listeners = []ListenerSpec{{Address: "127.0.0.1:0"}}
	acc.Sandbox = &Sandbox{User: "nobody", UID: 65534, GID: 65534}
	if _, err := provision(h, dir, acc); err != nil {
		t.Fatal(err)
	}
	// The access plugin has no network: its listener is the core's.
	c, err := net.Dial("tcp", h.Instance("access.asking.a").Info().Listeners[0])
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(patience))
	fmt.Fprintln(c, "meg@ryan.example")
	buf := make([]byte, 100)
	n, err := c.Read(buf)
	if err != nil || !strings.HasSuffix(strings.TrimSpace(string(buf[:n])), "<nil>") {
		t.Errorf("%q, %v", buf[:n], err)
	}
	// A third user is stopped by the socket's list.
	third := exec.Command("/bin/ls", h.Instance("directory.pids.d").Info().DataSocket)
	third.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 1, Gid: 1}}
	if b, err := third.CombinedOutput(); err == nil {
		t.Errorf("a third user sees the socket: %s", b)
	}
}

// A storage may give a message's file a second name among its own.
func TestStorageLinksAMessage(t *testing.T) {
	h, _ := testHost(t)
	dir := outside(t)
	s := boxed("storage.test.mail", "kind=storage", Sandbox{})
	s.Kind, s.DataDir, s.SpoolDirs = v1.Kind_KIND_STORAGE, filepath.Join(dir, "data"), []string{filepath.Join(dir, "spool")}
	if err := os.Mkdir(s.SpoolDirs[0], 0o700); err != nil {
		t.Fatal(err)
	}
	message := filepath.Join(s.SpoolDirs[0], "message")
	if err := os.WriteFile(message, []byte("mail"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := provision(h, s); err != nil {
		t.Fatal(err)
	}
	i := h.Instance(s.Instance)
	if got := try(t, i, "link:"+message+","+filepath.Join(s.DataDir, "mine")); got != "done" {
		t.Errorf("link: %s", got)
	}
	if got := try(t, i, "write:"+filepath.Join(s.SpoolDirs[0], "new")); got == "done" {
		t.Error("a new file in the spool was not denied")
	}
}

// Who reads a storage's mailboxes reads the files that its replies refer to, and
// writes none of them.
func TestReaderReachesTheMessages(t *testing.T) {
	h, _ := testHost(t)
	dir := outside(t)
	s := boxed("storage.test.mail", "kind=storage", Sandbox{})
	s.Kind, s.DataDir = v1.Kind_KIND_STORAGE, filepath.Join(dir, "data")
	reader := boxed("filter.test.reader", "", Sandbox{})
	reader.Grants = []GrantSpec{{Role: "storage", Instance: s.Instance, MessageDirs: []string{s.DataDir}}}
	stranger := boxed("filter.test.stranger", "", Sandbox{})
	if _, err := provision(h, s, reader, stranger); err != nil {
		t.Fatal(err)
	}
	message := filepath.Join(s.DataDir, "message")
	if got := try(t, h.Instance(s.Instance), "write:"+message); got != "done" {
		t.Fatal(got)
	}
	if got := try(t, h.Instance(reader.Instance), "read:"+message); got != "done" {
		t.Errorf("the reader: %s", got)
	}
	if got := try(t, h.Instance(reader.Instance), "write:"+message); got == "done" {
		t.Error("the reader wrote to a message")
	}
	if got := try(t, h.Instance(stranger.Instance), "read:"+message); got == "done" {
		t.Error("a plugin without the grant read a message")
	}
}

func TestTooMuchMemoryIsNamed(t *testing.T) {
	h, log := testHost(t)
	h.timing.usage = 20 * time.Millisecond
	if _, err := provision(h, boxed("filter.test.box", "", Sandbox{Memory: 96 << 20}), filterSpec("filter.test.b", "")); err != nil {
		t.Fatal(err)
	}
	i := h.Instance("filter.test.box")
	if _, err := ask(t, i, "try=allocate:4000"); !fail.Is(err, fail.Unavailable) {
		t.Errorf("%v, want Unavailable", err)
	}
	mustAsk(t, h.Instance("filter.test.b"), "pid")
	mustAsk(t, i, "pid")
	info := i.Info()
	if !strings.Contains(info.LastError, "memory") || !strings.Contains(info.LastError, "96 MB") {
		t.Errorf("last error %q", info.LastError)
	}
	if !strings.Contains(log.String(), "more than what its sandbox allows (96 MB)") {
		t.Error("not in the log")
	}
}

// The kernel's limit alone, in case that one allocates faster than anybody looks.
func TestMemoryHasAnEndWithoutTheWatch(t *testing.T) {
	h, _ := testHost(t)
	h.timing.usage = time.Hour
	if _, err := provision(h, boxed("filter.test.box", "", Sandbox{Memory: 64 << 20})); err != nil {
		t.Fatal(err)
	}
	i := h.Instance("filter.test.box")
	if _, err := ask(t, i, "try=allocate:8000"); !fail.Is(err, fail.Unavailable) {
		t.Errorf("%v, want Unavailable", err)
	}
	mustAsk(t, i, "pid")
	// The race detector has its own words for it.
	if last := i.Info().LastError; !strings.Contains(last, "memory") && !strings.Contains(last, "ThreadSanitizer failed to allocate") {
		t.Errorf("last error %q", last)
	}
}

func TestTooManyProcessesAreNamed(t *testing.T) {
	h, log := testHost(t)
	h.timing.usage = 20 * time.Millisecond
	if _, err := provision(h, boxed("filter.test.box", "", Sandbox{Processes: 40, Programs: true})); err != nil {
		t.Fatal(err)
	}
	i := h.Instance("filter.test.box")
	got, err := ask(t, i, "try=fork:200")
	if err == nil && got == "done" {
		t.Error("200 processes, and nobody minded")
	}
	eventually(t, "no more of them than allowed", func() bool { return len(processesOf(h.opts.RunDir)) <= 40 })
	mustAsk(t, i, "pid")
	if asRoot() && !strings.Contains(log.String(), "more than what its sandbox allows (40)") {
		t.Error("not in the log")
	}
}

// What left the process group and its parent ends with the plugin all the same.
func TestDaemonOfAPluginEnds(t *testing.T) {
	h, _ := testHost(t)
	if _, err := provision(h, boxed("filter.test.box", "", Sandbox{Programs: true})); err != nil {
		t.Fatal(err)
	}
	i := h.Instance("filter.test.box")
	if got := try(t, i, "daemon:"); got != "done" {
		t.Fatal(got)
	}
	if n := len(processesOf(h.opts.RunDir)); n != 2 {
		t.Fatalf("%d processes, want plugin and daemon", n)
	}
	first := processesOf(h.opts.RunDir)
	ask(t, i, "crash")
	mustAsk(t, i, "pid")
	eventually(t, "the daemon is gone", func() bool {
		for _, pid := range processesOf(h.opts.RunDir) {
			if pid == first[0] || pid == first[1] {
				return false
			}
		}
		return true
	})
}

// Where namespaces are refused the rest still holds, and the log says what does not.
func TestWithoutNamespaces(t *testing.T) {
	h, log := testHost(t)
	h.noNamespaces = true
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if _, err := provision(h, boxed("filter.test.box", "", Sandbox{})); err != nil {
		t.Fatal(err)
	}
	i := h.Instance("filter.test.box")
	if got := try(t, i, "dial:tcp,"+l.Addr().String()); got == "done" {
		t.Error("TCP is not denied by Landlock")
	}
	mustAsk(t, i, "pid")
	if err := h.Restart(t.Context(), "filter.test.box"); err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(log.String(), "cannot enforce all"); n != 1 {
		t.Errorf("said %d times, want once", n)
	}
	if len(i.Info().Unenforced) == 0 {
		t.Error("Info does not tell")
	}
}
