package imap

import (
	"sync"

	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// recents remembers up to where sessions of this process have been told of a
// mailbox's messages: what came later is \Recent for the next session that may
// change it (RFC 3501 section 2.3.2). A mailbox that this process has not seen
// has no recent messages: RFC 9051 dropped the flag, and it is kept nowhere.
type recents struct {
	mu   sync.Mutex
	from map[recentKey]uint32
}

type recentKey struct {
	account, mailbox string
	validity         uint32
}

// maxRecents bounds the memory; above it all is forgotten.
const maxRecents = 100_000

func keyOf(account string, m *v1.Mailbox) recentKey {
	return recentKey{account, m.GetId(), m.GetUidValidity()}
}

// since is the first UID that nobody was told of.
func (r *recents) since(k recentKey, next uint32) uint32 {
	r.mu.Lock()
	defer r.mu.Unlock()
	from, ok := r.from[k]
	if !ok {
		from = next
		r.set(k, from)
	}
	return from
}

// claim is since, and nobody else gets these messages as recent.
func (r *recents) claim(k recentKey, next uint32) uint32 {
	r.mu.Lock()
	defer r.mu.Unlock()
	from, ok := r.from[k]
	if !ok || from > next {
		from = next
	}
	r.set(k, next)
	return from
}

func (r *recents) set(k recentKey, from uint32) {
	if r.from == nil || len(r.from) >= maxRecents {
		r.from = map[recentKey]uint32{}
	}
	r.from[k] = from
}

// made notes a new mailbox: all that comes into it is recent.
func (r *recents) made(k recentKey) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.set(k, 1)
}

// claimRecent makes what came since the last look recent for this session, if
// it is the first that may say so.
func (ss *session) claimRecent() {
	v := ss.box
	next := v.mailbox.GetUidNext()
	if n := len(v.uids); n > 0 {
		next = max(next, v.uids[n-1]+1)
	}
	k := keyOf(ss.account, v.mailbox)
	from := uint32(0)
	if ss.readOnly {
		from = ss.s.recents.since(k, next)
	} else {
		from = ss.s.recents.claim(k, next)
	}
	switch n := len(v.recent); {
	case from >= next:
	case n > 0 && v.recent[n-1].end >= from:
		v.recent[n-1].end = next
	default:
		v.recent = append(v.recent, recentRange{from, next})
	}
}

// recentRange: UIDs from first on, before end.
type recentRange struct{ first, end uint32 }

func (v *view) isRecent(uid uint32) bool {
	for _, r := range v.recent {
		if uid >= r.first && uid < r.end {
			return true
		}
	}
	return false
}

func (v *view) countRecent() (n int) {
	if len(v.recent) == 0 {
		return 0
	}
	for i := len(v.uids) - 1; i >= 0 && v.uids[i] >= v.recent[0].first; i-- {
		if v.isRecent(v.uids[i]) {
			n++
		}
	}
	return n
}
