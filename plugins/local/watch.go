package local

import (
	"context"
	"slices"
	"sync"

	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// hub tells the watchers of an account what changed. A watcher that is slow gets
// the changes merged, so it holds up nobody and needs no queue.
type hub struct {
	mu       sync.Mutex
	watchers map[*watcher]bool
}

type watcher struct {
	wake chan struct{} // one slot

	modseq    uint64
	mailboxes bool
	ids       map[string]bool
}

func (h *hub) publish(e *v1.ChangeEvent) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for w := range h.watchers {
		w.modseq = max(w.modseq, e.Modseq)
		w.mailboxes = w.mailboxes || e.Mailboxes
		for _, id := range e.MailboxIds {
			w.ids[id] = true
		}
		select {
		case w.wake <- struct{}{}:
		default:
		}
	}
}

func (h *hub) join() *watcher {
	w := &watcher{wake: make(chan struct{}, 1), ids: map[string]bool{}}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.watchers == nil {
		h.watchers = map[*watcher]bool{}
	}
	h.watchers[w] = true
	return w
}

func (h *hub) leave(w *watcher) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.watchers, w)
}

// take returns what came together since the last take; nil: nothing newer than
// seen.
func (h *hub) take(w *watcher, seen uint64) *v1.ChangeEvent {
	h.mu.Lock()
	defer h.mu.Unlock()
	if w.modseq <= seen {
		return nil
	}
	e := &v1.ChangeEvent{Modseq: w.modseq, Mailboxes: w.mailboxes}
	for id := range w.ids {
		e.MailboxIds = append(e.MailboxIds, id)
	}
	clear(w.ids)
	w.mailboxes = false
	return e
}

// Watch implements storage.Account.
func (h *handle) Watch(ctx context.Context, req *v1.WatchRequest, event func(*v1.ChangeEvent) error) error {
	// First join, then look: what comes between the two is told twice, not lost.
	w := h.a.hub.join()
	defer h.a.hub.leave(w)
	v, err := h.view(ctx)
	if err != nil {
		return err
	}
	first := &v1.ChangeEvent{Modseq: v.rec.modseq}
	if since := req.GetSinceModseq(); since > 0 && since < v.rec.modseq {
		// What was deleted or renamed meanwhile is not kept by MODSEQ, so the
		// list may have changed.
		first.Mailboxes = true
		boxes, err := readMailboxes(v, h.a.num)
		if err != nil {
			v.Close()
			return h.s.wrap(err, "watch")
		}
		for _, m := range boxes {
			if m.HighestModseq > since {
				first.MailboxIds = append(first.MailboxIds, m.Id)
			}
		}
		noted, err := annotationsSince(v, h.a.num, since)
		if err != nil {
			v.Close()
			return h.s.wrap(err, "watch")
		}
		for _, x := range noted {
			if id := x.GetMailboxId(); id != "" && !slices.Contains(first.MailboxIds, id) {
				first.MailboxIds = append(first.MailboxIds, id)
			}
		}
	}
	v.Close()
	if err := event(first); err != nil {
		return err
	}
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-w.wake:
		}
		if e := h.a.hub.take(w, first.Modseq); e != nil {
			if err := event(e); err != nil {
				return err
			}
		}
	}
}
