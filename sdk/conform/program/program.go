// Package program is the conformance suite of a plugin's process, in any
// language: what every kind owes to the core that starts it (handshake, TLS,
// Describe, Configure, calls, deadlines, crashes, drain, end), and then the
// suite of its kind, over the wire. `stagecoach plugin conform` runs it, and so
// does an author's `go test`:
//
//	program.Run(conform.Test(t), program.Options{Command: []string{"python3", "subject.py"}})
//
// It is not a test of the core: it starts processes by itself, without sandbox
// and supervision.
//
// The checks, before and after those of the kind:
//
//	handshake: …   one line, flushed, right versions, socket where it was told
//	TLS: …         nobody but the core gets in
//	cookie: …      started by hand it says what it is and ends
//	health: …      the health service serves; Health answers at once
//	describe: …    says what the plugin is, the same each time, without effect
//	schema: …      types, semantics and defaults fit, and can be documented
//	configure: …   takes the configuration, points at mistakes, survives a second
//	ready: …       returns
//	calls: …       answered, many at once, another kind's and unknown ones refused
//	deadline: …    a call ends soon after its deadline, or its cancel
//	data socket: … opens to granted tokens only, and to new ones after Rebind
//	metrics: …     can be shown
//	leaks: …       memory, files and threads do not grow with the calls
//	kill: …        after SIGKILL in mid-call the next process answers the same keys
//	drain: …       what is under way is finished, in time
//	end: …         by Shutdown, by SIGTERM, with its parent
//	stdout: …      holds the handshake alone
package program

import (
	"crypto/elliptic"
	"crypto/tls"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/zclconf/go-cty/cty"

	"github.com/stagecoach-mta/stagecoach/sdk/conform"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// Options of a run. Command is required.
type Options struct {
	// Command is the program and its arguments.
	Command []string
	// Env is added to the few variables that the core passes on.
	Env []string
	// Config is the text between the block's braces; ConfigFile names it in
	// errors.
	Config, ConfigFile string
	Facts              conform.Facts
	// LargeBytes is the size of the largest mail; 0: conform.DefaultLarge.
	LargeBytes int64
	// Start is how long a process may take to its handshake; 0: 30 s.
	Start time.Duration
	// Drain is what a drain is given; 0: 3 s.
	Drain time.Duration
	// Grace is how late an end, an answer or a cancel may be; 0: 5 s. On a busy
	// machine nothing is ever on time.
	Grace time.Duration
}

// Run makes all checks and returns what the plugin is; nil if it could not be
// asked. A command that cannot be started fails t itself.
func Run(t conform.T, opts Options) *v1.DescribeResponse {
	t.Helper()
	s := &suite{opts: opts}
	if len(opts.Command) == 0 {
		t.Fatalf("no program to start")
	}
	path, err := exec.LookPath(opts.Command[0])
	if err == nil {
		path, err = filepath.Abs(path)
	}
	if err != nil {
		t.Fatalf("%v", err)
	}
	s.opts.Command = append([]string{path}, opts.Command[1:]...)
	if s.opts.Start == 0 {
		s.opts.Start = 30 * time.Second
	}
	if s.opts.Drain == 0 {
		s.opts.Drain = 3 * time.Second
	}
	if s.opts.Grace == 0 {
		s.opts.Grace = 5 * time.Second
	}
	if s.opts.ConfigFile == "" {
		s.opts.ConfigFile = "the configuration"
	}
	// Short: a socket's path has little room.
	if s.dir, err = os.MkdirTemp("", "conform"); err != nil {
		t.Fatalf("%v", err)
	}
	t.Cleanup(s.close)
	s.spool = filepath.Join(s.dir, "spool")
	if err := os.Mkdir(s.spool, 0o700); err != nil {
		t.Fatalf("%v", err)
	}
	if s.cert, s.certPEM, _, err = conform.Certificate(elliptic.P521()); err != nil {
		t.Fatalf("%v", err)
	}
	s.startup(t)
	if s.blocked == "" {
		s.known(t)
		s.decode(t)
	}
	s.configuring(t)
	s.serving(t)
	s.ending(t)
	return s.describe
}

// suite is one run.
type suite struct {
	opts    Options
	dir     string
	spool   string
	cert    tls.Certificate
	certPEM []byte

	describe *v1.DescribeResponse
	// value is the configuration, and js and pack its forms on the wire.
	value    cty.Value
	js, pack []byte

	// blocked is why no later check can be made.
	blocked string
	// shared is the process that checks which leave no trace use in turn.
	shared *process
	// all processes ever started.
	all     []*process
	access  *accessPeers
	samples []usage
	seq     int
}

func (s *suite) close() {
	for _, p := range s.all {
		p.kill()
	}
	if s.access != nil {
		s.access.stop()
	}
	os.RemoveAll(s.dir)
}

// check makes a check that is skipped when something before it failed that it
// needs. needed marks it as such a one itself, in words that go on "because ".
func (s *suite) check(t conform.T, needed string, c conform.Check) {
	do := c.Do
	c.Do = func(t conform.T) {
		s.need(t)
		do(t)
	}
	if !t.Run(c) && needed != "" && s.blocked == "" {
		s.blocked = fmt.Sprintf("%s: see the check %q", needed, c.Name)
	}
}

// need skips a check that cannot be made.
func (s *suite) need(t conform.T) {
	t.Helper()
	if s.blocked != "" {
		t.Skipf("%s", s.blocked)
	}
}

// known asks what the plugin is, where the check that does so was not selected.
func (s *suite) known(t conform.T) {
	t.Helper()
	if s.describe != nil {
		return
	}
	p := s.mustStart(t)
	d, err := p.api.Describe(t.Context(), &v1.DescribeRequest{CoreVersion: "conform"})
	if err != nil {
		t.Fatalf("Describe: %v; %s", err, p.state())
	}
	s.describe = d
	p.kill()
}

func (s *suite) kind() v1.Kind { return s.describe.GetKind() }

// launched starts a process that the check's cleanup ends.
func (s *suite) launched(t conform.T, l launch) (*process, error) {
	p, err := s.start(t.Context(), l)
	if err == nil {
		s.all = append(s.all, p)
		t.Cleanup(p.kill)
	}
	return p, err
}

// mustStart is launched for checks that can do nothing without.
func (s *suite) mustStart(t conform.T) *process {
	t.Helper()
	p, err := s.launched(t, launch{})
	if err != nil {
		t.Fatalf("%v", err)
	}
	return p
}
