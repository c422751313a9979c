package main

import (
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stagecoach-mta/stagecoach/core/command"
)

// TestPinnedProgram: a program whose checksum is pinned does not run if it is
// another one, at no start and no restart; what runs goes on, and the operator is
// told where the checksum stands and how to get the right one.
func TestPinnedProgram(t *testing.T) {
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
	// pin writes a configuration that pins what is installed just now.
	pin := func() {
		t.Helper()
		b, err := os.ReadFile(program)
		if err != nil {
			t.Fatal(err)
		}
		config := strings.Replace(string(text), `receive "smtp" "mx" {`, "receive \"smtp\" \"mx\" {\n  filters = [filter.marks.all]", 1) + fmt.Sprintf(`
filter "marks" "all" { timeout = "2s" }
plugin "marks" {
  path   = %q
  sha256 = "%x"
}
`, program, sha256.Sum256(b))
		if err := os.WriteFile(path, []byte(config), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	pin()
	s := serveProgram(t, path, dir)
	const instance = "filter.marks.all"
	pop3 := s.printed(`access\.pop3\.pop3 +([^ \n]+)`)
	// marked sends a mail and wants it marked by that build.
	marked := func(subject string, n int) {
		t.Helper()
		if err := deliver(s.smtp, "tom@hanks.example", "meg@ryan.example", []byte("Subject: "+subject+"\r\n\r\n")); err != nil {
			t.Fatal(err)
		}
		eventually(t, func() error {
			for _, mail := range mails(t, pop3) {
				if field(mail, "Subject") == subject && field(mail, "X-Build") == nthBuild(n) {
					return nil
				}
			}
			return fmt.Errorf("no mail %q, marked by %s", subject, nthBuild(n))
		})
	}
	marked("pinned", 1)

	install(program, 2)
	pid := listed(t, path)[instance].PID
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	before, _, _ := strings.Cut(string(b), "sha256 = ")
	place := fmt.Sprintf("test.hcl:%d:", strings.Count(before, "\n")+1)
	for words, want := range map[string]int{
		"plugin reload " + instance: command.ExitConfig, "reload": command.ExitConfig, "validate": command.ExitConfig,
		"serve":                      command.ExitConfig,
		"plugin restart " + instance: command.ExitFailed, // which does not read the configuration
	} {
		code, out, errs := run(t, append(strings.Fields(words), "-c", path)...)
		for _, says := range []string{place, program + " is not the program that sha256 pins", "sha256sum " + program} {
			if code != want || !strings.Contains(errs, says) {
				t.Errorf("%s: exit %d, want %d and %q:\n%s%s", words, code, want, says, out, errs)
			}
		}
	}
	if now := listed(t, path)[instance]; now.PID != pid || now.Version != nthBuild(1) || now.State != "ready" {
		t.Errorf("what ran does not go on: %+v", now)
	}
	marked("as before", 1)

	// When it ends by itself, the other program does not take its place.
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() error {
		now := listed(t, path)[instance]
		for _, trouble := range now.Troubles {
			if trouble.Kind == "not_started" && strings.Contains(trouble.Text, "sha256sum "+program) && now.PID == 0 {
				return nil
			}
		}
		return fmt.Errorf("it is not listed why it does not run: %+v", now)
	})
	if err := deliver(s.smtp, "tom@hanks.example", "meg@ryan.example", []byte("Subject: no\r\n\r\n")); err == nil || !strings.HasPrefix(err.Error(), "451 ") {
		t.Errorf("a mail that no filter looks at: %v", err)
	}
	// The new one on purpose.
	pin()
	if code, out, errs := run(t, "plugin", "reload", instance, "-c", path); code != command.ExitOK {
		t.Fatalf("exit %d\n%s%s", code, out, errs)
	}
	marked("on purpose", 2)
}
