package storagetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// patience is how long an event may take on a busy machine.
const patience = 20 * time.Second

// watching runs Watch and returns its events and how it ended.
func (a *account) watching(ctx context.Context, since uint64) (<-chan *v1.ChangeEvent, <-chan error) {
	events, done := make(chan *v1.ChangeEvent, 1000), make(chan error, 1)
	go func() {
		done <- a.Watch(ctx, &v1.WatchRequest{SinceModseq: since}, func(e *v1.ChangeEvent) error {
			events <- e
			return nil
		})
	}()
	return events, done
}

func (f *fixture) event(events <-chan *v1.ChangeEvent, what string) *v1.ChangeEvent {
	f.Helper()
	select {
	case e := <-events:
		return e
	case <-time.After(patience):
		f.Fatalf("no event after %s", what)
		return nil
	}
}

func watch(f *fixture) {
	a := f.open(meg)
	in := a.box("INBOX").GetId()
	ctx, cancel := context.WithCancel(f.Context())
	defer cancel()
	events, done := a.watching(ctx, 0)
	first := f.event(events, "Watch began: the first comes at once")
	last := first.GetModseq()
	equal(f, "MODSEQ of the first event", last, a.snapshot(in, 0).GetModseq())
	var uid uint32
	for _, step := range []struct {
		name string
		do   func()
		list bool
	}{
		{"Append", func() { uid = a.append(in, mailOf("1", "x"))[0] }, false},
		{"SetFlags", func() { a.flags(in, add, uid, `\Seen`) }, false},
		{"Deposit", func() { f.ok(f.deposit("q", ref(mailOf("2", "x")), target(0, meg))[0]) }, false},
		{"Expunge", func() { a.expunge(in, uid) }, false},
		{"Create", func() { a.create("new one") }, true},
	} {
		step.do()
		for {
			e := f.event(events, step.name)
			if e.GetModseq() < last {
				f.Errorf("event after %s has MODSEQ %d, one before had %d", step.name, e.GetModseq(), last)
			}
			last = max(last, e.GetModseq())
			if step.list && e.GetMailboxes() || !step.list && slices.Contains(e.GetMailboxIds(), in) {
				break
			}
		}
		equal(f, "MODSEQ told after "+step.name, last, a.snapshot(in, 0).GetModseq())
	}
	// Another account's change is nobody's business here.
	f.ok(f.deposit("q2", ref(mailOf("2", "x")), target(0, tom))[0])
	a.append(in, mailOf("3", "x"))
	for e := f.event(events, "the last Append"); e.GetModseq() <= last; e = f.event(events, "the last Append") {
	}
	cancel()
	select {
	case err := <-done:
		if !errors.Is(err, context.Canceled) {
			f.Errorf("Watch returned %v after its context was cancelled, want ctx.Err()", err)
		}
	case <-time.After(patience):
		f.Errorf("Watch did not return when its context was cancelled")
	}
	stop := errors.New("enough")
	if err := a.Watch(f.Context(), &v1.WatchRequest{}, func(*v1.ChangeEvent) error { return stop }); !errors.Is(err, stop) {
		f.Errorf("Watch returned %v, want the error of event", err)
	}
}

func watchSince(f *fixture) {
	a := f.open(meg)
	in, other := a.box("INBOX").GetId(), a.create("other").GetId()
	base := a.snapshot(in, 0).GetModseq()
	a.append(other, mailOf("1", "x"))
	f.reopen()
	a = f.open(meg)
	ctx, cancel := context.WithCancel(f.Context())
	events, done := a.watching(ctx, base)
	e := f.event(events, "Watch began")
	equal(f, "MODSEQ", e.GetModseq(), a.snapshot(in, 0).GetModseq())
	if !slices.Contains(e.GetMailboxIds(), other) || slices.Contains(e.GetMailboxIds(), in) {
		f.Errorf("the first event names mailboxes %v: %s changed after MODSEQ %d, %s did not", e.GetMailboxIds(), other, base, in)
	}
	cancel()
	if err := <-done; err == nil {
		f.Errorf("Watch returned nil when its context ended: return the context's error")
	}
}

// consistency: writers move messages between two mailboxes and flip a flag on
// all of them at once; a reader must never see half of such a step.
func consistency(f *fixture) {
	const messages, steps = 20, 40
	a := f.open(meg)
	in := a.box("INBOX").GetId()
	for i := range messages {
		a.append(in, mailOf(fmt.Sprint(i), "x"))
	}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		defer close(stop)
		for i := range steps {
			op := add
			if i%2 == 1 {
				op = remove
			}
			if _, err := a.SetFlags(f.Context(), &v1.SetFlagsRequest{MailboxId: in, Op: op, Flags: []string{`\Flagged`}}); err != nil {
				f.Errorf("SetFlags: %v", err)
				return
			}
			_, err := a.Append(f.Context(), &v1.AppendRequest{MailboxId: in, Messages: []*v1.AppendRequest_Message{
				{Message: ref(mailOf("new", "x")), Flags: []string{`\Draft`}}, {Message: ref(mailOf("new", "x")), Flags: []string{`\Draft`}},
			}})
			if err != nil {
				f.Errorf("Append: %v", err)
				return
			}
		}
	})
	for range 2 {
		wg.Go(func() {
			var modseq uint64
			for {
				select {
				case <-stop:
					return
				default:
				}
				s, err := a.Snapshot(f.Context(), &v1.SnapshotRequest{MailboxId: in})
				if err != nil {
					f.Errorf("Snapshot: %v", err)
					return
				}
				flagged := 0
				for _, b := range s.GetFlags()[:messages] {
					if b&uint32(v1.Flag_FLAG_FLAGGED) != 0 {
						flagged++
					}
				}
				if n := len(s.GetUids()); flagged != 0 && flagged != messages || (n-messages)%2 != 0 || n != int(s.GetMailbox().GetMessages()) {
					f.Errorf("a snapshot shows half of a change: %d of %d flagged, %d messages, counter %d", flagged, messages, n, s.GetMailbox().GetMessages())
					return
				}
				if s.GetModseq() < modseq {
					f.Errorf("MODSEQ went back from %d to %d", modseq, s.GetModseq())
					return
				}
				modseq = s.GetModseq()
			}
		})
	}
	wg.Wait()
}
