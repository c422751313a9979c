package program

import (
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stagecoach-mta/stagecoach/sdk/conform"
)

// testLarge is the size of the largest mail here.
const testLarge = 3 << 20

// mode is a way to be broken: the checks that it must fail, and no others of
// those that match among.
type mode struct {
	kind   string
	among  string
	broken string
	fails  []string
}

// Groups of checks that are looked at together.
const (
	starting      = `^(handshake|TLS: nobody|cookie|health: the)`
	describing    = `^(describe|schema)`
	configuring   = `^(configure|ready)`
	answering     = `^(health|calls|deadline|data socket|metrics|describe: says)`
	leaksOnly     = `^leaks`
	endings       = `^(kill|drain: what|drain: returns|end: by|stdout)`
	orphanOnly    = `^end: with`
	filterKind    = `^(interest|mail|envelopes|verdicts|effect|edits|per-recipient|tags|hints|unknown|repeated)`
	deliverKind   = `^(mail|recipients|outcomes|succeeds|repeated)`
	directoryKind = `^(domains|resolve|addresses|login|tokens|SCRAM)`
	accessKind    = `^(greeting|TLS: [fSw]|login|trouble|drain: clients)`
)

var modes = []mode{
	{"filter", starting, "ends before its handshake", []string{"handshake: one"}},
	{"filter", starting, "prints before its handshake", []string{"handshake: one"}},
	{"filter", starting, "does not flush its handshake", []string{"handshake: one"}},
	{"filter", starting, "speaks another version", []string{"handshake: one"}},
	{"filter", starting, "shows no certificate", []string{"handshake: one"}},
	{"filter", starting, "puts its socket elsewhere", []string{"handshake: the socket"}},
	{"filter", starting, "lets everybody in", []string{"TLS: nobody"}},
	{"filter", starting, "silent and content by hand", []string{"cookie"}},
	{"filter", starting, "has no health service", []string{"health: the service"}},
	{"filter", describing, "has no summary", []string{"describe: says"}},
	{"filter", describing, "is of no kind", []string{"describe: says"}},
	{"filter", describing, "changes its version", []string{"describe: the same"}},
	{"filter", describing, "makes a file when it starts", []string{"describe: without"}},
	{"filter", describing, "makes a file when described", []string{"describe: without"}},
	{"filter", describing, "has types of its own", []string{"schema: names"}},
	{"filter", describing, "has semantics of its own", []string{"schema: names"}},
	{"filter", describing, "has the same attribute twice", []string{"schema: names"}},
	{"filter", describing, "gives a required attribute a default", []string{"schema: defaults"}},
	{"filter", configuring, "refuses every configuration", []string{"configure: takes"}},
	{"filter", configuring, "complains without a path", []string{"configure: mistakes"}},
	{"filter", configuring, "complains about another attribute", []string{"configure: mistakes"}},
	{"filter", configuring, "complains by an error", []string{"configure: mistakes"}},
	{"filter", configuring, "takes what is wrong", []string{"configure: mistakes"}},
	{"filter", configuring, "ends at a second Configure", []string{"configure: a second"}},
	{"filter", configuring, "is never ready", []string{"configure: a second", "ready"}},

	{"filter", answering, "is not well", []string{"health: Health"}},
	{"filter", answering, "answers with nothing", []string{"calls: are"}},
	{"filter", answering, "answers twice", []string{"calls: as many"}},
	{"filter", answering, "serves one at a time", []string{"calls: as many"}},
	{"filter", answering, "answers whatever it is asked", []string{"calls: of another"}},
	{"filter", answering, "is deaf to deadlines", []string{"deadline: a call ends soon after it"}},
	{"filter", answering, "is deaf to cancels", []string{"deadline: a call ends soon after its cancel"}},
	{"filter", answering, "counts backwards", []string{"metrics"}},
	{"storage", answering, "opens to a stranger's token", []string{"data socket: opens"}},
	{"directory", answering, "forgets new tokens", []string{"data socket: Rebind"}},

	{"filter", leaksOnly, "keeps memory", []string{"leaks: memory"}},
	{"deliver", leaksOnly, "keeps files open", []string{"leaks: open files"}},
	{"access", leaksOnly, "keeps files open", []string{"leaks: open files"}},
	{"directory", leaksOnly, "keeps threads", []string{"leaks: threads"}},

	{"filter", endings, "leaves a lock behind", []string{"kill"}},
	{"storage", endings, "forgets keys", []string{"kill"}},
	{"storage", endings, "forgets requests", []string{"kill"}},
	{"filter", endings, "cuts calls when it drains", []string{"drain: what"}},
	{"filter", endings, "drains for ever", []string{"drain: returns"}},
	{"filter", endings, "does not hear Shutdown", []string{"end: by Shutdown"}},
	{"filter", endings, "ends with status 1", []string{"end: by Shutdown"}},
	{"filter", endings, "does not hear SIGTERM", []string{"end: by SIGTERM"}},
	{"filter", endings, "prints when it is ready", []string{"stdout"}},
	{"filter", orphanOnly, "outlives its parent", []string{"end: with"}},

	{"filter", filterKind, "asks for names in capitals", []string{"interest"}},
	{"filter", filterKind, "knows no mail without a client", []string{"envelopes"}},
	{"filter", filterKind, "rejects with 250", []string{"verdicts"}},
	{"filter", filterKind, "breaks the line of a reply", []string{"verdicts"}},
	{"filter", filterKind, "mixes codes", []string{"verdicts"}},
	{"filter", filterKind, "edits as a judge", []string{"effect"}},
	{"filter", filterKind, "breaks the header", []string{"edits"}},
	{"filter", filterKind, "edits a file of its own", []string{"edits"}},
	{"filter", filterKind, "judges nobody", []string{"per-recipient"}},
	{"filter", filterKind, "has tags that no route can name", []string{"tags"}},
	{"filter", filterKind, "hints at a level of its own", []string{"hints"}},
	{"filter", filterKind, "injects mail for nobody", []string{"hints"}},
	{"filter", filterKind, "ends at an unknown event", []string{"unknown event"}},
	{"filter", filterKind, "changes its mind", []string{"repeated key"}},

	{"deliver", deliverKind, "forgets recipients", []string{"recipients"}},
	{"deliver", deliverKind, "counts recipients itself", []string{"recipients"}},
	{"deliver", deliverKind, "succeeds with 5.0.0", []string{"outcomes"}},
	{"deliver", deliverKind, "fails for everybody", []string{"succeeds"}},
	{"deliver", deliverKind, "delivers twice", []string{"repeated key"}},

	{"directory", directoryKind, "lists a domain twice", []string{"domains"}},
	{"directory", directoryKind, "claims foreign domains", []string{"resolve: a foreign"}},
	{"directory", directoryKind, "sends its strangers away", []string{"resolve: a stranger"}},
	{"directory", directoryKind, "compares domains with case", []string{"resolve: an address"}},
	{"directory", directoryKind, "has empty aliases", []string{"resolve: an alias"}},
	{"directory", directoryKind, "takes an address as a pattern", []string{"addresses"}},
	{"directory", directoryKind, "panics at an odd address", []string{"addresses"}},
	{"directory", directoryKind, "lets nobody in", []string{"login: the right"}},
	{"directory", directoryKind, "takes longer passwords too", []string{"login: a wrong"}},
	{"directory", directoryKind, "names its strangers", []string{"login of a stranger: is refused in the same"}},
	{"directory", directoryKind, "is quick with strangers", []string{"login of a stranger: is refused as late"}},
	{"directory", directoryKind, "takes an unsigned token", []string{"tokens"}},
	{"directory", directoryKind, "keeps an old verifier", []string{"SCRAM: the verifier"}},
	{"directory", directoryKind, "makes up a new salt each time", []string{"SCRAM: a stranger's"}},
	{"directory", directoryKind, "has one salt for strangers", []string{"SCRAM: a stranger's"}},
	{"directory", directoryKind, "has verifiers for everything", []string{"SCRAM: an unknown"}},

	{"access", accessKind, "hangs up", []string{"greeting", "TLS", "login", "trouble", "drain"}},
	{"access", accessKind, "has no implicit TLS", []string{"TLS: from", "login: under", "login: a wrong", "drain"}},
	{"access", accessKind, "hides STARTTLS", []string{"TLS: STARTTLS"}},
	{"access", accessKind, "obeys what came before TLS", []string{"TLS: what"}},
	{"access", accessKind, "logs in without TLS", []string{"login: none"}},
	{"access", accessKind, "asks before it refuses", []string{"login: none"}},
	{"access", accessKind, "takes no password", []string{"login: under"}},
	{"access", accessKind, "takes every password", []string{"login: a wrong"}},
	{"access", accessKind, "ends at an endless line", []string{"trouble"}},
	{"access", accessKind, "cuts clients off", []string{"drain: clients"}},
}

// allModes adds one for each odd mail.
func allModes() []mode {
	out := slices.Clone(modes)
	for _, l := range conform.Letters(testLarge) {
		fails := []string{"mail: " + l.Name}
		filter, deliver := slices.Clone(fails), slices.Clone(fails)
		if l.Name == conform.Ordinary().Name {
			filter = append(filter, "envelopes", "unknown event")
			deliver = append(deliver, "recipients", "succeeds", "repeated key")
		}
		out = append(out, mode{"filter", filterKind, "fails at mail: " + l.Name, filter}, mode{"deliver", deliverKind, "fails at mail: " + l.Name, deliver})
	}
	return out
}

// look runs the suite on this test's binary.
func look(t *testing.T, kind, broken, among string) *conform.Report {
	t.Helper()
	dir, err := os.MkdirTemp("", "sc") // short, for sockets
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	opts := Options{
		Command: []string{self}, Env: []string{kindEnv + "=" + kind, brokenEnv + "=" + broken, dirEnv + "=" + dir},
		Config: "limit = 5\n", LargeBytes: testLarge,
		Facts: conform.Facts{
			Slow: "limit = 5\nslow = true\n", Wrong: map[string]string{"limit": "limit = -7\n"},
			Address: testUser, Password: testPassword, Alias: testAlias, Witness: filepath.Join(dir, "witness"),
		},
	}
	if broken != "" {
		// What never comes need not be waited for as long as what comes late.
		opts.Start, opts.Drain, opts.Grace = 20*time.Second, time.Second, 4*time.Second
		if strings.Contains(broken, "flush") {
			opts.Start = 2 * time.Second
		}
	}
	r := &conform.Runner{}
	if among != "" {
		r.Match = regexp.MustCompile(among)
	}
	report := r.Run(t.Context(), func(t conform.T) { Run(t, opts) })
	if report.Problem != "" {
		t.Errorf("the run itself failed: %s", report.Problem)
	}
	return report
}

// kinds of plugins.
var kinds = []string{"filter", "deliver", "directory", "storage", "access"}

// TestGood: a plugin with nothing wrong passes every check, and each check has a
// mode in which it fails.
func TestGood(t *testing.T) {
	for _, kind := range kinds {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			among := ""
			if kind == "storage" {
				among = `^[^s]|^schema|^stdout` // not "storage: …"
			}
			report := look(t, kind, "", among)
			for _, r := range report.Results {
				if r.Status != conform.Pass {
					t.Errorf("%s: %s %q %s", r.Check, r.Status, r.Seen, r.Reason)
				}
				if !slices.ContainsFunc(allModes(), func(m mode) bool {
					return slices.ContainsFunc(m.fails, func(f string) bool { return strings.HasPrefix(r.Check, f) })
				}) {
					t.Errorf("%s: no mode breaks it", r.Check)
				}
			}
			if len(report.Results) < 25 {
				t.Errorf("only %d checks were made", len(report.Results))
			}
			t.Logf("%d checks in %.1f s", len(report.Results), report.TookMS/1000)
		})
	}
}

// TestBroken: each mode fails its checks and no others, and says what was seen,
// where it is written and what to do.
func TestBroken(t *testing.T) {
	for _, m := range allModes() {
		t.Run(m.kind+"/"+m.broken, func(t *testing.T) {
			t.Parallel()
			failed := map[string]bool{}
			for _, r := range look(t, m.kind, m.broken, m.among).Results {
				if r.Status != conform.Fail {
					continue
				}
				// What is kept takes memory as well, more of it under the race detector.
				if m.among == leaksOnly && strings.HasPrefix(r.Check, "leaks: memory") && m.broken != "keeps memory" {
					continue
				}
				i := slices.IndexFunc(m.fails, func(f string) bool { return strings.HasPrefix(r.Check, f) })
				if i < 0 {
					t.Errorf("%s failed too: %q", r.Check, r.Seen)
					continue
				}
				failed[m.fails[i]] = true
				if len(r.Seen) == 0 || r.Contract == "" || r.Remedy == "" {
					t.Errorf("%s: seen %q, contract %q, remedy %q", r.Check, r.Seen, r.Contract, r.Remedy)
				}
				t.Logf("%s: %s", r.Check, strings.Join(r.Seen, "\n"))
			}
			for _, f := range m.fails {
				if !failed[f] {
					t.Errorf("%q did not fail; %q did", f, slices.Sorted(maps.Keys(failed)))
				}
			}
		})
	}
}
