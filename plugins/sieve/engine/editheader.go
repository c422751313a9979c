package engine

import (
	"mime"
	"slices"
	"strings"
)

// editCommands are RFC 5293's.
func editCommands() []*spec {
	return []*spec{
		{
			name: "addheader", exts: []string{"editheader"}, args: []param{{"field name", wantString}, {"value", wantString}}, tags: []*tag{{name: "last"}},
			check: func(v *validator, n *node) bool {
				if !checkFieldName(v, n) {
					return false
				}
				if s, ok := n.args[1].constant(); ok {
					if mistake := fieldValueMistake(s, v.config.MaxHeader); mistake != "" {
						return v.errorf(n.args[1].pos, "the value '%s' of the new field is invalid: %s", printable(s), mistake)
					}
				}
				return true
			},
			run: addHeader,
		},
		{
			name: "deleteheader", exts: []string{"editheader"}, args: []param{{"field name", wantString}, {"value patterns", wantList}}, optional: 1,
			tags: matchTags(&tag{name: "index", param: &param{"field number", wantNumber}}, &tag{name: "last"}),
			check: func(v *validator, n *node) bool {
				if !checkIndex(v, n) || !checkFieldName(v, n) {
					return false
				}
				if len(n.args) > 1 {
					return checkMatch(v, n, &n.args[1])
				}
				return checkMatch(v, n, nil)
			},
			run: deleteHeader,
		},
	}
}

func checkFieldName(v *validator, n *node) bool {
	if s, ok := n.args[0].constant(); ok && !isFieldName(s) {
		return v.errorf(n.args[0].pos, "the field name '%s' for the %s command is invalid", clip(s, 80), n.spec.name)
	}
	return true
}

func fieldValueMistake(s string, limit int) string {
	switch {
	case strings.Contains(s, "\x00"):
		return "it has a NUL octet"
	case len(s) > limit:
		return "it is too long: at most " + itoa(limit) + " octets"
	}
	return ""
}

// printable is s as it can be shown.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return '?'
		}
		return r
	}, clip(s, 60))
}

func addHeader(m *machine, n *node) error {
	name, value := n.text(m, 0), n.text(m, 1)
	if !isFieldName(name) {
		return n.errorf("the field name '%s' for the addheader command is invalid", clip(name, 80))
	}
	if mistake := fieldValueMistake(value, m.c.MaxHeader); mistake != "" {
		return n.errorf("the value '%s' of the new field is invalid: %s", printable(value), mistake)
	}
	if m.protected(m.c.ForbidAdd, name) {
		return nil
	}
	if len(m.msg.Fields) > 10000 {
		return n.errorf("the message has too many header fields")
	}
	f := Field{Name: name, Raw: makeField(name, value)}
	fields := slices.Clone(m.msg.Fields)
	if n.has("last") {
		fields = append(fields, f)
	} else {
		fields = slices.Insert(fields, 0, f)
	}
	m.spend(int64(len(fields)))
	m.msg = m.msg.edit(fields)
	return nil
}

// protected tells whether a field may not be touched; Subject always may
// (RFC 5293 section 6).
func (m *machine) protected(list []string, name string) bool {
	name = strings.ToLower(name)
	return name != "subject" && slices.Contains(list, name)
}

// makeField writes a field: lines that the value has are folded, what is not ASCII
// is encoded (RFC 2047), and no line is longer than RFC 5322 wants where white
// space allows it.
func makeField(name, value string) []byte {
	var b strings.Builder
	b.WriteString(name)
	b.WriteByte(':')
	column := b.Len()
	for i, line := range strings.FieldsFunc(value, func(r rune) bool { return r == '\r' || r == '\n' }) {
		if i > 0 {
			b.WriteString("\r\n")
			column = 0
		}
		line = strings.Trim(line, " \t")
		if !isASCII(line) {
			line = mime.BEncoding.Encode("utf-8", line)
		}
		for _, w := range strings.Fields(line) {
			if column > 1 && column+1+len(w) > 76 && column > len(name)+2 {
				b.WriteString("\r\n")
				column = 0
			}
			b.WriteByte(' ')
			b.WriteString(w)
			column += 1 + len(w)
		}
	}
	b.WriteString("\r\n")
	return []byte(b.String())
}

func deleteHeader(m *machine, n *node) error {
	name := n.text(m, 0)
	if !isFieldName(name) {
		return n.errorf("the field name '%s' for the deleteheader command is invalid", clip(name, 80))
	}
	if m.protected(m.c.ForbidDelete, name) {
		return nil
	}
	candidates := selected(n, fieldsNamed(m.msg.Fields, name))
	m.spend(int64(len(m.msg.Fields)))
	var keys []string
	if len(n.args) > 1 {
		keys = n.list(m, 1)
	}
	gone := map[*Field]bool{}
	for _, f := range candidates {
		if len(n.args) > 1 {
			ok, err := m.matchAny(n, []string{decodeHeader(f.value())}, keys)
			if err != nil {
				return err
			}
			if !ok {
				continue
			}
		}
		gone[f] = true
	}
	if len(gone) == 0 {
		return nil
	}
	var rest []Field
	for i := range m.msg.Fields {
		if !gone[&m.msg.Fields[i]] {
			rest = append(rest, m.msg.Fields[i])
		}
	}
	m.msg = m.msg.edit(rest)
	return nil
}
