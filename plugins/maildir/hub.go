package maildir

import (
	"context"
	"sync"
	"time"

	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// lookEvery is how often a watcher looks for what other programs did.
const lookEvery = 10 * time.Second

// hub tells watchers of changes; a slow one gets them merged.
type hub struct {
	mu       sync.Mutex
	watchers map[*watcher]bool
}

type watcher struct {
	wake  chan struct{} // one slot
	event v1.ChangeEvent
}

func (h *hub) publish(e *v1.ChangeEvent) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for w := range h.watchers {
		w.event.Modseq = e.Modseq
		w.event.Mailboxes = w.event.Mailboxes || e.Mailboxes
		for _, id := range e.MailboxIds {
			if !contains(w.event.MailboxIds, id) {
				w.event.MailboxIds = append(w.event.MailboxIds, id)
			}
		}
		select {
		case w.wake <- struct{}{}:
		default:
		}
	}
}

func contains(list []string, s string) bool {
	for _, x := range list {
		if x == s {
			return true
		}
	}
	return false
}

// Watch implements storage.Account.
func (a *account) Watch(ctx context.Context, req *v1.WatchRequest, event func(*v1.ChangeEvent) error) error {
	w := &watcher{wake: make(chan struct{}, 1)}
	first := &v1.ChangeEvent{}
	err := a.read(func() error {
		first.Modseq = a.Modseq
		if since := req.GetSinceModseq(); since > 0 && since < a.Modseq {
			first.Mailboxes = true
			for _, b := range a.boxes {
				if b.Modseq > since || a.notedSince(b.Num, since) {
					first.MailboxIds = append(first.MailboxIds, boxID(b.Num))
				}
			}
		}
		a.hub.mu.Lock()
		defer a.hub.mu.Unlock()
		if a.hub.watchers == nil {
			a.hub.watchers = map[*watcher]bool{}
		}
		a.hub.watchers[w] = true
		return nil
	})
	if err != nil {
		return err
	}
	defer func() {
		a.hub.mu.Lock()
		defer a.hub.mu.Unlock()
		delete(a.hub.watchers, w)
	}()
	if err := event(first); err != nil {
		return err
	}
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
			if err := a.read(func() error { return nil }); err != nil {
				return err
			}
		case <-w.wake:
			a.hub.mu.Lock()
			e := &v1.ChangeEvent{Modseq: w.event.Modseq, Mailboxes: w.event.Mailboxes, MailboxIds: w.event.MailboxIds}
			w.event.Mailboxes, w.event.MailboxIds = false, nil
			a.hub.mu.Unlock()
			if err := event(e); err != nil {
				return err
			}
		}
	}
}
