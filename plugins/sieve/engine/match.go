package engine

import (
	"regexp"
	"regexp/syntax"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// matcher is how a test compares (RFC 5228 section 2.7).
type matcher struct{ comparator, kind, relation string }

// matchTags are what tests that compare take.
func matchTags(more ...*tag) []*tag {
	return append([]*tag{
		{name: "comparator", param: &param{"comparator", wantString}, check: checkComparator},
		{name: "is", group: "match"}, {name: "contains", group: "match"}, {name: "matches", group: "match"},
		{name: "regex", ext: "regex", group: "match"},
		{name: "count", ext: "relational", group: "match", param: &param{"relation", wantString}, check: checkRelation},
		{name: "value", ext: "relational", group: "match", param: &param{"relation", wantString}, check: checkRelation},
	}, more...)
}

func checkComparator(v *validator, _ *node, t *tagged) bool {
	name, constant := t.value.constant()
	switch {
	case !constant:
		return v.errorf(t.pos, "a comparator is a fixed string, without variables")
	case name == "i;octet" || name == "i;ascii-casemap":
		return true
	case name == "i;unicode-casemap":
		return true // as useful as the two that need no require, and as harmless
	case extensions["comparator-"+name] && v.script.requires["comparator-"+name]:
		return true
	case extensions["comparator-"+name]:
		return v.errorf(t.pos, "write require \"comparator-%s\" first", name)
	}
	return v.errorf(t.pos, "unknown comparator '%s': there are i;octet, i;ascii-casemap, i;ascii-numeric and i;unicode-casemap", clip(name, 40))
}

var relations = []string{"gt", "ge", "lt", "le", "eq", "ne"}

func checkRelation(v *validator, n *node, t *tagged) bool {
	if s, ok := t.value.constant(); ok && !slices.Contains(relations, s) {
		return v.errorf(t.pos, "the :%s tag of the %s %s needs one of gt, ge, lt, le, eq and ne, and not '%s'", t.name, n.spec.name, n.spec.word(), clip(s, 20))
	}
	return true
}

// matching is what a node's tags say.
func (n *node) matching() matcher {
	out := matcher{comparator: "i;ascii-casemap", kind: "is"}
	if t := n.tags["comparator"]; t != nil {
		out.comparator, _ = t.value.constant()
	}
	if t := n.tags["match"]; t != nil {
		out.kind = t.name
		if len(t.value.strs) == 1 {
			out.relation, _ = t.value.constant()
		}
	}
	return out
}

// checkMatch checks a test's comparator against its kind of match, and keys that
// are regular expressions.
func checkMatch(v *validator, n *node, keys *value) bool {
	how := n.matching()
	n.match = &how
	if how.comparator == "i;ascii-numeric" && (how.kind == "contains" || how.kind == "matches" || how.kind == "regex") {
		return v.errorf(n.pos, "comparator 'i;ascii-numeric' cannot be used with :%s: it compares whole numbers", how.kind)
	}
	if how.kind != "regex" || keys == nil {
		return true
	}
	good := true
	for i := range keys.strs {
		if s, ok := keys.strs[i].constant(); ok {
			if _, err := compileRegex(s, how.comparator); err != nil {
				good = v.errorf(keys.strs[i].pos, "invalid regular expression '%s' for :regex match: %s", clip(s, 128), err)
			}
		}
	}
	return good
}

// matchAny compares values with keys: true at the first pair that fits.
func (m *machine) matchAny(n *node, values, keys []string) (bool, error) {
	how := *n.match
	if t := n.tags["match"]; t != nil && how.relation == "" && len(t.value.strs) == 1 {
		how.relation = t.value.strs[0].eval(m)
		if !slices.Contains(relations, how.relation) {
			return false, n.errorf("invalid relation '%s' for :%s: use gt, ge, lt, le, eq or ne", clip(how.relation, 20), how.kind)
		}
	}
	if how.kind == "count" {
		m.spend(0)
		count := strconv.Itoa(len(values))
		for _, k := range keys {
			if how.relates(compare(how.comparator, count, k)) {
				return true, nil
			}
		}
		return false, nil
	}
	if how.kind == "regex" {
		for _, k := range keys {
			if _, err := m.regex(k, how.comparator); err != nil {
				m.warn(n, "invalid regular expression '%s' for :regex match: %s", clip(k, 128), err)
			}
		}
	}
	for _, v := range values {
		for _, k := range keys {
			ok, err := m.matchOne(n, &how, v, k)
			if ok || err != nil {
				return ok, err
			}
			if m.steps <= 0 {
				return false, n.errorf("%s", errSteps)
			}
		}
	}
	return false, nil
}

func (m *machine) matchOne(n *node, how *matcher, value, key string) (bool, error) {
	m.spend(int64(len(value) + len(key)))
	switch how.kind {
	case "is":
		return compare(how.comparator, value, key) == 0, nil
	case "contains":
		return strings.Contains(folded(how.comparator, value), folded(how.comparator, key)), nil
	case "value":
		return how.relates(compare(how.comparator, value, key)), nil
	case "matches":
		m.spend(int64(len(value)) * int64(1+strings.Count(key, "*")+strings.Count(key, "?")) / 4)
		got, ok := glob(how.comparator, value, key)
		if ok {
			m.keep(n, got)
		}
		return ok, nil
	}
	p, err := m.regex(key, how.comparator)
	if err != nil {
		return false, nil // it was told of
	}
	// The time is at most the program's length for each octet, and seldom that.
	if m.spend(int64(len(value)) * p.cost * 32); m.steps <= 0 {
		return false, n.errorf("%s", errSteps)
	}
	at := p.FindStringSubmatchIndex(value)
	if at == nil {
		return false, nil
	}
	got := make([]string, 0, len(at)/2)
	for i := 0; i < len(at) && len(got) <= maxMatched; i += 2 {
		s := ""
		if at[i] >= 0 {
			s = value[at[i]:at[i+1]]
		}
		got = append(got, s)
	}
	m.keep(n, got)
	return true, nil
}

// maxMatched match values beside ${0} are kept; RFC 5229 section 3.2 asks for 9.
const maxMatched = 32

// keep remembers match values (RFC 5229 section 3.2).
func (m *machine) keep(n *node, values []string) {
	if n.in == nil || !n.in.requires["variables"] {
		return
	}
	if len(values) > maxMatched+1 {
		values = values[:maxMatched+1]
	}
	for i := range values {
		values[i] = clip(values[i], m.c.MaxVariable)
	}
	m.matched = values
}

func (how *matcher) relates(order int) bool {
	switch how.relation {
	case "gt":
		return order > 0
	case "ge":
		return order >= 0
	case "lt":
		return order < 0
	case "le":
		return order <= 0
	case "eq":
		return order == 0
	}
	return order != 0
}

// compare orders two strings as a comparator does (RFC 4790).
func compare(comparator, a, b string) int {
	if comparator == "i;ascii-numeric" {
		x, y := numeric(a), numeric(b)
		switch {
		case x == y:
			return 0
		case x == "":
			return 1 // what is no number is greater than all that are
		case y == "":
			return -1
		case len(x) != len(y):
			return len(x) - len(y)
		}
		return strings.Compare(x, y)
	}
	return strings.Compare(folded(comparator, a), folded(comparator, b))
}

// numeric is the number that s begins with, without leading zeros, "0" for zero;
// "" if there is none (RFC 4790 section 9.1.1).
func numeric(s string) string {
	end := 0
	for end < len(s) && s[end] >= '0' && s[end] <= '9' {
		end++
	}
	if end == 0 {
		return ""
	}
	if t := strings.TrimLeft(s[:end], "0"); t != "" {
		return t
	}
	return "0"
}

func folded(comparator, s string) string {
	switch comparator {
	case "i;octet":
		return s
	case "i;unicode-casemap":
		return strings.Map(titled, s)
	}
	for i := range len(s) {
		if s[i] >= 'A' && s[i] <= 'Z' {
			b := []byte(s)
			for j := i; j < len(b); j++ {
				if b[j] >= 'A' && b[j] <= 'Z' {
					b[j] += 'a' - 'A'
				}
			}
			return string(b)
		}
	}
	return s
}

// titled is a character's title case (RFC 5051).
func titled(r rune) rune { return unicode.ToTitle(r) }

// characters are what '?' stands for one of: octets for i;octet, else those of
// UTF-8, and octets where it is none.
func characters(comparator, s string) []string {
	out := make([]string, 0, len(s))
	for len(s) > 0 {
		n := 1
		if comparator != "i;octet" && s[0] >= utf8.RuneSelf {
			_, n = utf8.DecodeRuneInString(s)
		}
		out = append(out, s[:n])
		s = s[n:]
	}
	return out
}

// element of a pattern: a character, or any one.
type element struct {
	char string
	any  bool
}

type segment []element

// joined makes characters of a segment's octets.
func (s segment) joined(comparator string) segment {
	var out segment
	for i := 0; i < len(s); {
		if s[i].any {
			out = append(out, s[i])
			i++
			continue
		}
		run := ""
		for ; i < len(s) && !s[i].any; i++ {
			run += s[i].char
		}
		for _, c := range characters(comparator, run) {
			out = append(out, element{char: folded(comparator, c)})
		}
	}
	return out
}

// fits tells whether the segment stands in v at that place.
func (s segment) fits(v []string, at int) bool {
	if at+len(s) > len(v) {
		return false
	}
	for i, e := range s {
		if !e.any && e.char != v[at+i] {
			return false
		}
	}
	return true
}

// glob matches with * and ? (RFC 5228 section 2.7.1); each * takes as little as it
// can (RFC 5229 section 3.2). The values are the whole and each wildcard's.
func glob(comparator, value, pattern string) ([]string, bool) {
	var segments []segment
	var seg segment
	for p := characters("i;octet", pattern); len(p) > 0; p = p[1:] {
		switch {
		case p[0] == "*":
			segments = append(segments, seg)
			seg = nil
		case p[0] == "?":
			seg = append(seg, element{any: true})
		case p[0] == "\\" && len(p) > 1:
			p = p[1:]
			seg = append(seg, element{char: p[0]})
		default:
			seg = append(seg, element{char: p[0]})
		}
	}
	segments = append(segments, seg)
	if comparator != "i;octet" {
		for i := range segments {
			segments[i] = segments[i].joined(comparator)
		}
	}
	v := characters(comparator, value)
	f := v
	if comparator != "i;octet" {
		f = make([]string, len(v))
		for i := range v {
			f[i] = folded(comparator, v[i])
		}
	}
	out := []string{value}
	at := 0
	for i, seg := range segments {
		last := i == len(segments)-1
		begin := at
		switch {
		case i == 0:
			if !seg.fits(f, 0) || last && len(f) != len(seg) {
				return nil, false
			}
		case last:
			if at = len(f) - len(seg); at < begin || !seg.fits(f, at) {
				return nil, false
			}
		default:
			for !seg.fits(f, at) {
				if at++; at+len(seg) > len(f) {
					return nil, false
				}
			}
		}
		if i > 0 {
			out = append(out, strings.Join(v[begin:at], ""))
		}
		for j, e := range seg {
			if e.any {
				out = append(out, v[at+j])
			}
		}
		at += len(seg)
	}
	return out, true
}

// program is a compiled regular expression with its length, in instructions.
type program struct {
	*regexp.Regexp
	cost int64
}

// maxPattern octets of a regular expression.
const maxPattern = 8 << 10

func (m *machine) regex(pattern, comparator string) (*program, error) {
	key := comparator + " " + pattern
	if p := m.regexes[key]; p != nil {
		return p, nil
	}
	m.spend(int64(len(pattern)) * 640)
	p, err := compileRegex(pattern, comparator)
	if err == nil && len(m.regexes) < 100 {
		if m.regexes == nil {
			m.regexes = map[string]*program{}
		}
		m.regexes[key] = p
	}
	return p, err
}

// compileRegex reads an extended regular expression of POSIX
// (draft-ietf-sieve-regex); Go's engine takes linear time for any.
func compileRegex(pattern, comparator string) (*program, error) {
	if len(pattern) > maxPattern {
		return nil, regexError("it is too long")
	}
	expr := posix(pattern)
	if comparator != "i;octet" {
		expr = "(?i)" + expr
	}
	tree, err := syntax.Parse(expr, syntax.Perl)
	if err != nil {
		if e, ok := err.(*syntax.Error); ok {
			return nil, regexError(string(e.Code))
		}
		return nil, err
	}
	prog, err := syntax.Compile(tree.Simplify())
	if err != nil {
		return nil, err
	}
	re, err := regexp.Compile(expr)
	if err != nil {
		return nil, err
	}
	re.Longest()
	return &program{Regexp: re, cost: int64(len(prog.Inst))}, nil
}

type regexError string

func (e regexError) Error() string { return string(e) }

// posix makes of a bracket's backslash a plain one: in POSIX it is no escape.
func posix(pattern string) string {
	var b strings.Builder
	for i := 0; i < len(pattern); i++ {
		c := pattern[i]
		switch {
		case c == '\\' && i+1 < len(pattern):
			b.WriteByte(c)
			i++
			b.WriteByte(pattern[i])
		case c == '[':
			end := bracketEnd(pattern, i)
			b.WriteString(strings.ReplaceAll(pattern[i:end], "\\", "\\\\"))
			i = end - 1
		default:
			b.WriteByte(c)
		}
	}
	return b.String()
}

// bracketEnd is behind the bracket expression that begins at i.
func bracketEnd(p string, i int) int {
	j := i + 1
	if j < len(p) && p[j] == '^' {
		j++
	}
	if j < len(p) && p[j] == ']' {
		j++
	}
	for j < len(p) && p[j] != ']' {
		if p[j] == '[' && j+1 < len(p) && strings.IndexByte(":.=", p[j+1]) >= 0 {
			if k := strings.Index(p[j+2:], string(p[j+1])+"]"); k >= 0 {
				j += k + 4
				continue
			}
		}
		j++
	}
	return min(j+1, len(p))
}
