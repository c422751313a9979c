package main

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stagecoach-mta/stagecoach/core/command"
	"github.com/stagecoach-mta/stagecoach/plugins"
	"github.com/stagecoach-mta/stagecoach/plugins/milter/miltertest"
	"github.com/stagecoach-mta/stagecoach/sdk/conform"
)

// tried is how a plugin is tried: its block, facts of it, and the checks that
// cannot be made of it.
type tried struct {
	block, facts string
	skipped      []string
	prepare      func(dir string) error         // what the block needs in DIR
	serve        func(t testing.TB, dir string) // whom it talks to, until the test ends
}

const noMistakes = "configure: mistakes point at their attribute"

// noTokens: the block names no issuer of tokens.
const noTokens = "tokens: what is none is DENIED"

// bundled has every plugin of plugins.Bundled. DIR is a directory of the test's.
var bundled = map[string]tried{
	"arcsign": {
		block: `filter "arcsign" "forwarded" {
  domain      = "hanks.example"
  keys        = "DIR/dkim"
  authserv_id = "mx.hanks.example"
}`,
		facts: `wrong    = { domain = "domain = \"hanks\"" }
messages = ["DIR/verified.eml"]`,
		prepare: func(dir string) error {
			if err := os.WriteFile(filepath.Join(dir, "verified.eml"), []byte("Authentication-Results: mx.hanks.example; spf=pass\r\nFrom: tom@hanks.example\r\n\r\nHi\r\n"), 0o600); err != nil {
				return err
			}
			_, err := signingKeys{}.Make(filepath.Join(dir, "dkim"), "hanks.example", "", "rsa", 1024)
			return err
		},
	},
	"authverify": {
		// Nobody answers at that address: everything is temperror at once.
		block: `filter "authverify" "inbound" { resolvers = ["127.0.0.1:9"] }`,
		facts: `wrong = { resolvers = "resolvers = [\"ns.example\"]" }`,
	},
	"dkimsign": {
		block: `filter "dkimsign" "ours" {
  keys     = "DIR/dkim"
  networks = ["192.0.2.1"]
}`,
		facts: `wrong = { domain = "domain = \"hanks\"" }`,
		prepare: func(dir string) error {
			_, err := signingKeys{}.Make(filepath.Join(dir, "dkim"), "hanks.example", "", "ed25519", 0)
			return err
		},
	},
	"dnsbl": {
		// Nobody answers at that address: no list counts.
		block: `filter "dnsbl" "lists" {
  resolvers = ["127.0.0.1:9"]
  list "bl.example" {}
}`,
		facts:   `wrong = { resolvers = "resolvers = [\"ns.example\"]\nlist \"bl.example\" {}" }`,
		skipped: []string{"edits: fit the message"},
	},
	"exec": {
		block: `filter "exec" "sign" {
  command = ["/bin/sh", "-c", "cat > /dev/null; echo X-Seen-By: mx"]
  mode    = "headers"
}`,
		facts: `slow = "command = [\"/bin/sleep\", \"600\"]"`,
	},
	"file": {
		block:   `directory "file" "people" { path = "DIR/people.hcl" }`,
		facts:   `address = "meg@ryan.example"` + "\n" + `password = "sleepless"` + "\n" + `alias = "both@ryan.example"`,
		skipped: []string{noMistakes, noTokens},
	},
	"greylist": {
		block: `filter "greylist" "calm" {
  spf = false
}`,
		facts:   `wrong = { delay = "delay = \"0s\"" }`,
		skipped: []string{"edits: fit the message"},
	},
	"headers": {
		block: `filter "headers" "house" {
  remove = ["Subject"]
  add    = { "X-Seen-By" = "mx" }
}`,
		facts: `wrong = { add = "add = { \"No Name\" = \"x\" }" }`,
	},
	"imap":    {},
	"local":   {},
	"maildir": {skipped: []string{noMistakes}},
	"managesieve": {
		block: `access "managesieve" "sieve" { scripts = "DIR/sieve" }`,
		facts: `wrong = { max_scripts = "scripts = \"DIR/sieve\"\nmax_scripts = 0" }`,
		// The suite knows IMAP's and POP3's greeting; the plugin's own tests speak its
		// protocol.
		skipped: []string{
			"greeting: a client on the listener is greeted", "TLS: from the first octet where it is implicit", "TLS: STARTTLS is offered and works",
			"TLS: what came before it is not obeyed behind it", "trouble: endless lines, binary and early ends harm nobody else",
			"login: none in the clear", "login: under TLS the right password is taken", "login: a wrong password is refused", "drain: clients are told to go",
		},
	},
	"milter": {
		block: `filter "milter" "scan" { address = "unix:DIR/milter.sock" }`,
		facts: `wrong = { address = "address = \"localhost:8891\"" }`,
		serve: func(t testing.TB, dir string) {
			l, err := net.Listen("unix", filepath.Join(dir, "milter.sock"))
			if err != nil {
				t.Fatal(err)
			}
			s := miltertest.Serve(l, miltertest.Script{Actions: 1, Answer: func(command byte, _ string) []miltertest.Packet {
				if command == 'E' {
					return []miltertest.Packet{miltertest.Say('h', "X-Seen-By", "milter"), {Code: 'a'}}
				}
				return miltertest.Continue()
			}})
			t.Cleanup(s.Close)
		},
	},
	"pipe": {
		block: `deliver "pipe" "tickets" { command = ["/bin/cat"] }`,
		facts: `slow = "command = [\"/bin/sleep\", \"600\"]"`,
	},
	"policy": {
		block: `filter "policy" "server" { address = "unix:DIR/policy.sock" }`,
		facts: `wrong = { address = "address = \"private/policy\"" }`,
		serve: func(t testing.TB, dir string) {
			answering(t, filepath.Join(dir, "policy.sock"), func(c net.Conn) {
				for lines := bufio.NewScanner(c); lines.Scan(); {
					if lines.Text() == "" {
						_, _ = io.WriteString(c, "action=PREPEND X-Seen-By: policy\n\n")
					}
				}
			})
		},
	},
	"pop3": {},
	"sieve": {
		block: `filter "sieve" "users" { scripts = "DIR/sieve" }`,
		facts: `wrong = { max_actions = "scripts = \"DIR/sieve\"\nmax_actions = 0" }`,
		// Without a user's script it edits nothing.
		skipped: []string{"edits: fit the message"},
	},
	"ratelimit": {
		block: `filter "ratelimit" "users" {
  limit "users" {
    by  = ["sender"]
    max = 1000000
  }
}`,
		facts:   `wrong = { max_keys = "max_keys = 0\nlimit \"a\" {\n by = [\"user\"]\n max = 1\n}" }`,
		skipped: []string{"edits: fit the message"},
	},
	"rules": {
		block: `filter "rules" "policy" {
  rule "large" {
    when    = message.size > 1048576
    headers = { "X-Large" = "yes" }
  }
}`,
		facts: `wrong = { rule = "rule \"a\" {\n when = true\n}" }`,
	},
	"bcc": {
		block: `filter "bcc" "archive" {
  copy "archive@ryan.example" {}
}`,
		facts: `wrong = { copy = "copy \"archive\" {}" }`,
	},
	"helo": {
		// Nobody answers at that address: what needs the DNS is no fault.
		block:   `filter "helo" "strangers" { resolvers = ["127.0.0.1:9"] }`,
		facts:   `wrong = { own = "own = [\"mx\"]" }`,
		skipped: []string{"edits: fit the message"},
	},
	"recipients": {
		block:   `filter "recipients" "few" {}`,
		facts:   `wrong = { strangers = "strangers = -1" }`,
		skipped: []string{"edits: fit the message"},
	},
	"subaddress": {
		block: `filter "subaddress" "old" {}`,
		facts: `wrong = { separators = "separators = \"@\"" }`,
		// The suite's recipients have no detail.
		skipped: []string{"edits: fit the message"},
	},
	"tarpit": {
		block:   `filter "tarpit" "strangers" {}`,
		facts:   `wrong = { banner = "banner = \"61s\"" }`,
		skipped: []string{"edits: fit the message"},
	},
	"attachments": {
		block:   `filter "attachments" "strict" {}`,
		facts:   `wrong = { max_depth = "max_depth = 0" }`,
		skipped: []string{"edits: fit the message"},
	},
	"clamav": {
		block: `filter "clamav" "virus" { address = "unix:DIR/clamd.sock" }`,
		facts: `wrong = { address = "address = \"/run/clamd.ctl\"" }`,
		serve: func(t testing.TB, dir string) {
			answering(t, filepath.Join(dir, "clamd.sock"), func(c net.Conn) {
				r := bufio.NewReader(c)
				if _, err := r.ReadString(0); err != nil {
					return
				}
				for n := uint32(1); n > 0; {
					if binary.Read(r, binary.BigEndian, &n) != nil {
						return
					}
					if _, err := io.CopyN(io.Discard, r, int64(n)); err != nil {
						return
					}
				}
				_, _ = io.WriteString(c, "stream: OK\x00")
			})
		},
		skipped: []string{"edits: fit the message"}, // it only judges
	},
	"rspamd": {
		block: `filter "rspamd" "spam" { servers = ["unix:DIR/rspamd.sock"] }`,
		facts: `wrong = { servers = "servers = [\"127.0.0.1\"]" }`,
		serve: func(t testing.TB, dir string) {
			sayingJSON(t, filepath.Join(dir, "rspamd.sock"), `{"action": "add header", "score": 7, "required_score": 15, "symbols": {"A": {"score": 7}}}`)
		},
	},
	"spamd": {
		block: `filter "spamd" "spam" { servers = ["unix:DIR/spamd.sock"] }`,
		facts: `wrong = { servers = "servers = [\"127.0.0.1\"]" }`,
		serve: func(t testing.TB, dir string) {
			answering(t, filepath.Join(dir, "spamd.sock"), func(c net.Conn) {
				r := bufio.NewReader(c)
				var n int64
				for line := " "; strings.TrimSpace(line) != "" || n == 0; {
					var err error
					if line, err = r.ReadString('\n'); err != nil {
						return
					}
					if length, ok := strings.CutPrefix(line, "Content-length: "); ok {
						n, _ = strconv.ParseInt(strings.TrimSpace(length), 10, 64)
					}
				}
				if _, err := io.CopyN(io.Discard, r, n); err != nil {
					return
				}
				_, _ = io.WriteString(c, "SPAMD/1.1 0 EX_OK\r\nSpam: True ; 7.0 / 5.0\r\n\r\nX-Spam-Flag: YES\r\nX-Spam-Status: Yes, tests=A\r\n\r\n")
			})
		},
	},
	"srs": {
		block: `filter "srs" "forwarded" {
  domain  = "ryan.example"
  secrets = ["sleepless in seattle"]
}`,
		facts: `wrong = { domain = "domain = \"ryan\"\nsecrets = [\"sleepless in seattle\"]" }`,
	},
	"srsreverse": {
		block: `directory "srsreverse" "bounces" {
  domain  = "ryan.example"
  secrets = ["sleepless in seattle"]
}`,
		facts: `wrong   = { domain = "domain = \"ryan\"\nsecrets = [\"sleepless in seattle\"]" }
unknown = "SRS0=aaaaaa=aa=hanks.example=tom@ryan.example"`,
		// It has no users, and its aliases are made by the filter.
		skipped: []string{
			"resolve: an address is a mailbox, in any case", "resolve: an alias has targets", "login: the right password is taken",
			"login: a wrong password is DENIED", "login of a stranger: is refused as late", noTokens,
			"SCRAM: the verifier fits the password", "SCRAM: a stranger's salt is made up and stable",
		},
	},
}

// answering serves a socket until the test ends.
func answering(t testing.TB, path string, each func(net.Conn)) {
	t.Helper()
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				each(c)
			}()
		}
	}()
}

// sayingJSON answers every HTTP request with this JSON.
func sayingJSON(t testing.TB, path, said string) {
	t.Helper()
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, said)
	}), ReadHeaderTimeout: time.Minute}
	t.Cleanup(func() { _ = s.Close() })
	go func() { _ = s.Serve(l) }()
}

// conformed runs the command with these arguments and reads what it prints.
func conformed(t *testing.T, c tried, args ...string) (code int, report *conform.Report) {
	t.Helper()
	dir := t.TempDir()
	people, err := os.ReadFile("configs/dev-people.hcl")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "people.hcl"), people, 0o600); err != nil {
		t.Fatal(err)
	}
	if c.prepare != nil {
		if err := c.prepare(dir); err != nil {
			t.Fatal(err)
		}
	}
	if c.serve != nil {
		c.serve(t, dir)
	}
	args = append([]string{"plugin", "conform"}, args...)
	for flag, text := range map[string]string{"--config": c.block, "--facts": c.facts} {
		if text == "" {
			continue
		}
		file := filepath.Join(dir, strings.TrimLeft(flag, "-")+".hcl")
		if err := os.WriteFile(file, []byte(strings.ReplaceAll(text, "DIR", dir)), 0o600); err != nil {
			t.Fatal(err)
		}
		args = append(args, flag, file)
	}
	code, out, errs := run(t, append(args, "--json", "--largest", "5MB")...)
	if err := json.Unmarshal([]byte(out), &report); err != nil {
		t.Fatalf("exit %d, %v:\n%s%s", code, err, out, errs)
	}
	return code, report
}

// hold says which checks did not come out as they should.
func (c tried) hold(t *testing.T, code int, report *conform.Report) {
	t.Helper()
	for _, r := range report.Results {
		if expected := slices.Contains(c.skipped, r.Check); r.Status == conform.Fail || r.Status == conform.Skip && !expected || r.Status == conform.Pass && expected {
			t.Errorf("%s: %s %s%s", r.Status, r.Check, r.Reason, strings.Join(r.Seen, "\n"))
		}
	}
	if code != command.ExitOK || report.Problem != "" {
		t.Errorf("exit %d, problem %q", code, report.Problem)
	}
	t.Logf("%d passed, %d skipped in %.1f s", report.Passed, report.Skipped, report.TookMS/1000)
}

// raced tells whether this is the race detector's build.
func raced() bool {
	info, ok := debug.ReadBuildInfo()
	return ok && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"})
}

// TestBundledConform: every bundled plugin passes what is asked of anybody's.
func TestBundledConform(t *testing.T) {
	for _, p := range plugins.Bundled() {
		t.Run(p.Name, func(t *testing.T) {
			t.Parallel()
			c, ok := bundled[p.Name]
			if !ok {
				t.Fatal("it is not tried: add it to the table")
			}
			args := []string{p.Name}
			if raced() {
				// Without "leaks: …": the detector's own memory grows with the calls.
				checks := `^[^l]`
				if slices.Contains([]string{"local", "maildir"}, p.Name) {
					// Nor "storage: …", which are most of the time: the packages' own
					// tests make them under the race detector.
					checks = `^[^ls]|^schema|^stdout`
				}
				args = append(args, "--run", checks)
			}
			code, report := conformed(t, c, args...)
			c.hold(t, code, report)
		})
	}
}

// TestExampleConforms: the example passes as its author would try it.
func TestExampleConforms(t *testing.T) {
	t.Parallel()
	bin := filepath.Join(t.TempDir(), "attachments")
	if out, err := exec.Command("go", "build", "-o", bin, "./examples/attachments").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	c := tried{
		block:   `filter "attachments" "no_exe" { forbid = [".exe"] }`,
		facts:   `wrong = { forbid = "forbid = [\"exe\"]" }`,
		skipped: []string{"edits: fit the message"}, // it only judges
	}
	code, report := conformed(t, c, bin)
	c.hold(t, code, report)
}

// TestConformSaysWhatToDo: a failure tells what was seen, where it is written and
// what to do, in text and in the exit code; what cannot be run says why.
func TestConformSaysWhatToDo(t *testing.T) {
	dir := t.TempDir()
	script := filepath.Join(dir, "plugin")
	if err := os.WriteFile(script, []byte("#!/bin/sh\necho starting up\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	code, out, errs := run(t, "plugin", "conform", script)
	if code != command.ExitTest || errs != "" {
		t.Errorf("exit %d, want %d; stderr %q", code, command.ExitTest, errs)
	}
	for _, want := range []string{
		"FAIL", `no handshake: "starting up"`, "contract  plugin.proto", "do        print that line first",
		`skip`, "the plugin does not start: see the check", "The plugin: 0 passed, 1 failed",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("the output lacks %q:\n%s", want, out)
		}
	}
	if n := strings.Count(out, "the plugin does not start"); n != 1 {
		t.Errorf("one reason is told %d times:\n%s", n, out)
	}
	config := filepath.Join(dir, "config.hcl")
	if err := os.WriteFile(config, []byte("\nfilter \"headers\" \"x\" {\n  addd = 1\n}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		args []string
		code int
		want string
	}{
		"no such program":   {[]string{"./nothing"}, command.ExitFailed, "./nothing"},
		"no program at all": {nil, command.ExitUsage, "stagecoach plugin conform PATH"},
		"a wrong pattern":   {[]string{"headers", "--run", "("}, command.ExitUsage, "--run"},
		"no check of that":  {[]string{"headers", "--run", "^nothing$"}, command.ExitFailed, `no check's name matches "^nothing$"`},
		"a wrong size":      {[]string{"headers", "--largest", "big"}, command.ExitUsage, "50MB"},
		"a wrong config":    {[]string{"headers", "--run", "^mail", "--config", config}, command.ExitFailed, config + " line 3"},
		"no config":         {[]string{"pipe", "--run", "^mail"}, command.ExitFailed, `"command" is required`},
	} {
		if code, _, errs := run(t, append([]string{"plugin", "conform"}, c.args...)...); code != c.code || !strings.Contains(errs, c.want) {
			t.Errorf("%s: exit %d, want %d with %q:\n%s", name, code, c.code, c.want, errs)
		}
	}
}
