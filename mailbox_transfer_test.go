package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stagecoach-mta/stagecoach/core/command"
)

// bringMaildir makes a Maildir with folders, flags, keywords, dates and a large mail.
func bringMaildir(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "Maildir")
	write := func(name, text string) {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		at := time.Unix(1700000000, 0)
		if err := os.Chtimes(path, at, at); err != nil {
			t.Fatal(err)
		}
	}
	for n := range 5 {
		write(fmt.Sprintf("cur/%d.a:2,S", 1000+n), fmt.Sprintf("Subject: %d\n\nFrom here\n", n))
	}
	write("cur/1005.a:2,FRa", "Subject: large\n\n"+strings.Repeat("line\n", 20000))
	write("new/1006.a", "Subject: mixed\r\n\r\none\ntwo\r\n")
	write("new/1007.a", "")
	write("dovecot-keywords", "0 $Forwarded\n")
	write(".Letters.Entw&APw-rfe/cur/1.b:2,D", "Subject: draft\n\nbody\n")
	write("subscriptions", "INBOX\n")
	return dir
}

// told is what an import or export tells.
type told struct {
	Mailboxes []struct {
		From, To                  string
		Messages, Carried, Before int
	}
	Left []struct{ Message, Why string }
}

func (r told) carried() (n int) {
	for _, m := range r.Mailboxes {
		n += m.Carried
	}
	return n
}

// TestMailComesAndGoes: mail comes from a Maildir into an account of a server that is
// stopped, and of one that runs; once; it goes out as a Maildir and as mboxes, and what
// comes from these is the same again.
func TestMailComesAndGoes(t *testing.T) {
	config, store := mailboxConfig(t)
	maildir, out := bringMaildir(t), t.TempDir()
	do := func(code int, args ...string) (r told) {
		t.Helper()
		got, text, errs := run(t, append(append([]string{"mailbox"}, args...), "-c", config, "--json")...)
		if got != code {
			t.Fatalf("mailbox %s: exit %d, want %d; it says\n%s%s", strings.Join(args, " "), got, code, text, errs)
		}
		if err := json.Unmarshal([]byte(text), &r); err != nil {
			t.Fatal(err, text)
		}
		return r
	}
	stats := func(account string) string {
		t.Helper()
		code, text, errs := run(t, "mailbox", "stats", account, "-c", config, "--json")
		if code != command.ExitOK {
			t.Fatal(text, errs)
		}
		var u struct {
			All []struct {
				Mailbox          string
				Messages, Unseen int
				Bytes            int64
			} `json:"by_mailbox"`
		}
		if err := json.Unmarshal([]byte(text), &u); err != nil {
			t.Fatal(err)
		}
		var b strings.Builder
		for _, m := range u.All {
			if m.Messages > 0 {
				fmt.Fprintln(&b, m)
			}
		}
		return b.String()
	}

	dry := do(command.ExitOK, "import", "tom@hanks.example", "--from", "maildir", maildir, "--dry-run")
	if len(dry.Mailboxes) != 2 || dry.Mailboxes[0].Carried != 8 {
		t.Errorf("%+v", dry)
	}
	first := do(command.ExitTest, "import", "tom@hanks.example", "--from", "maildir", maildir)
	if len(first.Mailboxes) != 2 || first.Mailboxes[0].Carried != 7 || first.Mailboxes[1].To != "Letters/Entwürfe" ||
		len(first.Left) != 1 || first.Left[0].Message != "1007.a" || first.Left[0].Why != "it is empty" {
		t.Fatalf("%+v", first)
	}
	want := stats("tom@hanks.example")
	stop := serveMail(t, config, filepath.Dir(filepath.Dir(store)))
	defer stop()
	if again := do(command.ExitTest, "import", "tom@hanks.example", "--from", "maildir", maildir); again.Mailboxes[0].Before != 7 || again.Mailboxes[0].Carried != 0 {
		t.Errorf("the second run: %+v", again)
	}
	if got := stats("tom@hanks.example"); got != want {
		t.Errorf("after the second run:\n%swant\n%s", got, want)
	}
	for _, form := range []string{"maildir", "mbox"} {
		dir := filepath.Join(out, form)
		if r := do(command.ExitOK, "export", "tom@hanks.example", "--to", form, dir); r.carried() != 8 {
			t.Errorf("%s: %+v", form, r)
		}
		if r := do(command.ExitOK, "export", "tom@hanks.example", "--to", form, dir); r.carried() != 0 {
			t.Errorf("%s again: %+v", form, r)
		}
		account := form + "@hanks.example"
		do(command.ExitOK, "import", account, "--from", form, dir)
		if got := stats(account); got != want {
			t.Errorf("%s: what came back is\n%swant\n%s", form, got, want)
		}
		again := filepath.Join(out, form+"-again")
		do(command.ExitOK, "export", account, "--to", "mbox", again)
		sameMboxes(t, filepath.Join(out, form+"-again"), filepath.Join(out, "reference"))
		if form == "maildir" {
			if err := os.Rename(again, filepath.Join(out, "reference")); err != nil {
				t.Fatal(err)
			}
		}
	}
	if r := do(command.ExitTest, "import", "small@hanks.example", "--from", "maildir", maildir, "--quota", "10KiB", "--prefix", "Old"); len(r.Left) != 2 || r.Mailboxes[0].To != "Old/INBOX" || !strings.Contains(r.Left[0].Why, "is full") {
		t.Errorf("over quota: %+v", r)
	}
	if code, _, errs := run(t, "mailbox", "import", "a@hanks.example", "--from", "imap", "192.0.2.1", "--user", "a", "--tls", "none", "--password-file", filepath.Join(maildir, "subscriptions"), "-c", config); code != command.ExitFailed || !strings.Contains(errs, "in the clear") {
		t.Errorf("exit %d: %s", code, errs)
	}
}

// sameMboxes compares two exports octet for octet, if the second is there.
func sameMboxes(t *testing.T, a, b string) {
	t.Helper()
	if _, err := os.Stat(b); err != nil {
		return
	}
	for _, name := range []string{"INBOX.mbox", "Letters/Entwürfe.mbox"} {
		x, err := os.ReadFile(filepath.Join(a, name))
		if err != nil {
			t.Fatal(err)
		}
		y, err := os.ReadFile(filepath.Join(b, name))
		if err != nil {
			t.Fatal(err)
		}
		if string(x) != string(y) || len(x) == 0 {
			t.Errorf("%s: %d octets by way of mboxes, %d by way of a Maildir", name, len(x), len(y))
		}
	}
}
