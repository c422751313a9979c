package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"
	"github.com/migadu/go-pop3/pop3client"
)

// device is one mail program with its own IMAP connection.
type device struct {
	name string
	*imapclient.Client
}

func (s *site) device(name, user string) (*device, error) {
	conf, err := s.tls()
	if err != nil {
		return nil, err
	}
	c, err := imapclient.DialStartTLS(s.imap, &imapclient.Options{TLSConfig: conf})
	if err != nil {
		return nil, err
	}
	if err := c.Login(user, password).Wait(); err != nil {
		c.Close()
		return nil, err
	}
	return &device{name: name, Client: c}, nil
}

// open selects a mailbox anew, so that what it says is the server's view now.
func (d *device) open(mailbox string) (*imap.SelectData, error) {
	return d.Select(mailbox, nil).Wait()
}

// headers are the subjects of all messages of the selected mailbox.
func (d *device) headers() ([]*imapclient.FetchMessageBuffer, error) {
	return d.Fetch(imap.SeqSet{imap.SeqRange{Start: 1}}, &imap.FetchOptions{
		UID: true, Flags: true, Envelope: true, RFC822Size: true,
	}).Collect()
}

// body of one message, on demand.
func (d *device) body(uid imap.UID) (string, error) {
	section := &imap.FetchItemBodySection{Peek: true}
	got, err := d.Fetch(imap.UIDSetNum(uid), &imap.FetchOptions{BodySection: []*imap.FetchItemBodySection{section}}).Collect()
	if err != nil {
		return "", err
	}
	if len(got) != 1 {
		return "", fmt.Errorf("%d messages for one UID", len(got))
	}
	return string(got[0].FindBodySection(section)), nil
}

// find waits for a message whose subject holds a text, in a mailbox.
func (d *device) find(ctx context.Context, mailbox, subject string) (m *imapclient.FetchMessageBuffer, err error) {
	err = until(ctx, fmt.Sprintf("a message %q in %s on the %s", subject, mailbox, d.name), func() (bool, error) {
		sel, err := d.open(mailbox)
		if err != nil || sel.NumMessages == 0 {
			return false, err
		}
		all, err := d.headers()
		if err != nil {
			return false, err
		}
		for _, x := range all {
			if x.Envelope != nil && strings.Contains(x.Envelope.Subject, subject) {
				m = x
				return true, nil
			}
		}
		return false, nil
	})
	return m, err
}

// mailboxes by name.
func (d *device) mailboxes() (map[string]bool, error) {
	list, err := d.List("", "*", nil).Collect()
	if err != nil {
		return nil, err
	}
	out := map[string]bool{}
	for _, l := range list {
		out[l.Mailbox] = true
	}
	return out, nil
}

func (d *device) bye() {
	_ = d.Logout().Wait()
	d.Close()
}

// download empties a POP3 maildrop, or leaves a copy on the server, and returns
// the messages with their unique ids.
func (s *site) download(ctx context.Context, user string, leave bool) (ids []string, texts []string, err error) {
	conf, err := s.tls()
	if err != nil {
		return nil, nil, err
	}
	c, err := pop3client.Dial(ctx, s.pop3, pop3client.Options{TLSConfig: conf, STARTTLS: true})
	if err != nil {
		return nil, nil, err
	}
	defer c.Close()
	if err := c.User(ctx, user, password); err != nil {
		return nil, nil, err
	}
	list, err := c.Uidl(ctx)
	if err != nil {
		return nil, nil, err
	}
	for _, m := range list {
		ids = append(ids, m.UniqueID)
		r, err := c.Retr(ctx, m.Num)
		if err != nil {
			return nil, nil, err
		}
		b, err := io.ReadAll(r)
		if err = errors.Join(err, r.Close()); err != nil {
			return nil, nil, err
		}
		texts = append(texts, string(b))
		if !leave {
			if err := c.Dele(ctx, m.Num); err != nil {
				return nil, nil, err
			}
		}
	}
	return ids, texts, c.Quit(ctx)
}
