package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/stagecoach-mta/stagecoach/core/command"
)

// firstBuild is the program of testdata/upgrade.
var firstBuild = sync.OnceValues(func() ([]byte, error) {
	dir, err := os.MkdirTemp("", "upgrade")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "upgrade")
	if out, err := exec.Command("go", "build", "-ldflags", "-s -w", "-o", path, "./testdata/upgrade").CombinedOutput(); err != nil {
		return nil, fmt.Errorf("%w\n%s", err, out)
	}
	return os.ReadFile(path)
})

// builds installs programs of testdata/upgrade that differ in their version alone.
func builds(t *testing.T) (install func(path string, n int)) {
	t.Helper()
	program, err := firstBuild()
	if err != nil {
		t.Fatal(err)
	}
	return func(path string, n int) {
		t.Helper()
		other := bytes.ReplaceAll(program, []byte("build-0001"), []byte(nthBuild(n)))
		// A running program's file cannot be written to; it is replaced, as package
		// managers do.
		if err := os.WriteFile(path+".new", other, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(path+".new", path); err != nil {
			t.Fatal(err)
		}
	}
}

func nthBuild(n int) string { return fmt.Sprintf("build-%04d", n) }

// gone waits until a process has ended and was waited for.
func gone(t *testing.T, pid int) {
	t.Helper()
	eventually(t, func() error {
		if err := syscall.Kill(pid, 0); !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("process %d is still there", pid)
		}
		return nil
	})
}

// TestUpgradeUnderLoad: the programs of a filter and of the storage are replaced by
// others while mail comes in, twice each. No SMTP session ends, no client is put off,
// every mail arrives once; who was at the old process ends there.
func TestUpgradeUnderLoad(t *testing.T) {
	t.Parallel()
	install := builds(t)
	path, dir := onLoopback(t, "configs/dev.hcl")
	apart(t, path)
	marks, kept := filepath.Join(dir, "marks"), filepath.Join(dir, "kept")
	install(marks, 1)
	install(kept, 1)
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	config := strings.NewReplacer(
		`storage "local" "mail"`, `storage "kept" "mail"`, "storage.local.mail", "storage.kept.mail",
		`receive "smtp" "mx" {`, "receive \"smtp\" \"mx\" {\n  filters = [filter.marks.all]",
	).Replace(string(text)) + fmt.Sprintf(`
filter "marks" "all" { timeout = "60s" }
plugin "marks" { path = %q }
plugin "kept" {
  path = %q
  args = ["storage"]
}
`, marks, kept)
	if err := os.WriteFile(path, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	s := serveProgram(t, path, dir)
	pop3 := s.printed(`access\.pop3\.pop3 +([^ \n]+)`)
	load := pipeline(t, s.smtp, 4)
	load.more(t, 20)

	// exchange puts another program in the place of one, and tells the old process.
	exchange := func(how, instance, program string, n int) (old int) {
		t.Helper()
		before := listed(t, path)[instance]
		install(program, n)
		if code, out, errs := run(t, "plugin", how, instance, "-c", path); code != command.ExitOK {
			t.Fatalf("%s %s: exit %d\n%s%s", how, instance, code, out, errs)
		}
		after := listed(t, path)[instance]
		if after.Version != nthBuild(n) || after.PID == before.PID || after.State != "ready" || after.Restarts != 0 {
			t.Errorf("%s %s: %+v", how, instance, after)
		}
		if code, out, errs := run(t, "plugin", "list", "-c", path); !named(out, instance, nthBuild(n)) {
			t.Errorf("exit %d: %s is not listed with its new version\n%s%s", code, instance, out, errs)
		}
		return before.PID
	}

	// A mail that the old filter looks at for as long as it takes.
	slow := make(chan error, 1)
	go func() {
		slow <- deliver(s.smtp, "slow@hanks.example", "meg@ryan.example", []byte("Subject: slow\r\n\r\n"))
	}()
	eventually(t, func() error {
		if !named(s.log.String(), "filter.marks.all", "a slow mail is here") {
			return errors.New("the slow mail does not come to the filter")
		}
		return nil
	})
	old := exchange("reload", "filter.marks.all", marks, 2)
	if code, out, errs := run(t, "plugin", "describe", marks); code != command.ExitOK || !strings.Contains(out, nthBuild(2)) {
		t.Errorf("describe: exit %d\n%s%s", code, out, errs)
	}
	load.more(t, 40)
	if err := syscall.Kill(old, 0); err != nil {
		t.Errorf("the old process did not wait for its mail: %v", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "data", "plugins", "filter.marks.all", "release"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := <-slow; err != nil {
		t.Errorf("the mail that the old process had: %v", err)
	}
	gone(t, old)
	gone(t, exchange("restart", "filter.marks.all", marks, 3))
	load.more(t, 40)

	// A session of a client, from before.
	var reader *client
	var had int
	eventually(t, func() error {
		reader = maildrop(t, pop3)
		if had = reader.count(); had == 0 {
			reader.want("+OK", "QUIT")
			return errors.New("no mail in the INBOX")
		}
		return nil
	})
	for n, how := range []string{"reload", "restart"} {
		gone(t, exchange(how, "storage.kept.mail", kept, n+2))
		reader.want("+OK", fmt.Sprint("RETR ", had))
		reader.body()
		load.more(t, 40)
	}
	reader.want("+OK", "QUIT")

	sent := load.end(t)
	eventually(t, func() error { return has(s.page(), map[string]float64{"stagecoach_queue_messages": 0}) })
	if n, ok := value(s.page(), "stagecoach_deliver_results_total", "deliver=deliver.storage.mail", "state=deferred"); ok && n > 0 {
		t.Errorf("%v deliveries had to be repeated", n)
	}
	got, seen := map[string]int{}, map[string]bool{}
	for _, mail := range mails(t, pop3) {
		subject, build := field(mail, "Subject"), field(mail, "X-Build")
		got[subject]++
		seen[build] = true
		if subject == "slow" && build != nthBuild(1) {
			t.Errorf("the slow mail was looked at by %q", build)
		}
	}
	sent["slow"] = true
	for id := range sent {
		if got[id] != 1 {
			t.Errorf("the mail %s is %d times in the INBOX", id, got[id])
		}
	}
	if len(got) != len(sent) {
		t.Errorf("%d mails arrived, of %d", len(got), len(sent))
	}
	for n := range 3 {
		if !seen[nthBuild(n+1)] || len(seen) != 3 {
			t.Errorf("mail was marked by the builds %v", seen)
		}
	}
	t.Logf("%d mails in four sessions, two exchanges of the filter and two of the storage", len(sent))
}
