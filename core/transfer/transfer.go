// Package transfer carries mail between an account and what lies outside of the
// server: Maildirs, mbox files, mailboxes of another IMAP server. What was carried is
// written down beside it, so that a run that was cut off goes on. It is not a storage
// and keeps no mail.
package transfer

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// inbox is the mailbox that every account has.
const inbox = "INBOX"

// Mailbox is one of a source, or of the account that is exported.
type Mailbox struct {
	// Name is UTF-8, its levels separated by "/".
	Name string
	// Role is the storage contract's: "sent", "trash"; empty: none or not known.
	Role       string
	Subscribed bool
	// Messages and Octets are what it has; -1: nobody knows before it is read.
	Messages, Octets int64

	// place is where the source finds it.
	place string
}

// Message is one message of a source.
type Message struct {
	// ID names it in its mailbox for ever, also when its flags change.
	ID string
	// Flags and keywords, as the storage contract spells them.
	Flags    []string
	Received time.Time
	Body     *Body
	// Problem is why the message cannot be had; the rest is not set then, but ID.
	Problem error
}

// Source is where mail comes from. It is used by one goroutine.
type Source interface {
	// Mailboxes lists what there is.
	Mailboxes(ctx context.Context) ([]Mailbox, error)
	// Messages calls each for the messages of a mailbox, in their order; their bodies
	// are each's to drop. It asks want before, where it can before it reads their
	// octets, and passes over what is not wanted. An error of each ends it.
	Messages(ctx context.Context, m Mailbox, want func(id string, size int64) bool, each func(*Message) error) error
	Close() error
}

// Left is a message that was left out, or something of it that was.
type Left struct {
	Mailbox string `json:"mailbox"`
	Message string `json:"message"`
	Why     string `json:"why"`
}

// mostLeft are told one by one; more are only counted.
const mostLeft = 1000

// Row is what became of one mailbox.
type Row struct {
	From string `json:"from"`
	To   string `json:"to"`
	// Messages that were looked at: Carried, Before (carried by an earlier run) and
	// LeftOut.
	Messages int64 `json:"messages"`
	Carried  int64 `json:"carried"`
	Before   int64 `json:"before"`
	LeftOut  int64 `json:"left_out"`
	// Octets that were carried.
	Octets int64 `json:"octets"`
}

// Report is what a run did.
type Report struct {
	Mailboxes []*Row `json:"mailboxes"`
	// Left tells why: the first thousand.
	Left []Left `json:"left"`
	// Notes tell what was carried otherwise than it was: a keyword that cannot be one.
	Notes []Left `json:"notes"`
}

// Sum adds the rows up.
func (r *Report) Sum() (sum Row) {
	for _, x := range r.Mailboxes {
		sum.Messages += x.Messages
		sum.Carried += x.Carried
		sum.Before += x.Before
		sum.LeftOut += x.LeftOut
		sum.Octets += x.Octets
	}
	return sum
}

func (r *Report) leave(row *Row, id string, why error) {
	row.LeftOut++
	if len(r.Left) < mostLeft {
		r.Left = append(r.Left, Left{row.From, id, why.Error()})
	}
}

func (r *Report) note(row *Row, id, why string) {
	if len(r.Notes) < mostLeft {
		r.Notes = append(r.Notes, Left{row.From, id, why})
	}
}

// Progress is how far a run is.
type Progress struct {
	Mailbox string
	// Messages and Octets that are dealt with, of so many; -1: nobody knows.
	Messages, Octets, AllMessages, AllOctets int64
	// Carried octets: those that took the time.
	Carried int64
}

// total adds up what the mailboxes have.
func total(list []Mailbox) (messages, octets int64) {
	for _, m := range list {
		messages, octets = add(messages, m.Messages), add(octets, m.Octets)
	}
	return messages, octets
}

func add(sum, n int64) int64 {
	if sum < 0 || n < 0 {
		return -1
	}
	return sum + n
}

// chosen are the mailboxes of these names, all for none; it complains of a name that
// none has.
func chosen(list []Mailbox, names []string) ([]Mailbox, error) {
	if len(names) == 0 {
		return list, nil
	}
	var out []Mailbox
	for _, name := range names {
		found := false
		for _, m := range list {
			if m.Name == name || strings.EqualFold(name, inbox) && m.Name == inbox {
				out, found = append(out, m), true
			}
		}
		if !found {
			return nil, fmt.Errorf("there is no mailbox %q", name)
		}
	}
	return out, nil
}

// Keywords that a message may have at most: the storage contract's bound.
const mostKeywords = 128

// usable sorts out what the storage would refuse: what is no flag and no keyword.
func usable(flags []string) (good, bad []string) {
	seen := map[string]bool{}
	keywords := 0
	for _, f := range flags {
		low := strings.ToLower(f)
		switch {
		case seen[low] || low == `\recent`:
			continue
		case low == `\seen` || low == `\answered` || low == `\flagged` || low == `\deleted` || low == `\draft`:
		case !atom(f) || keywords == mostKeywords:
			bad = append(bad, f)
			continue
		default:
			keywords++
		}
		seen[low] = true
		good = append(good, f)
	}
	return good, bad
}

// atom of RFC 9051 section 9.
func atom(s string) bool {
	return s != "" && len(s) <= 255 && !strings.ContainsFunc(s, func(r rune) bool {
		return r <= ' ' || r > '~' || strings.ContainsRune(`(){%*"\]`, r)
	})
}

// cleanName makes of a source's name one that a mailbox may have.
func cleanName(levels []string) (string, error) {
	for n, l := range levels {
		l = strings.ReplaceAll(l, "/", "_")
		if l == "" || !utf8.ValidString(l) || strings.ContainsFunc(l, unicode.IsControl) {
			return "", errors.New("a mailbox cannot have this name")
		}
		levels[n] = l
	}
	if strings.EqualFold(levels[0], inbox) {
		levels[0] = inbox
	}
	return strings.Join(levels, "/"), nil
}
