package engine

import (
	"errors"
	"strings"
	"unicode/utf8"
)

// includeCommands are RFC 6609's.
func includeCommands() []*spec {
	return []*spec{
		{
			name: "include", exts: []string{"include"}, args: []param{{"script name", wantString}},
			tags: []*tag{
				{name: "personal", group: "location"}, {name: "global", group: "location"},
				{name: "once"}, {name: "optional"},
			},
			check: checkInclude, run: include,
		},
		{name: "return", exts: []string{"include"}, run: func(*machine, *node) error { return errReturn }},
		{
			name: "global", exts: []string{"include"}, args: []param{{"variable names", wantList}},
			check: func(v *validator, n *node) bool {
				if !v.script.requires["variables"] {
					return v.errorf(n.pos, "the global command needs require \"variables\"")
				}
				var names []string
				for i := range n.args[0].strs {
					s, ok := n.args[0].strs[i].constant()
					if !ok || !isIdentifier(s) {
						return v.errorf(n.args[0].strs[i].pos, "invalid variable name '%s'", clip(s, 80))
					}
					s = strings.ToLower(s)
					if v.variables[s] && !v.globals[s] {
						return v.errorf(n.args[0].strs[i].pos, "the variable '%s' was used as a local one above: write global first", s)
					}
					v.variables[s], v.globals[s] = true, true
					names = append(names, s)
				}
				n.data = names
				return true
			},
			run: func(m *machine, n *node) error {
				if m.scope.globals == nil {
					m.scope.globals = map[string]bool{}
				}
				for _, s := range n.data.([]string) {
					m.scope.globals[s] = true
				}
				return nil
			},
		},
	}
}

// IsScriptName tells whether a script can have that name (RFC 5804 section 1.6).
func IsScriptName(s string) bool {
	if s == "" || len(s) > 512 || !utf8.ValidString(s) {
		return false
	}
	for _, r := range s {
		if r < ' ' || r >= 0x7f && r < 0xa0 || r == 0x2028 || r == 0x2029 || r == '/' {
			return false
		}
	}
	return s != "." && s != ".."
}

func scriptKey(global bool, name string) string {
	if global {
		return "global/" + name
	}
	return "personal/" + name
}

func checkInclude(v *validator, n *node) bool {
	pos := n.args[0].pos
	name, ok := n.args[0].constant()
	if !ok {
		return v.errorf(pos, "the name of an included script is a fixed string, without variables")
	}
	name = strings.TrimSuffix(name, ".sieve")
	if !IsScriptName(name) {
		return v.errorf(pos, "'%s' is no name of a script", printable(name))
	}
	global := n.is("location", "global")
	key := scriptKey(global, name)
	n.data = key
	set := v.set
	for _, p := range set.path {
		if p == key {
			if n.has("once") {
				return true
			}
			return v.errorf(pos, "the script '%s' includes itself", name)
		}
	}
	if set.scripts[key] != nil {
		return true
	}
	limits := v.config
	if v.depth >= limits.MaxIncludeDepth {
		return v.errorf(pos, "scripts are included too deeply: at most %d in each other", limits.MaxIncludeDepth)
	}
	if len(set.scripts) >= limits.MaxIncludes {
		return v.errorf(pos, "too many scripts are included: at most %d", limits.MaxIncludes)
	}
	var text []byte
	var err error
	if set.compiler.Host != nil {
		text, err = set.compiler.Host.Script(set.ctx, global, name)
	}
	switch {
	case err != nil:
		return v.errorf(pos, "cannot read the script '%s': %s", name, err)
	case text == nil && n.has("optional"):
		return true
	case text == nil:
		return v.errorf(pos, "there is no script '%s' to include", name)
	}
	set.path = append(set.path, key)
	// It has its place before it is checked, so that the limit counts it.
	set.scripts[key] = &Script{}
	s, diags := set.compile(name, global, text, v.depth+1)
	set.path = set.path[:len(set.path)-1]
	for i := range diags {
		diags[i].Message = "in the included script '" + name + "': " + diags[i].Message
	}
	v.diagnostics = append(v.diagnostics, diags...)
	if failed(diags) {
		delete(set.scripts, key)
		return v.errorf(pos, "the included script '%s' has mistakes", name)
	}
	*set.scripts[key] = *s
	return true
}

func include(m *machine, n *node) error {
	key := n.data.(string)
	s := n.in.included[key]
	if s == nil {
		return nil // optional, and not there
	}
	if m.once[key] && n.has("once") {
		return nil
	}
	m.once[key] = true
	if m.depth >= m.c.MaxIncludeDepth {
		return n.errorf("scripts are included too deeply: at most %d in each other", m.c.MaxIncludeDepth)
	}
	outer, matched := m.scope, m.matched
	m.scope, m.matched = &scope{variables: map[string]string{}}, nil
	m.depth++
	err := m.block(s.block)
	m.depth--
	m.scope, m.matched = outer, matched
	if errors.Is(err, errReturn) {
		return nil
	}
	return err
}
