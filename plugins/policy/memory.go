package policy

import (
	"container/list"
	"slices"
	"sync"
	"time"
)

// Bounds of what is remembered. What is forgotten is asked again.
const (
	maxTransactions = 20_000
	remembered      = time.Hour
)

// memory has what was decided about mails whose message has not come yet. That a
// mail's command is refused or its client goes away is not told: such ones are
// forgotten after an hour.
type memory struct {
	clock func() time.Time

	mu    sync.Mutex
	byID  map[string]*list.Element
	order *list.List // of *decided, the oldest first
}

type decided struct {
	id      string
	at      time.Time
	actions []*action
}

func newMemory(clock func() time.Time) *memory {
	return &memory{clock: clock, byID: map[string]*list.Element{}, order: list.New()}
}

// add notes that a transaction was asked about, and what has to be done later.
func (m *memory) add(id string, a *action) {
	m.mu.Lock()
	defer m.mu.Unlock()
	e, known := m.byID[id]
	if !known {
		now := m.clock()
		for old := m.order.Front(); old != nil && (m.order.Len() >= maxTransactions || now.Sub(old.Value.(*decided).at) > remembered); old = m.order.Front() {
			m.forget(old)
		}
		e = m.order.PushBack(&decided{id: id, at: now})
		m.byID[id] = e
	}
	d := e.Value.(*decided)
	same := func(x *action) bool { return *x == *a }
	if (a.changes() || a.word == "HOLD" || a.word == "DISCARD") && !slices.ContainsFunc(d.actions, same) {
		d.actions = append(d.actions, a)
	}
}

// take returns and forgets.
func (m *memory) take(id string) (actions []*action, known bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	e, known := m.byID[id]
	if !known {
		return nil, false
	}
	m.forget(e)
	return e.Value.(*decided).actions, true
}

func (m *memory) forget(e *list.Element) {
	m.order.Remove(e)
	delete(m.byID, e.Value.(*decided).id)
}
