package imap

import (
	"context"
	"hash/maphash"
	"strings"
	"sync/atomic"
	"time"

	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

const (
	// inARow: a STATUS that comes so soon after another is one of many, for clients
	// ask for each of their mailboxes.
	inARow = 10 * time.Millisecond
	// aheadAge is how old counters may be that were read for the STATUS before.
	aheadAge = 20 * time.Millisecond
	// maxAhead mailboxes are read ahead; of an account with more, none.
	maxAhead = 1000
)

// ahead is all of an account's mailboxes, read at once for the STATUS commands to
// come: a call to the storage costs more than what is asked. What sessions of this
// process did before is always in it; what came from elsewhere, a delivery or a POP3
// session, may be missing for aheadAge.
type ahead struct {
	answered time.Time // the last STATUS
	tooMany  bool
	// list is let go of when it is too old: an idle session holds none.
	list atomic.Pointer[aheadList]
}

type aheadList struct {
	boxes map[string]*v1.Mailbox
	read  time.Time
	mark  uint64
}

// marks count what sessions did to the accounts; accounts may share one.
type marks struct {
	seed  maphash.Seed
	count [256]atomic.Uint64
}

func (m *marks) of(account string) *atomic.Uint64 {
	return &m.count[maphash.String(m.seed, account)%uint64(len(m.count))]
}

// note that a command was run that may have changed something in the account. It
// comes before its tagged reply: who has seen that is told what the command did.
func (ss *session) note(cmd *command) {
	if ss.account != "" && cmd.name != "STATUS" && cmd.name != "NOOP" {
		ss.s.marks.of(ss.account).Add(1)
	}
}

// counters is find for STATUS.
func (ss *session) counters(ctx context.Context, name string) (*v1.Mailbox, error) {
	a, now := &ss.ahead, time.Now()
	many := now.Sub(a.answered) < inARow
	defer func() { a.answered = time.Now() }()
	mark := ss.s.marks.of(ss.account).Load()
	l := a.list.Load()
	if l != nil && (now.Sub(l.read) > aheadAge || mark != l.mark) {
		l = nil
	}
	if l == nil && many && !a.tooMany {
		var err error
		if l, err = ss.readAhead(ctx, now, mark); err != nil {
			return nil, ss.refusal(err)
		}
	}
	if l != nil {
		if m := l.boxes[strings.TrimSuffix(name, separator)]; m != nil {
			return m, nil
		}
	}
	return ss.find(ctx, name)
}

// readAhead returns nil for an account that has too many mailboxes.
func (ss *session) readAhead(ctx context.Context, now time.Time, mark uint64) (*aheadList, error) {
	all, err := ss.store.List(ctx, &v1.ListMailboxesRequest{})
	if err != nil {
		return nil, err
	}
	a := &ss.ahead
	if a.tooMany = len(all.GetMailboxes()) > maxAhead; a.tooMany {
		return nil, nil
	}
	l := &aheadList{make(map[string]*v1.Mailbox, len(all.GetMailboxes())), now, mark}
	for _, m := range all.GetMailboxes() {
		if !m.GetContainer() {
			l.boxes[m.GetName()] = m
		}
	}
	a.list.Store(l)
	time.AfterFunc(aheadAge, func() { a.list.CompareAndSwap(l, nil) })
	return l, nil
}
