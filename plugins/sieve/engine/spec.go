package engine

import (
	"strconv"

	"github.com/stagecoach-mta/stagecoach/plugins/sieve/script"
)

func itoa(n int) string { return strconv.Itoa(n) }

// many tests, as anyof has them.
const many = -1

// kinds of parameters.
type want uint8

const (
	wantString want = iota
	wantList
	wantNumber
)

func (w want) String() string { return [...]string{"string", "string list", "number"}[w] }

func (w want) takes(k script.Kind) bool {
	switch w {
	case wantString:
		return k == script.Text
	case wantList:
		return k == script.Text || k == script.List
	default:
		return k == script.Number
	}
}

// param is a positional argument.
type param struct {
	name string
	want want
}

// tag is a tagged argument.
type tag struct {
	name string
	// ext that must be required for it; "" none beyond the command's.
	ext string
	// group of tags of which one may stand; "" is its own name.
	group string
	param *param
	check func(v *validator, n *node, t *tagged) bool
}

func (t *tag) in() string {
	if t.group != "" {
		return t.group
	}
	return t.name
}

// spec is a command or a test.
type spec struct {
	name string
	// exts: any of them makes it known; none: it always is.
	exts     []string
	test     bool
	args     []param
	optional int // how many of the last arguments may be left out
	tests    int
	block    bool
	tags     []*tag
	// pre is asked before the arguments are looked at.
	pre   func(v *validator, n *node, at int, siblings []*script.Node, depth int) bool
	check func(v *validator, n *node) bool
	run   func(m *machine, n *node) error
	eval  func(m *machine, n *node) (bool, error)
}

func (s *spec) word() string {
	if s.test {
		return "test"
	}
	return "command"
}

// value is a positional argument or a tag's parameter.
type value struct {
	pos    script.Position
	kind   script.Kind
	number uint64
	strs   []str
}

// constant is the only string, if it is known before the run.
func (v *value) constant() (string, bool) {
	if len(v.strs) != 1 {
		return "", false
	}
	return v.strs[0].constant()
}

type tagged struct {
	*tag
	pos   script.Position
	value value
}

// node is a checked command or test.
type node struct {
	pos   script.Position
	spec  *spec
	args  []value
	tags  map[string]*tagged
	tests []*node
	block []*node
	// next is the command behind it in an if chain's sense: the branches of if.
	match *matcher
	data  any
	in    *Script
}

func (n *node) has(group string) bool { return n.tags[group] != nil }

// is tells whether the tag of that name was given.
func (n *node) is(group, name string) bool { t := n.tags[group]; return t != nil && t.name == name }

// text is a string argument's value.
func (n *node) text(m *machine, i int) string { return n.args[i].strs[0].eval(m) }

// list is a string list argument's values.
func (n *node) list(m *machine, i int) []string { return n.args[i].eval(m) }

func (v *value) eval(m *machine) []string {
	out := make([]string, len(v.strs))
	for i := range v.strs {
		out[i] = v.strs[i].eval(m)
	}
	return out
}

// tagText is the string of a tag; "" and false if it was not given.
func (n *node) tagText(m *machine, group string) (string, bool) {
	t := n.tags[group]
	if t == nil || len(t.value.strs) == 0 {
		return "", false
	}
	return t.value.strs[0].eval(m), true
}

func (n *node) tagList(m *machine, group string) []string {
	if t := n.tags[group]; t != nil {
		return t.value.eval(m)
	}
	return nil
}

func (n *node) tagNumber(group string) (uint64, bool) {
	if t := n.tags[group]; t != nil {
		return t.value.number, true
	}
	return 0, false
}

func (n *node) errorf(format string, args ...any) error {
	e := &Error{Position: n.pos, Message: sprintf(format, args...)}
	if n.in != nil {
		e.Script = n.in.name
	}
	return e
}
