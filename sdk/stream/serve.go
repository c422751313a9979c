package stream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime/debug"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"github.com/stagecoach-mta/stagecoach/sdk/fail"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// Serve answers the calls that arrive on s with h until the caller ends the
// session (nil), the session breaks (its error) or ctx ends (ctx.Err()). It
// returns when all handlers have; their contexts end with the session. At most
// max of them run at a time (0: DefaultCredits); a caller that ignores its
// credits waits, and far above them is answered UNAVAILABLE.
//
// A panic in h fails its call as INTERNAL; its stack goes to the logger in ctx
// (zerolog.Ctx).
func Serve(ctx context.Context, s FrameStream, max int, h Handler) error {
	return newServer(ctx, s, max, h).run()
}

// server is the serving end of one session.
type server struct {
	ctx     context.Context
	cancel  context.CancelFunc
	s       FrameStream
	handler Handler
	max     int
	slots   chan struct{}
	// next gives a call to a goroutine that has answered one: its stack has grown.
	next chan incoming

	sending sync.Mutex // one Send at a time

	mu       sync.Mutex
	calls    map[uint64]running
	handlers sync.WaitGroup
}

// incoming is a call that nobody has begun on.
type incoming struct {
	ctx  context.Context
	id   uint64
	call *v1.Call
}

// running is a call that a handler has.
type running struct {
	cancel context.CancelFunc
	// drain ends a call without a deadline (a Watch); nil for others.
	drain func()
}

// errDraining ends endless calls: their caller is to ask the next process.
var errDraining = fail.New(fail.Unavailable, "draining")

func newServer(ctx context.Context, s FrameStream, max int, h Handler) *server {
	if max <= 0 {
		max = DefaultCredits
	}
	ctx, cancel := context.WithCancel(ctx)
	return &server{
		ctx: ctx, cancel: cancel, s: s, handler: h, max: max,
		slots: make(chan struct{}, max), next: make(chan incoming), calls: map[uint64]running{},
	}
}

func (v *server) run() error {
	received := make(chan error, 1)
	go func() { received <- v.receive() }()
	var err error
	select {
	case err = <-received:
	case <-v.ctx.Done():
		// The receiver ends when this function's caller returns to gRPC.
		err = v.ctx.Err()
	}
	v.cancel()
	// Add is done under mu and never after cancel: see start.
	v.mu.Lock()
	v.mu.Unlock() //nolint:staticcheck // a barrier for start
	v.handlers.Wait()
	return err
}

func (v *server) receive() error {
	for {
		f, err := v.s.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		switch b := f.GetBody().(type) {
		case *v1.Frame_Call:
			v.start(f.GetId(), b.Call)
		case *v1.Frame_Cancel:
			v.mu.Lock()
			if r, ok := v.calls[f.GetId()]; ok {
				r.cancel()
			}
			v.mu.Unlock()
		}
	}
}

func (v *server) start(id uint64, call *v1.Call) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.ctx.Err() != nil {
		return
	}
	if _, twice := v.calls[id]; twice || id == 0 {
		go v.refuse(id, fail.New(fail.Invalid, "call id %d is 0 or in use", id))
		return
	}
	if len(v.calls) > 4*v.max+DefaultCredits {
		go v.refuse(id, fail.New(fail.Unavailable, "more calls than credits"))
		return
	}
	var ctx context.Context
	var r running
	if ms := call.GetDeadlineMs(); ms > 0 {
		ctx, r.cancel = context.WithTimeout(v.ctx, time.Duration(ms)*time.Millisecond)
	} else {
		var cancel context.CancelCauseFunc
		ctx, cancel = context.WithCancelCause(v.ctx)
		r.cancel = func() { cancel(nil) }
		r.drain = func() { cancel(errDraining) }
	}
	v.calls[id] = r
	v.handlers.Add(1)
	in := incoming{ctx, id, call}
	select {
	case v.next <- in:
	default:
		go v.work(in)
	}
}

// patience is how long a goroutine waits for another call.
const patience = time.Second

// work answers calls as long as they come.
func (v *server) work(in incoming) {
	idle := time.NewTimer(patience)
	defer idle.Stop()
	for {
		v.answer(in.ctx, in.id, in.call)
		idle.Reset(patience)
		select {
		case in = <-v.next:
		case <-idle.C:
			return
		case <-v.ctx.Done():
			return
		}
	}
}

func (v *server) refuse(id uint64, err error) {
	_ = v.send(id, &v1.Reply{Problem: fail.ToProblem(err)})
}

// answer runs one call.
func (v *server) answer(ctx context.Context, id uint64, call *v1.Call) {
	defer v.handlers.Done()
	var reply *v1.Reply
	var err error
	select {
	case v.slots <- struct{}{}:
		reply, err = v.handle(ctx, id, call)
		<-v.slots
	case <-ctx.Done():
		err = ctx.Err()
	}
	if err != nil && context.Cause(ctx) == errDraining {
		err = errDraining
	}
	// The id and its credit are free before the caller can know it.
	v.mu.Lock()
	v.calls[id].cancel()
	delete(v.calls, id)
	v.mu.Unlock()
	switch {
	case err != nil && v.ctx.Err() != nil:
		// Ours is the session that ends, not the caller's patience: the break
		// tells him that he may ask elsewhere.
		return
	case err != nil:
		reply = &v1.Reply{Problem: fail.ToProblem(err)}
	case reply == nil:
		reply = &v1.Reply{}
	default:
		reply.More = false
	}
	// A session that cannot be written to fails its receiver too.
	_ = v.send(id, reply)
}

// handle calls the handler and survives its panic.
func (v *server) handle(ctx context.Context, id uint64, call *v1.Call) (reply *v1.Reply, err error) {
	defer func() {
		if p := recover(); p != nil {
			zerolog.Ctx(ctx).Error().Str("panic", fmt.Sprint(p)).Bytes("stack", debug.Stack()).Msg("a call panicked")
			reply, err = nil, fail.New(fail.Internal, "the plugin panicked: %v", p)
		}
	}()
	return v.handler(ctx, call, func(r *v1.Reply) error {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		r.More = true
		return v.send(id, r)
	})
}

func (v *server) send(id uint64, r *v1.Reply) error {
	if err := encodable(r); err != nil {
		if r.GetMore() {
			return err // the handler's to see; its last reply is still to come
		}
		r = &v1.Reply{Problem: sayable(r.GetProblem(), err)}
	}
	return v.sendFrame(&v1.Frame{Id: id, Body: &v1.Frame_Reply{Reply: r}})
}

func (v *server) sendFrame(f *v1.Frame) error {
	v.sending.Lock()
	defer v.sending.Unlock()
	return v.s.Send(f)
}
