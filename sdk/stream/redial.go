package stream

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/stagecoach-mta/stagecoach/sdk/fail"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// Back-off between attempts to reach a process that is being restarted.
const (
	firstBackoff = 20 * time.Millisecond
	maxBackoff   = time.Second
)

// Redialer is a Caller over one session after the other: a call that meets a
// restart of the other side waits for the new process within its deadline.
//
// A call that was never written is always tried again. One that was written and
// got no answer is tried again if it is Repeatable, or has a key that both the old
// and the new process keep (RequestKeys); others fail as UNAVAILABLE, and their
// caller must find out what became of them.
type Redialer struct {
	dial func(context.Context) (*Conn, error)

	mu      sync.Mutex
	conn    *Conn
	dialing chan struct{} // closed when the dial under way has ended
	dialErr error
	closed  bool
	ctx     context.Context
	cancel  context.CancelFunc
}

var _ Caller = (*Redialer)(nil)

// Redial makes a Caller that dials when first used and again after every break.
// dial gets a context that ends with Close; it is called by one goroutine at a
// time.
func Redial(dial func(ctx context.Context) (*Conn, error)) *Redialer {
	ctx, cancel := context.WithCancel(context.Background())
	return &Redialer{dial: dial, ctx: ctx, cancel: cancel}
}

// Renew makes the next call dial anew, because the other side moved. Calls under
// way end where they are.
func (r *Redialer) Renew() {
	r.mu.Lock()
	old := r.conn
	r.conn = nil
	r.mu.Unlock()
	if old != nil {
		old.Retire()
	}
}

// Close ends the session; later calls fail with UNAVAILABLE.
func (r *Redialer) Close() {
	r.mu.Lock()
	conn, dialing := r.conn, r.dialing
	r.closed, r.conn = true, nil
	r.mu.Unlock()
	r.cancel()
	if conn != nil {
		conn.Close()
	}
	if dialing != nil {
		<-dialing
	}
}

// Call implements Caller.
func (r *Redialer) Call(ctx context.Context, call *v1.Call) (*v1.Reply, error) {
	last := &v1.Reply{}
	if err := r.Stream(ctx, call, func(reply *v1.Reply) error { last = reply; return nil }); err != nil {
		return nil, err
	}
	return last, nil
}

// Stream implements Caller. A stream that broke after each was called is not
// begun anew: it fails as UNAVAILABLE.
func (r *Redialer) Stream(ctx context.Context, call *v1.Call, each func(*v1.Reply) error) error {
	var reason error
	var unanswered error // of a call that its key alone lets us repeat
	wait := firstBackoff
	for {
		conn, err := r.session(ctx)
		keeps := false
		if err == nil && keyed(call) {
			// Before it is sent: afterwards the process may be gone, and nobody knows.
			if keeps, err = conn.keepsKeys(ctx); err == nil && !keeps && unanswered != nil {
				return unanswered
			}
		}
		if err == nil {
			var sent bool
			var given int
			sent, given, err = conn.do(ctx, call, each)
			if err == nil || ctx.Err() != nil || !broken(conn, err) {
				return err
			}
			if given > 0 {
				return err
			}
			if sent && !refused(err) && !Repeatable(call) {
				if !keeps {
					return err
				}
				unanswered = err
			}
		}
		if fail.Is(err, fail.Deadline) || fail.Is(err, fail.Cancelled) || r.ctx.Err() != nil {
			return withReason(err, reason)
		}
		reason = err
		select {
		case <-time.After(wait/2 + rand.N(wait/2)):
		case <-ctx.Done():
			return withReason(contextError(ctx), reason)
		case <-r.ctx.Done():
			return fail.New(fail.Unavailable, "session closed")
		}
		wait = min(wait*8/5, maxBackoff)
	}
}

// session returns the living session or waits for the dial of the next.
func (r *Redialer) session(ctx context.Context) (*Conn, error) {
	r.mu.Lock()
	if r.closed {
		r.mu.Unlock()
		return nil, fail.New(fail.Unavailable, "session closed")
	}
	if c := r.conn; c != nil {
		select {
		case <-c.Done():
			r.conn = nil
		default:
			r.mu.Unlock()
			return c, nil
		}
	}
	if r.dialing == nil {
		r.dialing = make(chan struct{})
		go r.dialNext(r.dialing)
	}
	dialing := r.dialing
	r.mu.Unlock()
	select {
	case <-dialing:
	case <-ctx.Done():
		return nil, contextError(ctx)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.conn != nil {
		return r.conn, nil
	}
	if r.dialErr != nil {
		return nil, r.dialErr
	}
	return nil, fail.New(fail.Unavailable, "session broken")
}

func (r *Redialer) dialNext(done chan struct{}) {
	conn, err := r.dial(r.ctx)
	r.mu.Lock()
	r.dialing, r.dialErr = nil, err
	if err != nil && fail.KindOf(err) != fail.Unavailable {
		// Also a dial that timed out is no deadline of the callers.
		r.dialErr = fail.Wrap(fail.Unavailable, err, "not reachable")
	}
	closed := r.closed
	if err == nil && !closed {
		r.conn = conn
	}
	r.mu.Unlock()
	if err == nil && closed {
		conn.Close()
	}
	close(done)
}

// broken tells whether err came from the session rather than from the other
// side's handler.
func broken(c *Conn, err error) bool {
	if !fail.Is(err, fail.Unavailable) || err == ErrBehind {
		return false
	}
	select {
	case <-c.Done():
		return err == c.Err()
	default:
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.retired
	}
}

// refused tells whether the session ended because its token was not accepted:
// then no call on it was looked at.
func refused(err error) bool {
	for e := err; e != nil; {
		if status.Code(e) == codes.Unauthenticated {
			return true
		}
		u, ok := e.(interface{ Unwrap() error })
		if !ok {
			return false
		}
		e = u.Unwrap()
	}
	return false
}

func withReason(err, reason error) error {
	if reason == nil {
		return err
	}
	return fail.Wrap(fail.KindOf(err), err, "waited for the other side ("+reason.Error()+")")
}

// RequestKeys is the feature of a storage that answers a call with a key that it has
// seen as it did the first time (StorageCall.request_key).
const RequestKeys = "request-keys"

func keyed(call *v1.Call) bool { return call.GetStorage().GetRequestKey() != "" }

// keepsKeys waits for a peer's first Credit, which tells.
func (c *Conn) keepsKeys(ctx context.Context) (bool, error) {
	if !c.peer {
		return false, nil
	}
	select {
	case <-c.welcome:
		return c.has(RequestKeys), nil
	case <-c.done:
		return false, c.Err()
	case <-ctx.Done():
		return false, contextError(ctx)
	}
}

// Repeatable tells whether a call may be asked again when it is not known
// whether the first one was carried out: what only reads, Deposit, which is exactly
// once by its key, and what leaves the same behind if it is done twice (SetFlags
// without a condition, Expunge, SetAnnotations). The reply to such a one may leave out what the first
// had changed already; the account's changes tell of that.
func Repeatable(call *v1.Call) bool {
	switch r := call.GetRequest().(type) {
	case *v1.Call_Directory:
		return true
	case *v1.Call_Storage:
		switch r.Storage.GetOp().(type) {
		case *v1.StorageCall_Deposit, *v1.StorageCall_ListMailboxes, *v1.StorageCall_Snapshot,
			*v1.StorageCall_Fetch, *v1.StorageCall_Search, *v1.StorageCall_Quota, *v1.StorageCall_Watch:
			return true
		case *v1.StorageCall_Expunge, *v1.StorageCall_Annotations, *v1.StorageCall_SetAnnotations:
			return true
		case *v1.StorageCall_SetFlags:
			// Its own change would look like one of others.
			return r.Storage.GetSetFlags().GetUnchangedSince() == 0
		}
	}
	return false
}
