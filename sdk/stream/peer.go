package stream

import (
	"context"
	"crypto/sha256"
	"errors"
	"net"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/stagecoach-mta/stagecoach/sdk/fail"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// TokenKey is the metadata key of the token on a data socket.
const TokenKey = "stagecoach-token"

// CallersEnv is the variable in which the core tells a serving plugin the ids of
// the users, beside its own and root, whose processes may call its data socket;
// blanks between them. Plugins that a sandbox gave users of their own need it.
const CallersEnv = "STAGECOACH_CALLERS"

// MaxMessage is the largest gRPC message accepted on either end, in octets.
// gRPC's own default of 4 MiB is too small for a large mailbox's columns.
const MaxMessage = 64 << 20

// quiet is how long a draining end waits for calls that were written before the
// other side knew of it.
const quiet = 50 * time.Millisecond

// DialPeer opens a session to the plugin that serves the unix socket at address,
// with a granted token. It waits, within ctx, for somebody to serve the socket:
// while that plugin restarts, its connections queue up. ctx bounds the dialing
// only; the session lives until Close. Errors are UNAVAILABLE or the context's.
func DialPeer(ctx context.Context, address, token string) (*Conn, error) {
	cc, err := grpc.NewClient("unix:"+address,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(MaxMessage), grpc.MaxCallSendMsgSize(MaxMessage), grpc.WaitForReady(false)),
		// A data socket is local: no proxy, no service config look-up.
		grpc.WithNoProxy(), grpc.WithDisableServiceConfig(),
	)
	if err != nil {
		return nil, fail.Wrap(fail.Unavailable, err, "dial "+address)
	}
	session, cancel := context.WithCancel(metadata.AppendToOutgoingContext(context.WithoutCancel(ctx), TokenKey, token))
	stop := context.AfterFunc(ctx, cancel)
	s, err := v1.NewPeerClient(cc).Session(session)
	if err == nil && !stop() {
		err = ctx.Err()
	}
	if err != nil {
		cancel()
		cc.Close()
		if ctx.Err() != nil {
			return nil, contextError(ctx)
		}
		return nil, fail.Wrap(fail.Unavailable, err, "dial "+address)
	}
	return NewCaller(s, OnClose(func() { cancel(); cc.Close() }), func(c *Conn) { c.peer = true }), nil
}

// Tokens is the set of tokens that open a data socket; safe for concurrent use.
type Tokens struct {
	mu  sync.RWMutex
	set map[[sha256.Size]byte]bool
}

// NewTokens makes a set.
func NewTokens(tokens ...string) *Tokens {
	t := &Tokens{set: map[[sha256.Size]byte]bool{}}
	t.Add(tokens...)
	return t
}

// Add adds tokens to the set; empty ones are left out.
func (t *Tokens) Add(tokens ...string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, s := range tokens {
		if s != "" {
			t.set[sha256.Sum256([]byte(s))] = true
		}
	}
}

// has looks the token up by its hash, so that the time taken says nothing.
func (t *Tokens) has(token string) bool {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.set[sha256.Sum256([]byte(token))]
}

// PeerServer serves Peer on a data socket to other plugins.
type PeerServer struct {
	v1.UnimplementedPeerServer
	ctx    context.Context
	cancel context.CancelFunc
	tokens *Tokens
	max    int
	h      Handler
	grpc   *grpc.Server
	// features of the plugin, for the first Credit.
	features []string

	mu       sync.Mutex
	draining bool
	sessions map[*server]struct{}
	idle     sync.WaitGroup
}

// NewPeerServer makes a server whose sessions begin with max credits each (0:
// DefaultCredits). ctx is the handlers' parent; features are those that the plugin's
// Describe tells.
func NewPeerServer(ctx context.Context, tokens *Tokens, max int, h Handler, features ...string) *PeerServer {
	ctx, cancel := context.WithCancel(ctx)
	if max <= 0 {
		max = DefaultCredits
	}
	p := &PeerServer{ctx: ctx, cancel: cancel, tokens: tokens, max: max, h: h, features: features, sessions: map[*server]struct{}{}}
	p.grpc = grpc.NewServer(grpc.MaxRecvMsgSize(MaxMessage), grpc.MaxSendMsgSize(MaxMessage))
	v1.RegisterPeerServer(p.grpc, p)
	return p
}

// Serve accepts on lis until Stop or Drain; then it returns nil. Only processes
// of this process's user, or root's, get past accept.
func (p *PeerServer) Serve(lis net.Listener) error {
	err := p.grpc.Serve(sameUser{lis})
	if errors.Is(err, grpc.ErrServerStopped) || p.ctx.Err() != nil {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.draining {
		return nil
	}
	return err
}

// Drain takes no new sessions, withdraws the credits of those there are, waits
// until their calls have ended (or ctx has), and ends them. Calls without a
// deadline (watches) would not end by themselves: they are cancelled and answered
// UNAVAILABLE, so that their callers go on at the next process.
func (p *PeerServer) Drain(ctx context.Context) {
	p.mu.Lock()
	p.draining = true
	open := make([]*server, 0, len(p.sessions))
	for s := range p.sessions {
		open = append(open, s)
	}
	p.mu.Unlock()
	go p.grpc.GracefulStop()
	var all sync.WaitGroup
	for _, s := range open {
		all.Go(func() { s.drain(ctx) })
	}
	all.Wait()
}

// Stop ends all at once; calls under way fail at their callers.
func (p *PeerServer) Stop() {
	p.cancel()
	p.grpc.Stop()
	p.idle.Wait()
}

// Session implements the contract's Peer service.
func (p *PeerServer) Session(s grpc.BidiStreamingServer[v1.Frame, v1.Frame]) error {
	md, _ := metadata.FromIncomingContext(s.Context())
	if t := md.Get(TokenKey); len(t) != 1 || !p.tokens.has(t[0]) {
		return status.Error(codes.Unauthenticated, "the token is not one that was granted")
	}
	ctx, cancel := context.WithCancel(p.ctx)
	defer cancel()
	defer context.AfterFunc(s.Context(), cancel)()
	v := newServer(ctx, s, p.max, p.h)
	p.mu.Lock()
	if p.draining || p.ctx.Err() != nil {
		p.mu.Unlock()
		return status.Error(codes.Unavailable, "draining")
	}
	p.sessions[v] = struct{}{}
	p.idle.Add(1)
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		delete(p.sessions, v)
		p.mu.Unlock()
		p.idle.Done()
	}()
	// A peer has not seen Describe: it begins with the default and is told
	// the difference. Sent even if there is none: it opens the stream.
	if err := v.credit(p.max-DefaultCredits, p.features...); err != nil {
		return err
	}
	return v.run()
}

// ServePeer serves h on lis until ctx ends: NewPeerServer, Serve, Stop.
func ServePeer(ctx context.Context, lis net.Listener, tokens *Tokens, max int, h Handler) error {
	p := NewPeerServer(ctx, tokens, max, h)
	defer p.Stop()
	defer context.AfterFunc(ctx, p.Stop)()
	return p.Serve(lis)
}

// credit changes what the caller may have under way.
func (v *server) credit(delta int, features ...string) error {
	return v.sendFrame(packFrame(&v1.Frame{Body: &v1.Frame_Credit{Credit: &v1.Credit{Delta: int32(delta), Features: features}}}))
}

// drain withdraws the credits, waits until no call has been under way for a
// moment, and ends the session.
func (v *server) drain(ctx context.Context) {
	defer v.cancel()
	if v.credit(-v.max) != nil {
		return
	}
	tick := time.NewTicker(quiet / 10)
	defer tick.Stop()
	since := time.Now()
	for time.Since(since) < quiet {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		case <-v.ctx.Done():
			return
		}
		v.mu.Lock()
		for _, c := range v.calls {
			since = time.Now()
			if c.endless() {
				c.drain()
			}
		}
		v.mu.Unlock()
	}
}
