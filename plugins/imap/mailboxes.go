package imap

import (
	"context"
	"strings"
	"unicode/utf8"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapserver"

	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// maxName is the longest mailbox name that may be made.
const maxName = 1000

// specialUse is RFC 6154's attribute of a role.
var specialUse = map[string]imap.MailboxAttr{
	"drafts": imap.MailboxAttrDrafts, "sent": imap.MailboxAttrSent, "trash": imap.MailboxAttrTrash,
	"junk": imap.MailboxAttrJunk, "archive": imap.MailboxAttrArchive, "all": imap.MailboxAttrAll,
	"flagged": imap.MailboxAttrFlagged, "important": imap.MailboxAttrImportant,
}

// find returns a mailbox that can be opened.
func (ss *session) find(ctx context.Context, name string) (*v1.Mailbox, error) {
	list, err := ss.store.List(ctx, &v1.ListMailboxesRequest{Name: strings.TrimSuffix(name, separator)})
	if err != nil {
		return nil, refusal(err)
	}
	for _, m := range list.GetMailboxes() {
		if !m.GetContainer() {
			return m, nil
		}
	}
	return nil, &imap.Error{Type: imap.StatusResponseTypeNo, Code: imap.ResponseCodeNonExistent, Text: "There is no such mailbox"}
}

// target is find for COPY, MOVE and APPEND: the client may create it and try
// again (RFC 9051 section 7.1).
func (ss *session) target(ctx context.Context, name string) (*v1.Mailbox, error) {
	m, err := ss.find(ctx, name)
	if e, ok := err.(*imap.Error); ok && e.Code == imap.ResponseCodeNonExistent {
		return nil, &imap.Error{Type: imap.StatusResponseTypeNo, Code: imap.ResponseCodeTryCreate, Text: "There is no such mailbox: create it first"}
	}
	return m, err
}

// newName checks a name that a client makes up. A final separator only says that
// there will be mailboxes below (RFC 9051 section 6.3.4).
func newName(name string) (string, error) {
	name = strings.TrimSuffix(name, separator)
	bad := name == "" || len(name) > maxName || !utf8.ValidString(name) ||
		strings.HasPrefix(name, separator) || strings.Contains(name, separator+separator) ||
		strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r == 0x7f })
	if bad {
		return "", &imap.Error{Type: imap.StatusResponseTypeNo, Code: imap.ResponseCodeCannot, Text: "A mailbox cannot have that name"}
	}
	return name, nil
}

// Create implements imapserver.Session.
func (ss *session) Create(name string, options *imap.CreateOptions) error {
	name, err := newName(name)
	if err != nil {
		return err
	}
	req := &v1.CreateMailboxRequest{Name: name}
	for role, attr := range specialUse {
		for _, wanted := range options.SpecialUse {
			if strings.EqualFold(string(attr), string(wanted)) {
				req.Role = role
			}
		}
	}
	if len(options.SpecialUse) > 1 || len(options.SpecialUse) == 1 && req.Role == "" {
		return &imap.Error{Type: imap.StatusResponseTypeNo, Code: "USEATTR", Text: "A mailbox cannot have that use"}
	}
	ctx, cancel := ss.call()
	defer cancel()
	_, err = ss.store.Create(ctx, req)
	return orRefusal(err)
}

// Delete implements imapserver.Session.
func (ss *session) Delete(name string) error {
	ctx, cancel := ss.call()
	defer cancel()
	m, err := ss.find(ctx, name)
	if err != nil {
		return err
	}
	_, err = ss.store.Delete(ctx, &v1.DeleteMailboxRequest{Id: m.GetId()})
	return orRefusal(err)
}

// Rename implements imapserver.Session.
func (ss *session) Rename(name, to string, _ *imap.RenameOptions) error {
	to, err := newName(to)
	if err != nil {
		return err
	}
	ctx, cancel := ss.call()
	defer cancel()
	list, err := ss.store.List(ctx, &v1.ListMailboxesRequest{Name: strings.TrimSuffix(name, separator)})
	if err != nil {
		return refusal(err)
	}
	if len(list.GetMailboxes()) == 0 {
		return &imap.Error{Type: imap.StatusResponseTypeNo, Code: imap.ResponseCodeNonExistent, Text: "There is no such mailbox"}
	}
	_, err = ss.store.Rename(ctx, &v1.RenameMailboxRequest{Id: list.GetMailboxes()[0].GetId(), Name: to})
	return orRefusal(err)
}

// Subscribe implements imapserver.Session.
func (ss *session) Subscribe(name string) error { return ss.setSubscribed(name, true) }

// Unsubscribe implements imapserver.Session.
func (ss *session) Unsubscribe(name string) error { return ss.setSubscribed(name, false) }

func (ss *session) setSubscribed(name string, subscribed bool) error {
	ctx, cancel := ss.call()
	defer cancel()
	m, err := ss.find(ctx, name)
	if err != nil {
		return err
	}
	_, err = ss.store.Update(ctx, &v1.UpdateMailboxRequest{Id: m.GetId(), Subscribed: &subscribed})
	return orRefusal(err)
}

func orRefusal(err error) error {
	if err == nil {
		return nil
	}
	return refusal(err)
}

// List implements imapserver.Session, for LSUB too.
func (ss *session) List(w *imapserver.ListWriter, reference string, patterns []string, options *imap.ListOptions) error {
	if len(patterns) == 0 || len(patterns) == 1 && patterns[0] == "" {
		// RFC 9051 section 6.3.9: only the separator is asked for.
		return w.WriteList(&imap.ListData{Attrs: []imap.MailboxAttr{imap.MailboxAttrNoSelect}, Delim: rune(separator[0])})
	}
	ctx, cancel := ss.call()
	defer cancel()
	list, err := ss.store.List(ctx, &v1.ListMailboxesRequest{})
	if err != nil {
		return refusal(err)
	}
	wanted := make([]string, len(patterns))
	for i, p := range patterns {
		wanted[i] = listPattern(reference, p)
	}
	below, subscribedBelow := map[string]bool{}, map[string]bool{}
	for _, m := range list.GetMailboxes() {
		for i := len(m.GetName()) - 1; i > 0; i-- {
			if m.GetName()[i] == separator[0] {
				below[m.GetName()[:i]] = true
				if m.GetSubscribed() {
					subscribedBelow[m.GetName()[:i]] = true
				}
			}
		}
	}
	for _, m := range list.GetMailboxes() {
		name := m.GetName()
		if !matchesAny(name, wanted) {
			continue
		}
		data := &imap.ListData{Mailbox: name, Delim: rune(separator[0])}
		use, special := specialUse[m.GetRole()]
		if options.SelectSpecialUse && !special {
			continue
		}
		if options.SelectSubscribed && !m.GetSubscribed() {
			// LSUB names a parent that is not subscribed itself with \Noselect
			// (RFC 3501 section 6.3.9); LIST with RECURSIVEMATCH tells why.
			switch {
			case !subscribedBelow[name]:
				continue
			case options.SelectRecursiveMatch:
				data.ChildInfo = &imap.ListDataChildInfo{Subscribed: true}
			case ss.c.verb == "LSUB":
				data.Attrs = append(data.Attrs, imap.MailboxAttrNoSelect)
			default:
				continue
			}
		}
		if m.GetContainer() {
			data.Attrs = append(data.Attrs, imap.MailboxAttrNonExistent, imap.MailboxAttrNoSelect)
		}
		if below[name] {
			data.Attrs = append(data.Attrs, imap.MailboxAttrHasChildren)
		} else {
			data.Attrs = append(data.Attrs, imap.MailboxAttrHasNoChildren)
		}
		if m.GetSubscribed() && (options.ReturnSubscribed || options.SelectSubscribed) {
			data.Attrs = append(data.Attrs, imap.MailboxAttrSubscribed)
		}
		if special {
			data.Attrs = append(data.Attrs, use)
		}
		if options.ReturnStatus != nil && !m.GetContainer() {
			data.Status = ss.status(m)
		}
		if err := w.WriteList(data); err != nil {
			return err
		}
	}
	return nil
}

func matchesAny(name string, patterns []string) bool {
	for _, p := range patterns {
		if matchName(name, p) {
			return true
		}
	}
	return false
}

// Status implements imapserver.Session. The storage keeps the counters: nothing
// is opened.
func (ss *session) Status(name string, _ *imap.StatusOptions) (*imap.StatusData, error) {
	ctx, cancel := ss.call()
	defer cancel()
	m, err := ss.find(ctx, name)
	if err != nil {
		return nil, err
	}
	return ss.status(m), nil
}

func (ss *session) status(m *v1.Mailbox) *imap.StatusData {
	messages, unseen, deleted, size := m.GetMessages(), m.GetUnseen(), m.GetDeleted(), m.GetSize()
	var recent uint32
	var storage int64
	limit := ss.AppendLimit()
	return &imap.StatusData{
		Mailbox: m.GetName(), NumMessages: &messages, NumRecent: &recent,
		UIDNext: imap.UID(m.GetUidNext()), UIDValidity: m.GetUidValidity(),
		NumUnseen: &unseen, NumDeleted: &deleted, Size: &size,
		AppendLimit: &limit, DeletedStorage: &storage, HighestModSeq: m.GetHighestModseq(),
	}
}
