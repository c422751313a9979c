package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/smtp"
	"net/textproto"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// mostTyped is the promise: fewer commands than this from nothing to a filter that
// refuses a mail.
const mostTyped = 10

// typed is what sdk/README.md begins with, as a person types it: a line each, what
// a backslash continues taken together, comments left out.
func typed(t *testing.T) (lines []string) {
	t.Helper()
	text, err := os.ReadFile("sdk/README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, begins := strings.Cut(string(text), "\n```sh\n")
	block, _, ends := strings.Cut(rest, "\n```\n")
	if !begins || !ends {
		t.Fatal("sdk/README.md begins with no block of commands")
	}
	for line := range strings.Lines(strings.ReplaceAll(block, "\\\n", " ")) {
		if line = strings.TrimSpace(line); line != "" && line[0] != '#' {
			lines = append(lines, line)
		}
	}
	return lines
}

// shell is one that a stranger types into.
type shell struct {
	t    *testing.T
	in   io.Writer
	said *bufio.Reader // each command's status, on a line
	out  *safeBuffer
}

func newShell(t *testing.T, dir string, env ...string) *shell {
	t.Helper()
	statuses, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { statuses.Close() })
	cmd := exec.Command("sh")
	cmd.Dir, cmd.Env = dir, append(os.Environ(), env...)
	cmd.ExtraFiles = []*os.File{w} // 3
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.WaitDelay = time.Minute
	s := &shell{t: t, said: bufio.NewReader(statuses), out: &safeBuffer{}}
	cmd.Stdout, cmd.Stderr = s.out, s.out
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	s.in = in
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	// With all that it began; a server that ends lets its plugins end.
	t.Cleanup(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) // it may be over
		in.Close()
		_ = cmd.Wait()
	})
	return s
}

// types a command and waits for its end, which must be a good one. What runs in
// the background has nothing of the pipe that statuses come by.
func (s *shell) types(line string) {
	s.t.Helper()
	if body, background := strings.CutSuffix(line, "&"); background {
		line = body + "3>&- &"
	}
	fmt.Fprintf(s.in, "%s\necho $? >&3\n", line)
	if status, err := s.said.ReadString('\n'); err != nil || status != "0\n" {
		s.t.Fatalf("$ %s\nstatus %q, %v\n%s", line, status, err, s.out)
	}
}

// aloneOn is a loopback address that no other test listens on.
func aloneOn() string {
	pid := os.Getpid()
	return fmt.Sprintf("127.%d.%d.%d", 1+pid>>16%254, pid>>8%256, 1+pid%254)
}

var sending = regexp.MustCompile(`^(printf '.*') \| +curl .*smtp://127\.0\.0\.1:(\d+) --mail-from (\S+) --mail-rcpt (\S+) `)

// TestStrangersPath types what sdk/README.md begins with, into a shell, with the
// real program: the filter refuses the mail. Two things differ from the page: the
// server listens on a loopback address of its own, and the last command's curl is
// an SMTP client in Go, for curl may not be there. interop has curl.
func TestStrangersPath(t *testing.T) {
	t.Parallel()
	lines := typed(t)
	commands := 0
	for _, line := range lines {
		commands += 1 + strings.Count(line, "&&") + strings.Count(line, ";")
	}
	if commands >= mostTyped {
		t.Errorf("sdk/README.md has a stranger type %d commands; fewer than %d were promised", commands, mostTyped)
	}
	send := sending.FindStringSubmatch(lines[len(lines)-1])
	if send == nil {
		t.Fatalf("the last command sends no mail by curl: %s", lines[len(lines)-1])
	}

	dir, err := os.MkdirTemp("", "sc") // short: socket paths have little room
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	checkout, address := filepath.Join(dir, "stagecoach"), aloneOn()
	for _, name := range []string{"stagecoach/configs", "bin", "home", "work"} {
		if err := os.MkdirAll(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"configs/dev.hcl", "configs/dev-people.hcl"} {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		text = bytes.ReplaceAll(text, []byte("127.0.0.1:"), []byte(address+":"))
		if err := os.WriteFile(filepath.Join(checkout, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := exec.Command("go", "build", "-o", filepath.Join(dir, "bin", "stagecoach"), ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	env := []string{
		"STAGECOACH=" + checkout, "HOME=" + filepath.Join(dir, "home"), "PATH=" + filepath.Join(dir, "bin") + ":" + os.Getenv("PATH"),
		"GOPROXY=off", "GOFLAGS=-mod=readonly", "GOWORK=off",
	}
	out, err := exec.Command("go", "env", "GOCACHE", "GOMODCACHE", "GOPATH").Output()
	if err != nil {
		t.Fatal(err)
	}
	for i, value := range strings.Fields(string(out)) {
		env = append(env, []string{"GOCACHE=", "GOMODCACHE=", "GOPATH="}[i]+value)
	}

	begin := time.Now()
	s := newShell(t, filepath.Join(dir, "work"), env...)
	for _, line := range lines[:len(lines)-1] {
		s.types(line)
		if strings.HasSuffix(line, "&") {
			// A person sees that it is up before typing on.
			eventually(t, func() error {
				if !strings.Contains(s.out.String(), "mx.ryan.example is up") {
					return fmt.Errorf("the server is not up:\n%s", s.out)
				}
				return nil
			})
		}
	}
	mail, err := exec.Command("sh", "-c", send[1]).Output()
	if err != nil {
		t.Fatal(err)
	}
	mx := net.JoinHostPort(address, send[2])
	var refused *textproto.Error
	if err := deliver(mx, send[3], send[4], mail); !errors.As(err, &refused) || refused.Code != 550 || !strings.Contains(refused.Msg, "We do not take mail about lottery") {
		t.Errorf("the mail about a lottery: %v\n%s", err, s.out)
	}
	if err := deliver(mx, send[3], send[4], bytes.ReplaceAll(mail, []byte("lottery"), []byte("heart"))); err != nil {
		t.Errorf("a mail about something else: %v\n%s", err, s.out)
	}
	t.Logf("%d commands, %.1f s", commands, time.Since(begin).Seconds())
}

// deliver sends a mail as curl does; an error is the server's reply.
func deliver(mx, from, to string, mail []byte) error {
	conn, err := net.DialTimeout("tcp", mx, 10*time.Second)
	if err != nil {
		return err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(time.Minute)) // a TCP connection takes one
	c, err := smtp.NewClient(conn, "mx.ryan.example")
	if err != nil {
		return err
	}
	if err := c.Mail(from); err != nil {
		return err
	}
	if err := c.Rcpt(to); err != nil {
		return err
	}
	w, err := c.Data()
	if err != nil {
		return err
	}
	if _, err := w.Write(mail); err != nil {
		return err
	}
	return w.Close()
}
