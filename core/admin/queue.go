package admin

import (
	"time"

	"github.com/stagecoach-mta/stagecoach/core/queue"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// Message is a queued message for people and machines.
type Message struct {
	ID        string    `json:"id"`
	Received  time.Time `json:"received"`
	Sender    string    `json:"sender"`
	Size      int64     `json:"size"`
	MessageID string    `json:"message_id,omitempty"`
	From      string    `json:"from,omitempty"`
	Subject   string    `json:"subject,omitempty"`
	Origin    string    `json:"origin,omitempty"`
	ClientIP  string    `json:"client_ip,omitempty"`
	Hello     string    `json:"hello,omitempty"`
	Protocol  string    `json:"protocol,omitempty"`
	TLS       string    `json:"tls,omitempty"`
	User      string    `json:"user,omitempty"`
	Priority  int       `json:"priority,omitempty"`
	NotBefore time.Time `json:"not_before,omitzero"`
	Expires   time.Time `json:"expires,omitzero"`
	// DeliverBy is the time of BY (RFC 2852), and its mode "R" or "N".
	DeliverBy     time.Time `json:"deliver_by,omitzero"`
	DeliverByMode string    `json:"deliver_by_mode,omitempty"`
	// NextHop in place of what its recipients' domains say.
	NextHop    string `json:"next_hop,omitempty"`
	EnvelopeID string `json:"envelope_id,omitempty"`
	// Tags that filters set: a string, a number, true or false, a list of strings.
	Tags       map[string]any `json:"tags,omitempty"`
	Recipients []Recipient    `json:"recipients"`
}

// Recipient of a queued message.
type Recipient struct {
	Index   int32  `json:"index"`
	Address string `json:"address"`
	// Original is ORCPT, "type;address".
	Original string    `json:"original,omitempty"`
	Notify   []string  `json:"notify,omitempty"`
	State    string    `json:"state"`
	Route    string    `json:"route,omitempty"`
	Deliver  string    `json:"deliver,omitempty"`
	Attempts int       `json:"attempts"`
	Next     time.Time `json:"next,omitzero"`
	Reason   string    `json:"reason,omitempty"`
	Last     *Attempt  `json:"last,omitempty"`
	// Parent is the index of the recipient that this one came from.
	Parent *int32 `json:"parent,omitempty"`
	// Selected: what was asked for is about this recipient.
	Selected bool `json:"selected,omitempty"`
}

// Attempt is the last answer that a recipient got.
type Attempt struct {
	At        time.Time `json:"at"`
	Code      int       `json:"code"`
	Enhanced  string    `json:"enhanced,omitempty"`
	Text      string    `json:"text,omitempty"`
	RemoteMTA string    `json:"remote_mta,omitempty"`
	TLS       string    `json:"tls,omitempty"`
}

// FromEnvelope makes the shown form of an envelope.
func FromEnvelope(e *queue.Envelope) Message {
	m := Message{
		ID: e.ID, Received: e.Received, Sender: e.Sender, Size: e.Size, MessageID: e.MessageID, From: e.From,
		Subject: e.Subject, Origin: e.Origin, ClientIP: e.Client.GetIp(), Hello: e.Client.GetHello(), User: e.Client.GetUser(),
		Protocol: e.Client.GetProtocol(), Priority: e.Priority, NotBefore: e.NotBefore, Expires: e.Expires,
		NextHop: e.Hints.GetNextHop(), EnvelopeID: e.Parameters.GetEnvelopeId(), Recipients: []Recipient{},
	}
	if p := e.Parameters; p.GetDeliverByMode() != "" {
		m.DeliverBy, m.DeliverByMode = time.UnixMilli(p.GetDeliverByMs()).UTC(), p.GetDeliverByMode()
	}
	if len(e.Tags) > 0 {
		m.Tags = make(map[string]any, len(e.Tags))
	}
	for name, t := range e.Tags {
		m.Tags[name] = TagValue(t)
	}
	if c := e.Client; c.GetTls() {
		m.TLS = c.GetTlsVersion() + " " + c.GetTlsCipher()
	}
	for _, r := range e.Recipients {
		x := Recipient{
			Index: r.Index, Address: r.Address, Original: r.Original, Notify: r.Notify, State: r.State.String(),
			Route: r.Route, Deliver: r.Deliver, Attempts: r.Attempts, Reason: r.Reason,
		}
		if r.State == queue.Waiting {
			x.Next = r.Next
		}
		if r.Parent >= 0 && r.Parent != r.Index {
			x.Parent = &r.Parent
		}
		if a := r.Last; a != nil {
			x.Last = &Attempt{a.At, a.Code, a.Enhanced, a.Text, a.RemoteMTA, a.TLS}
		}
		m.Recipients = append(m.Recipients, x)
	}
	return m
}

// TagValue is a tag as routes read it, and JSON has it.
func TagValue(t *v1.Tag) any {
	switch v := t.GetValue().(type) {
	case *v1.Tag_Text:
		return v.Text
	case *v1.Tag_Number:
		return v.Number
	case *v1.Tag_Flag:
		return v.Flag
	case *v1.Tag_List:
		return v.List.GetValues()
	case *v1.Tag_Map:
		out := make(map[string]any, len(v.Map.GetEntries()))
		for key, t := range v.Map.GetEntries() {
			if t.GetMap() == nil {
				out[key] = TagValue(t)
			}
		}
		return out
	}
	return nil
}

// Flushed answers a flush.
type Flushed struct {
	Messages int `json:"messages"`
}

// Action is what an operator wants done with the mail of a selection.
type Action struct {
	// Do: hold, release, retry, delete, bounce or redirect.
	Do string `json:"do"`
	// Reason of hold; for bounce what the sender is told.
	Reason string `json:"reason,omitempty"`
	// At: when to retry; zero: now.
	At time.Time `json:"at,omitzero"`
	// To or NextHop of redirect, as queue.Operation has them.
	To      []string `json:"to,omitempty"`
	NextHop string   `json:"next_hop,omitempty"`
	// DryRun changes nothing and says what would be.
	DryRun bool `json:"dry_run,omitempty"`
}

// Acted is what became of one message of a selection.
type Acted struct {
	ID         string `json:"id"`
	Recipients int    `json:"recipients"`
	Bytes      int64  `json:"bytes"`
	// Result: done, would (a dry run), nothing (it is in that state already), gone
	// (it ended meanwhile), busy (it is being delivered) or failed.
	Result  string `json:"result"`
	Problem string `json:"problem,omitempty"`
}

// The results.
const (
	Done    = "done"
	Would   = "would"
	Nothing = "nothing"
	Gone    = "gone"
	Busy    = "busy"
	Failed  = "failed"
)
