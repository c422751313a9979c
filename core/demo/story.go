package demo

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/emersion/go-imap/v2"

	"github.com/stagecoach-mta/stagecoach/core/admin"
)

const (
	tom   = "tom@hanks.example"
	meg   = "meg@ryan.example"
	annie = "annie@ryan.example"
)

// chapters is the story.
func (s *story) chapters() []chapter {
	var (
		phone, laptop *device
		uid           imap.UID
		first         string // the first mail's queue id
		kept          []string
	)
	return []chapter{
		{"Meg's server is down. Tom writes to her.", []step{
			{"Tom's server starts", func(ctx context.Context) (string, error) {
				return "hanks.example takes mail on " + s.hanks.smtp, s.hanks.start(ctx)
			}},
			{"Tom submits with a login", func(ctx context.Context) (string, error) {
				said, err := s.hanks.send(ctx, tom, meg, "You have got mail", "Don't you love New York in the fall?")
				first = queueID(said)
				return said, err
			}},
			{"the mail waits", func(ctx context.Context) (string, error) { return s.waits(ctx, first) }},
		}},
		{"Meg's server comes up.", []step{
			{"Meg's server starts", func(ctx context.Context) (string, error) {
				return "ryan.example takes mail on " + s.ryan.smtp, s.ryan.start(ctx)
			}},
			{"the operator flushes Tom's queue", func(ctx context.Context) (string, error) {
				var f admin.Flushed
				if err := s.hanks.admin.Call(ctx, "POST", "/queue/flush", nil, &f); err != nil {
					return "", err
				}
				return fmt.Sprintf("%s was tried again and left the queue for mx.ryan.example, found by MX", first), s.leaves(ctx, first)
			}},
		}},
		{"What cannot arrive comes back.", []step{
			{"a user who does not exist", func(ctx context.Context) (string, error) {
				said, err := s.hanks.send(ctx, tom, "nobody@ryan.example", "to nobody", "Is anybody there?")
				if err != nil {
					return "", err
				}
				return s.bounced(ctx, queueID(said), "nobody@ryan.example", "5.1.1")
			}},
			{"a domain that does not exist", func(ctx context.Context) (string, error) {
				said, err := s.hanks.send(ctx, tom, "meg@nowhere.example", "to nowhere", "Is anything there?")
				if err != nil {
					return "", err
				}
				return s.bounced(ctx, queueID(said), "meg@nowhere.example", "5.1.2")
			}},
			{"a stranger of one's own domain", func(ctx context.Context) (string, error) {
				return s.hanks.refused(ctx, tom, "stranger@hanks.example", 550)
			}},
		}},
		{"Meg reads on two devices.", []step{
			{"both log in over IMAP", func(context.Context) (string, error) {
				var err1, err2 error
				phone, err1 = s.device(s.ryan, "phone", meg)
				laptop, err2 = s.device(s.ryan, "laptop", meg)
				return "phone and laptop, with STARTTLS", errors.Join(err1, err2)
			}},
			{"the phone sees the header first", func(ctx context.Context) (string, error) {
				m, err := phone.find(ctx, "INBOX", "You have got mail")
				if err != nil {
					return "", err
				}
				uid = m.UID
				if len(m.Envelope.From) != 1 {
					return "", fmt.Errorf("it is from %v", m.Envelope.From)
				}
				return fmt.Sprintf("%s is UID %d, %q from %s, %d octets", first, m.UID, m.Envelope.Subject, m.Envelope.From[0].Addr(), m.RFC822Size), nil
			}},
			{"then asks for the body", func(context.Context) (string, error) {
				text, err := phone.body(uid)
				if err == nil && !strings.Contains(text, "Don't you love New York in the fall?\r\n") {
					err = fmt.Errorf("the text is not what Tom wrote: %q", text)
				}
				return "it is what Tom wrote", err
			}},
			{"read on the phone is read on the laptop", func(ctx context.Context) (string, error) {
				if err := phone.Store(imap.UIDSetNum(uid), &imap.StoreFlags{Op: imap.StoreFlagsAdd, Silent: true, Flags: []imap.Flag{imap.FlagSeen}}, nil).Close(); err != nil {
					return "", err
				}
				return `the laptop sees \Seen`, until(ctx, "the read mark", func() (bool, error) {
					m, err := laptop.find(ctx, "INBOX", "You have got mail")
					return err == nil && slices.Contains(m.Flags, imap.FlagSeen), err
				})
			}},
			{"a folder made on the laptop is on the phone", func(ctx context.Context) (string, error) {
				if err := laptop.Create("Letters/Tom", nil).Wait(); err != nil {
					return "", err
				}
				return `the phone lists "Letters/Tom"`, until(ctx, "the folder", func() (bool, error) {
					all, err := phone.mailboxes()
					return all["Letters/Tom"], err
				})
			}},
			{"moved on the laptop is moved on the phone", func(ctx context.Context) (string, error) {
				if _, err := laptop.open("INBOX"); err != nil {
					return "", err
				}
				if _, err := laptop.Move(imap.UIDSetNum(uid), "Letters/Tom").Wait(); err != nil {
					return "", err
				}
				m, err := phone.find(ctx, "Letters/Tom", "You have got mail")
				if err != nil {
					return "", err
				}
				uid = m.UID
				sel, err := phone.open("INBOX")
				if err == nil && sel.NumMessages != 0 {
					err = fmt.Errorf("INBOX still holds %d", sel.NumMessages)
				}
				return fmt.Sprintf("there it is UID %d, still read: %v", m.UID, slices.Contains(m.Flags, imap.FlagSeen)), err
			}},
			{"deleted on the phone is gone on the laptop", func(ctx context.Context) (string, error) {
				if _, err := phone.open("Letters/Tom"); err != nil {
					return "", err
				}
				if err := phone.Store(imap.UIDSetNum(uid), &imap.StoreFlags{Op: imap.StoreFlagsAdd, Silent: true, Flags: []imap.Flag{imap.FlagDeleted}}, nil).Close(); err != nil {
					return "", err
				}
				if err := phone.Expunge().Close(); err != nil {
					return "", err
				}
				defer phone.bye()
				defer laptop.bye()
				return "Letters/Tom is empty on both", until(ctx, "the deletion", func() (bool, error) {
					sel, err := laptop.open("Letters/Tom")
					return err == nil && sel.NumMessages == 0, err
				})
			}},
		}},
		{"Annie downloads over POP3.", []step{
			{"two mails arrive", func(ctx context.Context) (string, error) {
				var sent []string
				for _, subject := range []string{"first", "second"} {
					said, err := s.hanks.send(ctx, tom, annie, subject, "The "+subject+" of two.")
					if err != nil {
						return "", err
					}
					sent = append(sent, queueID(said))
				}
				return strings.Join(sent, " and ") + " are in her maildrop", until(ctx, "two mails", func() (bool, error) {
					ids, _, err := s.ryan.download(ctx, annie, true)
					return len(ids) == 2, err
				})
			}},
			{"downloaded, left on the server", func(ctx context.Context) (string, error) {
				ids, _, err := s.ryan.download(ctx, annie, true)
				kept = ids
				return fmt.Sprintf("unique ids %s", strings.Join(ids, ", ")), err
			}},
			{"downloaded and deleted", func(ctx context.Context) (string, error) {
				ids, texts, err := s.ryan.download(ctx, annie, false)
				if err == nil && !slices.Equal(ids, kept) {
					err = fmt.Errorf("the unique ids changed to %v", ids)
				}
				// Two mails on two connections arrive in any order.
				all := strings.Join(texts, "")
				if err == nil && (len(texts) != 2 || !strings.Contains(all, "The first of two.") || !strings.Contains(all, "The second of two.")) {
					err = fmt.Errorf("%d mails, not the two that were sent", len(texts))
				}
				return "the same two, by the same ids", err
			}},
			{"the maildrop is empty", func(ctx context.Context) (string, error) {
				ids, _, err := s.ryan.download(ctx, annie, false)
				if err == nil && len(ids) != 0 {
					err = fmt.Errorf("it still holds %v", ids)
				}
				return "nothing is left", err
			}},
		}},
	}
}

// waits wants a mail in Tom's queue that was tried in vain.
func (s *story) waits(ctx context.Context, id string) (why string, err error) {
	err = until(ctx, "a first attempt of "+id, func() (bool, error) {
		var m admin.Message
		if err := s.hanks.admin.Call(ctx, "GET", "/queue/"+id, nil, &m); err != nil {
			return false, err
		}
		r := m.Recipients[0]
		if r.State != "waiting" || r.Attempts == 0 || r.Last == nil {
			return false, nil
		}
		why = fmt.Sprintf("%s stays in the queue: %d %s", id, r.Last.Code, r.Last.Text)
		return true, nil
	})
	return why, err
}

// leaves wants a mail out of Tom's queue.
func (s *story) leaves(ctx context.Context, id string) error {
	return until(ctx, id+" to leave the queue", func() (bool, error) {
		all, err := s.hanks.queued(ctx)
		if err != nil {
			return false, err
		}
		return !slices.ContainsFunc(all, func(m admin.Message) bool { return m.ID == id }), nil
	})
}

// bounced wants a DSN for the recipient in Tom's mailbox, and takes it out.
func (s *story) bounced(ctx context.Context, id, recipient, status string) (string, error) {
	d, err := s.device(s.hanks, "Tom's", tom)
	if err != nil {
		return "", err
	}
	defer d.bye()
	var text string
	err = until(ctx, "the notification", func() (bool, error) {
		sel, err := d.open("INBOX")
		if err != nil || sel.NumMessages == 0 {
			return false, err
		}
		all, err := d.headers()
		if err != nil {
			return false, err
		}
		for _, m := range all {
			if text, err = d.body(m.UID); err != nil {
				return false, err
			}
			if strings.Contains(text, recipient) && strings.Contains(text, "report-type") {
				return true, nil
			}
		}
		return false, nil
	})
	if err != nil {
		return "", err
	}
	for _, want := range []string{"Action: failed", "Status: " + status, "Return-Path: <>"} {
		if !strings.Contains(text, want) {
			return "", fmt.Errorf("the notification has no %q", want)
		}
	}
	return fmt.Sprintf("%s came back to Tom as a delivery status notification, %s", id, status), nil
}
