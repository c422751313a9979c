package milter

import (
	"context"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/stagecoach-mta/stagecoach/plugins/milter/protocol"
	"github.com/stagecoach-mta/stagecoach/sdk/fail"
	"github.com/stagecoach-mta/stagecoach/sdk/filter"
)

// maxKept bounds the connections that wait; the one that waits longest goes.
const maxKept = 64

// pool keeps the connections that nobody uses at the moment.
//
// A client's connection ends without a word to the filter, so a link is never
// owned by a client: who needs one takes the link that was told most of what it
// would tell, and what a link was told is checked against the envelope each time.
// To lose one costs a few packets, no mail.
//
// Rejected: reuse by default. libmilter 8.17 takes CONNECT behind QUIT_NC only if
// no macros come between them, and else never answers it.
type pool struct {
	keep  time.Duration
	reuse bool

	mu     sync.Mutex
	kept   []*link // the longest waiting first
	closed bool
}

func newPool(keep time.Duration, reuse bool) *pool { return &pool{keep: keep, reuse: reuse} }

// link returns the connection that suits best, or a new one.
func (f *Filter) link(ctx context.Context, ev *filter.Event) (*link, error) {
	if l := f.links.take(clientOf(ev.Envelope), transactionOf(ev)); l != nil {
		return l, nil
	}
	d := net.Dialer{Timeout: f.ConnectTimeout}
	nc, err := d.DialContext(ctx, f.network, f.place)
	if err != nil {
		return nil, fail.Wrap(fail.Unavailable, err, "the milter at "+f.Address+" cannot be reached")
	}
	deadline, _ := ctx.Deadline()
	conn, err := protocol.Open(nc, f.offer, min(f.ReplyTimeout, f.ConnectTimeout), deadline)
	if err != nil {
		return nil, fail.Wrap(fail.Unavailable, err, "the milter at "+f.Address)
	}
	conn.Patience = f.ReplyTimeout
	f.metrics.Counter("connections_total", "Connections made to the milter.").Add(1)
	return &link{conn: conn}, nil
}

// take prefers the link that is in this transaction, then one that knows the
// client, then one that waits for any. One in another client's transaction is left
// alone.
func (p *pool) take(c client, transaction string) *link {
	p.mu.Lock()
	defer p.mu.Unlock()
	best, rank := -1, 0
	for i, l := range p.kept {
		r := 0
		switch {
		case l.tx != nil && l.tx.id == transaction && l.client == c:
			r = 3
		case l.connected && l.client == c && (l.tx == nil || c.port > 0 && transaction != ""):
			r = 2 // by its port a client is one connection, and in no other transaction
		case p.reuse && l.tx == nil && l.conn.CanServeAnother():
			r = 1
		}
		if r > rank {
			best, rank = i, r
		}
	}
	if best < 0 {
		return nil
	}
	l := p.kept[best]
	p.kept = slices.Delete(p.kept, best, best+1)
	l.timer.Stop()
	l.kept = true
	return l
}

// put keeps l for the next question.
func (p *pool) put(l *link) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || p.keep == 0 {
		go l.quit() // it may wait for the milter to read
		return
	}
	if len(p.kept) == maxKept {
		old := p.kept[0]
		p.kept = slices.Delete(p.kept, 0, 1)
		old.timer.Stop()
		go old.quit()
	}
	p.kept = append(p.kept, l)
	l.timer = time.AfterFunc(p.keep, func() { p.drop(l) })
}

// drop ends a link that waited in vain.
func (p *pool) drop(l *link) {
	p.mu.Lock()
	i := slices.Index(p.kept, l)
	if i >= 0 {
		p.kept = slices.Delete(p.kept, i, i+1)
	}
	p.mu.Unlock()
	if i >= 0 {
		l.quit()
	}
}

func (p *pool) close() {
	p.mu.Lock()
	kept := p.kept
	p.kept, p.closed = nil, true
	p.mu.Unlock()
	for _, l := range kept {
		l.timer.Stop()
		l.quit()
	}
}
