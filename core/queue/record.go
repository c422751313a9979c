package queue

import (
	"encoding/binary"
	"fmt"

	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// recordVersion leads each record. A change of the layout gets a new number and
// keeps the decoder of the old one.
const recordVersion = 1

// envelopeVersion is that of a message's record; version 1 had no checksum of the file.
const envelopeVersion = 2

// bodyPlace says where a message's octets are, and what they were.
type bodyPlace struct {
	// large: in a file. Its sum is known unless an older program put it.
	large, summed bool
	sum           uint32
}

// encodeEnvelope makes the message record, sealed for key.
func encodeEnvelope(key []byte, e *Envelope, f bodyPlace) ([]byte, error) {
	w := writer{b: make([]byte, 0, 256+128*len(e.Recipients))}
	w.byte(envelopeVersion)
	w.bool(f.large)
	w.bool(f.summed)
	if f.summed {
		w.b = binary.LittleEndian.AppendUint32(w.b, f.sum)
	}
	w.time(e.Received)
	w.str(e.Sender)
	w.str(e.Origin)
	w.int(e.Size)
	w.str(e.MessageID)
	w.str(e.From)
	w.str(e.Subject)
	w.int(int64(e.Priority))
	w.time(e.NotBefore)
	w.time(e.Expires)
	w.int(int64(e.Hops))
	if err := w.message(e.Parameters != nil, e.Parameters); err != nil {
		return nil, fmt.Errorf("write the parameters: %w", err)
	}
	if err := w.message(e.Client != nil, e.Client); err != nil {
		return nil, fmt.Errorf("write the client: %w", err)
	}
	if err := w.message(e.Hints != nil, e.Hints); err != nil {
		return nil, fmt.Errorf("write the hints: %w", err)
	}
	w.len(len(e.Tags))
	for name, tag := range e.Tags {
		w.str(name)
		if err := w.message(tag != nil, tag); err != nil {
			return nil, fmt.Errorf("write the tag %s: %w", name, err)
		}
	}
	w.len(len(e.Recipients))
	for _, r := range e.Recipients {
		w.recipient(r)
	}
	return seal(key, w.b), nil
}

func decodeEnvelope(key, rec []byte) (e *Envelope, f bodyPlace, err error) {
	rec, err = unseal(key, rec)
	if err != nil {
		return nil, f, err
	}
	r := reader{b: rec}
	version := r.byte()
	if version < 1 || version > envelopeVersion {
		return nil, f, fmt.Errorf("%w: version %d is not known", ErrCorrupt, version)
	}
	f.large = r.bool()
	if version > 1 {
		if f.summed = r.bool(); f.summed {
			f.sum = r.fixed32()
		}
	}
	e = &Envelope{
		Received:  r.time(),
		Sender:    r.str(),
		Origin:    r.str(),
		Size:      r.int(),
		MessageID: r.str(),
		From:      r.str(),
		Subject:   r.str(),
		Priority:  int(r.int()),
		NotBefore: r.time(),
		Expires:   r.time(),
		Hops:      int(r.int()),
	}
	if p := new(v1.MailParameters); r.message(p) {
		e.Parameters = p
	}
	if c := new(v1.Client); r.message(c) {
		e.Client = c
	}
	if h := new(v1.RouteHints); r.message(h) {
		e.Hints = h
	}
	if n := r.len(); n > 0 {
		e.Tags = make(map[string]*v1.Tag, n)
		for range n {
			name := r.str()
			if t := new(v1.Tag); r.message(t) {
				e.Tags[name] = t
			} else {
				e.Tags[name] = nil
			}
		}
	}
	n := r.len()
	e.Recipients = make([]*Recipient, 0, n)
	for range n {
		e.Recipients = append(e.Recipients, r.recipient())
	}
	return e, f, r.err
}

func (w *writer) recipient(r *Recipient) {
	w.int(int64(r.Index))
	w.int(int64(r.Parent))
	w.str(r.Address)
	w.str(r.Original)
	w.strs(r.Notify)
	w.str(r.Account)
	w.str(r.Detail)
	w.byte(byte(r.State))
	w.len(r.Attempts)
	w.time(r.Next)
	w.str(r.Route)
	w.str(r.Deliver)
	w.str(r.Reason)
	w.bool(r.DelayNotified)
	w.attempt(r.Last)
	w.str(r.Lane)
	w.time(r.Recheck)
}

func (r *reader) recipient() *Recipient {
	return &Recipient{
		Index:         int32(r.int()),
		Parent:        int32(r.int()),
		Address:       r.str(),
		Original:      r.str(),
		Notify:        r.strs(),
		Account:       r.str(),
		Detail:        r.str(),
		State:         r.state(),
		Attempts:      int(r.uint()),
		Next:          r.time(),
		Route:         r.str(),
		Deliver:       r.str(),
		Reason:        r.str(),
		DelayNotified: r.bool(),
		Last:          r.attempt(),
		Lane:          r.str(),
		Recheck:       r.time(),
	}
}

func (r *reader) state() State {
	s := State(r.byte())
	if s > Discarded {
		r.fail()
	}
	return s
}

func (w *writer) attempt(a *Attempt) {
	w.bool(a != nil)
	if a == nil {
		return
	}
	w.time(a.At)
	w.int(int64(a.Code))
	w.str(a.Enhanced)
	w.str(a.Text)
	w.str(a.RemoteMTA)
	w.str(a.TLS)
}

func (r *reader) attempt() *Attempt {
	if !r.bool() {
		return nil
	}
	return &Attempt{
		At: r.time(), Code: int(r.int()), Enhanced: r.str(), Text: r.str(), RemoteMTA: r.str(), TLS: r.str(),
	}
}

// encodeJournal writes changes whose new recipients have their index.
func encodeJournal(key []byte, changes []Change) []byte {
	w := writer{b: make([]byte, 0, 64+128*len(changes))}
	w.byte(recordVersion)
	w.len(len(changes))
	for i := range changes {
		c := &changes[i]
		w.int(int64(c.Index))
		w.byte(byte(c.State))
		w.time(c.Next)
		w.attempt(c.Attempt)
		w.str(c.Route)
		w.str(c.Deliver)
		w.str(c.Reason)
		w.str(c.Account)
		w.str(c.Detail)
		w.bool(c.Notified)
		w.bool(c.operator)
		w.str(c.Lane)
		w.time(c.Recheck)
		w.len(len(c.Add))
		for _, r := range c.Add {
			w.recipient(r)
		}
	}
	return seal(key, w.b)
}

func decodeJournal(key, rec []byte) ([]Change, error) {
	rec, err := unseal(key, rec)
	if err != nil {
		return nil, err
	}
	r := reader{b: rec}
	if v := r.byte(); v != recordVersion {
		return nil, fmt.Errorf("%w: version %d is not known", ErrCorrupt, v)
	}
	changes := make([]Change, r.len())
	for i := range changes {
		changes[i] = Change{
			Index:    int32(r.int()),
			State:    r.state(),
			Next:     r.time(),
			Attempt:  r.attempt(),
			Route:    r.str(),
			Deliver:  r.str(),
			Reason:   r.str(),
			Account:  r.str(),
			Detail:   r.str(),
			Notified: r.bool(),
			operator: r.bool(),
			Lane:     r.str(),
			Recheck:  r.time(),
		}
		if n := r.len(); n > 0 {
			changes[i].Add = make([]*Recipient, n)
			for j := range changes[i].Add {
				changes[i].Add[j] = r.recipient()
			}
		}
	}
	return changes, r.err
}

// apply is the one place that says what a change does to an envelope.
func (e *Envelope) apply(changes []Change) {
	for i := range changes {
		c := &changes[i]
		r := e.recipient(c.Index)
		if r == nil {
			continue
		}
		if c.Attempt != nil {
			r.Attempts++
			r.Last = c.Attempt
		}
		r.State = merged(r.State, c)
		if r.State == c.State {
			r.Next = c.Next
			if r.Reason != Released || c.State != Waiting {
				r.Reason = c.Reason
			}
			r.Lane, r.Recheck = c.Lane, c.Recheck
		}
		replace(&r.Route, c.Route)
		replace(&r.Deliver, c.Deliver)
		replace(&r.Account, c.Account)
		replace(&r.Detail, c.Detail)
		r.DelayNotified = r.DelayNotified || c.Notified
		e.Recipients = append(e.Recipients, c.Add...)
	}
}

// merged decides between what a recipient is and what a change makes of it. An
// operator may hold or remove it while a delivery runs: a result for good counts
// over the hold, a delivery over anything, and what has ended stays ended.
func merged(now State, c *Change) State {
	switch {
	case c.State == Delivered:
		return Delivered
	case !now.Open():
		return now
	case now == Held && c.State == Waiting && !c.operator:
		return Held
	}
	return c.State
}

// replace sets what a change names.
func replace(field *string, value string) {
	if value != "" {
		*field = value
	}
}

// recipient finds an index; recipients stand in ascending order.
func (e *Envelope) recipient(index int32) *Recipient {
	if i := int(index); i >= 0 && i < len(e.Recipients) && e.Recipients[i].Index == index {
		return e.Recipients[i]
	}
	for _, r := range e.Recipients {
		if r.Index == index {
			return r
		}
	}
	return nil
}
