package engine

import (
	"strings"
	"time"
	"unicode/utf8"
)

// outsideTests ask about more than the message: environment (RFC 5183), ihave
// (RFC 5463), mailbox (RFC 5490), special-use (RFC 8579), duplicate (RFC 7352).
func outsideTests() []*spec {
	return []*spec{
		{
			name: "environment", exts: []string{"environment"}, test: true, args: []param{{"name", wantString}, {"key list", wantList}}, tags: matchTags(),
			check: func(v *validator, n *node) bool { return checkMatch(v, n, &n.args[1]) },
			eval: func(m *machine, n *node) (bool, error) {
				s, ok := m.item(strings.ToLower(n.text(m, 0)))
				if !ok {
					return false, nil
				}
				return m.matchAny(n, []string{s}, n.list(m, 1))
			},
		},
		{
			name: "ihave", exts: []string{"ihave"}, test: true, args: []param{{"capabilities", wantList}},
			check: func(v *validator, n *node) bool {
				all := true
				for i := range n.args[0].strs {
					s, ok := n.args[0].strs[i].constant()
					if !ok {
						return v.errorf(n.args[0].pos, "ihave has fixed strings, without variables")
					}
					// These change how the text was read already (RFC 5463 section 4).
					if s == "variables" || s == "encoded-character" {
						all = all && v.script.requires[s]
						continue
					}
					if v.offers(s) {
						v.script.requires[s] = true
					} else {
						all = false
					}
				}
				n.data = all
				return true
			},
			eval: func(_ *machine, n *node) (bool, error) { return n.data.(bool), nil },
		},
		{
			name: "error", exts: []string{"ihave"}, args: []param{{"message", wantString}},
			run: func(m *machine, n *node) error { return n.errorf("%s", clip(n.text(m, 0), 1000)) },
		},
		{
			name: "mailboxexists", exts: []string{"mailbox"}, test: true, args: []param{{"mailbox names", wantList}},
			check: func(v *validator, n *node) bool {
				for i := range n.args[0].strs {
					if s, ok := n.args[0].strs[i].constant(); ok && !utf8.ValidString(s) {
						v.warnf(n.args[0].strs[i].pos, "this name of a mailbox is not valid UTF-8: there is none of it")
					}
				}
				return true
			},
			eval: func(m *machine, n *node) (bool, error) {
				for _, name := range n.list(m, 0) {
					if !utf8.ValidString(name) {
						return false, nil
					}
					m.spend(1 << 10)
					ok, err := m.host.Mailbox(m.ctx, name)
					if err != nil || !ok {
						return false, err
					}
				}
				return true, nil
			},
		},
		{
			name: "specialuse_exists", exts: []string{"special-use"}, test: true, optional: 1,
			args: []param{{"mailbox", wantString}, {"special-use attributes", wantList}},
			check: func(v *validator, n *node) bool {
				if len(n.args) == 1 {
					// The mailbox is what may be left out.
					n.args = []value{{}, n.args[0]}
				}
				for i := range n.args[1].strs {
					if s, ok := n.args[1].strs[i].constant(); ok && !isUse(s) {
						return v.errorf(n.args[1].strs[i].pos, "'%s' is no special use: it is a backslash and a word, as in \"\\\\Sent\"", clip(s, 64))
					}
				}
				return true
			},
			eval: func(m *machine, n *node) (bool, error) {
				box := ""
				if len(n.args[0].strs) > 0 {
					if box = n.text(m, 0); !utf8.ValidString(box) {
						return false, nil
					}
					if ok, err := m.host.Mailbox(m.ctx, box); err != nil || !ok {
						return false, err
					}
				}
				for _, use := range n.list(m, 1) {
					m.spend(1 << 10)
					have, err := m.host.SpecialUse(m.ctx, use)
					if err != nil || have == "" || box != "" && have != box {
						return false, err
					}
				}
				return true, nil
			},
		},
		{
			name: "duplicate", exts: []string{"duplicate"}, test: true,
			tags: []*tag{
				{name: "handle", param: &param{"handle", wantString}}, {name: "header", group: "id", param: &param{"header name", wantString}},
				{name: "uniqueid", group: "id", param: &param{"unique id", wantString}}, {name: "seconds", param: &param{"seconds", wantNumber}}, {name: "last"},
			},
			eval: duplicate,
		},
	}
}

func duplicate(m *machine, n *node) (bool, error) {
	id, ok := n.tagText(m, "id")
	if t := n.tags["id"]; t == nil || t.name == "header" {
		if !ok {
			id = "Message-ID"
		}
		fields := fieldsNamed(m.msg.Fields, id)
		if len(fields) == 0 {
			return false, nil
		}
		id = decodeHeader(fields[0].value())
	}
	if id == "" {
		return false, nil
	}
	handle, _ := n.tagText(m, "handle")
	keep := m.c.DuplicateDefault
	if s, ok := n.tagNumber("seconds"); ok {
		keep = min(time.Duration(min(s, 1<<31))*time.Second, m.c.DuplicateMax)
	}
	key := "duplicate\x00" + handle + "\x00" + id
	m.spend(1 << 10)
	seen, err := m.host.Seen(m.ctx, key)
	if err != nil {
		return false, err
	}
	if !seen || n.has("last") {
		m.result.Remember = append(m.result.Remember, Memory{Key: key, Keep: keep})
	}
	return seen, nil
}

// item of the environment.
func (m *machine) item(name string) (string, bool) {
	switch name {
	case "name":
		return m.c.Name, true
	case "version":
		return m.c.Version, true
	case "location":
		return "MS", true
	case "phase":
		return "pre", true
	case "host":
		return m.c.Hostname, true
	case "domain":
		_, domain, _ := strings.Cut(m.c.Hostname, ".")
		return domain, true
	}
	s, ok := m.in.Environment[name]
	return s, ok
}

// environment is a variable of the namespace env (draft-ietf-sieve variables).
func (m *machine) environment(name string) string {
	s, _ := m.item(strings.TrimPrefix(name, "env."))
	return s
}
