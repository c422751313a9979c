package queue

import (
	"fmt"
	"math"
	"time"

	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// The kinds of entries in a record of the history.
const (
	wasPut = iota + 1
	wasChanged
	wasRefused
)

// text is a string that others chose.
func (w *writer) text(s string) {
	if len(s) > historyText {
		s = s[:historyText]
	}
	w.str(s)
}

func (w *writer) entry(h *entry) {
	switch {
	case h.env != nil:
		w.byte(wasPut)
		w.int(h.at)
		w.len(0) // room for flags
		w.int(int64(h.id))
		w.int(int64(h.parent))
		w.put(h.env)
	case h.refusal != nil:
		w.byte(wasRefused)
		w.int(h.at)
		w.len(0)
		w.refusal(h.refusal)
	default:
		w.byte(wasChanged)
		w.int(h.at)
		w.len(0)
		w.int(int64(h.id))
		w.len(len(h.made))
		for _, i := range h.made {
			w.int(int64(i))
		}
		told := 0
		for i := range h.changes {
			if h.changes[i].telling() {
				told++
			}
		}
		w.len(told)
		for i := range h.changes {
			if h.changes[i].telling() {
				w.change(&h.changes[i])
			}
		}
	}
}

func (w *writer) put(e *Envelope) {
	w.text(e.Transaction)
	w.text(e.Sender)
	w.text(e.Origin)
	w.int(e.Size)
	w.text(e.MessageID)
	w.text(e.From)
	w.text(e.Subject)
	c := e.Client
	w.text(c.GetIp())
	w.text(c.GetHello())
	w.text(c.GetUser())
	w.text(c.GetProtocol())
	tls := ""
	if c.GetTls() {
		tls = c.GetTlsVersion() + " " + c.GetTlsCipher()
	}
	w.text(tls)
	w.len(len(e.Recipients))
	for _, r := range e.Recipients {
		w.came(r)
		w.byte(byte(r.State))
		w.text(r.Reason)
	}
	w.notes(e.Notes)
}

// came is a recipient when it came to be.
func (w *writer) came(r *Recipient) {
	w.int(int64(r.Index))
	w.text(r.Address)
	w.text(r.Original)
}

func (w *writer) change(c *Change) {
	w.int(int64(c.Index))
	w.byte(byte(c.State))
	w.bool(c.operator)
	w.bool(c.released)
	w.time(c.Next)
	w.text(c.Route)
	w.text(c.Deliver)
	w.text(c.Reason)
	w.bool(c.Attempt != nil)
	if a := c.Attempt; a != nil {
		w.int(int64(a.Code))
		w.text(a.Enhanced)
		w.text(a.Text)
		w.text(a.RemoteMTA)
		w.text(a.TLS)
	}
	w.len(len(c.Add))
	for _, r := range c.Add {
		w.came(r)
		w.text(r.Reason)
	}
	w.notes(c.Notes)
}

func (w *writer) refusal(r *Refusal) {
	for _, s := range []string{r.Transaction, r.Sender, r.ClientIP, r.Hello, r.User, r.Listener, r.By, r.Enhanced, r.Text} {
		w.text(s)
	}
	w.int(int64(r.Code))
	w.len(len(r.Recipients))
	for _, to := range r.Recipients {
		w.text(to)
	}
	w.notes(r.Notes)
}

func (w *writer) notes(ns []Note) {
	ns = ns[:min(len(ns), notesMost)]
	w.len(len(ns))
	for i := range ns {
		n := &ns[i]
		w.text(n.What)
		w.text(n.By)
		w.text(n.Verdict)
		w.text(n.Text)
		edits := n.Edits[:min(len(n.Edits), notesMost)]
		w.len(len(edits))
		for _, s := range edits {
			w.text(s)
		}
		w.int(int64(math.Float64bits(n.Score)))
		w.int(int64(n.Took))
	}
}

// decodeHistory reads a group's record.
func decodeHistory(rec []byte) ([]entry, error) {
	r := reader{b: rec}
	if v := r.byte(); v != recordVersion {
		return nil, fmt.Errorf("%w: version %d is not known", ErrCorrupt, v)
	}
	hs := make([]entry, r.len())
	for n := range hs {
		r.entry(&hs[n])
	}
	return hs, r.err
}

func (r *reader) entry(h *entry) {
	kind := r.byte()
	h.at = r.int()
	r.len()
	switch kind {
	case wasPut:
		h.id, h.parent = id(r.int()), id(r.int())
		h.env = r.put()
	case wasRefused:
		h.refusal = r.refusal()
		h.refusal.At = time.UnixMicro(h.at).UTC()
	case wasChanged:
		h.id = id(r.int())
		h.made = make([]id, r.len())
		for n := range h.made {
			h.made[n] = id(r.int())
		}
		h.changes = make([]Change, r.len())
		for n := range h.changes {
			r.change(&h.changes[n])
		}
	default:
		r.fail()
	}
}

func (r *reader) put() *Envelope {
	e := &Envelope{
		Transaction: r.str(), Sender: r.str(), Origin: r.str(), Size: r.int(), MessageID: r.str(), From: r.str(), Subject: r.str(),
		Client: &v1.Client{Ip: r.str(), Hello: r.str(), User: r.str(), Protocol: r.str(), TlsVersion: r.str()},
	}
	e.Client.Tls = e.Client.TlsVersion != ""
	n := r.len()
	for range n {
		q := r.came()
		q.State, q.Reason = r.state(), r.str()
		e.Recipients = append(e.Recipients, q)
	}
	e.Notes = r.notes()
	return e
}

func (r *reader) came() *Recipient {
	return &Recipient{Index: int32(r.int()), Address: r.str(), Original: r.str(), Parent: -1}
}

func (r *reader) change(c *Change) {
	*c = Change{
		Index: int32(r.int()), State: r.state(), operator: r.bool(), released: r.bool(), Next: r.time(),
		Route: r.str(), Deliver: r.str(), Reason: r.str(),
	}
	if r.bool() {
		c.Attempt = &Attempt{Code: int(r.int()), Enhanced: r.str(), Text: r.str(), RemoteMTA: r.str(), TLS: r.str()}
	}
	n := r.len()
	for range n {
		q := r.came()
		q.Parent, q.Reason = c.Index, r.str()
		c.Add = append(c.Add, q)
	}
	c.Notes = r.notes()
}

func (r *reader) refusal() *Refusal {
	x := &Refusal{}
	for _, s := range []*string{&x.Transaction, &x.Sender, &x.ClientIP, &x.Hello, &x.User, &x.Listener, &x.By, &x.Enhanced, &x.Text} {
		*s = r.str()
	}
	x.Code = int(r.int())
	x.Recipients = r.strs()
	x.Notes = r.notes()
	return x
}

func (r *reader) notes() []Note {
	ns := make([]Note, r.len())
	for i := range ns {
		ns[i] = Note{
			What: r.str(), By: r.str(), Verdict: r.str(), Text: r.str(), Edits: r.strs(),
			Score: math.Float64frombits(uint64(r.int())), Took: time.Duration(r.int()),
		}
	}
	return ns
}
