package transfer

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"
)

// Server is an IMAP server and a user of it.
type Server struct {
	// Address is host:port.
	Address string
	// TLS is "tls", "starttls", or "none", which only a server on this machine may have.
	TLS            string
	User, Password string
	// Config of TLS; nil: the system's certificates, and the address's host.
	Config *tls.Config
}

// imapSource is the mailboxes of a user of another IMAP server.
type imapSource struct {
	c     *imapclient.Client
	spool string
	stop  func() bool
}

// OpenIMAP logs in; when ctx ends, so does the connection.
func OpenIMAP(ctx context.Context, s Server, spool string) (Source, error) {
	c, err := s.dial()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.Address, err)
	}
	src := &imapSource{c: c, spool: spool, stop: context.AfterFunc(ctx, func() { c.Close() })}
	if err := c.Login(s.User, s.Password).Wait(); err != nil {
		src.stop()
		return nil, errors.Join(fmt.Errorf("%s: %s cannot log in: %w", s.Address, s.User, err), c.Close())
	}
	return src, nil
}

func (s Server) dial() (*imapclient.Client, error) {
	o := &imapclient.Options{TLSConfig: s.Config}
	switch s.TLS {
	case "tls":
		return imapclient.DialTLS(s.Address, o)
	case "starttls":
		return imapclient.DialStartTLS(s.Address, o)
	case "none":
		host, _, err := net.SplitHostPort(s.Address)
		if err != nil {
			return nil, err
		}
		if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
			return nil, errors.New("the password would go over the network in the clear: without TLS only a server on this machine can be asked")
		}
		return imapclient.DialInsecure(s.Address, o)
	}
	return nil, fmt.Errorf("TLS %q: say tls, starttls or none", s.TLS)
}

var _ Source = (*imapSource)(nil)

// Close implements Source.
func (s *imapSource) Close() error {
	s.stop()
	_ = s.c.Logout().Wait() // it is closed all the same
	return s.c.Close()
}

var rolesOf = map[imap.MailboxAttr]string{
	imap.MailboxAttrAll: "all", imap.MailboxAttrArchive: "archive", imap.MailboxAttrDrafts: "drafts",
	imap.MailboxAttrFlagged: "flagged", imap.MailboxAttrJunk: "junk", imap.MailboxAttrSent: "sent",
	imap.MailboxAttrTrash: "trash", imap.MailboxAttrImportant: "important",
}

// Mailboxes implements Source.
func (s *imapSource) Mailboxes(ctx context.Context) (list []Mailbox, err error) {
	names, subscribed, err := s.list()
	if err != nil {
		return nil, s.ended(ctx, err)
	}
	prefix := s.prefix()
	for _, d := range names {
		if slices.Contains(d.Attrs, imap.MailboxAttrNoSelect) || slices.Contains(d.Attrs, imap.MailboxAttrNonExistent) {
			continue
		}
		m := Mailbox{place: d.Mailbox, Messages: -1, Octets: -1, Subscribed: subscribed[d.Mailbox]}
		if m.Name, err = imapName(strings.TrimPrefix(d.Mailbox, prefix), d.Delim); err != nil {
			return nil, fmt.Errorf("%q: %w", d.Mailbox, err)
		}
		for _, a := range d.Attrs {
			if r := rolesOf[a]; r != "" {
				m.Role = r
			}
		}
		if m.Name == inbox {
			m.Role = "inbox"
		}
		o := &imap.StatusOptions{NumMessages: true, Size: s.c.Caps().Has(imap.CapStatusSize) || s.c.Caps().Has(imap.CapIMAP4rev2)}
		st, err := s.c.Status(d.Mailbox, o).Wait()
		if err != nil {
			return nil, s.ended(ctx, fmt.Errorf("%q: %w", d.Mailbox, err))
		}
		if st.NumMessages != nil {
			m.Messages = int64(*st.NumMessages)
		}
		if st.Size != nil {
			m.Octets = *st.Size
		}
		list = append(list, m)
	}
	return list, nil
}

func imapName(name string, delim rune) (string, error) {
	levels := []string{name}
	if delim != 0 {
		levels = strings.Split(strings.TrimSuffix(name, string(delim)), string(delim))
	}
	return cleanName(levels)
}

// list asks for names with their special use, and which are subscribed, as the server
// can.
func (s *imapSource) list() (names []*imap.ListData, subscribed map[string]bool, err error) {
	caps := s.c.Caps()
	o := &imap.ListOptions{ReturnSpecialUse: caps.Has(imap.CapSpecialUse)}
	if caps.Has(imap.CapListExtended) || caps.Has(imap.CapIMAP4rev2) {
		o.ReturnSubscribed = true
	} else {
		o = nil
	}
	if names, err = s.c.List("", "*", o).Collect(); err != nil {
		return nil, nil, err
	}
	subscribed = map[string]bool{}
	for _, d := range names {
		// A server without LIST-EXTENDED is not asked; what is there is shown.
		subscribed[d.Mailbox] = o == nil || slices.Contains(d.Attrs, imap.MailboxAttrSubscribed)
	}
	return names, subscribed, nil
}

// prefix is what the names of all mailboxes but INBOX begin with: "INBOX." of some.
func (s *imapSource) prefix() string {
	if !s.c.Caps().Has(imap.CapNamespace) {
		return ""
	}
	ns, err := s.c.Namespace().Wait()
	if err != nil || len(ns.Personal) != 1 {
		return ""
	}
	return ns.Personal[0].Prefix
}

// ended tells of a connection that we closed as what it is.
func (s *imapSource) ended(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

// A FETCH asks for so many messages, or one large one.
const (
	mostAsked       = 100
	mostAskedOctets = 4 << 20
)

type listed struct {
	uid  imap.UID
	size int64
}

// Messages implements Source.
func (s *imapSource) Messages(ctx context.Context, m Mailbox, want func(string, int64) bool, each func(*Message) error) error {
	sel, err := s.c.Select(m.place, &imap.SelectOptions{ReadOnly: true}).Wait()
	if err != nil {
		return s.ended(ctx, err)
	}
	if sel.NumMessages == 0 {
		return nil
	}
	name := func(uid imap.UID) string { return fmt.Sprintf("UID %d of %d", uid, sel.UIDValidity) }
	var wanted []listed
	cmd := s.c.Fetch(imap.UIDSet{imap.UIDRange{Start: 1}}, &imap.FetchOptions{UID: true, RFC822Size: true})
	for d := cmd.Next(); d != nil; d = cmd.Next() {
		b, err := d.Collect()
		if err != nil {
			return s.ended(ctx, errors.Join(err, cmd.Close()))
		}
		if b.UID != 0 && want(name(b.UID), b.RFC822Size) {
			wanted = append(wanted, listed{b.UID, b.RFC822Size})
		}
	}
	if err := cmd.Close(); err != nil {
		return s.ended(ctx, err)
	}
	for len(wanted) > 0 {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, octets := 0, int64(0)
		for n < len(wanted) && n < mostAsked && (n == 0 || octets+wanted[n].size <= mostAskedOctets) {
			octets += wanted[n].size
			n++
		}
		if err := s.fetch(ctx, wanted[:n], name, each); err != nil {
			return s.ended(ctx, err)
		}
		wanted = wanted[n:]
	}
	return nil
}

var wholeMessage = &imap.FetchItemBodySection{Peek: true}

// fetch reads the messages before the first is handed on: the server is not made to
// wait for the storage.
func (s *imapSource) fetch(ctx context.Context, list []listed, name func(imap.UID) string, each func(*Message) error) error {
	set := imap.UIDSet{}
	for _, l := range list {
		set.AddNum(l.uid)
	}
	got := map[imap.UID]*Message{}
	defer func() {
		for _, m := range got {
			m.Body.drop()
		}
	}()
	cmd := s.c.Fetch(set, &imap.FetchOptions{UID: true, Flags: true, InternalDate: true, BodySection: []*imap.FetchItemBodySection{wholeMessage}})
	for d := cmd.Next(); d != nil; d = cmd.Next() {
		uid, m, err := s.read(d)
		if err != nil {
			return errors.Join(err, s.c.Close(), cmd.Close())
		}
		if old := got[uid]; old != nil && old.Body != nil {
			m.Body.drop() // flags that changed meanwhile, on their own
			continue
		}
		got[uid] = m
	}
	failed := cmd.Close()
	var refused *imap.Error
	if failed != nil && !errors.As(failed, &refused) {
		return failed
	}
	for _, l := range list {
		m := got[l.uid]
		delete(got, l.uid)
		if m == nil || m.Body == nil && m.Problem == nil {
			m = &Message{Problem: errors.New("the server did not send it")}
			if refused != nil {
				m.Problem = fmt.Errorf("the server did not send it: %w", refused)
			}
		}
		m.ID = name(l.uid)
		if err := each(m); err != nil {
			return err
		}
	}
	return ctx.Err()
}

func (s *imapSource) read(d *imapclient.FetchMessageData) (uid imap.UID, m *Message, err error) {
	m = &Message{Received: time.Now()}
	for it := d.Next(); it != nil; it = d.Next() {
		switch it := it.(type) {
		case imapclient.FetchItemDataUID:
			uid = it.UID
		case imapclient.FetchItemDataFlags:
			for _, f := range it.Flags {
				m.Flags = append(m.Flags, string(f))
			}
		case imapclient.FetchItemDataInternalDate:
			m.Received = it.Time
		case imapclient.FetchItemDataBodySection:
			if it.Literal == nil {
				continue
			}
			fill := newFilling(s.spool)
			_, err := io.Copy(fill, it.Literal)
			m.Body, err = fill.end(err)
			if errors.Is(err, errTooLarge) {
				m.Problem = err
			} else if err != nil {
				return uid, m, err
			}
		}
	}
	return uid, m, nil
}
