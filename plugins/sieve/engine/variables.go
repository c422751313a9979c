package engine

import (
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/stagecoach-mta/stagecoach/plugins/sieve/script"
)

// modifierTags of set and extracttext (RFC 5229 section 4.1), by precedence.
func modifierTags() []*tag {
	return []*tag{
		{name: "lower", group: "case"}, {name: "upper", group: "case"},
		{name: "lowerfirst", group: "first"}, {name: "upperfirst", group: "first"},
		{name: "quotewildcard"}, {name: "quoteregex", ext: "regex"},
		{name: "encodeurl", ext: "enotify"}, {name: "length"},
	}
}

func variableCommands() []*spec {
	return []*spec{
		{
			name: "set", exts: []string{"variables"}, args: []param{{"variable name", wantString}, {"value", wantString}}, tags: modifierTags(),
			check: func(v *validator, n *node) bool { return v.target(n, 0) },
			run: func(m *machine, n *node) error {
				p := n.data.(part)
				m.set(p.namespace, p.name, m.modify(n, n.text(m, 1)))
				return nil
			},
		},
		{
			name: "string", exts: []string{"variables"}, test: true, args: []param{{"source", wantList}, {"key list", wantList}}, tags: matchTags(),
			check: func(v *validator, n *node) bool { return checkMatch(v, n, &n.args[1]) },
			eval: func(m *machine, n *node) (bool, error) {
				values := n.list(m, 0)
				if n.match.kind == "count" {
					// Empty strings are not counted (RFC 5229 section 5).
					var some []string
					for _, s := range values {
						if s != "" {
							some = append(some, s)
						}
					}
					values = some
				}
				return m.matchAny(n, values, n.list(m, 1))
			},
		},
	}
}

// maxVariableName in octets.
const maxVariableName = 64

// target checks the name of a variable that a command sets, and leaves it in data.
func (v *validator) target(n *node, arg int) bool {
	name, ok := n.args[arg].constant()
	if !ok {
		return v.errorf(n.args[arg].pos, "the name of a variable is a fixed string, without variables")
	}
	if isDigits(name) {
		return v.errorf(n.args[arg].pos, "cannot assign to the match variable '%s'", clip(name, 20))
	}
	p, rest, ok := reference(name + "}")
	if !ok || rest != "" || p.kind != partVariable {
		return v.errorf(n.args[arg].pos, "invalid variable name '%s': use letters, digits and _", clip(name, 80))
	}
	if p.namespace == "global" && isDigits(p.name) {
		return v.errorf(n.args[arg].pos, "invalid variable name '%s': it begins with a letter", clip(name, 80))
	}
	if p.namespace != "" && (p.namespace != "global" || !v.script.requires["include"]) {
		if p.namespace == "env" || strings.HasPrefix(p.namespace, "env.") {
			return v.errorf(n.args[arg].pos, "variables of the namespace env cannot be set")
		}
		return v.errorf(n.args[arg].pos, "variable '%s' has an unknown namespace", clip(name, 80))
	}
	if !v.declare(n.args[arg].pos, &p) {
		return false
	}
	n.data = p
	return true
}

// declare counts a script's variables.
func (v *validator) declare(pos script.Position, p *part) bool {
	if len(p.name) > maxVariableName {
		return v.errorf(pos, "the variable name '%s...' is too long: at most %d characters", p.name[:20], maxVariableName)
	}
	if p.namespace != "" || v.variables[p.name] {
		return true
	}
	if len(v.variables) >= v.config.MaxVariables {
		return v.once(pos, "${", "the script has too many variables: at most %d", v.config.MaxVariables)
	}
	v.variables[p.name] = true
	return true
}

// mayRefer checks a variable within a string.
func (v *validator) mayRefer(pos script.Position, p *part) bool {
	switch {
	case p.kind == partMatch:
		if p.number > maxMatched {
			return v.errorf(pos, "there is no match variable ${%d}: the last is ${%d}", p.number, maxMatched)
		}
		return true
	case p.namespace == "":
		return v.declare(pos, p)
	case p.namespace == "global" && v.script.requires["include"]:
		return true
	case p.namespace == "env" || strings.HasPrefix(p.namespace, "env."):
		if v.set.compiler.extra != nil || v.script.requires["environment"] {
			return true
		}
	case v.set.compiler.extra != nil && p.namespace == "tst":
		return true
	}
	return v.errorf(pos, "the variable '${%s.%s}' has an unknown namespace", clip(p.namespace, 40), clip(p.name, 40))
}

// modify does what a command's modifiers say, by falling precedence.
func (m *machine) modify(n *node, s string) string {
	m.spend(int64(len(s)))
	if t := n.tags["case"]; t != nil {
		if t.name == "lower" {
			s = folded("i;ascii-casemap", s)
		} else {
			s = upper(s)
		}
	}
	if t := n.tags["first"]; t != nil && s != "" {
		if t.name == "lowerfirst" {
			s = folded("i;ascii-casemap", s[:1]) + s[1:]
		} else {
			s = upper(s[:1]) + s[1:]
		}
	}
	limit := m.c.MaxVariable
	if n.has("quotewildcard") {
		s = escape(s, `*?\`, limit)
	}
	if n.has("quoteregex") {
		s = escape(s, `.\[]{}()*+?^$|`, limit)
	}
	if n.has("encodeurl") {
		s = encodeURL(s, limit)
	}
	if n.has("length") {
		s = strconv.Itoa(utf8.RuneCountInString(s))
	}
	return s
}

func upper(s string) string {
	b := []byte(s)
	for i, c := range b {
		if c >= 'a' && c <= 'z' {
			b[i] = c - 'a' + 'A'
		}
	}
	return string(b)
}

// escape puts a backslash before special characters. What is over the limit is
// left out, and no backslash without its character stays.
func escape(s, special string, limit int) string {
	if !strings.ContainsAny(s, special) {
		return s
	}
	var b strings.Builder
	for _, r := range characters("", s) {
		if strings.Contains(special, r) {
			r = `\` + r
		}
		if b.Len()+len(r) > limit {
			break
		}
		b.WriteString(r)
	}
	return b.String()
}

// encodeURL is percent encoding of all but RFC 3986's unreserved characters; a
// character is encoded whole or left out.
func encodeURL(s string, limit int) string {
	const hex = "0123456789ABCDEF"
	var b strings.Builder
	for _, r := range characters("", s) {
		var enc strings.Builder
		for _, c := range []byte(r) {
			if c >= '0' && c <= '9' || c|0x20 >= 'a' && c|0x20 <= 'z' || strings.IndexByte("-._~", c) >= 0 {
				enc.WriteByte(c)
			} else {
				enc.WriteByte('%')
				enc.WriteByte(hex[c>>4])
				enc.WriteByte(hex[c&15])
			}
		}
		if b.Len()+enc.Len() > limit {
			break
		}
		b.WriteString(enc.String())
	}
	return b.String()
}
