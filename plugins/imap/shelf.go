package imap

import (
	"container/list"
	"context"
	"slices"
	"strings"
	"sync"

	"github.com/stagecoach-mta/stagecoach/sdk/fail"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// shelf keeps views of mailboxes that were left, so that who selects one of them
// again asks the storage only what changed since. A view belongs to one session at a
// time: it is taken off and put back. The zero value is ready.
//
// Rejected: one view that the sessions share, which would have to be copied at the
// first change that not all of them may tell their clients yet.
type shelf struct {
	mu    sync.Mutex
	views map[shelfKey]*list.Element // of *shelved
	lru   list.List                  // the last put back at the front
	size  int
}

type shelfKey struct{ account, name string }

type shelved struct {
	key  shelfKey
	view *view
	size int
}

// maxShelf octets are kept, of all accounts together.
const maxShelf = 8 << 20

// octets is about what the view takes.
func (v *view) octets() int {
	n := 1024 + 4*cap(v.uids) + cap(v.flags) + 8*cap(v.modseqs)
	for _, words := range v.keywords {
		n += 100
		for _, w := range words {
			n += 16 + len(w)
		}
	}
	return n
}

// put takes a view that its session no longer uses.
func (s *shelf) put(account string, v *view) {
	v.expunge()
	v.recent, v.dirty, v.track = nil, nil, false
	v.known = slices.DeleteFunc(v.known, func(word string) bool {
		for _, words := range v.keywords {
			if slices.Contains(words, word) {
				return false
			}
		}
		return true
	})
	one := &shelved{shelfKey{account, v.mailbox.GetName()}, v, v.octets()}
	if v.since == 0 || one.size > maxShelf {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.views == nil {
		s.views = map[shelfKey]*list.Element{}
	}
	s.remove(s.views[one.key])
	s.views[one.key] = s.lru.PushFront(one)
	for s.size += one.size; s.size > maxShelf; {
		s.remove(s.lru.Back())
	}
}

// remove takes e out, if it is not nil.
func (s *shelf) remove(e *list.Element) {
	if e == nil {
		return
	}
	one := s.lru.Remove(e).(*shelved)
	delete(s.views, one.key)
	s.size -= one.size
}

// take returns a view of the mailbox that had that name when it was put here; nil if
// there is none.
func (s *shelf) take(account, name string) *view {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.views[shelfKey{account, name}]
	if e == nil {
		return nil
	}
	v := e.Value.(*shelved).view
	s.remove(e)
	return v
}

// resume brings the view up to what the storage says that changed since; false if it
// is not of the mailbox that has its name now, or not whole.
func (v *view) resume(s *v1.SnapshotResponse) bool {
	m := s.GetMailbox()
	if m.GetName() != v.mailbox.GetName() || m.GetUidValidity() != v.mailbox.GetUidValidity() || s.GetModseq() < v.since {
		return false
	}
	v.apply(s)
	v.expunge()
	v.mailbox, v.since = m, s.GetModseq()
	return len(v.uids) == int(m.GetMessages())
}

// openBox returns the mailbox as it is now, and a subscription to its changes. The
// stream comes first: what changes while the snapshot is taken is looked at once too
// often rather than never.
func (ss *session) openBox(ctx context.Context, name string) (*view, *subscription, error) {
	v := ss.s.shelf.take(ss.account, strings.TrimSuffix(name, separator))
	if v != nil && (v.modseqs != nil || !ss.condstore) {
		snapshot, changes, err := ss.snapshotOf(ctx, v.mailbox.GetId(), v.since)
		if err == nil && v.resume(snapshot) {
			return v, changes, nil
		}
		if err == nil {
			ss.s.feeds.leave(changes)
		} else if !fail.Is(err, fail.NotFound) {
			return nil, nil, ss.refusal(err)
		}
	}
	mbox, err := ss.find(ctx, name)
	if err != nil {
		return nil, nil, err
	}
	snapshot, changes, err := ss.snapshotOf(ctx, mbox.GetId(), 0)
	if err != nil {
		return nil, nil, ss.refusal(err)
	}
	return newView(snapshot, ss.condstore), changes, nil
}

func (ss *session) snapshotOf(ctx context.Context, id string, since uint64) (*v1.SnapshotResponse, *subscription, error) {
	changes := ss.s.feeds.subscribe(ss.account, ss.store, id, ss.wake)
	snapshot, err := ss.store.Snapshot(ctx, &v1.SnapshotRequest{MailboxId: id, SinceModseq: since})
	if err != nil {
		ss.s.feeds.leave(changes)
		return nil, nil, err
	}
	return snapshot, changes, nil
}
