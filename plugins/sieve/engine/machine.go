package engine

import (
	"context"
	"errors"
	"time"
)

// Envelope of the message that a script judges.
type Envelope struct {
	// From is the reverse-path, "" the null one; To the recipient, Original the
	// one that the sender named; Auth who sent it, if that is known.
	From, To, Original, Auth string
	// Address is the user's own, if the operator says it.
	Address string
	// Account of the user.
	Account string
}

// Input of a run.
type Input struct {
	Message  *Message
	Envelope Envelope
	// Now is the time of the run.
	Now time.Time
	// Environment has items for the environment test beside the engine's own.
	Environment map[string]string
	// Flags that the message has.
	Flags []string
}

// Run executes a script. Its Result holds also when it failed: with an error,
// nothing of it but the implicit keep is to be done (RFC 5228 section 2.10.6).
func (c *Compiler) Run(ctx context.Context, s *Script, in *Input) (*Result, error) {
	m := c.machine(ctx, in)
	return m.run(s)
}

func (c *Compiler) machine(ctx context.Context, in *Input) *machine {
	m := &machine{
		c: &c.Config, host: c.Host, ctx: ctx, in: in, msg: in.Message, original: in.Message,
		globals: map[string]string{}, steps: c.Config.MaxSteps, once: map[string]bool{}, seen: map[string]bool{},
		result: &Result{ImplicitKeep: true}, flags: in.Flags,
	}
	m.scope = &scope{variables: map[string]string{}}
	return m
}

func (m *machine) run(s *Script) (*Result, error) {
	err := m.block(s.block)
	if errors.Is(err, errStop) || errors.Is(err, errReturn) {
		err = nil
	}
	if m.finish(); err != nil {
		m.result.fail(m)
	}
	return m.result, err
}

// finish notes what the implicit keep would store.
func (m *machine) finish() {
	m.result.Warnings, m.result.final, m.result.flags = m.warnings, m.msg, m.flags
}

// machine is one run.
type machine struct {
	c        *Config
	host     Host
	ctx      context.Context
	in       *Input
	msg      *Message // as edited so far
	original *Message
	result   *Result
	steps    int64
	warnings []error

	scope   *scope
	globals map[string]string
	matched []string
	flags   []string
	depth   int
	once    map[string]bool
	seen    map[string]bool
	// parts of foreverypart, the innermost last.
	parts []*Part
	// notices and regexes made in this run.
	regexes map[string]*program
}

// scope has the variables of one script.
type scope struct {
	variables map[string]string
	globals   map[string]bool
}

var (
	errStop   = errors.New("stop")
	errReturn = errors.New("return")
)

// breaking ends a foreverypart.
type breaking struct{ name string }

func (b *breaking) Error() string { return "break" }

var errSteps = errors.New("the script takes too long: its CPU time is used up")

// spend counts work: one step, and one more for every 64 octets.
func (m *machine) spend(octets int64) { m.steps -= 1 + octets/64 }

func (m *machine) block(nodes []*node) error {
	taken := false // of an if chain
	for _, n := range nodes {
		m.spend(0)
		switch {
		case m.steps <= 0:
			return n.errorf("%s", errSteps)
		case m.ctx.Err() != nil:
			return n.errorf("the script was stopped: %s", m.ctx.Err())
		}
		var err error
		switch n.spec.name {
		case "if", "elsif":
			if n.spec.name == "if" {
				taken = false
			}
			if taken {
				continue
			}
			if taken, err = m.test(n.tests[0]); err == nil && taken {
				err = m.block(n.block)
			}
		case "else":
			if !taken {
				err = m.block(n.block)
			}
		default:
			err = n.spec.run(m, n)
		}
		if err != nil {
			return m.place(n, err)
		}
	}
	return nil
}

// place gives an error without one its place.
func (m *machine) place(n *node, err error) error {
	var placed *Error
	var b *breaking
	if errors.As(err, &placed) || errors.As(err, &b) || errors.Is(err, errStop) || errors.Is(err, errReturn) || errors.Is(err, errTest) {
		return err
	}
	return n.errorf("%s", err)
}

// errTest ends a test of the suite.
var errTest = errors.New("the test has failed")

func (m *machine) test(n *node) (bool, error) {
	m.spend(0)
	if m.steps <= 0 {
		return false, n.errorf("%s", errSteps)
	}
	ok, err := n.spec.eval(m, n)
	if err != nil {
		return false, m.place(n, err)
	}
	return ok, nil
}

// warn notes what does not stop the script.
func (m *machine) warn(n *node, format string, args ...any) {
	if len(m.warnings) < 100 {
		m.warnings = append(m.warnings, n.errorf(format, args...))
	}
}

func (m *machine) variable(namespace, name string) string {
	switch {
	case namespace == "global" || namespace == "" && m.scope.globals[name]:
		return m.globals[name]
	case namespace == "":
		return m.scope.variables[name]
	}
	return m.environment(namespace + "." + name)
}

func (m *machine) set(namespace, name, value string) {
	value = clip(value, m.c.MaxVariable)
	if namespace == "global" || m.scope.globals[name] {
		m.globals[name] = value
		return
	}
	m.scope.variables[name] = value
}
