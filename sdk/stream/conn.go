package stream

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/stagecoach-mta/stagecoach/sdk/fail"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
	"google.golang.org/protobuf/proto"
)

// DefaultCredits is how many calls a caller may have under way on a session
// when the serving side said nothing (Describe's max_concurrent 0).
const DefaultCredits = 64

// maxBacklog is how many octets of replies a Stream's reader may be behind
// before its call is given up with ErrBehind, so that a slow reader neither
// holds up the other calls of the session nor fills the memory.
const maxBacklog = 4 << 20

// ErrBehind ends a Stream whose each function took the replies too slowly. All
// replies received so far have been given to it; ask again for the rest.
var ErrBehind = fail.New(fail.Unavailable, "reader fell behind; ask again for the rest")

// maxStray is how many replies to calls that nobody made end the session: one
// may be a slip, but who answers so leaves its callers waiting.
const maxStray = 64

// FrameStream is either end of a Session as gRPC generates it. Send is called
// by one goroutine at a time, and so is Recv.
type FrameStream interface {
	Send(*v1.Frame) error
	Recv() (*v1.Frame, error)
}

// Option changes how a Conn begins.
type Option func(*Conn)

// Credits is the number of calls that may be under way, as Describe's
// max_concurrent says it; 0 means DefaultCredits.
func Credits(n int) Option {
	return func(c *Conn) {
		if n > 0 {
			c.credits = n
		}
	}
}

// OnClose is called once, when the session broke or was closed. It must make a
// blocked Recv and Send return: usually it is the stream context's cancel.
func OnClose(f func()) Option {
	return func(c *Conn) { c.onClose = append(c.onClose, f) }
}

// Conn is the calling end of one session.
//
// Invariants: a call is in calls from the moment it got its credit until its
// last reply, also if its caller went away meanwhile; so len(calls) never
// exceeds what the other side allowed. Frames leave in the order of the queue,
// which is bounded by two frames per call (Call, Cancel) and so is never full:
// nobody waits for a peer that does not read.
type Conn struct {
	s       FrameStream
	onClose []func()
	done    chan struct{}
	out     writer

	// peer sends a Credit first; with it welcome is closed, and features are known.
	peer    bool
	welcome chan struct{}

	mu       sync.Mutex
	features []string
	credits  int // how many more calls may start; negative after a withdrawal
	waiting  []chan struct{}
	calls    map[uint64]*call
	lastID   uint64
	strays   int
	gone     int       // calls whose callers went away
	quiet    time.Time // since when no call ended, with some whose caller went away
	retired  bool
	err      error
}

var _ Caller = (*Conn)(nil)

// call is one call under way. Its fields belong to Conn.mu.
type call struct {
	sent    bool // the frame was, or may have been, written
	gone    bool // the caller went away; replies are dropped
	ended   bool
	behind  bool
	err     error
	replies []*v1.Reply
	backlog int
	octets  int // of its frames
	// ready has room for one: something above changed.
	ready chan struct{}
}

var spareCalls = sync.Pool{New: func() any { return &call{ready: make(chan struct{}, 1)} }}

// free gives k back for another call. It has ended, so that nobody else knows it.
func (k *call) free(replies []*v1.Reply) {
	select {
	case <-k.ready:
	default:
	}
	clear(replies)
	*k = call{ready: k.ready, replies: replies[:0]}
	spareCalls.Put(k)
}

// NewCaller begins to read and write s and returns its calling end. The session
// ends when s does, or by Close.
func NewCaller(s FrameStream, opts ...Option) *Conn {
	c := &Conn{
		s: s, credits: DefaultCredits, calls: map[uint64]*call{},
		done: make(chan struct{}), welcome: make(chan struct{}),
	}
	c.out.init(s)
	for _, o := range opts {
		o(c)
	}
	go c.out.run(c)
	go c.read()
	return c
}

// Done is closed when the session broke or was closed.
func (c *Conn) Done() <-chan struct{} { return c.done }

// Err is why the session ended; nil while it lives.
func (c *Conn) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// InFlight counts the calls under way.
func (c *Conn) InFlight() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.calls)
}

// Abandoned counts the calls that their callers gave up and that the other side
// has not ended, and tells since when, with such calls, it has ended none at all.
// Many of them, for long, mean that it is stuck.
func (c *Conn) Abandoned() (n int, since time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.gone, c.quiet
}

// Close ends the session; calls under way fail with UNAVAILABLE.
func (c *Conn) Close() { c.end(fail.New(fail.Unavailable, "session closed")) }

// Retire closes the session as soon as no call is under way.
func (c *Conn) Retire() {
	c.mu.Lock()
	c.retired = true
	idle := len(c.calls) == 0
	c.mu.Unlock()
	if idle {
		c.Close()
	}
}

// Call implements Caller.
func (c *Conn) Call(ctx context.Context, req *v1.Call) (*v1.Reply, error) {
	last := &v1.Reply{}
	if _, _, err := c.do(ctx, req, func(r *v1.Reply) error { last = r; return nil }); err != nil {
		return nil, err
	}
	return last, nil
}

// Stream implements Caller. It fails with ErrBehind if each is too slow.
func (c *Conn) Stream(ctx context.Context, req *v1.Call, each func(*v1.Reply) error) error {
	_, _, err := c.do(ctx, req, each)
	return err
}

// do makes one call. sent tells whether the other side may have seen it, and
// given how many replies each got.
func (c *Conn) do(ctx context.Context, req *v1.Call, each func(*v1.Reply) error) (sent bool, given int, err error) {
	id, k, err := c.begin(ctx, req)
	if err != nil {
		return false, 0, err
	}
	for {
		select {
		case <-k.ready:
		case <-ctx.Done():
			sent = c.abandon(id, k)
			return sent, given, contextError(ctx)
		}
		c.mu.Lock()
		replies, ended, behind := k.replies, k.ended, k.behind
		k.replies, k.backlog = nil, 0
		sent, err = k.sent, k.err
		c.mu.Unlock()
		for _, r := range replies {
			if r.GetResponse() == nil && !r.GetMore() && given > 0 {
				continue // an empty last reply only ends the stream
			}
			if ctx.Err() != nil {
				c.abandon(id, k)
				return sent, given, contextError(ctx)
			}
			given++
			if e := each(r); e != nil {
				c.abandon(id, k)
				return sent, given, e
			}
		}
		if behind {
			return true, given, ErrBehind
		}
		if ended {
			k.free(replies)
			return sent, given, err
		}
	}
}

// begin waits for a credit and queues the call.
func (c *Conn) begin(ctx context.Context, req *v1.Call) (uint64, *call, error) {
	if ctx.Err() != nil {
		return 0, nil, contextError(ctx)
	}
	// Without its own deadline: the time left is counted when it is sent, and a
	// caller may repeat the same call.
	p, err := pack(&v1.Call{Request: req.GetRequest()})
	if err != nil {
		return 0, nil, err
	}
	id, k, mine, err := c.enter(ctx, p)
	if err != nil {
		p.free()
		return 0, nil, err
	}
	if mine {
		c.out.send(c, rounds)
	}
	return id, k, nil
}

// enter waits for a credit and queues the call; mine: its caller is to write.
func (c *Conn) enter(ctx context.Context, p *packed) (id uint64, k *call, mine bool, err error) {
	c.mu.Lock()
	for c.err == nil && c.credits <= 0 {
		turn := make(chan struct{})
		c.waiting = append(c.waiting, turn)
		c.mu.Unlock()
		select {
		case <-turn:
		case <-c.done:
		case <-ctx.Done():
			c.giveUpTurn(turn)
			return 0, nil, false, contextError(ctx)
		}
		c.mu.Lock()
	}
	defer c.mu.Unlock()
	if c.err != nil {
		return 0, nil, false, c.err
	}
	if c.retired {
		return 0, nil, false, fail.New(fail.Unavailable, "session replaced by a newer one")
	}
	c.credits--
	c.lastID++
	k = spareCalls.Get().(*call)
	c.calls[c.lastID] = k
	p.address(c.lastID, callTag, deadlineMs(ctx))
	return c.lastID, k, c.out.put(p, k, true), nil
}

// wakeWaiting lets as many waiting callers look again as there are credits.
func (c *Conn) wakeWaiting() {
	for n := c.credits; n > 0 && len(c.waiting) > 0; n-- {
		close(c.waiting[0])
		c.waiting = c.waiting[1:]
	}
}

// giveUpTurn takes a caller out of the line; a turn already given goes on to
// the next.
func (c *Conn) giveUpTurn(turn chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, w := range c.waiting {
		if w == turn {
			c.waiting = append(c.waiting[:i], c.waiting[i+1:]...)
			return
		}
	}
	c.wakeWaiting()
}

// abandon marks the call as not wanted any more and says so to the other side.
// It tells whether the other side may have seen the call.
func (c *Conn) abandon(id uint64, k *call) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if k.gone || k.ended {
		return k.sent
	}
	k.gone, k.replies = true, nil
	if c.gone++; c.gone == 1 {
		c.quiet = time.Now()
	}
	if c.err == nil {
		c.withdraw(id, k)
	}
	return k.sent
}

// withdraw tells the other side that nobody waits for the call.
func (c *Conn) withdraw(id uint64, k *call) {
	c.out.put(packFrame(&v1.Frame{Id: id, Body: &v1.Frame_Cancel{Cancel: &v1.Cancel{}}}), k, false)
}

// read takes replies and credits until the session ends.
func (c *Conn) read() {
	f := newUnpacked()
	for {
		if err := f.receive(c.s); err != nil {
			c.end(err)
			return
		}
		switch {
		case f.reply != nil:
			c.reply(f.id, f.reply)
		case f.credit != nil:
			c.credit(f.credit)
		}
	}
}

func (c *Conn) credit(credit *v1.Credit) {
	c.mu.Lock()
	defer c.mu.Unlock()
	select {
	case <-c.welcome:
	default:
		c.features = slices.Clone(credit.GetFeatures())
		close(c.welcome)
	}
	c.credits += int(credit.GetDelta())
	c.wakeWaiting()
}

// has tells whether the other side is known to have the feature.
func (c *Conn) has(feature string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Contains(c.features, feature)
}

func (c *Conn) reply(id uint64, r *v1.Reply) {
	c.mu.Lock()
	k := c.calls[id]
	if k == nil || !k.sent {
		c.strays++
		strays := c.strays
		c.mu.Unlock()
		if strays > maxStray {
			c.end(fail.New(fail.Unavailable, "the other side answers calls that nobody made, the last with id %d", id))
		}
		return
	}
	last := !r.GetMore() || r.GetProblem() != nil
	if last {
		delete(c.calls, id)
		c.out.open -= k.octets
		c.credits++
		c.wakeWaiting()
		k.ended, c.quiet = true, time.Now()
		if k.gone {
			c.gone--
		}
	}
	if !k.gone {
		switch {
		case r.GetProblem() != nil:
			k.err = fail.FromProblem(r.GetProblem())
		case k.behind:
		default:
			k.replies = append(k.replies, r)
			if !last {
				k.backlog += proto.Size(r)
			}
			if k.backlog > maxBacklog {
				k.behind = true
				c.withdraw(id, k)
			}
		}
		signal(k.ready)
	}
	idle := c.retired && len(c.calls) == 0
	c.mu.Unlock()
	if idle {
		c.Close()
	}
}

// end breaks the session once; every call under way fails with UNAVAILABLE.
func (c *Conn) end(cause error) {
	c.mu.Lock()
	if c.err != nil {
		c.mu.Unlock()
		return
	}
	c.err = cause
	var known *fail.Error
	if !errors.As(cause, &known) {
		c.err = fail.Wrap(fail.Unavailable, cause, "session broken")
	}
	for id, k := range c.calls {
		k.ended, k.err = true, c.err
		signal(k.ready)
		delete(c.calls, id)
	}
	c.out.queue = nil
	close(c.done)
	c.mu.Unlock()
	for _, f := range c.onClose {
		f()
	}
}

func signal(ready chan struct{}) {
	select {
	case ready <- struct{}{}:
	default:
	}
}

// deadlineMs is the time left, rounded up: 0 would mean for ever.
func deadlineMs(ctx context.Context) int64 {
	d, ok := ctx.Deadline()
	if !ok {
		return 0
	}
	return max(1, (time.Until(d) + time.Millisecond - 1).Milliseconds())
}

func contextError(ctx context.Context) error {
	err := ctx.Err()
	if errors.Is(err, context.DeadlineExceeded) {
		return fail.Wrap(fail.Deadline, err, "no answer in time")
	}
	return fail.Wrap(fail.Cancelled, err, "call given up")
}
