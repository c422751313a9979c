package engine

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"github.com/stagecoach-mta/stagecoach/plugins/sieve/script"
)

// Compiler checks scripts.
type Compiler struct {
	Config Config
	Host   Host
	// extra commands and tests by name; the suite's own are such.
	extra map[string]*spec
	once  sync.Once
	known map[string]*spec
}

// New makes a compiler.
func New(config Config, host Host) *Compiler { return &Compiler{Config: config, Host: host} }

// Compile checks a script with all that it includes. With an error among the
// diagnostics there is no Script.
func (c *Compiler) Compile(ctx context.Context, name string, text []byte) (*Script, []script.Diagnostic) {
	c.once.Do(func() { c.known = table() })
	set := &inclusion{compiler: c, commands: c.known, ctx: ctx, scripts: map[string]*Script{}}
	s, diags := set.compile(name, false, text, 0)
	if failed(diags) {
		return nil, diags
	}
	return s, diags
}

func failed(diags []script.Diagnostic) bool {
	return slices.ContainsFunc(diags, func(d script.Diagnostic) bool { return !d.Warning })
}

// inclusion is one compilation with its included scripts.
type inclusion struct {
	compiler *Compiler
	commands map[string]*spec
	ctx      context.Context
	scripts  map[string]*Script
	path     []string
}

func (i *inclusion) compile(name string, global bool, text []byte, depth int) (*Script, []script.Diagnostic) {
	if limit := i.compiler.Config.MaxScript; len(text) > limit {
		return nil, []script.Diagnostic{{Position: script.Position{Line: 1, Column: 1}, Message: fmt.Sprintf("the script has %d octets: at most %d are allowed", len(text), limit)}}
	}
	s := &Script{name: name, requires: map[string]bool{}, global: global, included: i.scripts}
	nodes, diags := script.Parse(text)
	if len(diags) > 0 {
		return s, diags
	}
	v := &validator{set: i, config: &i.compiler.Config, script: s, unknown: map[string]bool{}, variables: map[string]bool{}, globals: map[string]bool{}, depth: depth}
	s.block = v.blockOf(nodes, 0)
	for _, needs := range []string{"variables", "foreverypart"} {
		if s.requires["extracttext"] && !s.requires[needs] {
			v.errorf(script.Position{Line: 1, Column: 1}, "the extension extracttext needs require %q too", needs)
		}
	}
	return s, v.diagnostics
}

// validator checks one script.
type validator struct {
	set         *inclusion
	config      *Config
	script      *Script
	diagnostics []script.Diagnostic
	// unknown words that were told of already.
	unknown   map[string]bool
	variables map[string]bool
	globals   map[string]bool
	depth     int
	loops     []string // foreverypart's names, the innermost last
	begun     bool     // a command other than require was seen
}

func (v *validator) errorf(pos script.Position, format string, args ...any) bool {
	if len(v.diagnostics) < script.MaxDiagnostics {
		v.diagnostics = append(v.diagnostics, script.Diagnostic{Position: pos, Message: fmt.Sprintf(format, args...)})
	}
	return false
}

func (v *validator) warnf(pos script.Position, format string, args ...any) {
	if len(v.diagnostics) < script.MaxDiagnostics {
		v.diagnostics = append(v.diagnostics, script.Diagnostic{Position: pos, Message: fmt.Sprintf(format, args...), Warning: true})
	}
}

// once tells of something unknown the first time only.
func (v *validator) once(pos script.Position, key, format string, args ...any) bool {
	if !v.unknown[key] {
		v.unknown[key] = true
		v.errorf(pos, format, args...)
	}
	return false
}

// required tells whether any of the extensions was asked for.
func (v *validator) required(exts []string) bool {
	if len(exts) == 0 {
		return true
	}
	return slices.ContainsFunc(exts, func(e string) bool { return v.script.requires[e] })
}

// find a command or a test that the script may use.
func (v *validator) find(name string) *spec {
	s := v.set.compiler.extra[name]
	if s == nil {
		s = v.set.commands[name]
	}
	if s == nil || !v.required(s.exts) {
		return nil
	}
	return s
}

func (v *validator) blockOf(nodes []*script.Node, depth int) []*node {
	var out []*node
	for i := range nodes {
		if n := v.command(nodes, i, depth); n != nil {
			out = append(out, n)
		}
	}
	return out
}

func (v *validator) command(siblings []*script.Node, i, depth int) *node {
	raw := siblings[i]
	s := v.find(raw.Name)
	if s == nil {
		v.begun = true
		v.once(raw.Position, raw.Name, "unknown command '%s' (only told once)%s", raw.Name, v.hint(raw.Name))
		return nil
	}
	if s.test {
		v.begun = true
		v.errorf(raw.Position, "attempted to use test '%s' as command", raw.Name)
		return nil
	}
	n := &node{pos: raw.Position, spec: s, in: v.script}
	if s.pre != nil && !s.pre(v, n, i, siblings, depth) {
		return nil
	}
	good := v.check(n, raw)
	if raw.Name != "require" {
		v.begun = true
	}
	if s.tests != 0 || len(raw.Tests) == 0 {
		good = v.testsOf(n, raw) && good
	}
	if s.block && raw.HasBlock && !v.unreachable(siblings, i) {
		leave := v.enter(n)
		n.block = v.blockOf(raw.Block, depth+1)
		leave()
	}
	if !good {
		return nil
	}
	return n
}

// enter notes what holds within a block.
func (v *validator) enter(n *node) func() {
	switch n.spec.name {
	case "foreverypart":
		name := ""
		if t := n.tags["name"]; t != nil {
			name, _ = t.value.constant()
		}
		v.loops = append(v.loops, name)
		return func() { v.loops = v.loops[:len(v.loops)-1] }
	}
	return func() {}
}

// hint names the extension that a word needs.
func (v *validator) hint(name string) string {
	if s := v.set.commands[name]; s != nil && len(s.exts) > 0 {
		return fmt.Sprintf(": write require %q first", s.exts[0])
	}
	return ""
}

func (v *validator) test(raw *script.Node) *node {
	s := v.find(raw.Name)
	if s == nil {
		v.once(raw.Position, raw.Name, "unknown test '%s' (only told once)%s", raw.Name, v.hint(raw.Name))
		return nil
	}
	if !s.test && s.eval == nil {
		v.errorf(raw.Position, "attempted to use command '%s' as test", raw.Name)
		return nil
	}
	n := &node{pos: raw.Position, spec: s, in: v.script}
	good := v.check(n, raw)
	if s.tests != 0 || len(raw.Tests) == 0 {
		good = v.testsOf(n, raw) && good
	}
	if !good {
		return nil
	}
	return n
}

func (v *validator) testsOf(n *node, raw *script.Node) bool {
	good := true
	for _, t := range raw.Tests {
		if sub := v.test(t); sub != nil {
			n.tests = append(n.tests, sub)
		} else {
			good = false
		}
		if raw.Name == "allof" && v.never(t) {
			break // what follows may need what there is not
		}
	}
	return good
}

// unreachable tells whether an ihave (RFC 5463 section 4) keeps a block from ever
// being run: it may be written for another engine.
func (v *validator) unreachable(siblings []*script.Node, i int) bool {
	n := siblings[i]
	if len(n.Tests) == 1 && v.never(n.Tests[0]) {
		return true
	}
	for n.Name == "elsif" || n.Name == "else" {
		if i--; i < 0 {
			return false
		}
		n = siblings[i]
		if len(n.Tests) == 1 && v.always(n.Tests[0]) {
			return true
		}
	}
	return false
}

func (v *validator) never(t *script.Node) bool {
	switch t.Name {
	case "ihave":
		for _, a := range t.Args {
			for _, s := range a.Strings {
				if !v.offers(s.Text) {
					return true
				}
			}
		}
	case "allof":
		return slices.ContainsFunc(t.Tests, v.never)
	case "anyof":
		return len(t.Tests) > 0 && !slices.ContainsFunc(t.Tests, func(n *script.Node) bool { return !v.never(n) })
	case "not":
		return len(t.Tests) == 1 && v.always(t.Tests[0])
	}
	return false
}

func (v *validator) always(t *script.Node) bool {
	switch t.Name {
	case "allof":
		return len(t.Tests) > 0 && !slices.ContainsFunc(t.Tests, func(n *script.Node) bool { return !v.always(n) })
	case "anyof":
		return slices.ContainsFunc(t.Tests, v.always)
	case "not":
		return len(t.Tests) == 1 && v.never(t.Tests[0])
	}
	return false
}

// offers tells whether a script may ask for an extension.
func (v *validator) offers(name string) bool {
	if slices.Contains(v.config.Without, name) {
		return false
	}
	_, known := extensions[name]
	return known || v.set.compiler.extra[name] != nil
}

// check arguments, number of tests and block of a command or a test.
func (v *validator) check(n *node, raw *script.Node) bool {
	if !v.arguments(n, raw) {
		v.subtests(n, raw)
		return false
	}
	if !v.subtests(n, raw) {
		return false
	}
	s := n.spec
	switch {
	case s.test:
	case s.block && !raw.HasBlock:
		return v.errorf(raw.Position, "the %s command requires a command block, but it is missing", s.name)
	case !s.block && raw.HasBlock:
		return v.errorf(raw.Position, "the %s command accepts no command block, but one is specified", s.name)
	}
	if s.check != nil {
		return s.check(v, n)
	}
	return true
}

func (v *validator) subtests(n *node, raw *script.Node) bool {
	s := n.spec
	switch {
	case s.tests == 0 && len(raw.Tests) > 0:
		first := raw.Tests[0]
		if v.tagOf(s, first.Name) != nil {
			return v.errorf(first.Position, "missing colon ':' before ':%s' tag in %s %s", first.Name, s.name, s.word())
		}
		if sub := v.find(first.Name); !raw.List && (sub == nil || !sub.test) {
			return v.errorf(first.Position, "missing semicolon ';' after %s %s", s.name, s.word())
		}
		return v.errorf(first.Position, "the %s %s accepts no sub-tests, but tests are specified", s.name, s.word())
	case s.tests == 1 && len(raw.Tests) == 0:
		return v.errorf(raw.Position, "the %s %s requires one test, but none is specified", s.name, s.word())
	case s.tests == 1 && raw.List:
		return v.errorf(raw.Position, "the %s %s requires one test, but a list of tests is specified", s.name, s.word())
	case s.tests == many && !raw.List && len(raw.Tests) > 0:
		return v.errorf(raw.Position, "the %s %s requires a list of tests in parentheses, but a single test is specified", s.name, s.word())
	case s.tests == many && len(raw.Tests) == 0:
		return v.errorf(raw.Position, "the %s %s requires a list of tests, but none is specified", s.name, s.word())
	}
	return true
}

// tagOf finds a tag that the script may use.
func (v *validator) tagOf(s *spec, name string) *tag {
	for _, t := range s.tags {
		if t.name == name && (t.ext == "" || v.script.requires[t.ext]) {
			return t
		}
	}
	return nil
}

func (v *validator) arguments(n *node, raw *script.Node) bool {
	s := n.spec
	args := raw.Args
	var plain []*script.Argument
	for len(args) > 0 {
		a := args[0]
		args = args[1:]
		if a.Kind != script.Tag {
			plain = append(plain, a)
			continue
		}
		t := v.tagOf(s, a.Name)
		if t == nil {
			return v.once(a.Position, s.name+":"+a.Name, "unknown tagged argument ':%s' for the %s %s (only told once)%s", a.Name, s.name, s.word(), tagHint(s, a.Name))
		}
		if len(plain) > 0 {
			return v.errorf(a.Position, "unexpected tagged argument ':%s' for the %s %s: tagged arguments go before the others", a.Name, s.name, s.word())
		}
		if have := n.tags[t.in()]; have != nil {
			if have.name == t.name {
				return v.errorf(a.Position, "duplicate tagged argument ':%s' for the %s %s", a.Name, s.name, s.word())
			}
			return v.errorf(a.Position, "tagged argument ':%s' of the %s %s conflicts with ':%s'", a.Name, s.name, s.word(), have.name)
		}
		got := &tagged{tag: t, pos: a.Position}
		if t.param != nil {
			if len(args) == 0 {
				return v.errorf(a.Position, "the ':%s' tag of the %s %s requires a %s behind it", a.Name, s.name, s.word(), t.param.want)
			}
			if !t.param.want.takes(args[0].Kind) {
				return v.errorf(args[0].Position, "the ':%s' tag of the %s %s requires a %s behind it, but a %s was found", a.Name, s.name, s.word(), t.param.want, args[0].Kind)
			}
			var ok bool
			if got.value, ok = v.value(args[0]); !ok {
				return false
			}
			args = args[1:]
		}
		if n.tags == nil {
			n.tags = map[string]*tagged{}
		}
		n.tags[t.in()] = got
		if t.check != nil && !t.check(v, n, got) {
			return false
		}
	}
	return v.positional(n, plain)
}

func tagHint(s *spec, name string) string {
	for _, t := range s.tags {
		if t.name == name && t.ext != "" {
			return fmt.Sprintf(": write require %q first", t.ext)
		}
	}
	return ""
}

func (v *validator) positional(n *node, plain []*script.Argument) bool {
	s := n.spec
	if len(plain) > len(s.args) || len(plain) < len(s.args)-s.optional {
		return v.errorf(n.pos, "the %s %s requires %d positional argument(s), but %d is specified", s.name, s.word(), len(s.args), len(plain))
	}
	params := s.args
	if s.optional > 0 && len(plain) < len(params) && leading(s) {
		params = params[len(params)-len(plain):]
		n.args = make([]value, len(s.args)-len(plain), len(s.args))
	}
	for i, a := range plain {
		if p := params[i]; !p.want.takes(a.Kind) {
			return v.errorf(a.Position, "the %s %s expects a %s as argument %d (%s), but a %s was found", s.name, s.word(), p.want, i+1, p.name, a.Kind)
		}
		val, ok := v.value(a)
		if !ok {
			return false
		}
		n.args = append(n.args, val)
	}
	return true
}

// leading tells that a command's first argument is the one that may be left out,
// as imap4flags has it.
func leading(s *spec) bool {
	return len(s.args) > 1 && s.args[0].name == "variable name" || s.args[0].name == "variable list"
}

func (v *validator) value(a *script.Argument) (value, bool) {
	out := value{pos: a.Position, kind: a.Kind, number: a.Number}
	good := true
	for _, s := range a.Strings {
		c, ok := v.compile(s)
		out.strs = append(out.strs, c)
		good = good && ok
	}
	return out, good
}
