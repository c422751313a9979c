package local

import (
	"errors"
	"fmt"
	"runtime"
	"slices"

	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// together has several deposits at once. The first one's sync is held up until the
// records of all others are in the log, in an order that the seed repeats; then it
// passes, and is answered while the others are written and not synced.
//
// What the store is after each of them is asked of a copy that has them one after
// the other: who reads the store itself waits for the disk.
func (w *world) together() error {
	reqs := make([]*v1.DepositRequest, 2+w.rng.IntN(3))
	for i := range reqs {
		_, reqs[i] = w.newDeposit()
	}
	states, results, err := w.apart(reqs)
	if err != nil {
		return fmt.Errorf("one after the other: %w", err)
	}
	first := len(w.h.moments)
	done := make([]chan error, len(reqs))
	start := func(i int) error {
		m := w.h.begin(w.now)
		m.deposit, m.results, m.state = reqs[i], results[i], states[i]
		done[i] = make(chan error, 1)
		go func() {
			got, err := deposit(w.s, reqs[i])
			if err == nil && !slices.Equal(got, results[i]) {
				err = fmt.Errorf("deposit %s is answered with %q, and alone with %q", reqs[i].QueueId, got, results[i])
			}
			done[i] <- err
		}()
		// The first target's result is visible when the batch is in the log.
		key := keyDeposit(reqs[i].QueueId, reqs[i].Targets[0].Key)
		for {
			if v, err := get(w.s.db, key); v != nil || err != nil {
				return err
			}
			select {
			case err := <-done[i]:
				done[i] <- err
				return err
			default:
				runtime.Gosched()
			}
		}
	}
	w.gate.Shut()
	defer w.gate.Open()
	if err := start(0); err != nil {
		return err
	}
	w.gate.Meet()
	for i := range reqs[1:] {
		if err := start(1 + i); err != nil {
			return err
		}
	}
	w.gate.Pass()
	errs := []error{<-done[0]}
	w.gate.Meet()
	w.h.moments[first].acked = w.h.log.Len()
	w.gate.Open()
	for _, d := range done[1:] {
		errs = append(errs, <-d)
	}
	for i := range reqs[1:] {
		w.h.moments[first+1+i].acked = w.h.log.Len()
	}
	is, err := state(w.s)
	if last := states[len(states)-1]; err == nil && is != last {
		err = fmt.Errorf("after deposits at once the store is\n%s\nand after the same, one after the other\n%s", is, last)
	}
	return errors.Join(append(errs, err)...)
}

// apart makes the deposits one after the other in a copy of the store, and tells
// the state and the results after each.
func (w *world) apart(reqs []*v1.DepositRequest) (states []string, results [][]string, err error) {
	s, err := recovered(w.d.Clone(), w.now)
	if err != nil {
		return nil, nil, err
	}
	for _, req := range reqs {
		r, err := deposit(s, req)
		if err != nil {
			return nil, nil, errors.Join(err, s.Close())
		}
		is, err := state(s)
		if err != nil {
			return nil, nil, errors.Join(err, s.Close())
		}
		states, results = append(states, is), append(results, r)
	}
	return states, results, s.Close()
}
