package queue

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/cockroachdb/pebble/v2"
)

// laneHeads are where, in each class and bucket of a lane, that begins which nobody has
// leased: all before is leased or gone. So a scan neither meets the leased messages
// again nor the tombstones of the ended ones. In order; a head at never has nothing left,
// and what is not there is nowhere.
type laneHeads struct {
	heads []due
	// turn is the bucket of each class that is next.
	turn [classes]byte
}

// lower enters what became due, and says how many heads that are more.
func (l *laneHeads) lower(d due) int {
	n, found := slices.BinarySearchFunc(l.heads, d, due.row)
	if !found {
		l.heads = slices.Insert(l.heads, n, d)
		return 1
	}
	if d.before(l.heads[n]) {
		l.heads[n] = d
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
	if k.scan != nil && k.scan.lane == d.lane {
		k.scan.came.lower(d.due)
	} else if l := k.of[d.lane]; l != nil {
		k.heads += l.lower(d.due)
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
	s.heads = slices.DeleteFunc(s.heads, func(h due) bool { return h.at == never })
	for _, h := range s.came.heads {
		s.lower(h)
	}
	if !s.known || len(s.heads) == 0 && s.lane != fresh {
		return // the start of the lane is as good
	}
	if k.heads+len(s.heads) > maxLaneHeads {
		k.forget()
	}
	l := s.laneHeads
	k.of[s.lane] = &l
	k.heads += len(l.heads)
}

// forget all lanes; what waits in none is met too often for that.
func (k *knownLanes) forget() {
	l := k.of[fresh]
	clear(k.of)
	k.heads = 0
	if l != nil {
		k.of[fresh] = l
		k.heads = len(l.heads)
	}
}

// laneScan is one ClaimLane, or one Claim.
type laneScan struct {
	e    *Engine
	lane string
	now  int64
	most int
	// The lane's heads, if they are known; as they stand when it ends.
	laneHeads
	known  bool
	came   laneHeads        // while it ran
	prefix []byte           // of the lane's keys
	key    []byte           // the last one that was looked for
	it     *pebble.Iterator // nil until something is looked for
	at     *due             // the head on which it stands; nil: on none
	turns  []*due
}

// ClaimLane is part of Lanes.
func (e *Engine) ClaimLane(ctx context.Context, lane string, now time.Time, most int, term time.Duration) ([]*Claim, Lane, error) {
	return e.claimLane(ctx, laneName(lane), now, most, term)
}

func (e *Engine) claimLane(ctx context.Context, lane string, now time.Time, most int, term time.Duration) ([]*Claim, Lane, error) {
	rest := Lane{Name: lane}
	if err := e.check(ctx); err != nil {
		return nil, rest, err
	}
	e.claiming.Lock()
	defer e.claiming.Unlock()
	s := &laneScan{e: e, lane: lane, now: nanos(now), most: most}
	claims, err := s.claim(now, now.Add(term), func(heads []due) {
		next, best := int64(never), classes
		for _, h := range heads {
			next, best = min(next, h.at), min(best, h.class)
		}
		if next != never {
			rest.Next, rest.Priority = time.Unix(0, next).UTC(), 9-best
		}
	})
	if err != nil {
		for _, c := range claims {
			_ = e.Release(ctx, c)
		}
		return nil, Lane{Name: lane}, err
	}
	return claims, rest, nil
}

// claim what there is, and tell where the rest begins; claiming is held.
func (s *laneScan) claim(now, until time.Time, tell func(heads []due)) (claims []*Claim, err error) {
	e := s.e
	e.mu.Lock()
	e.expire(s.now)
	if s.lane == fresh {
		e.known = never // the scheduler asks NextDue before it sleeps
	}
	e.lanes.begin(s) // before the iterator: it may not see what comes from here on
	e.mu.Unlock()
	before, known := laneHeads{slices.Clone(s.heads), s.turn}, s.known
	claims, err = s.run(now, until)
	if err != nil {
		s.laneHeads, s.known = before, known
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.lanes.end(s)
	tell(s.heads)
	return claims, err
}

func (s *laneScan) run(now, until time.Time) (claims []*Claim, err error) {
	defer func() {
		if s.it != nil {
			err = cmp.Or(err, s.it.Error(), s.it.Close())
		}
	}()
	if !s.known {
		if err := s.look(); err != nil {
			return nil, err
		}
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
	return claims, nil
}

// look makes the iterator: a claim of what is known not to be due needs none.
func (s *laneScan) look() (err error) {
	if s.it != nil {
		return nil
	}
	s.prefix = lanePrefix(s.lane)
	upper := slices.Clone(s.prefix)
	upper[len(upper)-1]++
	s.it, err = s.e.db.NewIter(&pebble.IterOptions{LowerBound: s.prefix, UpperBound: upper})
	return err
}

// here is the place on which the iterator stands.
func (s *laneScan) here() (due, bool) { return parsePlace(s.it.Key()[len(s.prefix):]) }

// learn finds where each class and bucket begins.
func (s *laneScan) learn() {
	for valid := s.it.First(); valid; {
		d, ok := s.here()
		if !ok {
			valid = s.it.Next()
			continue
		}
		s.heads = append(s.heads, d)
		valid = s.it.SeekGE(laneDue{s.lane, d}.behind())
	}
	s.known = s.it.Error() == nil
}

// class claims what is due of one class. The buckets take turns: one message of each,
// then as many more of each as fit.
func (s *laneScan) class(hs []due, now, until time.Time, claims []*Claim) ([]*Claim, error) {
	class := hs[0].class
	first, _ := slices.BinarySearchFunc(hs, due{class: class, bucket: s.turn[class]}, due.row)
	turns := s.turns[:0]
	for n := range hs {
		if h := &hs[(first+n)%len(hs)]; h.at <= s.now {
			turns = append(turns, h)
		}
	}
	s.turns = turns
	share := 1
	if s.e.o.faults.unfair && s.lane != fresh || s.e.o.faults.unfairFresh && s.lane == fresh {
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
		turns = slices.DeleteFunc(turns, func(h *due) bool { return h.at > s.now })
		share = max((s.most-len(claims))/max(len(turns), 1), 1)
	}
	return claims, nil
}

// take leases the first n of what is due at a head, and moves it on.
func (s *laneScan) take(h *due, n int, until time.Time, batch []*lease) ([]*lease, error) {
	if err := s.look(); err != nil {
		return batch, err
	}
	if s.at != h {
		s.key = h.appendPlace(append(s.key[:0], s.prefix...))
		s.it.SeekGE(s.key)
		s.at = h
	}
	for ; s.it.Valid(); s.it.Next() {
		d, ok := s.here()
		if !ok {
			continue
		}
		if d.row(*h) != 0 {
			break
		}
		if *h = d; n == 0 || d.at > s.now {
			return batch, nil
		}
		if l := s.e.lease(d.id, until); l != nil {
			l.state = s.found(d)
			batch = append(batch, l)
			n--
		}
	}
	*h, s.at = due{h.class, h.bucket, never, 0}, nil
	return batch, s.it.Error()
}

// found is where a message was.
func (s *laneScan) found(d due) *state {
	if s.lane == fresh {
		return &state{indexed: d}
	}
	return &state{lanes: []laneDue{{s.lane, d}}}
}
