package queue

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// Filter selects messages: all that it says must hold; the zero value selects
// all. What it says of a recipient must hold for one and the same, and that one
// is open. Texts are parts of what is looked for, without case; in angle brackets
// they are the whole: "<>" is the null reverse-path.
type Filter struct {
	IDs []string `json:"ids,omitempty"`
	// After is the id that a page of a list begins after; Limit its length, 0: all.
	After string `json:"after,omitempty"`
	Limit int    `json:"limit,omitempty"`

	Sender    string `json:"sender,omitempty"`
	Origin    string `json:"origin,omitempty"` // "receive.smtp.mx", "dsn"
	User      string `json:"user,omitempty"`   // who had logged in
	Client    string `json:"client,omitempty"` // address or EHLO name
	MessageID string `json:"message_id,omitempty"`
	Subject   string `json:"subject,omitempty"`
	// OlderThan and NewerThan are times of receipt.
	OlderThan time.Time `json:"older_than,omitzero"`
	NewerThan time.Time `json:"newer_than,omitzero"`
	// MinSize and MaxSize in octets; 0: no bound.
	MinSize int64 `json:"min_size,omitempty"`
	MaxSize int64 `json:"max_size,omitempty"`
	// Tags that filters set; each must be there, with that value if one is given.
	Tags []TagFilter `json:"tags,omitempty"`
	// Words stand, each of them, somewhere in sender, recipients, header fields,
	// reasons and answers.
	Words []string `json:"words,omitempty"`

	Recipient string `json:"recipient,omitempty"`
	Domain    string `json:"domain,omitempty"` // exact
	Deliver   string `json:"deliver,omitempty"`
	// Destination is a deliver block, the name of a next hop or domain within it,
	// or both: "deliver.smtp.internet", "ryan.example", "deliver.smtp.internet ryan.example".
	Destination string `json:"destination,omitempty"`
	Remote      string `json:"remote,omitempty"` // the host that answered last
	Reason      string `json:"reason,omitempty"` // or the last answer
	State       *State `json:"state,omitempty"`
	// Attempts so far.
	Attempts *Span `json:"attempts,omitempty"`
}

// TagFilter asks for a tag, and for its value if HasValue. "dmarc.policy" is the
// value of a key.
type TagFilter struct {
	Name     string `json:"name"`
	Value    string `json:"value,omitempty"`
	HasValue bool   `json:"has_value,omitempty"`
}

// Span is from Min to Max, both included; Max below zero: no end.
type Span struct {
	Min int `json:"min"`
	Max int `json:"max"`
}

func (s *Span) holds(n int) bool { return n >= s.Min && (s.Max < 0 || n <= s.Max) }

// Selects tells whether the filter leaves anything out: who changes mail should
// not do so with all of it by mistake.
func (f *Filter) Selects() bool {
	return len(f.IDs) > 0 || f.ofMessage() || f.ofRecipient()
}

// MarshalText is the state's name.
func (s State) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads a state's name.
func (s *State) UnmarshalText(b []byte) error {
	for c := Waiting; c <= Discarded; c++ {
		if c.String() == string(b) {
			*s = c
			return nil
		}
	}
	return fmt.Errorf("there is no state %q: it is waiting or held", b)
}

func (f *Filter) ofMessage() bool {
	return f.Sender != "" || f.Origin != "" || f.User != "" || f.Client != "" || f.MessageID != "" || f.Subject != "" ||
		!f.OlderThan.IsZero() || !f.NewerThan.IsZero() || f.MinSize > 0 || f.MaxSize > 0 || len(f.Tags) > 0 || len(f.Words) > 0
}

func (f *Filter) ofRecipient() bool {
	return f.Recipient != "" || f.Domain != "" || f.Deliver != "" || f.Destination != "" || f.Remote != "" ||
		f.Reason != "" || f.State != nil || f.Attempts != nil
}

// match decides about one message.
func (f *Filter) match(e *Envelope) bool {
	if f.ofMessage() && !f.matchMessage(e) {
		return false
	}
	return !f.ofRecipient() || slices.ContainsFunc(e.Recipients, f.Matches)
}

func (f *Filter) matchMessage(e *Envelope) bool {
	return part(e.Sender, f.Sender) && part(e.Origin, f.Origin) && part(e.Client.GetUser(), f.User) &&
		(part(e.Client.GetIp(), f.Client) || part(e.Client.GetHello(), f.Client)) &&
		part(strings.Trim(e.MessageID, "<> \t"), f.MessageID) && part(e.Subject, f.Subject) &&
		(f.OlderThan.IsZero() || e.Received.Before(f.OlderThan)) &&
		(f.NewerThan.IsZero() || e.Received.After(f.NewerThan)) &&
		e.Size >= f.MinSize && (f.MaxSize <= 0 || e.Size <= f.MaxSize) &&
		f.matchTags(e.Tags) && f.matchWords(e)
}

// Matches decides about one recipient. An operation on a selection is for those
// recipients of its messages that do.
func (f *Filter) Matches(r *Recipient) bool {
	if !r.State.Open() || f.State != nil && r.State != *f.State {
		return false
	}
	return (f.Deliver == "" || r.Deliver == f.Deliver) && part(r.Address, f.Recipient) &&
		(f.Domain == "" || strings.EqualFold(domainOf(r.Address), f.Domain)) &&
		(f.Destination == "" || r.goesTo(f.Destination)) &&
		(f.Remote == "" || r.Last != nil && part(r.Last.RemoteMTA, f.Remote)) &&
		(f.Reason == "" || part(r.Reason, f.Reason) || r.Last != nil && part(r.Last.line(), f.Reason)) &&
		(f.Attempts == nil || f.Attempts.holds(r.Attempts))
}

// goesTo tells whether a destination, in one of its three forms, is r's.
func (r *Recipient) goesTo(destination string) bool {
	block, hop, both := strings.Cut(destination, " ")
	if both {
		return r.Deliver == block && strings.EqualFold(domainOf(r.Address), hop)
	}
	return r.Deliver == destination || strings.EqualFold(domainOf(r.Address), destination)
}

func domainOf(address string) string { return address[strings.LastIndexByte(address, '@')+1:] }

func (a *Attempt) line() string {
	return strconv.Itoa(a.Code) + " " + a.Enhanced + " " + a.Text
}

func (f *Filter) matchTags(tags map[string]*v1.Tag) bool {
	for _, want := range f.Tags {
		have, ok := tags[want.Name]
		if name, key, dotted := strings.Cut(want.Name, "."); !ok && dotted {
			have, ok = tags[name].GetMap().GetEntries()[key]
		}
		if !ok || want.HasValue && !tagIs(have, want.Value) {
			return false
		}
	}
	return true
}

// tagIs compares a tag with a value as somebody types it; a list has it among
// its values.
func tagIs(t *v1.Tag, value string) bool {
	switch v := t.GetValue().(type) {
	case *v1.Tag_Text:
		return strings.EqualFold(v.Text, value)
	case *v1.Tag_Number:
		n, err := strconv.ParseFloat(value, 64)
		return err == nil && n == v.Number
	case *v1.Tag_Flag:
		return strconv.FormatBool(v.Flag) == strings.ToLower(value)
	case *v1.Tag_List:
		return slices.ContainsFunc(v.List.GetValues(), func(s string) bool { return strings.EqualFold(s, value) })
	}
	return false
}

func (f *Filter) matchWords(e *Envelope) bool {
	for _, w := range f.Words {
		found := part(e.ID, w) || part(e.Sender, w) || part(e.From, w) || part(e.Subject, w) || part(e.MessageID, w) ||
			part(e.Client.GetUser(), w) || part(e.Client.GetIp(), w) || part(e.Origin, w)
		for _, r := range e.Recipients {
			found = found || r.State.Open() && (part(r.Address, w) || part(r.Deliver, w) || part(r.Reason, w) ||
				r.Last != nil && (part(r.Last.line(), w) || part(r.Last.RemoteMTA, w)))
		}
		if !found {
			return false
		}
	}
	return true
}

// part tells whether s has p within it, or is it, if p stands in angle brackets.
func part(s, p string) bool {
	if p == "" {
		return true
	}
	if n := len(p); n > 1 && p[0] == '<' && p[n-1] == '>' {
		return strings.EqualFold(s, p[1:n-1])
	}
	return strings.Contains(strings.ToLower(s), strings.ToLower(p))
}
