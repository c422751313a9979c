package queue

import "time"

// lease is one holder's right to change a message. Memory only: a restart ends
// it, and its token with it, because tokens carry the epoch.
type lease struct {
	id    id
	token uint64
	until int64
	state *state // nil while it is being read
	// busy: a group with its end is being committed, or it is being read. It
	// neither runs out nor is used meanwhile.
	busy bool
}

// state is the part of a message that decides about the next step; it is kept
// while the message is leased, so that a result need not read the envelope.
type state struct {
	class     int
	size      int64
	notBefore int64
	next      int32 // index of the next new recipient
	journal   uint32
	first     uint32 // journal records before it were folded
	rs        []recipientState
	indexed   due // its entry in the due index as of the last change
	large     bool
}

type recipientState struct {
	index int32
	state State
	next  int64
}

func stateOf(e *Envelope) *state {
	s := &state{class: classOf(e.Priority), size: e.Size, notBefore: nanos(e.NotBefore)}
	s.rs = make([]recipientState, 0, len(e.Recipients))
	s.add(e.Recipients)
	return s
}

func (s *state) add(rs []*Recipient) {
	for _, r := range rs {
		s.rs = append(s.rs, recipientState{r.Index, r.State, nanos(r.Next)})
		s.next = max(s.next, r.Index+1)
	}
}

func (s *state) find(index int32) *recipientState {
	if i := int(index); i >= 0 && i < len(s.rs) && s.rs[i].index == index {
		return &s.rs[i]
	}
	for i := range s.rs {
		if s.rs[i].index == index {
			return &s.rs[i]
		}
	}
	return nil
}

// apply follows Envelope.apply.
func (s *state) apply(changes []Change) {
	for i := range changes {
		c := &changes[i]
		r := s.find(c.Index)
		if r == nil {
			continue
		}
		r.state = merged(r.state, c)
		if r.state == c.State {
			r.next = nanos(c.Next)
		}
		s.add(c.Add)
	}
}

// due is where the message belongs in the index.
func (s *state) due(i id) due {
	at := int64(never)
	for _, r := range s.rs {
		if r.state == Waiting {
			at = min(at, max(r.next, s.notBefore))
		}
	}
	return due{s.class, at, i}
}

func (s *state) count() counts {
	c := counts{messages: 1, bytes: s.size}
	for _, r := range s.rs {
		if r.state.Open() {
			c.recipients++
		}
		if r.state == Held {
			c.held++
		}
	}
	return c
}

func (s *state) open() bool {
	for _, r := range s.rs {
		if r.state.Open() {
			return true
		}
	}
	return false
}

// dueNow lists the recipients to try now.
func (s *state) dueNow(now time.Time) []int32 {
	n := nanos(now)
	if s.notBefore > n {
		return nil
	}
	var is []int32
	for _, r := range s.rs {
		if r.state == Waiting && r.next <= n {
			is = append(is, r.index)
		}
	}
	return is
}

func (c counts) minus(o counts) counts {
	return counts{c.messages - o.messages, c.recipients - o.recipients, c.held - o.held, c.bytes - o.bytes}
}
