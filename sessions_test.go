package main

import (
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stagecoach-mta/stagecoach/core/command"
)

// TestSessionsOutliveTheStorage: clients of IMAP and POP3 are logged in while the
// storage's process is killed. They see a pause, or an answer that says to try again
// (RFC 3206 section 4 for POP3, RFC 5530 section 3 for IMAP), and their sessions go
// on. The access plugins stay what they were, and no mail is lost or there twice.
func TestSessionsOutliveTheStorage(t *testing.T) {
	t.Parallel()
	path, dir := onLoopback(t, "configs/dev.hcl")
	apart(t, path)
	s := serveProgram(t, path, dir)
	pop3, imap := s.printed(`access\.pop3\.pop3 +([^ \n]+)`), s.printed(`access\.imap\.imap +([^ \n]+)`)
	send := func(subject, body string) {
		t.Helper()
		if err := deliver(s.smtp, "tom@hanks.example", "meg@ryan.example", []byte("Subject: "+subject+"\r\n\r\n"+body)); err != nil {
			t.Fatal(err)
		}
	}
	// One that goes by reference, and is longer than what the sockets hold.
	large := strings.Repeat(strings.Repeat("x", 70)+"\r\n", 8<<20/72)
	send("small", "Hello Meg\r\n")
	var drop *client
	arrived := func(n int) {
		t.Helper()
		eventually(t, func() error {
			drop = maildrop(t, pop3)
			if got := drop.count(); got != n {
				drop.want("+OK", "QUIT")
				return fmt.Errorf("%d mails in the INBOX, want %d", got, n)
			}
			return nil
		})
	}
	arrived(1)
	drop.want("+OK", "QUIT")
	send("large", large)
	arrived(2)
	box, idle := inbox(t, imap), inbox(t, imap)
	idle.say("i IDLE")
	if got := idle.line(); !strings.HasPrefix(got, "+") {
		t.Fatal(got)
	}
	before := listed(t, path)
	kill := func() {
		t.Helper()
		eventually(t, func() error {
			pid := listed(t, path)["storage.local.mail"].PID
			if pid == 0 {
				return errors.New("the storage has no process")
			}
			return syscall.Kill(pid, syscall.SIGKILL)
		})
	}

	var longest time.Duration
	const kills = 5
	for n := range kills {
		// In the middle of a message: what was begun comes whole.
		drop.want("+OK", "RETR 2")
		first := drop.line()
		kill()
		began := time.Now()
		if whole := first + "\n" + drop.body(); !strings.HasSuffix(whole, "\n\n"+strings.ReplaceAll(large, "\r\n", "\n")) {
			t.Errorf("kill %d: %d octets of the large mail", n, len(whole))
		}
		// Before the next process is there.
		kill()
		killed := time.Now()
		if got := drop.ask("RETR 1"); strings.HasPrefix(got, "+OK") {
			if text := drop.body(); field(text, "Subject") != "small" || !strings.HasSuffix(text, "\nHello Meg\n") {
				t.Errorf("kill %d: the small mail is %q", n, text)
			}
		} else if !strings.HasPrefix(got, "-ERR [SYS/TEMP] ") {
			t.Errorf("kill %d: RETR 1: %s", n, got)
		}
		longest = max(longest, time.Since(killed))
		for _, command := range []string{"FETCH 1 (FLAGS BODY.PEEK[])", `STORE 1 +FLAGS (\Flagged)`, "STATUS INBOX (MESSAGES)", "NOOP"} {
			asked := time.Now()
			status, data := box.imap(command)
			longest = max(longest, time.Since(asked))
			switch {
			case strings.HasPrefix(status, "NO [UNAVAILABLE]"):
			case !strings.HasPrefix(status, "OK"):
				t.Errorf("kill %d: %s: %s", n, command, status)
			case strings.HasPrefix(command, "FETCH") && !strings.Contains(data, "\r\n\r\nHello Meg\r\n"):
				t.Errorf("kill %d: %s: %s", n, command, data)
			}
		}
		// Mail that comes meanwhile is told to who waits for it.
		kill()
		send(fmt.Sprint("later ", n), "")
		for want := fmt.Sprintf("* %d EXISTS", 3+n); ; {
			if got := idle.line(); got == want {
				break
			} else if !strings.HasPrefix(got, "* ") || strings.HasPrefix(got, "* BYE") {
				t.Fatalf("kill %d: who waits is told %q, want %q", n, got, want)
			}
		}
		eventually(t, func() error {
			if got := drop.ask("RETR 1"); !strings.HasPrefix(got, "+OK") {
				return errors.New(got)
			}
			drop.body()
			return nil
		})
		t.Logf("kill %d: all as before after %s", n, time.Since(began).Round(time.Millisecond))
	}
	if status, data := box.imap("FETCH 1 (FLAGS)"); !strings.HasPrefix(status, "OK") {
		t.Errorf("FETCH after all: %s %s", status, data)
	}

	after := listed(t, path)
	for _, name := range []string{"access.imap.imap", "access.pop3.pop3"} {
		if after[name].PID != before[name].PID || after[name].Restarts != 0 || after[name].State != "ready" {
			t.Errorf("%s before: %+v, after: %+v", name, before[name], after[name])
		}
		// Their own processes are replaced, too: who is logged in stays.
		if code, out, errs := run(t, "plugin", "restart", name, "-c", path); code != command.ExitOK {
			t.Fatalf("exit %d\n%s%s", code, out, errs)
		}
	}
	if n := after["storage.local.mail"].Restarts; n < kills {
		t.Errorf("the storage was restarted %d times", n)
	}
	inbox(t, imap).imap("LOGOUT")
	if status, _ := box.imap("NOOP"); !strings.HasPrefix(status, "OK") {
		t.Errorf("NOOP at the old process: %s", status)
	}
	// The storage ends over the QUIT: what the client is told of the removal is so.
	drop.want("+OK", "DELE 1")
	kill()
	said := drop.ask("QUIT")
	if !strings.HasPrefix(said, "+OK Bye, 1 ") {
		t.Errorf("QUIT: %s", said)
	}
	idle.say("DONE\r\na LOGOUT")
	box.imap("LOGOUT")
	count := map[string]int{}
	for _, mail := range mails(t, pop3) {
		count[field(mail, "Subject")]++
	}
	if n := count["small"]; n != 0 {
		t.Errorf("the mail that was removed is %d times there", n)
	}
	if count["large"] != 1 {
		t.Errorf("the large mail is %d times there", count["large"])
	}
	for n := range kills {
		if name := fmt.Sprint("later ", n); count[name] != 1 {
			t.Errorf("the mail %q is %d times there", name, count[name])
		}
	}
	t.Logf("the longest pause: %s", longest.Round(time.Millisecond))
}
