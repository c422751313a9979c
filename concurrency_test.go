package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestConcurrencyLimit: a filter never gets more mails at once than max_concurrent
// lets it have. A mail that finds it full waits for its turn, for as long as the
// filter's timeout, and is then put off as on_failure says; nothing else happens to
// it, and the filter goes on.
func TestConcurrencyLimit(t *testing.T) {
	t.Parallel()
	install := builds(t)
	path, dir := onLoopback(t, "configs/dev.hcl")
	apart(t, path)
	program := filepath.Join(dir, "marks")
	install(program, 1)
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	config := strings.Replace(string(text), `receive "smtp" "mx" {`, "receive \"smtp\" \"mx\" {\n  filters = [filter.marks.all]", 1) + fmt.Sprintf(`
filter "marks" "all" {
  timeout        = "6s"
  max_concurrent = 2
}
plugin "marks" { path = %q }
`, program)
	if err := os.WriteFile(path, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	s := serveProgram(t, path, dir)
	pop3 := s.printed(`access\.pop3\.pop3 +([^ \n]+)`)
	send := func(from, subject string) error {
		return deliver(s.smtp, from, "meg@ryan.example", []byte("Subject: "+subject+"\r\n\r\n"))
	}
	here := func() int { return strings.Count(s.log.String(), "a slow mail is here") }

	const limit = 2
	put := make(chan error, limit+1)
	for range limit {
		go func() { put <- send("deaf@hanks.example", "full") }()
	}
	eventually(t, func() error {
		if n := here(); n != limit {
			return fmt.Errorf("%d mails are at the filter", n)
		}
		return nil
	})
	go func() { put <- send("deaf@hanks.example", "too many") }()
	for range limit + 1 {
		if err := <-put; err == nil || !strings.Contains(err.Error(), "451") {
			t.Errorf("a mail to a filter that ends none: %v, want a 451", err)
		}
	}
	if n := here(); n != limit {
		t.Errorf("%d mails came to the filter, which may have %d", n, limit)
	}
	if p := listed(t, path)["filter.marks.all"]; p.Restarts != 0 || p.State != "ready" {
		t.Errorf("the filter was replaced: %+v", p)
	}
	if err := os.WriteFile(filepath.Join(dir, "data", "plugins", "filter.marks.all", "release"), nil, 0o600); err != nil {
		t.Fatal(err)
	}

	// More at once than it takes, and in time: they take turns.
	const mails = 8
	for n := range mails {
		go func() {
			subject := fmt.Sprint("turn ", n)
			err := send("tom@hanks.example", subject)
			for tries := 0; tries < 5 && err != nil && strings.Contains(err.Error(), "451"); tries++ {
				err = send("tom@hanks.example", subject) // a machine that is too busy for the timeout
			}
			put <- err
		}()
	}
	for range mails {
		if err := <-put; err != nil {
			t.Errorf("a mail that had to wait for its turn: %v", err)
		}
	}
	eventually(t, func() error {
		drop := maildrop(t, pop3)
		defer drop.want("+OK", "QUIT")
		if n := drop.count(); n != mails {
			return errors.New(fmt.Sprint(n, " mails arrived"))
		}
		for n := range mails {
			drop.want("+OK", fmt.Sprint("RETR ", n+1))
			if got := field(drop.body(), "X-At-Once"); got != fmt.Sprint(limit) {
				t.Errorf("mail %d: the filter had %s mails at once, want %d at most", n+1, got, limit)
			}
		}
		return nil
	})
}
