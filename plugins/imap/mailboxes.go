package imap

import (
	"context"
	"strings"
	"unicode/utf8"

	"github.com/emersion/go-imap/v2"

	"github.com/stagecoach-mta/stagecoach/plugins/imap/wire"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// maxName is the longest mailbox name that may be made.
const maxName = 1000

// specialUse is RFC 6154's attribute of a role.
var specialUse = map[string]string{
	"drafts": `\Drafts`, "sent": `\Sent`, "trash": `\Trash`, "junk": `\Junk`, "archive": `\Archive`, "all": `\All`,
	"flagged": `\Flagged`, "important": `\Important`,
}

var (
	errNoMailbox = no(imap.ResponseCodeNonExistent, "There is no such mailbox")
	errTryCreate = no(imap.ResponseCodeTryCreate, "There is no such mailbox: create it first")
	errBadName   = no(imap.ResponseCodeCannot, "A mailbox cannot have that name")
)

// mailbox takes a mailbox name.
func (ss *session) mailbox(p *wire.Parser) string { return ss.decodeName(p, p.AString()) }

// decodeName reads a name as this client writes it. What is no modified UTF-7
// stays as it stands: a name that no mailbox has, because "&" cannot stand so in
// one that is made.
func (ss *session) decodeName(p *wire.Parser, name string) string {
	if strings.ContainsAny(name, "\r\n") {
		p.Fail("A mailbox name has no line ends")
		return ""
	}
	if !ss.out.utf8 {
		if decoded, ok := wire.DecodeUTF7(name); ok {
			name = decoded
		}
	}
	if len(name) == len(inbox) && strings.EqualFold(name, inbox) {
		return inbox
	}
	return name
}

// find returns a mailbox that can be opened.
func (ss *session) find(ctx context.Context, name string) (*v1.Mailbox, error) {
	if name = strings.TrimSuffix(name, separator); name == "" || !utf8.ValidString(name) {
		return nil, errNoMailbox
	}
	list, err := ss.store.List(ctx, &v1.ListMailboxesRequest{Name: name})
	if err != nil {
		return nil, ss.refusal(err)
	}
	for _, m := range list.GetMailboxes() {
		if !m.GetContainer() {
			return m, nil
		}
	}
	return nil, errNoMailbox
}

// target is find for COPY, MOVE and APPEND: the client may create it and try
// again (RFC 9051 section 7.1).
func (ss *session) target(ctx context.Context, name string) (*v1.Mailbox, error) {
	m, err := ss.find(ctx, name)
	if err == errNoMailbox {
		err = errTryCreate
	}
	return m, err
}

// newName checks a name that a client makes up. A final separator only says that
// there will be mailboxes below (RFC 9051 section 6.3.4).
func (ss *session) newName(name string) (string, error) {
	name = strings.TrimSuffix(name, separator)
	bad := name == "" || len(name) > maxName || !utf8.ValidString(name) ||
		strings.HasPrefix(name, separator) || strings.Contains(name, separator+separator) ||
		strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r == 0x7f })
	if bad {
		return "", errBadName
	}
	return name, nil
}

// create is CREATE, with RFC 6154's USE.
func (ss *session) create(cmd *command) error {
	p := cmd.p
	p.SP()
	name := ss.mailbox(p)
	var uses []string
	if p.Try(' ') {
		p.List(func() {
			if option := p.Word(); option != "USE" {
				p.Fail("CREATE knows the option USE, not %s", option)
			}
			p.SP()
			p.List(func() { uses = append(uses, p.Flag()) })
		})
	}
	if err := cmd.end(); err != nil {
		return err
	}
	name, err := ss.newName(name)
	if err != nil {
		return err
	}
	// In IMAP only SUBSCRIBE subscribes (RFC 9051 section 6.3.7).
	req := &v1.CreateMailboxRequest{Name: name, Unsubscribed: true}
	for role, attribute := range specialUse {
		if len(uses) == 1 && strings.EqualFold(attribute, uses[0]) {
			req.Role = role
		}
	}
	if len(uses) > 1 || len(uses) == 1 && req.Role == "" {
		return no("USEATTR", "A mailbox cannot have that use")
	}
	ctx, cancel := ss.call()
	defer cancel()
	m, err := ss.store.Create(ctx, req)
	if err != nil {
		return ss.refusal(err)
	}
	ss.s.recents.made(keyOf(ss.account, m))
	ss.code = "MAILBOXID (" + objectID(m.GetId()) + ")"
	return nil
}

// objectID is an id as RFC 8474 allows it; the storage's may be anything.
func objectID(id string) string {
	if id == "" || len(id) > 255 || strings.ContainsFunc(id, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_')
	}) {
		const digits = "0123456789abcdef"
		b := []byte("x")
		for i := 0; i < len(id) && len(b) < 254; i++ {
			b = append(b, digits[id[i]>>4], digits[id[i]&15])
		}
		return string(b)
	}
	return id
}

// oneName takes a command's only argument, a mailbox name.
func (ss *session) oneName(cmd *command) (string, error) {
	cmd.p.SP()
	name := ss.mailbox(cmd.p)
	return name, cmd.end()
}

func (ss *session) delete(cmd *command) error {
	name, err := ss.oneName(cmd)
	if err != nil {
		return err
	}
	ctx, cancel := ss.call()
	defer cancel()
	m, err := ss.find(ctx, name)
	if err != nil {
		return err
	}
	// RFC 9051 section 6.3.7: a server ends no subscription by itself.
	_, err = ss.store.Delete(ctx, &v1.DeleteMailboxRequest{Id: m.GetId(), KeepSubscription: true})
	return ss.refusal(err)
}

func (ss *session) rename(cmd *command) error {
	p := cmd.p
	p.SP()
	name := ss.mailbox(p)
	p.SP()
	to := ss.mailbox(p)
	if err := cmd.end(); err != nil {
		return err
	}
	to, err := ss.newName(to)
	if err != nil {
		return err
	}
	if name = strings.TrimSuffix(name, separator); name == "" || !utf8.ValidString(name) {
		return errNoMailbox
	}
	ctx, cancel := ss.call()
	defer cancel()
	// A container is renamed with what is below it.
	list, err := ss.store.List(ctx, &v1.ListMailboxesRequest{Name: name})
	if err != nil {
		return ss.refusal(err)
	}
	if len(list.GetMailboxes()) == 0 {
		return errNoMailbox
	}
	_, err = ss.store.Rename(ctx, &v1.RenameMailboxRequest{Id: list.GetMailboxes()[0].GetId(), Name: to})
	return ss.refusal(err)
}

func (ss *session) subscribe(cmd *command) error { return ss.setSubscribed(cmd, true) }

func (ss *session) unsubscribe(cmd *command) error { return ss.setSubscribed(cmd, false) }

func (ss *session) setSubscribed(cmd *command, subscribed bool) error {
	name, err := ss.oneName(cmd)
	if err != nil {
		return err
	}
	ctx, cancel := ss.call()
	defer cancel()
	m, err := ss.find(ctx, name)
	if err == errNoMailbox && !subscribed {
		return ss.endSubscription(ctx, strings.TrimSuffix(name, separator))
	}
	if err != nil {
		return err
	}
	_, err = ss.store.Update(ctx, &v1.UpdateMailboxRequest{Id: m.GetId(), Subscribed: &subscribed})
	return ss.refusal(err)
}

// endSubscription is UNSUBSCRIBE of a name that has no mailbox.
func (ss *session) endSubscription(ctx context.Context, name string) error {
	if name == "" || !utf8.ValidString(name) {
		return errNoMailbox
	}
	subscribed := false
	_, err := ss.store.Update(ctx, &v1.UpdateMailboxRequest{Name: name, Subscribed: &subscribed})
	return ss.refusal(err)
}

func (ss *session) namespace(cmd *command) error {
	if err := cmd.end(); err != nil {
		return err
	}
	ss.out.line(`* NAMESPACE (("" "%s")) NIL NIL`, separator)
	return nil
}
