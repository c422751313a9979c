package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net"
	"net/smtp"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A server that keeps what it takes, with the filter as a program beside it.
const pipeline = `
hostname = "mx.ryan.example"
data_dir = %q

plugin "attachments" {
  path   = %q
  sha256 = "%x"
}

filter "attachments" "no_exe" {
  forbid = [".exe"]
}

receive "smtp" "mx" {
  listen        = [%q]
  relay_domains = ["ryan.example"]
  filters       = [filter.attachments.no_exe]
}

route "all" {
  hold = "looked at by a test"
}
`

// TestInAServer runs the program as Stagecoach runs it: built, named in a
// configuration with its checksum, asked about mail that comes over SMTP.
func TestInAServer(t *testing.T) {
	dir, err := os.MkdirTemp("", "attachments") // a socket's path has at most 107 octets; t.TempDir may be longer
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	program, stagecoach := filepath.Join(dir, "attachments"), filepath.Join(dir, "stagecoach")
	run(t, "go", "build", "-o", program, ".")
	run(t, "go", "build", "-o", stagecoach, "../..")
	b, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	config, addr, data := filepath.Join(dir, "stagecoach.hcl"), freePort(t), filepath.Join(dir, "data")
	text := fmt.Sprintf(pipeline, data, program, sha256.Sum256(b), addr)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if said := run(t, stagecoach, "plugin", "describe", program); !strings.Contains(said, "max_parts") {
		t.Errorf("plugin describe says:\n%s", said)
	}
	run(t, stagecoach, "validate", "-c", config)
	serve(t, stagecoach, config, addr)

	evil := withPart("Content-Type: application/octet-stream; name=evil.exe")
	if err := send(addr, evil); err == nil || !strings.Contains(err.Error(), "550") || !strings.Contains(err.Error(), ".exe") {
		t.Errorf("evil.exe: %v, want a 550 that names .exe", err)
	}
	if err := send(addr, withPart("Content-Type: image/png; name=meg.png")); err != nil {
		t.Errorf("meg.png: %v", err)
	}
	queued := strings.TrimSpace(run(t, stagecoach, "queue", "list", "--json", "-c", config))
	var mail struct {
		Subject string `json:"subject"`
	}
	if err := json.Unmarshal([]byte(queued), &mail); err != nil || mail.Subject != "Have a look" {
		t.Errorf("the queue should hold the one clean mail, it holds (%v):\n%s", err, queued)
	}
}

// serve starts the server, waits until it answers, and ends it with the test.
func serve(t *testing.T, stagecoach, config, addr string) {
	t.Helper()
	var log bytes.Buffer
	cmd := exec.Command(stagecoach, "serve", "-c", config)
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		if err := cmd.Wait(); err != nil {
			t.Errorf("the server ended with %v", err)
		}
		if t.Failed() {
			t.Logf("the server's log:\n%s", &log)
		}
	})
	for until := time.Now().Add(30 * time.Second); ; {
		c, err := smtp.Dial(addr)
		if err == nil {
			c.Close()
			return
		}
		if time.Now().After(until) {
			t.Fatalf("nobody answers: %v", err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func send(addr, text string) error {
	return smtp.SendMail(addr, nil, "tom@hanks.example", []string{"meg@ryan.example"}, []byte(strings.ReplaceAll(text, "\n", "\r\n")))
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s%s", name, strings.Join(args, " "), err, out, &stderr)
	}
	return string(out)
}
