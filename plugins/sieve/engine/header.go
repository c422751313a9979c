package engine

import (
	"slices"
	"strings"

	"github.com/stagecoach-mta/stagecoach/sdk/mime"
)

// partTags choose a part of an address (RFC 5228 section 2.7.4, RFC 5233).
func partTags(more ...*tag) []*tag {
	return append(matchTags(more...),
		&tag{name: "all", group: "part"}, &tag{name: "localpart", group: "part"}, &tag{name: "domain", group: "part"},
		&tag{name: "user", ext: "subaddress", group: "part"}, &tag{name: "detail", ext: "subaddress", group: "part"})
}

func indexTags() []*tag {
	return []*tag{{name: "index", ext: "index", param: &param{"number", wantNumber}}, {name: "last", ext: "index"}}
}

func mimeTags(options ...*tag) []*tag {
	return append([]*tag{{name: "mime", ext: "mime"}, {name: "anychild", ext: "mime"}}, options...)
}

func headerTests() []*spec {
	names, keys := param{"header names", wantList}, param{"key list", wantList}
	options := []*tag{
		{name: "type", ext: "mime", group: "option"}, {name: "subtype", ext: "mime", group: "option"},
		{name: "contenttype", ext: "mime", group: "option"},
		{name: "param", ext: "mime", group: "option", param: &param{"parameters", wantList}},
	}
	return []*spec{
		{
			name: "header", test: true, args: []param{names, keys}, tags: append(matchTags(append(indexTags(), mimeTags(options...)...)...), nil...),
			check: func(v *validator, n *node) bool {
				return checkIndex(v, n) && checkMime(v, n) && checkNames(v, n, 0) && checkMatch(v, n, &n.args[1])
			},
			eval: evalHeader,
		},
		{
			name: "address", test: true, args: []param{{"header list", wantList}, keys}, tags: partTags(append(indexTags(), mimeTags()...)...),
			check: func(v *validator, n *node) bool {
				if !checkIndex(v, n) || !checkMime(v, n) {
					return false
				}
				for i := range n.args[0].strs {
					if s, ok := n.args[0].strs[i].constant(); ok && !addressFields[strings.ToLower(s)] {
						return v.errorf(n.args[0].strs[i].pos, "specified header '%s' is not allowed for the address test", clip(s, 80))
					}
				}
				return checkMatch(v, n, &n.args[1])
			},
			eval: evalAddress,
		},
		{
			name: "envelope", exts: []string{"envelope"}, test: true, args: []param{{"envelope parts", wantList}, keys}, tags: partTags(),
			check: func(v *validator, n *node) bool {
				for i := range n.args[0].strs {
					if s, ok := n.args[0].strs[i].constant(); ok && !slices.Contains(envelopeParts, strings.ToLower(s)) {
						return v.errorf(n.args[0].strs[i].pos, "specified envelope part '%s' is not supported: there are from, to and auth", clip(s, 80))
					}
				}
				return checkMatch(v, n, &n.args[1])
			},
			eval: evalEnvelope,
		},
		{
			name: "exists", test: true, args: []param{names}, tags: mimeTags(),
			check: func(v *validator, n *node) bool { return checkMime(v, n) && checkNames(v, n, 0) },
			eval: func(m *machine, n *node) (bool, error) {
				for _, name := range n.list(m, 0) {
					found := false
					parts, err := m.fieldsOf(n)
					if err != nil {
						return false, err
					}
					for _, fields := range parts {
						m.spend(int64(len(fields)))
						found = found || len(fieldsNamed(fields, name)) > 0
					}
					if !found {
						return false, nil
					}
				}
				return true, nil
			},
		},
	}
}

var envelopeParts = []string{"from", "to", "auth", "orig_to"}

// addressFields hold addresses: those of RFC 5322 and others that mail has
// (RFC 2076 and usage).
var addressFields = setOf("from to cc bcc sender reply-to resent-from resent-to resent-cc resent-bcc resent-sender resent-reply-to " +
	"for-approval for-handling for-comment apparently-to errors-to delivered-to return-path return-receipt-to x-admin " +
	"read-receipt-to x-confirm-reading-to return-receipt-requested registered-mail-reply-requested-by mail-followup-to " +
	"mail-reply-to abuse-reports-to x-complaints-to x-report-abuse-to x-beenthere x-original-from x-original-to " +
	"disposition-notification-to envelope-to x-envelope-to x-sieve-redirected-from")

func setOf(words string) map[string]bool {
	out := map[string]bool{}
	for _, w := range strings.Fields(words) {
		out[w] = true
	}
	return out
}

func checkIndex(v *validator, n *node) bool {
	if n.has("last") && !n.has("index") {
		return v.errorf(n.tags["last"].pos, "the :last tag of the %s %s cannot be specified without the :index tag", n.spec.name, n.spec.word())
	}
	if i, ok := n.tagNumber("index"); ok && i == 0 {
		return v.errorf(n.tags["index"].pos, "the :index tag of the %s %s counts from 1", n.spec.name, n.spec.word())
	}
	return true
}

func checkMime(v *validator, n *node) bool {
	for _, g := range []string{"anychild", "option"} {
		if t := n.tags[g]; t != nil && !n.has("mime") {
			return v.errorf(t.pos, "the :%s tag of the %s test cannot be specified without the :mime tag", t.name, n.spec.name)
		}
	}
	return true
}

// checkNames warns of names that no field has.
func checkNames(v *validator, n *node, arg int) bool {
	for i := range n.args[arg].strs {
		if s, ok := n.args[arg].strs[i].constant(); ok && !isFieldName(s) {
			v.warnf(n.args[arg].strs[i].pos, "'%s' is no name that a header field can have: the %s test never matches it", clip(s, 80), n.spec.name)
		}
	}
	return true
}

// isFieldName is RFC 5322's ftext.
func isFieldName(s string) bool {
	for _, c := range []byte(s) {
		if c <= ' ' || c >= 0x7f || c == ':' {
			return false
		}
	}
	return s != ""
}

// fieldsOf are the headers that a test looks at: the message's, or with :mime
// that of the part at hand (RFC 5703 section 4), with :anychild those below too.
func (m *machine) fieldsOf(n *node) ([][]Field, error) {
	if !n.has("mime") {
		return [][]Field{m.msg.Fields}, nil
	}
	p, err := m.part()
	if err != nil {
		return nil, err
	}
	if !n.has("anychild") {
		return [][]Field{p.Fields}, nil
	}
	var out [][]Field
	for _, c := range p.all() {
		out = append(out, c.Fields)
	}
	return out, nil
}

// part at hand: foreverypart's, or the message.
func (m *machine) part() (*Part, error) {
	if len(m.parts) > 0 {
		return m.parts[len(m.parts)-1], nil
	}
	return m.msg.root()
}

// selected are the values of fields of a name that :index leaves (RFC 5260
// section 6).
func selected[T any](n *node, all []T) []T {
	i, ok := n.tagNumber("index")
	if !ok {
		return all
	}
	if i > uint64(len(all)) {
		return nil
	}
	at := int(i) - 1
	if n.has("last") {
		at = len(all) - int(i)
	}
	return all[at : at+1]
}

func evalHeader(m *machine, n *node) (bool, error) {
	parts, err := m.fieldsOf(n)
	if err != nil {
		return false, err
	}
	var values []string
	for _, name := range n.list(m, 0) {
		for _, fields := range parts {
			m.spend(int64(len(fields)))
			for _, f := range selected(n, fieldsNamed(fields, name)) {
				m.spend(int64(len(f.Raw)))
				if n.has("option") {
					values = append(values, m.structured(n, f)...)
					continue
				}
				values = append(values, decodeHeader(f.value()))
			}
		}
	}
	return m.matchAny(n, values, n.list(m, 1))
}

func decodeHeader(s string) string {
	if !strings.Contains(s, "=?") {
		return s
	}
	return strings.ReplaceAll(mime.DecodeHeader(s), "\x00", "")
}

// structured is what :type, :subtype, :contenttype or :param find in a field
// (RFC 5703 section 4.1).
func (m *machine) structured(n *node, f *Field) []string {
	t := n.tags["option"]
	main, params := parseStructured(f.value())
	kind, sub, slash := strings.Cut(main, "/")
	if strings.EqualFold(f.Name, "Content-Disposition") {
		slash = false
		kind, sub = main, ""
	}
	switch t.name {
	case "type":
		return []string{kind}
	case "subtype":
		if !slash {
			return []string{""}
		}
		return []string{sub}
	case "contenttype":
		return []string{main}
	}
	var out []string
	for _, want := range t.value.eval(m) {
		for _, p := range params {
			if strings.EqualFold(p.name, want) {
				out = append(out, p.value)
			}
		}
	}
	return out
}

func evalAddress(m *machine, n *node) (bool, error) {
	parts, err := m.fieldsOf(n)
	if err != nil {
		return false, err
	}
	var values []string
	for _, name := range n.list(m, 0) {
		if !addressFields[strings.ToLower(name)] {
			continue
		}
		for _, fields := range parts {
			var all []address
			for _, f := range selected(n, fieldsNamed(fields, name)) {
				m.spend(int64(len(f.Raw)))
				all = append(all, parseAddresses(f.value())...)
			}
			for i := range all {
				if v, ok := m.addressPart(n, &all[i]); ok {
					values = append(values, v)
				}
			}
		}
	}
	return m.matchAny(n, values, n.list(m, 1))
}

// addressPart is the part of an address that a test asks for; false if the address
// has none (RFC 5228 section 2.7.4).
func (m *machine) addressPart(n *node, a *address) (string, bool) {
	part := "all"
	if t := n.tags["part"]; t != nil {
		part = t.name
	}
	if part == "all" {
		return a.String(), true
	}
	if !a.valid {
		return "", false
	}
	switch part {
	case "localpart":
		return a.local, true
	case "domain":
		return a.domain, true
	}
	user, detail, ok := a.local, "", false
	if m.c.Delimiter != "" {
		if i := strings.IndexAny(a.local, m.c.Delimiter); i >= 0 {
			user, detail, ok = a.local[:i], a.local[i+1:], true
		}
	}
	if part == "user" {
		return user, true
	}
	return detail, ok
}

func evalEnvelope(m *machine, n *node) (bool, error) {
	var values []string
	for _, name := range n.list(m, 0) {
		e := m.in.Envelope
		var raw string
		switch strings.ToLower(name) {
		case "from":
			raw = e.From
		case "to":
			raw = e.To
		case "orig_to":
			raw = e.Original
		case "auth":
			if e.Auth != "" {
				if v, ok := m.addressPart(n, &address{raw: e.Auth, local: e.Auth, valid: true}); ok {
					values = append(values, v)
				}
			}
			continue
		default:
			continue
		}
		a, ok := parsePath(raw)
		if !ok {
			continue
		}
		if a.local == "" && a.domain == "" {
			// The null path is the empty string in every part (section 5.4).
			values = append(values, "")
			continue
		}
		if v, ok := m.addressPart(n, &a); ok {
			values = append(values, v)
		}
	}
	return m.matchAny(n, values, n.list(m, 1))
}
