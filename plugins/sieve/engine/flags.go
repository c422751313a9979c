package engine

import (
	"slices"
	"strings"
)

// flagCommands are RFC 5232's.
func flagCommands() []*spec {
	args := []param{{"variable name", wantString}, {"list of flags", wantList}}
	change := func(name string, f func(have, more []string) []string) *spec {
		return &spec{
			name: name, exts: []string{"imap4flags"}, args: args, optional: 1,
			check: checkFlagVariable,
			run: func(m *machine, n *node) error {
				more := split(n.list(m, 1))
				if p, ok := n.data.(part); ok {
					have := split([]string{m.variable(p.namespace, p.name)})
					m.set(p.namespace, p.name, strings.Join(f(have, more), " "))
					return nil
				}
				m.flags = f(m.flags, more)
				return nil
			},
		}
	}
	return []*spec{
		change("setflag", func(_, more []string) []string { return union(nil, more) }),
		change("addflag", union),
		change("removeflag", func(have, less []string) []string {
			return slices.DeleteFunc(slices.Clone(have), func(f string) bool { return containsFold(less, f) })
		}),
		{
			name: "hasflag", exts: []string{"imap4flags"}, test: true, args: []param{{"variable list", wantList}, {"list of flags", wantList}},
			optional: 1, tags: matchTags(),
			check: func(v *validator, n *node) bool {
				if len(n.args[0].strs) > 0 {
					if !v.script.requires["variables"] {
						return v.errorf(n.args[0].pos, "hasflag with a list of variables needs require \"variables\"")
					}
					var names []part
					for i := range n.args[0].strs {
						name, _ := n.args[0].strs[i].constant()
						p, _, ok := reference(name + "}")
						if !ok || p.kind != partVariable {
							return v.errorf(n.args[0].strs[i].pos, "invalid variable name '%s'", clip(name, 80))
						}
						names = append(names, p)
					}
					n.data = names
				}
				return checkMatch(v, n, &n.args[1])
			},
			eval: func(m *machine, n *node) (bool, error) {
				flags := m.flags
				if names, ok := n.data.([]part); ok {
					flags = nil
					for _, p := range names {
						flags = append(flags, split([]string{m.variable(p.namespace, p.name)})...)
					}
				}
				keys := n.list(m, 1)
				if n.match.kind == "is" || n.match.kind == "contains" || n.match.kind == "matches" {
					keys = split(keys)
				}
				return m.matchAny(n, union(nil, flags), keys)
			},
		},
	}
}

func checkFlagVariable(v *validator, n *node) bool {
	if len(n.args[0].strs) == 0 {
		return true
	}
	if !v.script.requires["variables"] {
		return v.errorf(n.args[0].pos, "%s with the name of a variable needs require \"variables\"", n.spec.name)
	}
	return v.target(n, 0)
}

// split makes flags of strings that may have several each.
func split(list []string) []string {
	var out []string
	for _, s := range list {
		out = append(out, strings.Fields(s)...)
	}
	return out
}

// maxFlags of a message.
const maxFlags = 128

// union keeps the order, and of two that are the same the first.
func union(have, more []string) []string {
	out := slices.Clone(have)
	for _, f := range more {
		if len(out) < maxFlags && isFlag(f) && !containsFold(out, f) {
			out = append(out, f)
		}
	}
	return out
}

func containsFold(list []string, s string) bool {
	return slices.ContainsFunc(list, func(have string) bool { return strings.EqualFold(have, s) })
}

// isFlag tells whether a flag can be stored: a keyword, or one of the system's
// that a client may set (RFC 9051 section 2.3.2).
func isFlag(s string) bool {
	name := strings.TrimPrefix(s, `\`)
	if name == "" || strings.IndexByte("+-", name[0]) >= 0 && name != s {
		return false
	}
	for _, c := range []byte(name) {
		if c <= ' ' || c >= 0x7f || strings.IndexByte("(){%*\"\\]", c) >= 0 {
			return false
		}
	}
	if name != s {
		switch strings.ToLower(name) {
		case "answered", "flagged", "deleted", "seen", "draft":
		default:
			return false
		}
	}
	return true
}

// flagsOf are the flags that an action stores with: its own or those set so far.
func (m *machine) flagsOf(n *node) []string {
	if n.has("flags") {
		return union(nil, split(n.tagList(m, "flags")))
	}
	return slices.Clone(m.flags)
}
