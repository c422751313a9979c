package queue

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/cockroachdb/pebble/v2"
)

// head is where, in one class and bucket of a lane, that begins which nobody has
// leased: all before it is leased or gone. So a scan neither meets the leased messages
// again nor the tombstones of the ended ones. At never nothing is left.
type head struct {
	bucket byte
	due
}

func (h head) compare(o head) int {
	return cmp.Or(cmp.Compare(h.class, o.class), cmp.Compare(h.bucket, o.bucket))
}

// laneHeads are all of a lane's, by class and bucket: what is not there is nowhere.
type laneHeads struct {
	heads []head
	// turn is the bucket of each class that is next.
	turn [classes]byte
}

// lower enters what became due, and says how many heads that are more.
func (l *laneHeads) lower(h head) int {
	n, found := slices.BinarySearchFunc(l.heads, h, head.compare)
	if !found {
		l.heads = slices.Insert(l.heads, n, h)
		return 1
	}
	if h.before(l.heads[n].due) {
		l.heads[n] = h
	}
	return 0
}

// knownLanes is what the scans of lanes have learned. A lane that is not there is
// looked at from its start: it only takes longer.
type knownLanes struct {
	of    map[string]*laneHeads
	heads int // of all of them
	// scan is the one under way: its lane is not in of, and it hears of what comes.
	scan *laneScan
}

// maxLaneHeads bounds their memory.
const maxLaneHeads = 1 << 16

// lower makes an entry claimable that a scan may have passed.
func (k *knownLanes) lower(d laneDue) {
	h := head{d.bucket, d.due}
	if k.scan != nil && k.scan.lane == d.lane {
		k.scan.came.lower(h)
	} else if l := k.of[d.lane]; l != nil {
		k.heads += l.lower(h)
	}
}

// begin hands what is known of the lane to its scan.
func (k *knownLanes) begin(s *laneScan) {
	k.scan = s
	if l := k.of[s.lane]; l != nil {
		s.laneHeads, s.known = *l, true
		k.heads -= len(l.heads)
		delete(k.of, s.lane)
	}
}

// end takes it back, with what came meanwhile.
func (k *knownLanes) end(s *laneScan) {
	k.scan = nil
	s.heads = slices.DeleteFunc(s.heads, func(h head) bool { return h.at == never })
	for _, h := range s.came.heads {
		s.lower(h)
	}
	if len(s.heads) == 0 || !s.known {
		return // the start of the lane is as good
	}
	if k.heads+len(s.heads) > maxLaneHeads {
		clear(k.of)
		k.heads = 0
	}
	l := s.laneHeads
	k.of[s.lane] = &l
	k.heads += len(l.heads)
}

// laneScan is one ClaimLane.
type laneScan struct {
	e    *Engine
	lane string
	now  int64
	most int
	// The lane's heads, if they are known; as they stand when it ends.
	laneHeads
	known bool
	came  laneHeads // while it ran
	it    *pebble.Iterator
	at    *head // on which the iterator stands; nil: on none
}

// ClaimLane is part of Lanes.
func (e *Engine) ClaimLane(ctx context.Context, lane string, now time.Time, most int, term time.Duration) ([]*Claim, Lane, error) {
	lane = laneName(lane)
	rest := Lane{Name: lane}
	if err := e.check(ctx); err != nil {
		return nil, rest, err
	}
	e.claiming.Lock()
	defer e.claiming.Unlock()
	until := now.Add(term)
	s := &laneScan{e: e, lane: lane, now: nanos(now), most: most}
	e.mu.Lock()
	e.expire(nanos(now))
	e.lanes.begin(s) // before the iterator: it may not see what comes from here on
	e.mu.Unlock()
	before, known := laneHeads{slices.Clone(s.heads), s.turn}, s.known
	claims, err := s.run(now, until)
	if err != nil {
		s.laneHeads, s.known = before, known
	}
	e.mu.Lock()
	e.lanes.end(s)
	e.mu.Unlock()
	if err != nil {
		for _, c := range claims {
			_ = e.Release(ctx, c)
		}
		return nil, rest, err
	}
	next, best := int64(never), classes
	for _, h := range s.heads {
		next, best = min(next, h.at), min(best, h.class)
	}
	if next != never {
		rest.Next, rest.Priority = time.Unix(0, next).UTC(), 9-best
	}
	return claims, rest, nil
}

func (s *laneScan) run(now, until time.Time) (claims []*Claim, err error) {
	prefix := lanePrefix(s.lane)
	upper := slices.Clone(prefix)
	upper[len(upper)-1] = 1
	if s.it, err = s.e.db.NewIter(&pebble.IterOptions{LowerBound: prefix, UpperBound: upper}); err != nil {
		return nil, err
	}
	defer s.it.Close()
	if !s.known {
		s.learn()
	}
	for from := 0; from < len(s.heads) && len(claims) < s.most; {
		to := from + 1
		for to < len(s.heads) && s.heads[to].class == s.heads[from].class {
			to++
		}
		if claims, err = s.class(s.heads[from:to], now, until, claims); err != nil {
			return claims, err
		}
		from = to
	}
	return claims, s.it.Error()
}

// learn finds where each class and bucket begins.
func (s *laneScan) learn() {
	for valid := s.it.First(); valid; {
		d, ok := parseLaneDue(s.it.Key())
		if !ok {
			valid = s.it.Next()
			continue
		}
		s.heads = append(s.heads, head{d.bucket, d.due})
		valid = s.it.SeekGE(d.behind())
	}
	s.known = s.it.Error() == nil
}

// class claims what is due of one class. The buckets take turns: one message of each,
// then as many more of each as fit.
func (s *laneScan) class(hs []head, now, until time.Time, claims []*Claim) ([]*Claim, error) {
	class := hs[0].class
	first, _ := slices.BinarySearchFunc(hs, head{bucket: s.turn[class], due: due{class: class}}, head.compare)
	var turns []*head
	for n := range hs {
		if h := &hs[(first+n)%len(hs)]; h.at <= s.now {
			turns = append(turns, h)
		}
	}
	share := 1
	if s.e.o.faults.unfair {
		share = s.most
	}
	for len(turns) > 0 && len(claims) < s.most {
		var batch []*lease
		served := 0
		for _, h := range turns {
			left := s.most - len(claims) - len(batch)
			if left == 0 {
				break
			}
			var err error
			if batch, err = s.take(h, min(share, left), until, batch); err != nil {
				s.e.drop(batch)
				return claims, err
			}
			s.turn[class] = h.bucket + 1
			served++
		}
		var err error
		if claims, err = s.e.load(batch, now, until, claims, s.lane); err != nil {
			return claims, err
		}
		turns = append(turns[served:], turns[:served]...)
		turns = slices.DeleteFunc(turns, func(h *head) bool { return h.at > s.now })
		share = max((s.most-len(claims))/max(len(turns), 1), 1)
	}
	return claims, nil
}

// take leases the first n of what is due at a head, and moves it on.
func (s *laneScan) take(h *head, n int, until time.Time, batch []*lease) ([]*lease, error) {
	if s.at != h {
		s.it.SeekGE(laneDue{s.lane, h.bucket, h.due}.key())
		s.at = h
	}
	for ; s.it.Valid(); s.it.Next() {
		d, ok := parseLaneDue(s.it.Key())
		if !ok {
			continue
		}
		if d.class != h.class || d.bucket != h.bucket {
			break
		}
		if h.due = d.due; n == 0 || d.at > s.now {
			return batch, nil
		}
		if l := s.e.lease(d.id, until); l != nil {
			l.state = &state{lanes: []laneDue{d}}
			batch = append(batch, l)
			n--
		}
	}
	h.due, s.at = due{h.class, never, 0}, nil
	return batch, s.it.Error()
}
