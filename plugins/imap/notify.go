package imap

import (
	"slices"
	"strings"

	"github.com/emersion/go-imap/v2"

	"github.com/stagecoach-mta/stagecoach/plugins/imap/wire"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// events of RFC 5465 that a client may ask for.
type events struct {
	// messages: MessageNew and MessageExpunge, which come together; flags:
	// FlagChange; names: MailboxName; subscriptions: SubscriptionChange.
	messages, flags, names, subscriptions bool
	// annotations: MailboxMetadataChange; server: ServerMetadataChange.
	annotations, server bool
	// fetch is what MessageNew wants of each new message.
	fetch *fetchItems
}

// group is a set of mailboxes with the events wanted of them. Of several groups
// that have a mailbox, the first counts (section 6).
type group struct {
	filter string
	names  []string
	events events
}

// watching is what NOTIFY SET asked for, and what the client was told last.
type watching struct {
	groups []group
	// selected: what happens in the selected mailbox is told at once; delayed:
	// but for EXPUNGE.
	selected, delayed bool
	fetch             *fetchItems
	changes           *subscription
	known             map[string]*v1.Mailbox
}

// maxGroups and maxNames bound what one NOTIFY may ask.
const (
	maxGroups = 20
	maxNames  = 500
)

const (
	badEvents   = "BADEVENT (MessageNew MessageExpunge FlagChange MailboxName SubscriptionChange)"
	badMetadata = "BADEVENT (MessageNew MessageExpunge FlagChange MailboxName SubscriptionChange MailboxMetadataChange ServerMetadataChange)"
)

// badEvent names the events that are known here.
func (ss *session) badEvent() error {
	code := imap.ResponseCode(badEvents)
	if ss.annotates() {
		code = badMetadata
	}
	return no(code, "Not all of these events are known here")
}

// wantsMetadata: some group asks for changed annotations.
func (w *watching) wantsMetadata() bool {
	return slices.ContainsFunc(w.groups, func(g group) bool { return g.events.annotations || g.events.server })
}

// notify is NOTIFY.
func (ss *session) notify(cmd *command) error {
	p := cmd.p
	p.SP()
	switch word := p.Word(); word {
	case "NONE":
		if err := cmd.end(); err != nil {
			return err
		}
		ss.unwatch()
		return nil
	case "SET":
	default:
		p.Fail("NOTIFY has SET or NONE, not %s", word)
	}
	p.SP()
	status := false
	if p.Peek() != '(' {
		if word := p.Word(); word != "STATUS" {
			p.Fail("Expected STATUS or a group of events and not %s", word)
		}
		status = true
		p.SP()
	}
	w := &watching{}
	known := true
	for p.Err() == nil {
		known = ss.eventGroup(p, w) && known
		if !p.Try(' ') {
			break
		}
	}
	if len(w.groups) > maxGroups {
		p.Fail("NOTIFY takes %d groups", maxGroups)
	}
	if err := cmd.end(); err != nil {
		return err
	}
	if !known || w.wantsMetadata() && !ss.annotates() {
		return ss.badEvent()
	}
	return ss.watch(w, status)
}

// eventGroup takes one group; false if it has an event that is not known here.
func (ss *session) eventGroup(p *wire.Parser, w *watching) bool {
	g := group{}
	p.Expect('(')
	switch g.filter = p.Word(); g.filter {
	case "SELECTED", "SELECTED-DELAYED", "INBOXES", "PERSONAL", "SUBSCRIBED":
	case "SUBTREE", "MAILBOXES":
		p.SP()
		if p.Peek() == '(' {
			p.List(func() { g.names = append(g.names, strings.TrimSuffix(ss.mailbox(p), separator)) })
		} else {
			g.names = []string{strings.TrimSuffix(ss.mailbox(p), separator)}
		}
		if len(g.names) > maxNames {
			p.Fail("NOTIFY takes %d names in a group", maxNames)
		}
	default:
		p.Fail("NOTIFY does not know the mailboxes %s", g.filter)
	}
	p.SP()
	known := true
	if p.Peek() != '(' {
		if word := p.Word(); word != "NONE" {
			p.Fail("Expected events or NONE and not %s", word)
		}
	} else {
		known = g.takeEvents(p)
	}
	p.Expect(')')
	if strings.HasPrefix(g.filter, "SELECTED") {
		w.selected = g.events.messages || g.events.flags
		w.delayed = g.filter == "SELECTED-DELAYED"
		w.fetch = g.events.fetch
		return known
	}
	w.groups = append(w.groups, g)
	return known
}

func (g *group) takeEvents(p *wire.Parser) (known bool) {
	known = true
	added, gone := false, false
	p.Expect('(')
	for p.Err() == nil {
		switch event := p.Word(); event {
		case "MESSAGENEW":
			added = true
		case "MESSAGEEXPUNGE":
			gone = true
		case "FLAGCHANGE":
			g.events.flags = true
		case "MAILBOXNAME":
			g.events.names = true
		case "SUBSCRIPTIONCHANGE":
			g.events.subscriptions = true
		case "MAILBOXMETADATACHANGE":
			g.events.annotations = true
		case "SERVERMETADATACHANGE":
			g.events.server = true
		default:
			known = false
		}
		more := p.Try(' ')
		if more && p.Peek() == '(' {
			g.events.fetch = &fetchItems{uid: true}
			p.List(func() { g.events.fetch.item(p) })
			if !strings.HasPrefix(g.filter, "SELECTED") || !added {
				p.Fail("What to fetch goes with MessageNew of the selected mailbox")
			}
			for i := range g.events.fetch.sections {
				g.events.fetch.sections[i].peek = true
			}
			more = p.Try(' ')
		}
		if !more {
			break
		}
	}
	p.Expect(')')
	if added != gone || g.events.flags && !added {
		p.Fail("MessageNew and MessageExpunge come together, and FlagChange with both")
	}
	g.events.messages = added
	return known
}

// watch begins to tell what w asks for.
func (ss *session) watch(w *watching, status bool) error {
	w.changes = ss.s.feeds.subscribe(ss.account, ss.store, "", ss.wake)
	ctx, cancel := ss.call()
	defer cancel()
	list, err := ss.store.List(ctx, &v1.ListMailboxesRequest{})
	if err != nil {
		ss.s.feeds.leave(w.changes)
		return ss.refusal(err)
	}
	ss.unwatch()
	w.known = map[string]*v1.Mailbox{}
	for _, m := range list.GetMailboxes() {
		w.known[m.GetId()] = m
		if e := ss.eventsOf(w, m); status && e != nil && e.messages && !ss.isSelected(m) {
			ss.notifyStatus(m, e)
		}
	}
	ss.watching = w
	w.changes.listen()
	ss.listenToBox()
	if w.wantsMetadata() {
		if err := ss.watchAnnotations(); err != nil {
			return err
		}
		ss.annotations.changes.listen()
	}
	return nil
}

func (ss *session) unwatch() {
	if ss.watching != nil {
		ss.s.feeds.leave(ss.watching.changes)
		ss.watching = nil
		if ss.annotations != nil {
			ss.annotations.changes.deaf()
		}
	}
	if ss.changes != nil {
		ss.changes.deaf()
	}
}

// listenToBox lets the selected mailbox wake the session, if the client asked.
func (ss *session) listenToBox() {
	if ss.changes != nil && ss.watching != nil && ss.watching.selected {
		ss.changes.listen()
	}
}

func (ss *session) isSelected(m *v1.Mailbox) bool {
	return ss.box != nil && ss.box.mailbox.GetId() == m.GetId()
}

// eventsOf a mailbox that are wanted; nil for none.
func (ss *session) eventsOf(w *watching, m *v1.Mailbox) *events {
	for i := range w.groups {
		g := &w.groups[i]
		is := false
		switch g.filter {
		case "INBOXES":
			is = m.GetName() == inbox
		case "PERSONAL":
			is = true
		case "SUBSCRIBED":
			is = m.GetSubscribed()
		case "MAILBOXES":
			is = slices.Contains(g.names, m.GetName())
		case "SUBTREE":
			is = slices.ContainsFunc(g.names, func(top string) bool {
				return m.GetName() == top || strings.HasPrefix(m.GetName(), top+separator)
			})
		}
		if is {
			return &g.events
		}
	}
	return nil
}

// notifyStatus tells a mailbox's counters: those that the events change.
func (ss *session) notifyStatus(m *v1.Mailbox, e *events) {
	if m.GetContainer() {
		return
	}
	ss.out.raw("* STATUS ")
	ss.out.mailbox(m.GetName())
	ss.out.printf(" (MESSAGES %d UIDNEXT %d UIDVALIDITY %d", m.GetMessages(), m.GetUidNext(), m.GetUidValidity())
	if e.flags {
		// It tells that flags changed, without anybody having to look.
		ss.out.printf(" HIGHESTMODSEQ %d", highest(m))
	}
	ss.out.raw(")")
	ss.out.end()
}

// tellUnasked tells what NOTIFY asked for, between commands and in IDLE.
func (ss *session) tellUnasked() {
	ss.tellAnnotations()
	w := ss.watching
	if w == nil {
		return
	}
	if ss.box != nil && w.selected && ss.changes.pending.Swap(false) {
		ss.refresh(!w.delayed)
	}
	if w.changes.pending.Swap(false) {
		ss.tellMailboxes(w)
	}
}

// tellMailboxes looks at all mailboxes, which opens none, and tells how those
// that are watched differ from what the client knows.
func (ss *session) tellMailboxes(w *watching) {
	ctx, cancel := ss.call()
	defer cancel()
	list, err := ss.store.List(ctx, &v1.ListMailboxesRequest{})
	if err != nil {
		if ss.ctx.Err() == nil {
			ss.log.Warn().Err(err).Str("account", ss.account).Msg("cannot look for changed mailboxes")
		}
		w.changes.pending.Store(true)
		return
	}
	old := w.known
	w.known = make(map[string]*v1.Mailbox, len(old))
	for _, m := range list.GetMailboxes() {
		w.known[m.GetId()] = m
		was := old[m.GetId()]
		delete(old, m.GetId())
		e := ss.eventsOf(w, m)
		if e == nil {
			continue
		}
		switch {
		case was == nil:
			if e.names {
				ss.notifyList(m, "", "")
			}
			if e.messages && m.GetMessages() > 0 {
				ss.notifyStatus(m, e)
			}
			continue
		case was.GetName() != m.GetName() && e.names:
			ss.notifyList(m, "", was.GetName())
		case was.GetSubscribed() != m.GetSubscribed() && e.subscriptions:
			ss.notifyList(m, "", "")
		}
		if ss.isSelected(m) {
			continue
		}
		counted := was.GetMessages() != m.GetMessages() || was.GetUidNext() != m.GetUidNext()
		if e.messages && counted || e.flags && was.GetHighestModseq() != m.GetHighestModseq() {
			ss.notifyStatus(m, e)
		}
	}
	for _, was := range old {
		if e := ss.eventsOf(w, was); e != nil && e.names {
			ss.notifyList(was, `\NonExistent`, "")
		}
	}
}

// notifyList tells of a mailbox that is new, gone, renamed or (un)subscribed.
func (ss *session) notifyList(m *v1.Mailbox, attribute, oldName string) {
	if m.GetSubscribed() && attribute == "" {
		attribute = `\Subscribed`
	}
	ss.out.raw("* LIST (" + attribute + `) "` + separator + `" `)
	ss.out.mailbox(m.GetName())
	if oldName != "" {
		ss.out.raw(` ("OLDNAME" (`)
		ss.out.mailbox(oldName)
		ss.out.raw("))")
	}
	ss.out.end()
}
