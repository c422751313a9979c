package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stagecoach-mta/stagecoach/core/admin"
	"github.com/stagecoach-mta/stagecoach/core/command"
	"github.com/stagecoach-mta/stagecoach/core/demo"
)

// TestMain lets the test binary be the program: plugins and servers that a test
// starts are this binary, re-executed.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && (os.Args[1] == "plugin" || os.Args[1] == "serve") {
		command.CoarseTimers(os.Args[1:])
		tellTimers()
		os.Exit(app().Run(context.Background(), os.Args[1:]))
	}
	os.Exit(m.Run())
}

// run executes a command line in this process.
func run(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	a := app()
	a.Stdin, a.Stdout, a.Stderr = strings.NewReader(""), &out, &errs
	code = a.Run(context.Background(), args)
	return code, out.String(), errs.String()
}

var (
	listens  = regexp.MustCompile(`(?m)^(\s*listen\s*=\s*)(\[.*\]|".*")`)
	ports    = regexp.MustCompile(`"[^"]*"`)
	certKey  = regexp.MustCompile(`(?m)^\s*cert = .*\n\s*key  = .*\n`)
	dataDirs = regexp.MustCompile(`(?m)^data_dir = .*$`)
)

// onLoopback makes a shipped configuration fit for a test: ports chosen by the
// system, a certificate of its own, its data in a temporary folder.
func onLoopback(t *testing.T, file string) (path, dir string) {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	// A short folder: socket paths have little room.
	if dir, err = os.MkdirTemp("", "sc"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	s := listens.ReplaceAllStringFunc(string(b), func(l string) string {
		return ports.ReplaceAllStringFunc(l, func(a string) string {
			if strings.HasSuffix(a, `:465"`) || strings.HasSuffix(a, `:993"`) || strings.HasSuffix(a, `:995"`) {
				return `"tls://127.0.0.1:0"`
			}
			return `"127.0.0.1:0"`
		})
	})
	s = certKey.ReplaceAllString(s, "  self_signed = true\n")
	s = dataDirs.ReplaceAllString(s, `data_dir = "`+dir+`/data"`)
	people, err := os.ReadFile("configs/dev-people.hcl")
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{"people.hcl": people, "dev-people.hcl": people, "test.hcl": []byte(s)} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return filepath.Join(dir, "test.hcl"), dir
}

// TestConfigurations: every shipped configuration says whom it is for, is valid,
// its own tests hold, and a server starts from it and stops.
func TestConfigurations(t *testing.T) {
	t.Setenv("PARTNER_PASSWORD", "secret")
	files, err := filepath.Glob("configs/*.hcl")
	if err != nil {
		t.Fatal(err)
	}
	booted := 0
	for _, file := range files {
		if strings.HasSuffix(file, "-people.hcl") {
			continue
		}
		booted++
		t.Run(filepath.Base(file), func(t *testing.T) {
			src, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.HasPrefix(src, []byte("# For ")) {
				t.Error("it does not begin with a comment that tells who it is for")
			}
			if code, out, _ := run(t, "fmt", "--check", file); code != command.ExitOK {
				t.Errorf("not in the usual form: %s", out)
			}
			path, dir := onLoopback(t, file)
			if code, _, errs := run(t, "validate", "-c", path); code != command.ExitOK {
				t.Fatalf("exit %d:\n%s", code, errs)
			}
			if code, out, errs := run(t, "test", "-c", path); code != command.ExitOK || strings.Contains(out, "0 of 0") {
				t.Errorf("its tests: exit %d\n%s%s", code, out, errs)
			}
			boot(t, path, dir)
		})
	}
	if booted < 5 {
		t.Errorf("%d configurations found", booted)
	}
}

// boot serves until the admin socket answers, then stops.
func boot(t *testing.T, path, dir string) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	a := app()
	var log bytes.Buffer
	a.Stdin, a.Stdout, a.Stderr = strings.NewReader(""), io.Discard, &log
	done := make(chan int, 1)
	go func() { done <- a.Run(ctx, []string{"serve", "-c", path}) }()
	client := admin.NewClient(filepath.Join(dir, "data", "run", "admin.sock"))
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		var st admin.Status
		if err := client.Call(ctx, "GET", "/status", nil, &st); err == nil {
			break
		}
		select {
		case code := <-done:
			t.Fatalf("it ended with %d:\n%s", code, log.String())
		default:
		}
		if time.Now().After(end) {
			cancel()
			<-done
			t.Fatalf("it does not come up:\n%s", log.String())
		}
	}
	cancel()
	if code := <-done; code != command.ExitOK {
		t.Errorf("it stopped with %d:\n%s", code, log.String())
	}
}

// TestDemo plays the whole story with two servers.
func TestDemo(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "sc")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	var out bytes.Buffer
	res, err := demo.Run(context.Background(), demo.Options{Executable: self, AddUser: peopleFile{}.Add, Out: &out, Dir: dir})
	t.Log(out.String())
	if err != nil {
		t.Fatal(err)
	}
	if res.Steps < 15 || res.Held != res.Steps {
		for _, name := range []string{"hanks.example.log", "ryan.example.log"} {
			b, _ := os.ReadFile(filepath.Join(dir, strings.TrimSuffix(name, ".log"), name))
			t.Logf("%s:\n%s", name, b)
		}
		t.Fatalf("%d of %d steps held", res.Held, res.Steps)
	}
}

const untestedConfig = `hostname = "mx.ryan.example"
data_dir = "data"
storage "local" "mail" {}
receive "smtp" "mx" { listen = ["127.0.0.1:2525"] }
route "here" { deliver = deliver.storage.mail }
deliver "storage" "mail" { storage = storage.local.mail }
`

// TestCommandLine: what a person mistypes is answered with a code and a hint.
func TestCommandLine(t *testing.T) {
	dir := t.TempDir()
	bad := filepath.Join(dir, "bad.hcl")
	untested := filepath.Join(dir, "untested.hcl")
	for path, text := range map[string]string{bad: "hostnam = \"mx.ryan.example\"\n", untested: untestedConfig} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		args string
		code int
		says string
	}{
		{"version", command.ExitOK, "stagecoach "},
		{"version --json", command.ExitOK, `"contract": "v1"`},
		{"--help", command.ExitOK, "Exit codes:"},
		{"serv", command.ExitUsage, "unknown command"},
		{"serve --nonsense", command.ExitUsage, "unknown flag"},
		{"help queue list", command.ExitOK, "stagecoach queue list [ID…] [flags]"},
		{"help", command.ExitOK, "Exit codes:"},
		{"help serv", command.ExitUsage, `there is no command "serv"`},
		{"help queue lst", command.ExitUsage, `there is no command "queue lst"`},
		{"validate -c " + bad, command.ExitConfig, "hostname"},
		{"validate --json -c " + bad, command.ExitConfig, "hostname"},
		{"serve -c " + bad, command.ExitConfig, "bad.hcl:1"},
		{"queue list --data-dir " + dir, command.ExitNotRunning, "not running"},
		{"plugin list --bundled", command.ExitOK, "headers"},
		{"plugin describe headers", command.ExitOK, "require"},
		{"plugin describe nothing", command.ExitFailed, "plugin list --bundled"},
		{"fmt " + filepath.Join(dir, "none.hcl"), command.ExitFailed, "there is no file or folder"},
		{"queue list --limit -1 --data-dir " + dir, command.ExitUsage, "0: all"},
		{"explain", command.ExitUsage, "--to"},
		{"explain --to nobody", command.ExitUsage, `--to "nobody" is no address`},
		{"explain --to meg@ryan.example --from meg", command.ExitUsage, `--from "meg" is no address`},
		{"explain --to meg@ryan.example --ip here", command.ExitUsage, `--ip "here" is no IP address`},
		{"explain -c configs/dev.hcl --to meg@ryan.example --listener receive.smtp.none", command.ExitUsage, "receive.smtp.mx, receive.smtp.submission"},
		{"test --json -c " + untested, command.ExitOK, "[]\n"},
		{"test -c " + untested, command.ExitOK, "no test block"},
	} {
		code, out, errs := run(t, strings.Fields(c.args)...)
		if code != c.code || !strings.Contains(out+errs, c.says) {
			t.Errorf("stagecoach %s: exit %d, want %d; it says\n%s%s\nwant %q", c.args, code, c.code, out, errs, c.says)
		}
	}
}

// TestExplainKnowsWhoMayRelay: a mail that the listener would refuse goes nowhere.
func TestExplainKnowsWhoMayRelay(t *testing.T) {
	for _, c := range []struct{ args, says, not string }{
		{"--to annie@reed.example", "554 5.7.1 Relay access denied", "deliver.smtp"},
		{"--to annie@reed.example --user tom@hanks.example", "-> deliver.smtp", "denied"},
		{"--to nobody@ryan.example", "550 5.1.1 No such user here", "->"},
		{"--to meg@ryan.example --to annie@reed.example", "-> deliver.storage.mail", "-> deliver.smtp"},
	} {
		code, out, errs := run(t, strings.Fields("explain -c configs/dev.hcl --no-dns --from tom@hanks.example "+c.args)...)
		if code != command.ExitOK || !strings.Contains(out, c.says) || strings.Contains(out, c.not) {
			t.Errorf("explain %s: exit %d, it says\n%s%s\nwant %q, and not %q", c.args, code, out, errs, c.says, c.not)
		}
	}
}

// TestExplainForMachines: names are one kind, and words are words.
func TestExplainForMachines(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "mx.hcl")
	text := untestedConfig + `
filter "headers" "h" { set = { "X-Seen" = "yes" } }
receive "smtp" "seen" {
  listen  = ["127.0.0.1:2526"]
  filters = [filter.headers.h]
}
`
	if err := os.WriteFile(file, []byte(strings.Replace(text, `route "here" {`, "route \"no\" {\n  when   = recipient.domain == \"ryan.example\"\n  reject = \"closed\"\n}\nroute \"here\" {", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	code, out, errs := run(t, "explain", "-c", file, "--json", "--no-dns", "--listener", "receive.smtp.seen", "--user", "tom@hanks.example",
		"--from", "tom@hanks.example", "--to", "meg@ryan.example", "--to", "annie@reed.example")
	if code != command.ExitOK {
		t.Fatal(code, errs)
	}
	var x any
	if err := json.Unmarshal([]byte(out), &x); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`"listener": "receive.smtp.seen"`, `"filter": "filter.headers.h"`, `"verdict": "accept"`, `"insert X-Seen"`,
		`"code": 550`, `"enhanced": "5.7.1"`, `"text": "closed"`, `"route": "no"`, `"taken": true`, `"deliver": "deliver.storage.mail"`,
	} {
		if !strings.Contains(out, want) {
			t.Errorf("it does not say %s:\n%s", want, out)
		}
	}
	if m := regexp.MustCompile(`"[A-Z][A-Za-z]*":`).FindString(out); m != "" {
		t.Errorf("a name in another style: %s\n%s", m, out)
	}
}

// TestHelpIsComplete: every command and flag says what it is for.
func TestHelpIsComplete(t *testing.T) {
	for _, c := range []string{
		"serve", "validate", "fmt", "test", "explain", "demo", "version", "reload", "plugin list", "plugin describe", "plugin restart",
		"queue list", "queue search", "queue show", "queue stats", "queue export", "queue hold", "queue release", "queue retry",
		"queue bounce", "queue delete", "queue redirect", "queue flush", "trace", "user add", "user password", "user list",
	} {
		code, out, _ := run(t, append(strings.Fields(c), "--help")...)
		if code != command.ExitOK || !strings.Contains(out, "Usage:") {
			t.Errorf("%s --help: exit %d\n%s", c, code, out)
		}
		for _, l := range strings.Split(out, "\n") {
			f := strings.Fields(l)
			if len(f) > 0 && strings.HasPrefix(f[0], "--") && len(f) < 3 {
				t.Errorf("%s: the flag %s is not explained", c, f[0])
			}
		}
	}
}
