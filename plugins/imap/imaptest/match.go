package imaptest

import (
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// arg is a value of a reply or of an expectation.
type arg struct {
	list   bool
	items  []arg
	text   string
	quoted bool
}

// tokens takes parts apart. In a response code brackets are text; elsewhere what
// stands in brackets belongs to its atom: "body[header.fields (to)]".
func tokens(parts []part, brackets bool) []arg {
	t := &tokenizer{parts: parts, brackets: brackets}
	return t.list()
}

type tokenizer struct {
	parts    []part
	at       int
	brackets bool
}

// list reads values to the end or to ")".
func (t *tokenizer) list() []arg {
	out := []arg{}
	for len(t.parts) > 0 {
		p := t.parts[0]
		if p.literal {
			out = append(out, arg{text: p.text, quoted: true})
			t.parts, t.at = t.parts[1:], 0
			continue
		}
		if t.at >= len(p.text) {
			t.parts, t.at = t.parts[1:], 0
			continue
		}
		switch c := p.text[t.at]; c {
		case ' ':
			t.at++
		case '(':
			t.at++
			out = append(out, arg{list: true, items: t.list()})
		case ')':
			t.at++
			return out
		case '"':
			out = append(out, arg{text: t.quoted(), quoted: true})
		default:
			if a := t.atom(); a != "~" || len(t.parts) < 2 {
				out = append(out, arg{text: a})
			}
		}
	}
	return out
}

func (t *tokenizer) quoted() string {
	text := t.parts[0].text
	var b strings.Builder
	for t.at++; t.at < len(text) && text[t.at] != '"'; t.at++ {
		if text[t.at] == '\\' && t.at+1 < len(text) {
			t.at++
		}
		b.WriteByte(text[t.at])
	}
	t.at++
	return b.String()
}

func (t *tokenizer) atom() string {
	text := t.parts[0].text
	from, depth := t.at, 0
	for ; t.at < len(text); t.at++ {
		switch c := text[t.at]; {
		case c == '[' && t.brackets:
			depth++
		case c == ']' && t.brackets && depth > 0:
			depth--
		case depth > 0:
		case c == '{' && t.at > from && text[t.at-1] == '$':
			t.at += max(0, strings.IndexByte(text[t.at:], '}'))
		case c == ' ' || c == '(' || c == ')':
			return text[from:t.at]
		}
	}
	return text[from:]
}

// matcher compares one reply. Variables that it binds count only if all matches.
type matcher struct {
	vars map[string]string
	// seqs: for "$3", the number that message 3 had when the command was sent;
	// it is the number now, "" if the message is gone.
	seq func(n int) string
	// modseqs bound so far, by their index.
	modseqs map[int]uint64
	bound   map[string]string
}

// defaults of lists without directives.
var (
	asWritten = rules{}
	anyOrder  = rules{unordered: 1, extra: true}
	pairs     = rules{unordered: 2, extra: true}
	flagList  = rules{unordered: 1, ignore: []string{`\recent`}}
)

type rules struct {
	unordered int
	extra     bool
	ignore    []string
	ban       []string
}

// reply compares a whole untagged reply.
func (m *matcher) reply(want, got []arg) bool {
	name := func(i int) string {
		if len(got) > i && !got[i].list {
			return strings.ToUpper(got[i].text)
		}
		return ""
	}
	switch name(0) {
	case "OK", "NO", "BAD", "BYE", "PREAUTH":
		return m.prefix(want, got)
	}
	if len(want) != len(got) {
		return false
	}
	for i := range want {
		r := asWritten
		switch {
		case name(1) == "FETCH" && i == 2:
			r = pairs
		case (name(0) == "LIST" || name(0) == "LSUB") && i == 1:
			r = anyOrder
		case name(0) == "STATUS" && i == 2:
			r = pairs
		}
		if !m.one(want[i], got[i], r, name(1) == "FETCH") {
			return false
		}
	}
	return true
}

// prefix compares as much of a reply as is wanted.
func (m *matcher) prefix(want, got []arg) bool {
	if len(want) > len(got) {
		return false
	}
	for i := range want {
		if !m.one(want[i], got[i], asWritten, false) {
			return false
		}
	}
	return true
}

func (m *matcher) one(want, got arg, r rules, fetch bool) bool {
	if !want.list {
		if want.text == "$" && !want.quoted {
			return true
		}
		return !got.list && m.text(want, got)
	}
	if !got.list {
		return false
	}
	items := want.items
	explicit := false
	for len(items) > 0 && strings.HasPrefix(items[0].text, "$!") {
		if !explicit {
			r, explicit = rules{unordered: r.unordered, extra: r.unordered > 0, ignore: r.ignore}, true
		}
		r.directive(items[0].text[2:])
		items = items[1:]
	}
	if r.unordered == 0 {
		if len(items) != len(got.items) {
			return false
		}
		for i := range items {
			if !m.one(items[i], got.items[i], asWritten, false) {
				return false
			}
		}
		return true
	}
	return m.unordered(items, got.items, r, fetch)
}

func (r *rules) directive(d string) {
	key, value, has := strings.Cut(d, "=")
	switch key {
	case "ordered":
		r.unordered = 0
	case "unordered":
		r.unordered, r.extra = 1, true
		if n, err := strconv.Atoi(value); has && err == nil {
			r.unordered = n
		}
	case "noextra":
		r.extra = false
	case "extra":
		r.extra, r.unordered = true, max(1, r.unordered)
	case "ignore":
		r.ignore, r.extra = append(r.ignore, value), false
	case "ban":
		r.ban = append(r.ban, value)
	}
}

// unordered finds for each wanted chain one of those that came.
func (m *matcher) unordered(want, got []arg, r rules, fetch bool) bool {
	n := r.unordered
	if len(want)%n != 0 || len(got)%n != 0 {
		return false
	}
	used := make([]bool, len(got)/n)
	for i := 0; i < len(want); i += n {
		found := false
		for k := 0; k < len(got) && !found; k += n {
			if used[k/n] {
				continue
			}
			saved := clone(m.bound)
			ok := true
			for j := 0; j < n && ok; j++ {
				inner := asWritten
				if fetch && n == 2 && j == 1 && strings.EqualFold(want[i].text, "FLAGS") {
					inner = flagList
				}
				ok = m.one(want[i+j], got[k+j], inner, false)
			}
			if ok {
				used[k/n], found = true, true
			} else {
				m.bound = saved
			}
		}
		if !found {
			return false
		}
	}
	for k := 0; k < len(got); k += n {
		extra := !used[k/n]
		named := func(list []string) bool {
			return slices.ContainsFunc(list, func(s string) bool { return strings.EqualFold(s, got[k].text) })
		}
		if named(r.ban) || extra && !r.extra && !named(r.ignore) {
			return false
		}
	}
	return true
}

func clone(m map[string]string) map[string]string {
	out := make(map[string]string, len(m))
	for k, v := range m {
		out[k] = v
	}
	return out
}

var variable = regexp.MustCompile(`\$\$|\$\{[^}]*\}|\$[A-Za-z0-9_]+`)

// text compares a text with variables in it.
func (m *matcher) text(want, got arg) bool {
	if !want.quoted && strings.EqualFold(want.text, "NIL") && got.quoted {
		return false
	}
	if want.quoted && !got.quoted && strings.EqualFold(got.text, "NIL") {
		return false
	}
	if i := strings.IndexByte(want.text, 0); i >= 0 {
		// The suite's own program compares up to the first NUL, and one of its
		// expectations differs behind it.
		want.text = want.text[:i]
		got.text, _, _ = strings.Cut(got.text, "\x00")
	}
	var pattern strings.Builder
	pattern.WriteString(`(?s)\A`)
	var names []string
	at := 0
	for _, loc := range variable.FindAllStringIndex(want.text, -1) {
		pattern.WriteString("(?i:" + regexp.QuoteMeta(want.text[at:loc[0]]) + ")")
		name := strings.Trim(want.text[loc[0]+1:loc[1]], "{}")
		at = loc[1]
		if exact, ok := strings.CutPrefix(name, "case:"); ok {
			pattern.WriteString(regexp.QuoteMeta(exact))
			continue
		}
		if value, ok := m.value(name); ok {
			pattern.WriteString("(?i:" + regexp.QuoteMeta(value) + ")")
			continue
		}
		names = append(names, name)
		pattern.WriteString(`(.+?)`)
	}
	pattern.WriteString("(?i:" + regexp.QuoteMeta(want.text[at:]) + `)\z`)
	if want.text == "" && got.text != "" {
		return false
	}
	re, err := regexp.Compile(pattern.String())
	if err != nil {
		return false
	}
	found := re.FindStringSubmatch(got.text)
	if found == nil {
		// A variable may stand for an empty text, if it is all of it.
		if len(names) == 1 && got.text == "" && variable.FindString(want.text) == want.text {
			return m.bind(names[0], "")
		}
		return false
	}
	for i, name := range names {
		if !m.bind(name, found[i+1]) {
			return false
		}
	}
	return true
}

func (m *matcher) value(name string) (string, bool) {
	if name == "$" {
		return "$", true
	}
	if n, err := strconv.Atoi(name); err == nil {
		return m.seq(n), true
	}
	if v, ok := m.bound[name]; ok {
		return v, true
	}
	v, ok := m.vars[name]
	return v, ok
}

// bind gives a variable its value. "$modseq5" is at least as far above "$modseq2"
// as the numbers say.
func (m *matcher) bind(name, value string) bool {
	digits, ok := strings.CutPrefix(name, "modseq")
	index, err := strconv.Atoi(digits)
	if ok && err == nil {
		n, err := strconv.ParseUint(value, 10, 64)
		if err != nil {
			return false
		}
		for i, other := range m.modseqs {
			if i < index && n < other+uint64(index-i) || i > index && other < n+uint64(i-index) {
				return false
			}
		}
		m.modseqs[index] = n
	}
	m.bound[name] = value
	return true
}

// substitute puts values into a command's text.
func substitute(text string, vars map[string]string) string {
	return variable.ReplaceAllStringFunc(text, func(v string) string {
		name := strings.Trim(v[1:], "{}")
		if name == "$" {
			return "$"
		}
		if value, ok := vars[name]; ok {
			return value
		}
		return v
	})
}
