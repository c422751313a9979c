package imap

import (
	"cmp"
	"slices"

	"github.com/stagecoach-mta/stagecoach/plugins/imap/wire"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// maxPatterns of one LIST, and the longest of them: matching costs their product
// with the length of every name.
const (
	maxPatterns    = 100
	longestPattern = 1000
)

// listing is what one LIST or LSUB asks for.
type listing struct {
	patterns []string
	lsub     bool
	// Selection (RFC 5258 section 3.1, RFC 6154).
	subscribed, recursive, special bool
	// Return (section 3.2); children are always told.
	returnSubscribed bool
	status           []string
	extended         bool
}

// list is LIST with LIST-EXTENDED, LIST-STATUS and SPECIAL-USE.
func (ss *session) list(cmd *command) error {
	p := cmd.p
	l := &listing{}
	p.SP()
	if p.Peek() == '(' {
		l.extended = true
		remote := false
		p.List(func() {
			switch option := p.Word(); option {
			case "SUBSCRIBED":
				l.subscribed, l.returnSubscribed = true, true
			case "REMOTE":
				remote = true
			case "RECURSIVEMATCH":
				l.recursive = true
			case "SPECIAL-USE":
				l.special = true
			default:
				p.Fail("LIST cannot select by %s", option)
			}
		})
		if l.recursive && !l.subscribed && !l.special {
			p.Fail("RECURSIVEMATCH goes with SUBSCRIBED or SPECIAL-USE")
		}
		_ = remote // There are none: the option changes nothing.
		p.SP()
	}
	reference := ss.decodeName(p, p.AString())
	p.SP()
	var patterns []string
	if p.Peek() == '(' {
		l.extended = true
		p.List(func() { patterns = append(patterns, ss.decodeName(p, p.Pattern())) })
	} else {
		patterns = []string{ss.decodeName(p, p.Pattern())}
	}
	if p.Try(' ') {
		l.extended = true
		if word := p.Word(); word != "RETURN" {
			p.Fail("Expected RETURN and not %s", word)
		}
		p.SP()
		p.List(func() { ss.listReturn(p, l) })
	}
	if err := l.accept(p, reference, patterns); err != nil {
		return err
	}
	if err := cmd.end(); err != nil {
		return err
	}
	if !l.extended && len(patterns) == 1 && patterns[0] == "" {
		// RFC 9051 section 6.3.9: only the separator is asked for.
		ss.out.line(`* LIST (\Noselect) "%s" ""`, separator)
		return nil
	}
	return ss.runList(l)
}

func (ss *session) listReturn(p *wire.Parser, l *listing) {
	switch option := p.Word(); option {
	case "SUBSCRIBED":
		l.returnSubscribed = true
	case "CHILDREN", "SPECIAL-USE":
	case "STATUS":
		p.SP()
		l.status = ss.statusItems(p)
	default:
		p.Fail("LIST cannot return %s", option)
	}
}

func (l *listing) accept(p *wire.Parser, reference string, patterns []string) error {
	if len(patterns) > maxPatterns {
		return no("LIMIT", "LIST takes 100 patterns at once")
	}
	for _, pattern := range patterns {
		pattern = listPattern(reference, pattern)
		if len(pattern) > longestPattern {
			return no("LIMIT", "LIST takes patterns of 1000 octets")
		}
		l.patterns = append(l.patterns, pattern)
	}
	return p.Err()
}

// lsub is LSUB (RFC 3501 section 6.3.9).
func (ss *session) lsub(cmd *command) error {
	p := cmd.p
	l := &listing{lsub: true, subscribed: true}
	p.SP()
	reference := ss.decodeName(p, p.AString())
	p.SP()
	pattern := ss.decodeName(p, p.Pattern())
	if err := l.accept(p, reference, []string{pattern}); err != nil {
		return err
	}
	if err := cmd.end(); err != nil {
		return err
	}
	return ss.runList(l)
}

// runList writes the matching mailboxes. The counters come with the list: STATUS
// opens nothing.
func (ss *session) runList(l *listing) error {
	ctx, cancel := ss.call()
	defer cancel()
	list, err := ss.store.List(ctx, &v1.ListMailboxesRequest{})
	if err != nil {
		return ss.refusal(err)
	}
	all := list.GetMailboxes()
	if l.subscribed || l.returnSubscribed {
		all = withKept(all, list.GetKeptSubscriptions(), l.subscribed)
	}
	below := map[string]bool{}
	// told: names that answer for themselves, so that a parent need not.
	selectedBelow := map[string]bool{}
	for _, m := range all {
		for i := len(m.GetName()) - 1; i > 0; i-- {
			if m.GetName()[i] == separator[0] {
				below[m.GetName()[:i]] = true
				if l.selects(m) && !l.matches(m.GetName()) {
					selectedBelow[m.GetName()[:i]] = true
				}
			}
		}
	}
	for _, m := range all {
		name := m.GetName()
		if !l.matches(name) {
			continue
		}
		chosen := l.selects(m)
		childInfo := l.recursive && selectedBelow[name]
		// LSUB names a parent that is not subscribed itself, if "%" hides the
		// child that is (RFC 3501 section 6.3.9).
		parent := l.lsub && !chosen && selectedBelow[name]
		if !chosen && !childInfo && !parent {
			continue
		}
		ss.listLine(l, m, below[name], childInfo, parent)
		if l.status != nil && !m.GetContainer() {
			if err := ss.statusLine(ctx, m, l.status); err != nil {
				return err
			}
		}
	}
	return nil
}

// withKept adds the names that are subscribed and have no mailbox, as who asks for
// subscriptions wants to hear of them (RFC 5258 section 3.1); alone: also those that
// have no children. The lists are by name.
func withKept(all []*v1.Mailbox, kept []string, alone bool) []*v1.Mailbox {
	if len(kept) == 0 {
		return all
	}
	out := slices.Clone(all)
	for _, name := range kept {
		i, found := slices.BinarySearchFunc(out, name, func(m *v1.Mailbox, name string) int { return cmp.Compare(m.GetName(), name) })
		m := &v1.Mailbox{Name: name, Container: true, Subscribed: true}
		switch {
		case found:
			out[i] = m
		case alone:
			out = slices.Insert(out, i, m)
		}
	}
	return out
}

func (l *listing) selects(m *v1.Mailbox) bool {
	_, special := specialUse[m.GetRole()]
	return (!l.subscribed || m.GetSubscribed()) && (!l.special || special)
}

func (l *listing) matches(name string) bool {
	for _, p := range l.patterns {
		if matchName(name, p) {
			return true
		}
	}
	return false
}

func (ss *session) listLine(l *listing, m *v1.Mailbox, children, childInfo, parent bool) {
	if l.lsub {
		ss.out.raw("* LSUB (")
	} else {
		ss.out.raw("* LIST (")
	}
	first := true
	attribute := func(a string) {
		if !first {
			ss.out.raw(" ")
		}
		first = false
		ss.out.raw(a)
	}
	switch {
	case parent:
		attribute(`\Noselect`)
	case m.GetContainer() && l.lsub:
		attribute(`\Noselect`)
	case m.GetContainer() && m.GetSubscribed():
		// Only who asks for subscriptions hears of it, and knows what that implies
		// (RFC 5258 section 3).
		attribute(`\NonExistent`)
	case m.GetContainer():
		attribute(`\NonExistent`)
		attribute(`\Noselect`)
	}
	if children {
		attribute(`\HasChildren`)
	} else {
		attribute(`\HasNoChildren`)
	}
	if m.GetSubscribed() && l.returnSubscribed {
		attribute(`\Subscribed`)
	}
	if use, special := specialUse[m.GetRole()]; special {
		attribute(use)
	}
	ss.out.raw(`) "` + separator + `" `)
	ss.out.mailbox(m.GetName())
	if childInfo {
		ss.out.raw(` (CHILDINFO (`)
		switch {
		case l.subscribed && l.special:
			ss.out.raw(`"SUBSCRIBED" "SPECIAL-USE"`)
		case l.special:
			ss.out.raw(`"SPECIAL-USE"`)
		default:
			ss.out.raw(`"SUBSCRIBED"`)
		}
		ss.out.raw("))")
	}
	ss.out.end()
}
