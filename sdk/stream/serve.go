package stream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime/debug"
	"sync"

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

	sending sync.Mutex // one Send at a time

	mu       sync.Mutex
	calls    map[uint64]*callContext
	idle     idle
	handlers sync.WaitGroup
}

// incoming is a call that nobody has begun on.
type incoming struct {
	ctx  *callContext
	id   uint64
	call *v1.Call
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
		slots: make(chan struct{}, max), calls: map[uint64]*callContext{},
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
	for _, c := range v.calls {
		c.cancel(context.Canceled)
	}
	v.idle.end()
	v.mu.Unlock()
	v.handlers.Wait()
	return err
}

func (v *server) receive() error {
	f := newUnpacked()
	for {
		err := f.receive(v.s)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		switch {
		case f.call != nil:
			v.start(f.id, f.call)
		case f.cancel != nil:
			v.mu.Lock()
			if c, ok := v.calls[f.id]; ok {
				c.cancel(context.Canceled)
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
	ctx := newCallContext(v.ctx, call)
	v.calls[id] = ctx
	v.handlers.Add(1)
	if in := (incoming{ctx, id, call}); !v.idle.give(in) {
		go v.work(in)
	}
}

// work answers calls as long as they come.
func (v *server) work(in incoming) {
	next := make(chan incoming, 1)
	for ok := true; ok; in, ok = <-next {
		v.answer(in.ctx, in.id, in.call)
		v.mu.Lock()
		v.idle.add(&v.mu, next)
		v.mu.Unlock()
	}
}

func (v *server) refuse(id uint64, err error) {
	_ = v.send(id, &v1.Reply{Problem: fail.ToProblem(err)})
}

// answer runs one call.
func (v *server) answer(ctx *callContext, id uint64, call *v1.Call) {
	defer v.handlers.Done()
	reply, err := v.inTurn(ctx, id, call)
	if err != nil && ctx.wasDrained() {
		err = errDraining
	}
	ctx.cancel(context.Canceled)
	// The id and its credit are free before the caller can know it.
	v.mu.Lock()
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

// inTurn runs the handler when fewer than max run.
func (v *server) inTurn(ctx *callContext, id uint64, call *v1.Call) (*v1.Reply, error) {
	select {
	case v.slots <- struct{}{}:
	default:
		// A caller that ignores its credits: only now does somebody wait for ctx.
		select {
		case v.slots <- struct{}{}:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	defer func() { <-v.slots }()
	return v.handle(ctx, id, call)
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
	p, err := pack(r)
	if err != nil {
		if r.GetMore() {
			return err // the handler's to see; its last reply is still to come
		}
		if p, err = pack(&v1.Reply{Problem: sayable(r.GetProblem(), err)}); err != nil {
			return err
		}
	}
	p.address(id, replyTag, 0)
	return v.sendFrame(p)
}

func (v *server) sendFrame(p *packed) error {
	v.sending.Lock()
	defer v.sending.Unlock()
	return p.send(v.s)
}
