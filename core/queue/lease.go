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
	bucket    byte // of the sender
	size      int64
	notBefore int64
	next      int32 // index of the next new recipient
	journal   uint32
	first     uint32 // journal records before it were folded
	rs        []recipientState
	indexed   due       // its entry in the due index as of the last change
	lanes     []laneDue // and those in its lanes
	file      bodyPlace
}

type recipientState struct {
	index int32
	state State
	next  int64
	lane  string
	// recheck is when it leaves the lane for a look; never: it does not.
	recheck int64
	way     way
	tried   bool
}

func stateOf(e *Envelope) *state {
	s := &state{class: classOf(e.Priority), bucket: bucketOf(e), size: e.Size, notBefore: nanos(e.NotBefore)}
	s.rs = make([]recipientState, 0, len(e.Recipients))
	s.add(e.Recipients)
	return s
}

func (s *state) add(rs []*Recipient) {
	for _, r := range rs {
		s.rs = append(s.rs, recipientState{
			r.Index, r.State, nanos(r.Next), r.Lane, recheck(r.Lane, r.Recheck),
			r.way(), r.Attempts > 0,
		})
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
			r.lane, r.recheck = c.Lane, recheck(c.Lane, c.Recheck)
		}
		r.tried = r.tried || c.Attempt != nil
		replace(&r.way.deliver, wayText(c.Deliver))
		s.add(c.Add)
	}
}

// recheck in nanoseconds; none outside of a lane.
func recheck(lane string, t time.Time) int64 {
	if lane == "" || t.IsZero() {
		return never
	}
	return nanos(t)
}

// fresh is when Claim gives the recipient out.
func (r *recipientState) fresh() int64 {
	if r.lane != "" {
		return r.recheck
	}
	return r.next
}

// due is where the message belongs in the index.
func (s *state) due(i id) due {
	at := int64(never)
	for n := range s.rs {
		if r := &s.rs[n]; r.state == Waiting {
			at = min(at, max(r.fresh(), s.notBefore))
		}
	}
	return due{s.class, s.bucket, at, i}
}

func (s *state) open() bool {
	for _, r := range s.rs {
		if r.state.Open() {
			return true
		}
	}
	return false
}

// dueNow lists the recipients to try now: of a lane, or those of none.
func (s *state) dueNow(now time.Time, lane string) []int32 {
	n := nanos(now)
	if s.notBefore > n {
		return nil
	}
	var is []int32
	for i := range s.rs {
		r := &s.rs[i]
		at := r.fresh()
		if lane != "" && r.lane == lane {
			at = r.next
		} else if lane != "" {
			continue
		}
		if r.state == Waiting && at <= n {
			is = append(is, r.index)
		}
	}
	return is
}

func (c counts) minus(o counts) counts {
	return counts{c.messages - o.messages, c.recipients - o.recipients, c.held - o.held, c.bytes - o.bytes, c.tried - o.tried}
}
