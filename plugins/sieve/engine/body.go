package engine

import (
	"strings"
)

// maxText octets of a part that the body test and extracttext look at.
const maxText = 1 << 20

// bodyTests are RFC 5173's.
func bodyTests() []*spec {
	return []*spec{{
		name: "body", exts: []string{"body"}, test: true, args: []param{{"key list", wantList}},
		tags: matchTags(
			&tag{name: "raw", group: "transform"}, &tag{name: "text", group: "transform"},
			&tag{name: "content", group: "transform", param: &param{"content types", wantList}}),
		check: func(v *validator, n *node) bool { return checkMatch(v, n, &n.args[0]) },
		eval: func(m *machine, n *node) (bool, error) {
			values, err := m.bodies(n)
			if err != nil {
				return false, err
			}
			// Match values are not set by this test (RFC 5173 section 6).
			kept := m.matched
			ok, err := m.matchAny(n, values, n.list(m, 0))
			m.matched = kept
			return ok, err
		},
	}}
}

// bodies are the texts that a body test compares.
func (m *machine) bodies(n *node) ([]string, error) {
	if m.msg.headed {
		return nil, nil
	}
	if n.is("transform", "raw") {
		b, err := m.msg.body()
		m.spend(int64(len(b)))
		return []string{string(b[:min(len(b), maxText)])}, err
	}
	root, err := m.msg.root()
	if err != nil {
		return nil, err
	}
	types := []string{"text"}
	content := n.is("transform", "content")
	if content {
		types = n.tagList(m, "transform")
	}
	var out []string
	budget := int64(maxBody)
	for _, p := range root.all() {
		if !matchesType(p.Type, types) && (content || p.Type != "application/xhtml+xml") || p.undecoded || budget <= 0 {
			continue
		}
		m.spend(int64(len(p.Body)))
		s := m.partText(p, content)
		budget -= int64(len(s))
		out = append(out, s)
		if p.multipart() && content {
			out = append(out, m.epilogue(p)...)
		}
	}
	return out, nil
}

// partText is what of a part is compared: of a multipart what stands outside its
// parts, of a message its header (RFC 5173 section 5.2), else the decoded body.
func (m *machine) partText(p *Part, content bool) string {
	switch {
	case p.multipart():
		return m.prologue(p)
	case strings.HasPrefix(p.Type, "message/") && len(p.Children) > 0 && content:
		var b strings.Builder
		for i := range p.Children[0].Fields {
			b.Write(p.Children[0].Fields[i].Raw)
		}
		return b.String()
	}
	s := p.decoded(maxText)
	if (p.Type == "text/html" || p.Type == "application/xhtml+xml") && !content {
		s = plainHTML(s)
	}
	return s
}

func (p *Part) boundary() string {
	for _, prm := range p.desc.GetParams() {
		if strings.EqualFold(prm.GetName(), "boundary") {
			return string(prm.GetValue())
		}
	}
	return ""
}

func (m *machine) prologue(p *Part) string {
	b := p.boundary()
	s := string(p.Body)
	if b == "" {
		return s
	}
	if strings.HasPrefix(s, "--"+b) {
		return ""
	}
	if i := strings.Index(s, "\n--"+b); i >= 0 {
		return strings.TrimSuffix(s[:i+1], "\r\n")
	}
	return s
}

func (m *machine) epilogue(p *Part) []string {
	b := p.boundary()
	if b == "" {
		return nil
	}
	_, after, ok := strings.Cut(string(p.Body), "\n--"+b+"--")
	if !ok {
		return nil
	}
	return []string{strings.TrimPrefix(strings.TrimPrefix(after, "\r\n"), "\n")}
}

// matchesType is RFC 5173 section 5.2: "" is all, "text" a type, "text/html" one
// with its subtype.
func matchesType(have string, want []string) bool {
	kind, _, _ := strings.Cut(have, "/")
	for _, w := range want {
		w = strings.ToLower(strings.TrimSpace(w))
		if w == "" || strings.Count(have, "/") == 1 && (w == kind || w == have) {
			return true
		}
	}
	return false
}

// plainHTML takes tags out of HTML, and what is no text.
func plainHTML(s string) string {
	var b strings.Builder
	for s != "" {
		i := strings.IndexByte(s, '<')
		if i < 0 {
			b.WriteString(s)
			break
		}
		b.WriteString(s[:i])
		s = s[i:]
		switch {
		case strings.HasPrefix(s, "<!--"):
			_, rest, _ := strings.Cut(s, "-->")
			s = rest
			continue
		case hasPrefixFold(s, "<script") || hasPrefixFold(s, "<style"):
			end := "</script"
			if hasPrefixFold(s, "<style") {
				end = "</style"
			}
			j := strings.Index(strings.ToLower(s), end)
			if j < 0 {
				return b.String()
			}
			s = s[j:]
		}
		if j := tagEnd(s); j >= 0 {
			s = s[j:]
		} else {
			break
		}
	}
	return unescapeHTML(b.String())
}

// tagEnd is behind the tag that s begins with; a > within quotes is none.
func tagEnd(s string) int {
	quote := byte(0)
	for i := range len(s) {
		switch c := s[i]; {
		case quote != 0:
			if c == quote {
				quote = 0
			}
		case c == '"' || c == '\'':
			quote = c
		case c == '>':
			return i + 1
		}
	}
	return -1
}

func hasPrefixFold(s, prefix string) bool {
	return len(s) >= len(prefix) && strings.EqualFold(s[:len(prefix)], prefix)
}
