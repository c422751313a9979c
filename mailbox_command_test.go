package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stagecoach-mta/stagecoach/core/admin"
	"github.com/stagecoach-mta/stagecoach/core/command"
	"github.com/stagecoach-mta/stagecoach/plugins/local"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// mailboxConfig has a storage with a small and a large mail of Meg's.
func mailboxConfig(t *testing.T) (config, store string) {
	t.Helper()
	config, dir := onLoopback(t, "configs/dev.hcl")
	b, err := os.ReadFile(config)
	if err != nil {
		t.Fatal(err)
	}
	name := regexp.MustCompile(`(?m)^storage "local" "(\w+)"`).FindSubmatch(b)
	if name == nil {
		t.Fatal("the configuration has no local storage")
	}
	store = filepath.Join(dir, "data", "plugins", "storage.local."+string(name[1]))
	if err := os.MkdirAll(store, 0o700); err != nil {
		t.Fatal(err)
	}
	s, err := local.New(local.Options{Dir: store})
	if err != nil {
		t.Fatal(err)
	}
	for n, text := range []string{"Subject: one\r\n\r\nbody\r\n", "Subject: large\r\n\r\n" + strings.Repeat("line\r\n", 20000)} {
		r, err := s.Deposit(t.Context(), &v1.DepositRequest{
			QueueId: fmt.Sprint("q", n), ReturnPath: "tom@hanks.example",
			Message: &v1.MessageRef{Size: int64(len(text)), Where: &v1.MessageRef_Inline{Inline: []byte(text)}},
			Targets: []*v1.DepositRequest_Target{{Account: "meg@ryan.example", Recipient: "meg@ryan.example"}},
		})
		if err != nil || r.Results[0].Problem != nil {
			t.Fatal(r, err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return config, store
}

// serveMail runs the server of a configuration until stop.
func serveMail(t *testing.T, config, dataDir string) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	a := app()
	var log bytes.Buffer
	a.Stdin, a.Stdout, a.Stderr = strings.NewReader(""), io.Discard, &log
	done := make(chan int, 1)
	go func() { done <- a.Run(ctx, []string{"serve", "-c", config}) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if code := <-done; code != command.ExitOK {
			t.Errorf("the server stopped with %d:\n%s", code, log.String())
		}
	}
	t.Cleanup(stop)
	client := admin.NewClient(filepath.Join(dataDir, "run", "admin.sock"))
	for end := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		var st admin.Status
		if err := client.Call(ctx, "GET", "/status", nil, &st); err == nil {
			return stop
		}
		if time.Now().After(end) {
			t.Fatal("the server does not come up")
		}
	}
}

// TestMailboxes: an operator lists, counts, checks and backs up what a storage keeps
// of a server that is stopped, and of one that runs; a backup that is restored has the
// mail, with its UIDs, that was there when it was taken.
func TestMailboxes(t *testing.T) {
	config, store := mailboxConfig(t)
	do := func(code int, says string, args ...string) string {
		t.Helper()
		got, out, errs := run(t, append(append([]string{"mailbox"}, args...), "-c", config)...)
		if got != code || !strings.Contains(out+errs, says) {
			t.Fatalf("mailbox %s: exit %d, want %d and %q; it says\n%s%s", strings.Join(args, " "), got, code, says, out, errs)
		}
		return out
	}
	backup := filepath.Join(t.TempDir(), "monday")
	look := func() (stats string) {
		t.Helper()
		do(command.ExitOK, "1 account, 117", "list")
		do(command.ExitOK, "All of it is whole.", "check")
		do(command.ExitOK, "All of it is whole.", "check", "meg@ryan.example")
		do(command.ExitFailed, `has no account "nobody@ryan.example"`, "check", "nobody@ryan.example")
		do(command.ExitUsage, "there is no storage storage.local.other", "list", "--storage", "storage.local.other")
		return do(command.ExitOK, "", "stats", "meg@ryan.example", "--json")
	}
	before := look()
	var u struct {
		Messages int
		All      []struct {
			Mailbox  string
			Messages int
			Next     int `json:"uid_next"`
		} `json:"by_mailbox"`
	}
	if err := json.Unmarshal([]byte(before), &u); err != nil || u.Messages != 2 || len(u.All) != 6 {
		t.Fatalf("%v in %s", err, before)
	}

	stop := serveMail(t, config, filepath.Dir(filepath.Dir(store)))
	if live := look(); live != before {
		t.Errorf("of the server that runs:\n%s\nof the one that was stopped:\n%s", live, before)
	}
	do(command.ExitOK, "is in "+backup, "backup", "--to", backup)
	do(command.ExitFailed, "is there already", "backup", "--to", backup)
	do(command.ExitFailed, "in use by another stagecoach", "restore", "--from", backup)
	stop()

	bodies, err := filepath.Glob(filepath.Join(store, "blobs", "*", "*.eml"))
	if err != nil || len(bodies) != 1 {
		t.Fatal(bodies, err)
	}
	if err := os.Remove(bodies[0]); err != nil {
		t.Fatal(err)
	}
	do(command.ExitTest, "1 problem. `stagecoach mailbox check --repair`", "check")
	do(command.ExitOK, "1 problem, repaired.", "check", "--repair")
	do(command.ExitOK, "1 account, 8", "list")
	do(command.ExitOK, "What was there is kept in", "restore", "--from", backup)
	if after := look(); after != before {
		t.Errorf("after the restore:\n%s\nbefore:\n%s", after, before)
	}
	if err := os.Remove(filepath.Join(backup, "stagecoach-backup.json")); err != nil {
		t.Fatal(err)
	}
	do(command.ExitFailed, "is no backup that is whole", "restore", "--from", backup)
}
