package main

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stagecoach-mta/stagecoach/core/command"
)

// TestSieve: an operator stores a user's script, and mail that comes over SMTP goes
// where it says: into a folder with flags and on to another address; a user without
// one has their mail in the inbox, and one whose script fails too. The scripts are in
// the storage, which the stopped server's commands start for themselves, or in a folder.
func TestSieve(t *testing.T) {
	t.Run("storage", func(t *testing.T) { testSieve(t, "") })
	t.Run("folder", func(t *testing.T) {
		folder := t.TempDir()
		if err := os.Chmod(folder, 0o777); err != nil {
			t.Fatal(err)
		}
		testSieve(t, `scripts = "`+folder+`"`)
	})
}

func testSieve(t *testing.T, where string) {
	boxes, people := filepath.Join(t.TempDir(), "mail"), filepath.Join(t.TempDir(), "people.hcl")
	// The server may run as another user than the one who tests.
	if err := os.Mkdir(boxes, 0o777); err != nil {
		t.Fatal(err)
	}
	for _, user := range []string{"meg@ryan.example", "joe@ryan.example", "annie@ryan.example"} {
		if err := (peopleFile{}).Add(people, user, "sleepless"); err != nil {
			t.Fatal(err)
		}
	}
	path, dir := queueConfig(t, `
directory "file" "people" { path = "`+people+`" }
storage "maildir" "mail" { path = "`+boxes+`" }
filter "sieve" "users" {
  storage = storage.maildir.mail
  `+where+`
}
deliver "storage" "mail" {
  storage = storage.maildir.mail
  filters = [filter.sieve.users]
}
access "managesieve" "sieve" {
  listen        = ["127.0.0.3:0"]
  storage       = storage.maildir.mail
  auth          = directory.file.people
  insecure_auth = true
  `+where+`
}
route "here" {
  when    = has(directory.file.people, recipient)
  deliver = deliver.storage.mail
}
`)
	good := scriptFile(t, "main.sieve", "require [\"fileinto\", \"imap4flags\", \"copy\"];\nif header \"subject\" \"Dinner\" {\n  redirect :copy \"reed@reed.example\";\n  fileinto :flags \"\\\\Seen\" \"Evenings\";\n}\n")
	if out := runSieve(t, command.ExitTest, "check", scriptFile(t, "bad.sieve", "keep;\nfileinto \"x\";\n")); !strings.Contains(out, "bad.sieve:2:1: unknown command 'fileinto'") || !strings.Contains(out, "require \"fileinto\"") {
		t.Error(out)
	}
	served := t.Run("serving", func(t *testing.T) { serveSieve(t, path, dir, boxes, good) })
	if !served {
		return
	}
	// The storage of the stopped server is started for the command alone.
	if out := runSieve(t, command.ExitOK, "get", "-c", path, "meg@ryan.example", "main"); !strings.Contains(out, `"Evenings"`) {
		t.Error(out)
	}
}

func runSieve(t *testing.T, want int, args ...string) string {
	t.Helper()
	code, out, errs := run(t, append([]string{"sieve"}, args...)...)
	if code != want {
		t.Fatalf("sieve %s: exit %d\n%s%s", args, code, out, errs)
	}
	return out + errs
}

func scriptFile(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func serveSieve(t *testing.T, path, dir, boxes, good string) {
	s := serveFile(t, path, dir)
	runSieve(t, command.ExitTest, "put", "-c", path, "meg@ryan.example", "main", scriptFile(t, "bad.sieve", "nonsense;"))
	runSieve(t, command.ExitOK, "put", "-c", path, "meg@ryan.example", "main", good, "--activate")
	runSieve(t, command.ExitOK, "put", "-c", path, "joe@ryan.example", "main", scriptFile(t, "fails.sieve", "require \"ihave\";\ndiscard;\nerror \"enough\";\n"), "--activate")
	if out := runSieve(t, command.ExitOK, "list", "-c", path, "meg@ryan.example"); !strings.Contains(out, "main") || !strings.Contains(out, "active") {
		t.Error(out)
	}
	if out := runSieve(t, command.ExitOK, "get", "-c", path, "meg@ryan.example", "main"); !strings.Contains(out, `"Evenings"`) {
		t.Error(out)
	}
	if out := runSieve(t, command.ExitOK, "test", good, scriptFile(t, "mail.eml", string(mailAbout("Dinner", "one"))), "--from", "tom@hanks.example", "--to", "meg@ryan.example"); out != "store into \"Evenings\" with \\Seen\nsend a redirect from <tom@hanks.example> to <reed@reed.example>\n" {
		t.Error(out)
	}
	if out := runSieve(t, command.ExitFailed, "delete", "-c", path, "meg@ryan.example", "main"); !strings.Contains(out, "active") {
		t.Error(out)
	}
	for _, user := range []string{"meg", "joe", "annie"} {
		if err := s.send(user+"@ryan.example", mailAbout("Dinner", user)); err != nil {
			t.Fatal(err)
		}
	}
	for _, pattern := range []string{"meg@ryan.example/.Evenings/*/*:2,S", "joe@ryan.example/new/*", "annie@ryan.example/new/*"} {
		eventually(t, func() error {
			found, err := filepath.Glob(filepath.Join(boxes, pattern))
			if err == nil && len(found) != 1 {
				err = fmt.Errorf("%s: %q, want one mail", pattern, found)
			}
			return err
		})
	}
	if m := queued(t, s, 1)[0]; len(m.Recipients) != 1 || m.Recipients[0].Address != "reed@reed.example" || m.Sender != "tom@hanks.example" {
		t.Errorf("sent on: %+v", m)
	}
	if found, _ := filepath.Glob(filepath.Join(boxes, "meg@ryan.example/new/*")); len(found) != 0 {
		t.Errorf("meg's inbox has %q too", found)
	}
	// Now the server that runs is asked.
	runSieve(t, command.ExitOK, "put", "-c", path, "annie@ryan.example", "later", good, "--activate")
	runSieve(t, command.ExitOK, "activate", "-c", path, "annie@ryan.example")
	if out := runSieve(t, command.ExitOK, "list", "-c", path, "annie@ryan.example"); !strings.Contains(out, "later") || strings.Contains(out, "active") {
		t.Error(out)
	}
	if out := runSieve(t, command.ExitOK, "list", "-c", path, "joe@ryan.example"); !strings.Contains(out, "enough") {
		t.Errorf("joe is not told: %s", out)
	}
	conn, err := net.Dial("tcp", s.printed(`access\.managesieve\.sieve +([^ \n]+)`))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if b := make([]byte, 16); true {
		if _, err := conn.Read(b); err != nil || string(b) != `"IMPLEMENTATION"` {
			t.Errorf("ManageSieve says %q, %v", b, err)
		}
	}
}
