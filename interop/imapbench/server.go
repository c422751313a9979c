package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/crypto/bcrypt"

	"github.com/stagecoach-mta/stagecoach/interop/dovecot"
)

// server is one that is measured. Its accounts come into being with their first
// login; all have dovecot.Password.
type server interface {
	name() string
	// start returns once it greets. unsafe lets it skip fsync where it can.
	start(unsafe bool) error
	stop() error
	pid() int
	imap() int
	pop3() int
	// forget removes what it keeps only to answer faster, while it is stopped;
	// false if there is nothing of the kind.
	forget() (bool, error)
	dir() string
}

// theirs is Dovecot with one format of mailboxes.
type theirs struct{ d dovecot.Server }

var _ server = (*theirs)(nil)

func newTheirs(dir, format string, port int) *theirs {
	return &theirs{dovecot.Server{Dir: filepath.Join(dir, format), Format: format, IMAP: port, POP3: port + 1}}
}

func (t *theirs) name() string { return t.d.Format }
func (t *theirs) start(unsafe bool) error {
	t.d.Unsafe = unsafe
	return t.d.Start()
}
func (t *theirs) stop() error { return t.d.Stop() }
func (t *theirs) pid() int    { return t.d.Pid() }
func (t *theirs) imap() int   { return t.d.IMAP }
func (t *theirs) pop3() int   { return t.d.POP3 }
func (t *theirs) dir() string { return t.d.Dir }

// forget removes the cache of headers, which it fills as clients ask.
func (t *theirs) forget() (bool, error) {
	err := filepath.WalkDir(t.d.Dir, func(path string, e fs.DirEntry, err error) error {
		if err == nil && e.Name() == "dovecot.index.cache" {
			err = os.Remove(path)
		}
		return err
	})
	return true, err
}

// ours is the server of this repository, with the defaults of its configuration
// but for the limits on connections.
type ours struct {
	bin, folder string
	port        int
	cmd         *exec.Cmd
	done        chan struct{}
}

var _ server = (*ours)(nil)

func (o *ours) name() string          { return "stagecoach" }
func (o *ours) pid() int              { return o.cmd.Process.Pid }
func (o *ours) imap() int             { return o.port }
func (o *ours) pop3() int             { return o.port + 1 }
func (o *ours) dir() string           { return o.folder }
func (o *ours) forget() (bool, error) { return false, nil }

const ourConfig = `hostname = "mx.ryan.example"
data_dir = %[1]q
log { level = "warn" }
directory "file" "people" { path = "people.hcl" }
storage "local" "mail" {}
receive "smtp" "mx" { listen = ["127.0.0.1:%[4]d"] }
route "here" { deliver = deliver.storage.mail }
deliver "storage" "mail" { storage = storage.local.mail }
access "imap" "imap" {
  listen                  = ["127.0.0.1:%[2]d"]
  storage                 = storage.local.mail
  auth                    = directory.file.people
  insecure_auth           = true
  max_address_connections = 0
  max_user_connections    = 0
}
access "pop3" "pop3" {
  listen        = ["127.0.0.1:%[3]d"]
  storage       = storage.local.mail
  auth          = directory.file.people
  insecure_auth = true
}
`

// accounts, by what they are for.
var accounts = []string{"append", "pop", "folders", "idle", "crowd"}

func (o *ours) start(bool) error {
	if err := os.MkdirAll(o.folder, 0o755); err != nil {
		return err
	}
	// The cheapest hash: logins are not what is measured.
	hash, err := bcrypt.GenerateFromPassword([]byte(dovecot.Password), bcrypt.MinCost)
	if err != nil {
		return err
	}
	var people strings.Builder
	for _, name := range accounts {
		fmt.Fprintf(&people, "user %q { password = %q }\n", name+"@ryan.example", hash)
	}
	config := filepath.Join(o.folder, "server.hcl")
	for file, text := range map[string]string{
		config:                                fmt.Sprintf(ourConfig, filepath.Join(o.folder, "data"), o.imap(), o.pop3(), o.port+2),
		filepath.Join(o.folder, "people.hcl"): people.String(),
	} {
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			return err
		}
	}
	log, err := os.OpenFile(filepath.Join(o.folder, "log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	o.cmd = exec.Command(o.bin, "serve", "--quiet", "-c", config)
	o.cmd.Stdout, o.cmd.Stderr = log, log
	o.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := o.cmd.Start(); err != nil {
		return err
	}
	o.done = make(chan struct{})
	go func() {
		_ = o.cmd.Wait()
		close(o.done)
	}()
	for end := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		c, err := dial(o.imap(), user(accounts[0]), dovecot.Password, 4096)
		if err == nil {
			c.close()
			return nil
		}
		select {
		case <-o.done:
			err = errors.New("it ended at once")
		default:
			if time.Now().Before(end) {
				continue
			}
		}
		text, _ := os.ReadFile(log.Name())
		return fmt.Errorf("stagecoach: %w\n%s", err, text)
	}
}

func (o *ours) stop() error {
	if o.cmd == nil || o.cmd.Process == nil {
		return nil
	}
	_ = o.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-o.done:
		return nil
	case <-time.After(time.Minute):
		_ = o.cmd.Process.Kill() // and its plugins end with it
		<-o.done
		return errors.New("stagecoach did not end within a minute of SIGTERM")
	}
}

// user is an account's login.
func user(account string) string { return account + "@ryan.example" }

// memory of a process and all that come from it, shared pages counted once.
func memory(pid int) (octets int64) {
	parents := map[int]int{}
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		p, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		// PID (NAME) STATE PPID …, and a name may hold blanks.
		stat, _ := os.ReadFile(filepath.Join("/proc", e.Name(), "stat"))
		if f := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:])); len(f) > 1 {
			parents[p], _ = strconv.Atoi(f[1])
		}
	}
	for p := range parents {
		for up, steps := p, 0; up > 1 && steps < 20; up, steps = parents[up], steps+1 {
			if up == pid {
				octets += pss(p)
				break
			}
		}
	}
	return octets
}

func pss(pid int) int64 {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, "Pss:"); ok {
			kib, _ := strconv.ParseInt(strings.Fields(v)[0], 10, 64)
			return kib << 10
		}
	}
	return 0
}

// evict asks the kernel to drop what it has in memory of the files below dir.
func evict(dir string) error {
	syscall.Sync()
	return filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		const dontNeed = 4 // POSIX_FADV_DONTNEED
		if _, _, errno := syscall.Syscall6(syscall.SYS_FADVISE64, f.Fd(), 0, 0, dontNeed, 0, 0); errno != 0 {
			return errno
		}
		return nil
	})
}
