package engine

import (
	"net/mail"
	"strings"
	"unicode/utf8"

	"github.com/stagecoach-mta/stagecoach/plugins/sieve/script"
)

// extensions that require may name.
var extensions = map[string]bool{
	"envelope": true, "fileinto": true, "reject": true, "ereject": true, "encoded-character": true,
	"variables": true, "imap4flags": true, "copy": true, "subaddress": true, "relational": true,
	"comparator-i;octet": true, "comparator-i;ascii-casemap": true, "comparator-i;ascii-numeric": true,
	"comparator-i;unicode-casemap": true, "body": true, "date": true, "index": true, "vacation": true,
	"vacation-seconds": true, "include": true, "mailbox": true, "editheader": true, "environment": true,
	"ihave": true, "duplicate": true, "special-use": true, "enotify": true, "foreverypart": true, "mime": true,
	"extracttext": true, "regex": true,
}

// table has the commands and tests of the language, by name.
func table() map[string]*spec {
	out := map[string]*spec{}
	for _, list := range [][]*spec{
		coreCommands(), coreTests(), headerTests(), variableCommands(), flagCommands(), bodyTests(), dateTests(),
		editCommands(), vacationCommands(), notifyCommands(), includeCommands(), outsideTests(), mimeCommands(),
	} {
		for _, s := range list {
			out[s.name] = s
		}
	}
	return out
}

func coreCommands() []*spec {
	store := []*tag{
		{name: "flags", ext: "imap4flags", param: &param{"list of flags", wantList}},
	}
	into := append([]*tag{
		{name: "copy", ext: "copy"}, {name: "create", ext: "mailbox"},
		{name: "specialuse", ext: "special-use", param: &param{"special-use attribute", wantString}, check: checkSpecialUse},
	}, store...)
	return []*spec{
		{name: "require", args: []param{{"extensions", wantList}}, pre: requireInPlace, check: requireThem, run: nothing},
		{name: "if", tests: 1, block: true},
		{name: "elsif", tests: 1, block: true, pre: afterIf},
		{name: "else", block: true, pre: afterIf},
		{name: "stop", run: func(*machine, *node) error { return errStop }},
		{name: "keep", tags: store, run: func(m *machine, n *node) error {
			return m.result.add(m, &Action{Kind: Keep, Flags: m.flagsOf(n)})
		}},
		{name: "discard", run: func(m *machine, _ *node) error {
			m.result.cancel()
			return m.result.add(m, &Action{Kind: Discard})
		}},
		{name: "redirect", args: []param{{"address", wantString}}, tags: []*tag{{name: "copy", ext: "copy"}}, check: checkRedirect, run: redirect},
		{name: "fileinto", exts: []string{"fileinto"}, args: []param{{"mailbox", wantString}}, tags: into, check: checkMailbox, run: fileInto},
		{name: "reject", exts: []string{"reject"}, args: []param{{"reason", wantString}}, run: reject(Reject)},
		{name: "ereject", exts: []string{"ereject"}, args: []param{{"reason", wantString}}, run: reject(Ereject)},
	}
}

func nothing(*machine, *node) error { return nil }

func requireInPlace(v *validator, n *node, _ int, _ []*script.Node, depth int) bool {
	switch {
	case depth > 0:
		return v.errorf(n.pos, "require commands can only be placed at top level, at the beginning of the script")
	case v.begun:
		return v.errorf(n.pos, "require commands can only be placed at the beginning of the script")
	}
	return true
}

func requireThem(v *validator, n *node) bool {
	good := true
	for i := range n.args[0].strs {
		s := &n.args[0].strs[i]
		name, _ := s.constant()
		if !v.offers(name) {
			if c := v.set.commands[name]; c != nil && len(c.exts) == 0 {
				good = v.errorf(s.pos, "'%s' needs no require: it is always there", name)
				continue
			}
			good = v.errorf(s.pos, "there is no extension '%s' here", clip(name, 64))
			continue
		}
		v.script.requires[name] = true
	}
	return good
}

// afterIf tells whether elsif and else have an if above.
func afterIf(v *validator, n *node, at int, siblings []*script.Node, _ int) bool {
	if at > 0 && (siblings[at-1].Name == "if" || siblings[at-1].Name == "elsif") {
		return true
	}
	return v.errorf(n.pos, "the %s command must follow an if or elsif command", n.spec.name)
}

func coreTests() []*spec {
	return []*spec{
		{name: "true", test: true, eval: func(*machine, *node) (bool, error) { return true, nil }},
		{name: "false", test: true, eval: func(*machine, *node) (bool, error) { return false, nil }},
		{name: "not", test: true, tests: 1, eval: func(m *machine, n *node) (bool, error) {
			ok, err := m.test(n.tests[0])
			return !ok, err
		}},
		{name: "allof", test: true, tests: many, eval: func(m *machine, n *node) (bool, error) {
			for _, t := range n.tests {
				if ok, err := m.test(t); err != nil || !ok {
					return false, err
				}
			}
			return true, nil
		}},
		{name: "anyof", test: true, tests: many, eval: func(m *machine, n *node) (bool, error) {
			for _, t := range n.tests {
				if ok, err := m.test(t); err != nil || ok {
					return ok, err
				}
			}
			return false, nil
		}},
		{
			name: "size", test: true, args: []param{{"limit", wantNumber}},
			tags: []*tag{{name: "over", group: "relation"}, {name: "under", group: "relation"}},
			check: func(v *validator, n *node) bool {
				if !n.has("relation") {
					return v.errorf(n.pos, "the size test requires either the :under or the :over tag")
				}
				return true
			},
			eval: func(m *machine, n *node) (bool, error) {
				size := uint64(m.msg.Size())
				if n.is("relation", "over") {
					return size > n.args[0].number, nil
				}
				return size < n.args[0].number, nil
			},
		},
	}
}

func checkRedirect(v *validator, n *node) bool {
	if s, ok := n.args[0].constant(); ok {
		if _, mistake := outgoingAddress(s); mistake != "" {
			return v.errorf(n.args[0].pos, "specified redirect address '%s' is invalid: %s", clip(s, 128), mistake)
		}
	}
	return true
}

func redirect(m *machine, n *node) error {
	raw := n.text(m, 0)
	addr, mistake := outgoingAddress(raw)
	if mistake != "" {
		return n.errorf("specified redirect address '%s' is invalid: %s", clip(raw, 128), mistake)
	}
	if m.c.MaxRedirects == 0 {
		return n.errorf("local policy prohibits the use of a redirect action")
	}
	if !n.has("copy") {
		m.result.cancel()
	}
	return m.result.add(m, &Action{Kind: Redirect, Address: addr})
}

// outgoingAddress reads the address of a mail that a script sends: one, with or
// without a name.
func outgoingAddress(s string) (addr, mistake string) {
	full, mistake := outgoingMailbox(s)
	if mistake != "" {
		return "", mistake
	}
	return full.Address, ""
}

func checkMailbox(v *validator, n *node) bool {
	if s, ok := n.args[0].constant(); ok && !utf8.ValidString(s) {
		return v.errorf(n.args[0].pos, "invalid folder name '%s' specified for the %s command: not valid UTF-8", strings.ToValidUTF8(clip(s, 80), "?"), n.spec.name)
	}
	return true
}

func checkSpecialUse(v *validator, _ *node, t *tagged) bool {
	if s, ok := t.value.constant(); ok && !isUse(s) {
		return v.errorf(t.pos, "'%s' is no special use: it is a backslash and a word, as in \"\\\\Sent\"", clip(s, 64))
	}
	return true
}

// isUse tells whether s is a special-use attribute (RFC 6154): a backslash and an
// atom.
func isUse(s string) bool {
	if len(s) < 2 || s[0] != '\\' {
		return false
	}
	for _, c := range []byte(s[1:]) {
		if c <= ' ' || c >= 0x7f || strings.IndexByte("(){%*\"\\]", c) >= 0 {
			return false
		}
	}
	return true
}

func fileInto(m *machine, n *node) error {
	box := n.text(m, 0)
	if !utf8.ValidString(box) {
		return n.errorf("invalid folder name '%s' specified for fileinto: not valid UTF-8", strings.ToValidUTF8(clip(box, 80), "?"))
	}
	use, _ := n.tagText(m, "specialuse")
	if !n.has("copy") {
		m.result.cancel()
	}
	return m.result.add(m, &Action{Kind: FileInto, Mailbox: box, Create: n.has("create"), SpecialUse: use, Flags: m.flagsOf(n)})
}

func reject(kind Kind) func(*machine, *node) error {
	return func(m *machine, n *node) error {
		reason := n.text(m, 0)
		m.result.cancel()
		return m.result.add(m, &Action{Kind: kind, Reason: reason})
	}
}

// mailbox is an address with its name.
type mailbox = mail.Address
