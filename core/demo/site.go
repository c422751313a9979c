package demo

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/stagecoach-mta/stagecoach/core/admin"
	"github.com/stagecoach-mta/stagecoach/core/queue"
)

// site is one domain's server.
type site struct {
	domain, ip, dir, config string
	executable              string
	smtp, submission        string
	imap, pop3              string
	admin                   *admin.Client
	cmd                     *exec.Cmd
	ended                   chan struct{}
}

const siteConfig = `# Made by stagecoach demo.
hostname = "mx.%[1]s"
data_dir = %[2]q

dns {
  servers = [%[3]q]
}

tls "default" {
  self_signed = true
}

directory "file" "people" {
  path = "people.hcl"
}

storage "local" "mail" {}

receive "smtp" "mx" {
  listen = [%[4]q]
}

receive "smtp" "submission" {
  listen = [%[5]q]
  auth   = directory.file.people
}

queue {
  retry = ["1s", "2s"]
}

route "here" {
  when    = has(directory.file.people, recipient)
  deliver = deliver.storage.mail
}

route "elsewhere" {
  deliver = deliver.smtp.internet
}

deliver "storage" "mail" {
  storage = storage.local.mail
}

deliver "smtp" "internet" {
  port           = %[8]d
  allow_loopback = true
}

access "imap" "imap" {
  listen  = [%[6]q]
  storage = storage.local.mail
  auth    = directory.file.people
}

access "pop3" "pop3" {
  listen  = [%[7]q]
  storage = storage.local.mail
  auth    = directory.file.people
}
`

func newSite(o Options, domain, ip string, mxPort int, dns string, users ...string) (*site, error) {
	dir := filepath.Join(o.Dir, domain)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	ports, err := freePorts(3, mxPort, ip)
	if err != nil {
		return nil, err
	}
	at := func(port int) string { return net.JoinHostPort(ip, strconv.Itoa(port)) }
	s := &site{
		domain: domain, ip: ip, dir: filepath.Join(dir, "data"), config: filepath.Join(dir, "stagecoach.hcl"), executable: o.Executable,
		smtp: at(mxPort), submission: at(ports[0]), imap: at(ports[1]), pop3: at(ports[2]),
	}
	s.admin = admin.NewClient(filepath.Join(s.dir, "run", "admin.sock"))
	text := fmt.Sprintf(siteConfig, domain, s.dir, dns, s.smtp, s.submission, s.imap, s.pop3, mxPort)
	if err := os.WriteFile(s.config, []byte(text), 0o600); err != nil {
		return nil, err
	}
	for _, u := range users {
		if err := o.AddUser(filepath.Join(dir, "people.hcl"), u, password); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// freePorts finds n ports that are free on all of the addresses now, none of them
// twice, and none of them taken.
func freePorts(n, taken int, ips ...string) ([]int, error) {
	// Those found stay open until there are enough: the system gives a port that
	// was closed again.
	var open []net.Listener
	defer func() {
		for _, l := range open {
			l.Close()
		}
	}()
	var ports []int
	for range 100 * n {
		l, err := net.Listen("tcp", net.JoinHostPort(ips[0], "0"))
		if err != nil {
			return nil, err
		}
		open = append(open, l)
		port := l.Addr().(*net.TCPAddr).Port
		free := port != taken
		for _, ip := range ips[1:] {
			other, err := net.Listen("tcp", net.JoinHostPort(ip, strconv.Itoa(port)))
			if err != nil {
				free = false
				break
			}
			open = append(open, other)
		}
		if !free {
			continue
		}
		if ports = append(ports, port); len(ports) == n {
			return ports, nil
		}
	}
	return nil, fmt.Errorf("no free port on %s", strings.Join(ips, " and "))
}

// start runs the server and returns when it takes mail.
func (s *site) start(ctx context.Context) error {
	log, err := os.OpenFile(logPath(filepath.Dir(s.dir), s.domain), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	s.cmd = exec.Command(s.executable, "serve", "-q", "-c", s.config)
	s.cmd.Stdout, s.cmd.Stderr = log, log
	// A group of its own: Ctrl-C goes to the demo, and the demo stops it.
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := s.cmd.Start(); err != nil {
		return err
	}
	s.ended = make(chan struct{})
	go func() {
		_ = s.cmd.Wait()
		close(s.ended)
	}()
	return until(ctx, "the server of "+s.domain+" (its log: "+log.Name()+")", func() (bool, error) {
		select {
		case <-s.ended:
			return false, fmt.Errorf("it ended: %s", s.cmd.ProcessState)
		default:
		}
		var st admin.Status
		err := s.admin.Call(ctx, "GET", "/status", nil, &st)
		return err == nil, err
	})
}

// stop ends the server as an operator would, and by force if it does not go.
func (s *site) stop() {
	if s.cmd == nil || s.cmd.Process == nil {
		return
	}
	_ = s.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-s.ended:
	case <-time.After(20 * time.Second):
		_ = s.cmd.Process.Kill()
		<-s.ended
	}
	s.cmd = nil
}

// tls trusts the certificate that the site made for itself.
func (s *site) tls() (*tls.Config, error) {
	b, err := os.ReadFile(filepath.Join(s.dir, "tls", "default.pem"))
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(b)
	return &tls.Config{RootCAs: pool, ServerName: "mx." + s.domain, MinVersion: tls.VersionTLS12}, nil
}

// queued lists what is in the queue.
func (s *site) queued(ctx context.Context) (out []admin.Message, err error) {
	err = s.admin.List(ctx, queue.Filter{}, func(m admin.Message) error {
		out = append(out, m)
		return nil
	})
	return out, err
}
