package main

import (
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"
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

	// What QUIT says of the removal is so; where it cannot know, nothing else is
	// removed (RFC 1939 section 6).
	drop.want("+OK", "DELE 1")
	kill()
	said := drop.ask("QUIT")
	if !strings.HasPrefix(said, "+OK") && !strings.HasPrefix(said, "-ERR [SYS/TEMP]") {
		t.Errorf("QUIT: %s", said)
	}
	idle.say("DONE")
	count := map[string]int{}
	for _, mail := range mails(t, pop3) {
		count[field(mail, "Subject")]++
	}
	if n := count["small"]; strings.HasPrefix(said, "+OK") && n != 0 || n > 1 {
		t.Errorf("QUIT said %q, and the mail is %d times there", said, n)
	}
	if count["large"] != 1 {
		t.Errorf("the large mail is %d times there", count["large"])
	}
	for n := range kills {
		if name := fmt.Sprint("later ", n); count[name] != 1 {
			t.Errorf("the mail %q is %d times there", name, count[name])
		}
	}
	after := listed(t, path)
	for _, name := range []string{"access.imap.imap", "access.pop3.pop3"} {
		if after[name].PID != before[name].PID || after[name].Restarts != 0 || after[name].State != "ready" {
			t.Errorf("%s before: %+v, after: %+v", name, before[name], after[name])
		}
	}
	if n := after["storage.local.mail"].Restarts; n < kills {
		t.Errorf("the storage was restarted %d times", n)
	}
	t.Logf("the longest pause: %s; QUIT said %q", longest.Round(time.Millisecond), said)
}
