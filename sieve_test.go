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
// one has their mail in the inbox, and one whose script fails too.
func TestSieve(t *testing.T) {
	boxes, folder, people := filepath.Join(t.TempDir(), "mail"), filepath.Join(t.TempDir(), "sieve"), filepath.Join(t.TempDir(), "people.hcl")
	// The server may run as another user than the one who tests.
	for _, dir := range []string{boxes, folder} {
		if err := os.Mkdir(dir, 0o777); err != nil {
			t.Fatal(err)
		}
	}
	for _, user := range []string{"meg@ryan.example", "joe@ryan.example", "annie@ryan.example"} {
		if err := (peopleFile{}).Add(people, user, "sleepless"); err != nil {
			t.Fatal(err)
		}
	}
	sieve := func(want int, args ...string) string {
		t.Helper()
		code, out, errs := run(t, append([]string{"sieve", "--scripts", folder}, args...)...)
		if code != want {
			t.Fatalf("sieve %s: exit %d\n%s%s", args, code, out, errs)
		}
		return out + errs
	}
	file := func(name, text string) string {
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	good := file("main.sieve", "require [\"fileinto\", \"imap4flags\", \"copy\"];\nif header \"subject\" \"Dinner\" {\n  redirect :copy \"reed@reed.example\";\n  fileinto :flags \"\\\\Seen\" \"Evenings\";\n}\n")
	if out := sieve(command.ExitTest, "check", file("bad.sieve", "keep;\nfileinto \"x\";\n")); !strings.Contains(out, "bad.sieve:2:1: unknown command 'fileinto'") || !strings.Contains(out, "require \"fileinto\"") {
		t.Error(out)
	}
	sieve(command.ExitTest, "put", "meg@ryan.example", "main", file("bad.sieve", "nonsense;"))
	sieve(command.ExitOK, "put", "meg@ryan.example", "main", good, "--activate")
	sieve(command.ExitOK, "put", "joe@ryan.example", "main", file("fails.sieve", "require \"ihave\";\ndiscard;\nerror \"enough\";\n"), "--activate")
	if out := sieve(command.ExitOK, "list", "meg@ryan.example"); !strings.Contains(out, "main") || !strings.Contains(out, "active") {
		t.Error(out)
	}
	if out := sieve(command.ExitOK, "get", "meg@ryan.example", "main"); !strings.Contains(out, `"Evenings"`) {
		t.Error(out)
	}
	if out := sieve(command.ExitOK, "test", good, file("mail.eml", string(mailAbout("Dinner", "one"))), "--from", "tom@hanks.example", "--to", "meg@ryan.example"); out != "store into \"Evenings\" with \\Seen\nsend a redirect from <tom@hanks.example> to <reed@reed.example>\n" {
		t.Error(out)
	}
	if out := sieve(command.ExitFailed, "delete", "meg@ryan.example", "main"); !strings.Contains(out, "active") {
		t.Error(out)
	}
	path, dir := queueConfig(t, `
directory "file" "people" { path = "`+people+`" }
storage "maildir" "mail" { path = "`+boxes+`" }
filter "sieve" "users" {
  scripts = "`+folder+`"
  storage = storage.maildir.mail
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
  scripts       = "`+folder+`"
}
route "here" {
  when    = has(directory.file.people, recipient)
  deliver = deliver.storage.mail
}
`)
	s := serveFile(t, path, dir)
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
	if out := sieve(command.ExitOK, "list", "joe@ryan.example"); !strings.Contains(out, "enough") {
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
