package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/stagecoach-mta/stagecoach/core/admin"
)

// TestObserver: a stranger's program hears of all that happens, each once in its
// book, while it is killed between the mails.
func TestObserver(t *testing.T) {
	path, dir := onLoopback(t, "configs/dev.hcl")
	apart(t, path)
	program := filepath.Join(dir, "audit")
	if out, err := exec.Command("go", "build", "-o", program, "./examples/audit").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	text = fmt.Appendf(text, `
plugin "audit" { path = %q }
filter "audit" "book" {}
observe { filters = [filter.audit.book] }
`, program)
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	s := serveFile(t, path, dir)
	const mails = 20
	for i := range mails {
		if err := s.send("meg@ryan.example", fmt.Appendf(nil, "Subject: %d\r\n\r\nHello\r\n", i)); err != nil {
			t.Fatal(err)
		}
		if i%5 == 0 {
			s.kill("filter.audit.book")
		}
	}
	if err := s.send("nobody@ryan.example", []byte("Subject: no\r\n\r\n")); err == nil {
		t.Fatal("mail for nobody was taken")
	}
	eventually(t, func() error {
		got := map[string]int{}
		var sequences []uint64
		f, err := os.Open(filepath.Join(dir, "data", "plugins", "filter.audit.book", "audit.jsonl"))
		if err != nil {
			return err
		}
		defer f.Close()
		for in := bufio.NewScanner(f); in.Scan(); {
			var l struct {
				Sequence uint64   `json:"sequence"`
				What     string   `json:"what"`
				To       []string `json:"to"`
			}
			if err := json.Unmarshal(in.Bytes(), &l); err != nil {
				return err
			}
			sequences = append(sequences, l.Sequence)
			got[l.What+" "+strings.Join(l.To, ",")]++
		}
		want := map[string]int{"QUEUED meg@ryan.example": mails, "DELIVERED meg@ryan.example": mails, "REFUSED nobody@ryan.example": 1}
		for what, n := range want {
			if got[what] != n {
				return fmt.Errorf("the book has %v, want %v", got, want)
			}
		}
		if !slices.IsSorted(sequences) || len(slices.Compact(sequences)) != 2*mails+1 {
			t.Fatalf("sequences %v", sequences)
		}
		return nil
	})
}

// kill ends an instance's process without a word.
func (s *serving) kill(instance string) {
	s.t.Helper()
	var plugins []admin.Plugin
	if err := s.admin.Call(context.Background(), "GET", "/plugins", nil, &plugins); err != nil {
		s.t.Fatal(err)
	}
	for _, p := range plugins {
		if p.Instance == instance && p.PID != 0 {
			_ = syscall.Kill(p.PID, syscall.SIGKILL)
		}
	}
}
