// Package admin is the operator's line to a running server: HTTP and JSON over a
// unix socket in the data directory. Who may open the socket may do everything;
// it is never a network listener.
package admin

import (
	"encoding/json"
	"time"

	"github.com/stagecoach-mta/stagecoach/core/queue"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// Status of the running server.
type Status struct {
	Version  string      `json:"version"`
	PID      int         `json:"pid"`
	Hostname string      `json:"hostname"`
	Since    time.Time   `json:"since"`
	Config   []string    `json:"config"`
	DataDir  string      `json:"data_dir"`
	Queue    queue.Stats `json:"queue"`
}

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
	User      string    `json:"user,omitempty"`
	// Tags that filters set: a string, a number, true or false, a list of strings.
	Tags       map[string]any `json:"tags,omitempty"`
	Recipients []Recipient    `json:"recipients"`
}

// Recipient of a queued message.
type Recipient struct {
	Address  string    `json:"address"`
	State    string    `json:"state"`
	Route    string    `json:"route,omitempty"`
	Deliver  string    `json:"deliver,omitempty"`
	Attempts int       `json:"attempts"`
	Next     time.Time `json:"next,omitzero"`
	Reason   string    `json:"reason,omitempty"`
	Last     *Attempt  `json:"last,omitempty"`
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
		Subject: e.Subject, Origin: e.Origin, ClientIP: e.Client.GetIp(), User: e.Client.GetUser(),
		Recipients: []Recipient{},
	}
	if len(e.Tags) > 0 {
		m.Tags = make(map[string]any, len(e.Tags))
	}
	for name, t := range e.Tags {
		m.Tags[name] = TagValue(t)
	}
	for _, r := range e.Recipients {
		x := Recipient{
			Address: r.Address, State: r.State.String(), Route: r.Route, Deliver: r.Deliver, Attempts: r.Attempts, Reason: r.Reason,
		}
		if r.State == queue.Waiting {
			x.Next = r.Next
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
	}
	return nil
}

// Plugin is one instance as `stagecoach plugin list` shows it.
type Plugin struct {
	Instance string        `json:"instance"`
	Kind     string        `json:"kind"`
	Plugin   string        `json:"plugin"`
	Version  string        `json:"version"`
	State    string        `json:"state"`
	PID      int           `json:"pid"`
	Restarts int           `json:"restarts"`
	Since    time.Time     `json:"since"`
	Calls    int64         `json:"calls"`
	Errors   int64         `json:"errors"`
	P50      time.Duration `json:"p50_ns"`
	P99      time.Duration `json:"p99_ns"`
	// RSS counts memory that processes share for each of them, PSS its share.
	RSS int64 `json:"rss_bytes"`
	PSS int64 `json:"pss_bytes"`
	// LastError is why the last process ended, LastFault how the last call failed
	// that failed by the plugin's fault, Health what the plugin says itself.
	LastError string `json:"last_error,omitempty"`
	LastFault string `json:"last_fault,omitempty"`
	Health    string `json:"health,omitempty"`
	// Sandboxed: it runs in a sandbox; Unenforced are the limits of it that this
	// system cannot enforce, with the reason.
	Sandboxed  bool     `json:"sandboxed"`
	Unenforced []string `json:"unenforced,omitempty"`
	Listening  []string `json:"listening,omitempty"`
}

// LogLine is a line of an instance's log.
type LogLine struct {
	Time  time.Time `json:"time"`
	Level string    `json:"level"`
	// PID of the plugin's process that wrote it; 0: the server said it.
	PID     int                        `json:"pid,omitempty"`
	Message string                     `json:"message"`
	Fields  map[string]json.RawMessage `json:"fields,omitempty"`
}

// Problem is an answer that is no success.
type Problem struct {
	Error string `json:"error"`
}

// Flushed answers a flush.
type Flushed struct {
	Messages int `json:"messages"`
}
