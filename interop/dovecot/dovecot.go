// Package dovecot runs Debian's Dovecot in a folder of its own, on loopback, as
// the server that IMAP and POP3 are compared with. It wants root, for Dovecot
// gives its login processes users of their own; any name may log in with Password.
// It is no part of Stagecoach.
package dovecot

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"
)

// Password of every user.
const Password = "sleepless"

// Server is one Dovecot. Dir, Format, IMAP and POP3 are the caller's to set; Dir
// must be open to all up to the root, and keeps what is stored.
type Server struct {
	Dir string
	// Format of the mailboxes: "sdbox", "mdbox" or "maildir".
	Format string
	// Ports on 127.0.0.1.
	IMAP, POP3 int
	// Unsafe lets it skip fsync, to fill mailboxes quickly.
	Unsafe bool

	cmd  *exec.Cmd
	done chan struct{}
}

const config = `base_dir = %[1]s/run
state_dir = %[1]s/run
log_path = %[1]s/log
protocols = imap pop3
ssl = no
disable_plaintext_auth = no
listen = 127.0.0.1
mail_uid = %[5]s
mail_gid = %[6]s
first_valid_uid = 1
first_valid_gid = 1
mail_location = %[2]s:~/mail
mail_max_userip_connections = 5000
mail_fsync = %[7]s
passdb {
  driver = static
  args = password=%[8]s
}
userdb {
  driver = static
  args = uid=%[5]s gid=%[6]s home=%[1]s/home/%%n allow_all_users=yes
}
service imap-login {
  client_limit = 5000
  inet_listener imap {
    port = %[3]d
  }
  inet_listener imaps {
    port = 0
  }
}
service imap {
  process_limit = 5000
}
service anvil {
  client_limit = 16000
}
service auth {
  client_limit = 16000
}
service pop3-login {
  inet_listener pop3 {
    port = %[4]d
  }
  inet_listener pop3s {
    port = 0
  }
}
`

// Start returns once it greets.
func (s *Server) Start() error {
	owner, err := user.Lookup("nobody")
	if err != nil {
		return err
	}
	uid, _ := strconv.Atoi(owner.Uid)
	gid, _ := strconv.Atoi(owner.Gid)
	for _, d := range []string{"run", "home"} {
		if err := os.MkdirAll(filepath.Join(s.Dir, d), 0o755); err != nil {
			return err
		}
	}
	if err := os.Chown(filepath.Join(s.Dir, "home"), uid, gid); err != nil {
		return fmt.Errorf("dovecot wants root: %w", err)
	}
	fsync := "optimized" // the default
	if s.Unsafe {
		fsync = "never"
	}
	conf := filepath.Join(s.Dir, "dovecot.conf")
	text := fmt.Sprintf(config, s.Dir, s.Format, s.IMAP, s.POP3, owner.Uid, owner.Gid, fsync, Password)
	if err := os.WriteFile(conf, []byte(text), 0o644); err != nil {
		return err
	}
	out, err := os.OpenFile(filepath.Join(s.Dir, "out"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	defer out.Close()
	s.cmd = exec.Command("dovecot", "-F", "-c", conf)
	s.cmd.Stdout, s.cmd.Stderr = out, out
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := s.cmd.Start(); err != nil {
		return fmt.Errorf("%w: it is in Debian's packages dovecot-imapd and dovecot-pop3d", err)
	}
	s.done = make(chan struct{})
	go func() {
		_ = s.cmd.Wait()
		close(s.done)
	}()
	for _, port := range []int{s.IMAP, s.POP3} {
		if err := s.greets(port); err != nil {
			return errors.Join(err, s.Stop())
		}
	}
	return nil
}

// greets waits until a port answers.
func (s *Server) greets(port int) error {
	var err error
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		select {
		case <-s.done:
			said, _ := os.ReadFile(filepath.Join(s.Dir, "out"))
			logged, _ := os.ReadFile(filepath.Join(s.Dir, "log"))
			return fmt.Errorf("dovecot ended at once:\n%s%s", said, logged)
		default:
		}
		var c net.Conn
		if c, err = net.DialTimeout("tcp", "127.0.0.1:"+strconv.Itoa(port), time.Second); err != nil {
			continue
		}
		_ = c.SetDeadline(time.Now().Add(5 * time.Second))
		var line string
		line, err = bufio.NewReader(c).ReadString('\n')
		c.Close()
		if err == nil && (strings.HasPrefix(line, "* OK") || strings.HasPrefix(line, "+OK")) {
			return nil
		}
	}
	return fmt.Errorf("dovecot does not greet on port %d: %w", port, err)
}

// Pid of its master process; the others are its children.
func (s *Server) Pid() int { return s.cmd.Process.Pid }

// Stop ends all its processes.
func (s *Server) Stop() error {
	if s.cmd == nil || s.cmd.Process == nil {
		return nil
	}
	_ = s.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-s.done:
		return nil
	case <-time.After(20 * time.Second):
		// Its children are in its process group.
		_ = syscall.Kill(-s.Pid(), syscall.SIGKILL)
		<-s.done
		return errors.New("dovecot did not end within 20 s of SIGTERM")
	}
}

// LoopbackUp sets the loopback interface up, which is down in a network of one's
// own.
func LoopbackUp() error {
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_DGRAM, 0)
	if err != nil {
		return err
	}
	defer syscall.Close(fd)
	var request [40]byte // struct ifreq: a name, and flags
	copy(request[:], "lo")
	ioctl := func(what uintptr) error {
		if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, uintptr(fd), what, uintptr(unsafe.Pointer(&request))); errno != 0 {
			return fmt.Errorf("set loopback up: %w", errno)
		}
		return nil
	}
	if err := ioctl(syscall.SIOCGIFFLAGS); err != nil || request[16]&syscall.IFF_UP != 0 {
		return err
	}
	request[16] |= syscall.IFF_UP
	return ioctl(syscall.SIOCSIFFLAGS)
}
