package queue

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"
)

// What the model knows of lanes.

var laneNames = []string{"deliver.smtp.internet hanks.example", "deliver.smtp.internet hanks.exampl", "deliver.storage.mail"}

// fresh is when Claim gives a waiting recipient out.
func (r *recipient) fresh() int64 {
	switch {
	case r.lane == "":
		return nanos(r.next)
	case r.recheck.IsZero():
		return never
	}
	return nanos(r.recheck)
}

func (r *recipient) where() string {
	if r.lane == "" {
		return ""
	}
	return fmt.Sprintf(" in %q, looked at %d", r.lane, nanos(r.recheck))
}

// dueIn is when the mail is to be claimed with that lane.
func (x *mail) dueIn(lane string) int64 {
	at := int64(never)
	for _, r := range x.rs {
		if r.state == Waiting && r.lane == lane {
			at = min(at, max(nanos(r.next), nanos(x.notBefore)))
		}
	}
	return at
}

func dueIn(lane string) func(*mail) int64 { return func(x *mail) int64 { return x.dueIn(lane) } }

// lane has a change name a lane, or not.
func (w *world) lane(c *Change) {
	if w.rng.IntN(2) == 0 {
		return
	}
	c.Lane = laneNames[w.rng.IntN(len(laneNames))]
	if w.rng.IntN(3) > 0 {
		c.Recheck = w.clock.now.Add(time.Duration(w.rng.IntN(1800)) * time.Second)
	}
}

// park puts recipients of a claimed mail into lanes.
func (w *world) park() error {
	subject, ok := pick(w, w.held)
	if !ok {
		return nil
	}
	var changes []Change
	for i := range w.now.mails[subject].rs {
		if w.rng.IntN(3) > 0 {
			c := Change{Index: int32(i), State: Waiting, Next: w.clock.now.Add(time.Duration(w.rng.IntN(600)) * time.Second), Reason: "its turn"}
			w.lane(&c)
			changes = append(changes, c)
		}
	}
	if len(changes) == 0 {
		return nil
	}
	next := w.now.clone()
	next.apply(subject, changes, false)
	w.doing(next)
	keep := w.rng.IntN(3) == 0
	if err := w.e.Park(context.Background(), w.held[subject], changes, keep); err != nil {
		return err
	}
	w.now, w.lazy = next, true
	if !keep || next.mails[subject] == nil {
		delete(w.held, subject)
	}
	return nil
}

// claimLane asks for what is due in a lane and compares.
func (w *world) claimLane() error {
	w.doing(w.now)
	lane := laneNames[w.rng.IntN(len(laneNames))]
	most := 1 + w.rng.IntN(3)
	for subject, c := range w.held {
		if !c.Until.After(w.clock.now) {
			delete(w.held, subject)
		}
	}
	now := nanos(w.clock.now)
	waits := map[string]*mail{}
	for subject, x := range w.now.mails {
		if w.held[subject] == nil && x.dueIn(lane) <= now {
			waits[subject] = x
		}
	}
	cs, rest, err := w.e.ClaimLane(context.Background(), lane, w.clock.now, most, time.Duration(1+w.rng.IntN(900))*time.Second)
	if err != nil {
		return err
	}
	var got []string
	for _, c := range cs {
		got = append(got, c.Subject)
		w.claimed(c)
		x := w.now.mails[c.Subject]
		if x == nil {
			w.complain("claimed %q, which is not there", c.Subject)
			continue
		}
		w.held[c.Subject] = c
		var due []int32
		for i, r := range x.rs {
			if r.state == Waiting && r.lane == lane && nanos(r.next) <= now {
				due = append(due, int32(i))
			}
		}
		if !slices.Equal(due, c.Due) {
			w.complain("claimed %q in %q for the recipients %v, want %v", c.Subject, lane, c.Due, due)
		}
	}
	if err := fair(waits, dueIn(lane), most, got); err != nil {
		w.complain("at %v claimed in %q %q: %v", w.clock.now, lane, got, err)
	}
	left := int64(never)
	for subject, x := range w.now.mails {
		if w.held[subject] == nil {
			left = min(left, x.dueIn(lane))
		}
	}
	if left != never && (rest.Next.IsZero() || nanos(rest.Next) > left) {
		w.complain("in %q something is due at %d, and the queue says %v", lane, left, rest.Next)
	}
	return nil
}

// senders of the mails, each in a bucket of its own.
var senders = []string{"annie@reed.example", "", "joe@fox.example", "tom@hanks.example"}

// fair: of what waits those were claimed that had to be. The highest priority is first;
// in it no sender has two more than another of whom some is left, and of each the longest
// due is taken.
func fair(waits map[string]*mail, due func(*mail) int64, most int, got []string) error {
	if want := min(most, len(waits)); len(got) != want {
		return fmt.Errorf("%d of them, not %d", len(got), want)
	}
	left := map[[2]int][]string{} // by class and bucket
	of := func(x *mail) [2]int { return [2]int{classOf(x.priority), int(bucketOf(&Envelope{Sender: x.sender}))} }
	for subject, x := range waits {
		left[of(x)] = append(left[of(x)], subject)
	}
	for _, subjects := range left {
		slices.SortFunc(subjects, func(a, b string) int {
			return cmp.Or(cmp.Compare(due(waits[a]), due(waits[b])), cmp.Compare(waits[a].id, waits[b].id))
		})
	}
	last, taken := 0, map[[2]int]int{}
	for _, subject := range got {
		x := waits[subject]
		if x == nil {
			return fmt.Errorf("%q does not wait there", subject)
		}
		at := of(x)
		if at[0] < last || left[at][0] != subject {
			return fmt.Errorf("it is not the turn of %q", subject)
		}
		last, left[at] = at[0], left[at][1:]
		taken[at]++
	}
	for at, subjects := range left {
		if len(subjects) == 0 || len(got) == 0 {
			continue
		}
		for other, n := range taken {
			if other[0] > at[0] || other[0] == at[0] && n > taken[at]+1 {
				return fmt.Errorf("%q has to wait for another sender's", subjects[0])
			}
		}
	}
	return nil
}

// lanesClaimable: each lane has what the model says, and there is no other.
func lanesClaimable(e *Engine, m model) error {
	ctx := context.Background()
	want := map[string]int{}
	for _, x := range m.mails {
		for _, lane := range laneNames {
			if x.dueIn(lane) != never {
				want[lane]++
			}
		}
	}
	var err error
	seen := 0
	each := e.EachLane(ctx, func(l Lane) bool {
		seen++
		waits := map[string]*mail{}
		for subject, x := range m.mails {
			if x.dueIn(l.Name) != never {
				waits[subject] = x
			}
		}
		var cs []*Claim
		if cs, _, err = e.ClaimLane(ctx, l.Name, start.Add(365*24*time.Hour), 2, time.Minute); err != nil {
			return false
		}
		var got []string
		for _, c := range cs {
			got = append(got, c.Subject)
			err = cmp.Or(err, e.Release(ctx, c))
		}
		if err = cmp.Or(err, fair(waits, dueIn(l.Name), 2, got)); err != nil {
			return false
		}
		if cs, _, err = e.ClaimLane(ctx, l.Name, start.Add(365*24*time.Hour), 1000, time.Minute); err != nil {
			return false
		}
		if len(cs) != want[l.Name] || len(cs) == 0 {
			err = fmt.Errorf("%d claimed in %q, %d wait there", len(cs), l.Name, want[l.Name])
		}
		for _, c := range cs {
			if rerr := e.Release(ctx, c); rerr != nil {
				err = rerr
			}
		}
		return err == nil
	})
	if err == nil && seen != len(want) {
		err = fmt.Errorf("%d lanes hold something, want %d", seen, len(want))
	}
	return cmp.Or(err, each)
}
