package sdk

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"github.com/rs/zerolog"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/stagecoach-mta/stagecoach/sdk/access"
	"github.com/stagecoach-mta/stagecoach/sdk/deliver"
	"github.com/stagecoach-mta/stagecoach/sdk/directory"
	"github.com/stagecoach-mta/stagecoach/sdk/filter"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
	"github.com/stagecoach-mta/stagecoach/sdk/schema"
	"github.com/stagecoach-mta/stagecoach/sdk/storage"
	"github.com/stagecoach-mta/stagecoach/sdk/stream"
)

// Server serves the contract's Plugin service for one instance of a Plugin. A
// plugin's main uses Serve instead; this is for tests and hosts in-process.
type Server struct {
	v1.UnimplementedPluginServer
	p   Plugin
	log zerolog.Logger
	// processors of the process, if it is the plugin's own; nil: they are as they are.
	processors *processors

	// ctx is the life of the instance and the parent of all calls.
	ctx    context.Context
	cancel context.CancelFunc

	mu       sync.Mutex
	stage    stage
	in       *Instance
	value    any // what the constructor made
	handler  stream.Handler
	peers    map[string]*peer
	tokens   *stream.Tokens
	dataSock net.Listener
	peerSrv  *stream.PeerServer
	work     sync.WaitGroup
	fault    error // why the instance stopped serving, for Health

	closing  sync.Once
	closeErr error
}

type stage int

const (
	fresh stage = iota
	configured
	readying
	ready
	drained
	closed
)

// peer is another plugin that a grant lets us call.
type peer struct {
	*stream.Redialer
	mu    sync.Mutex
	grant *v1.Grant
}

// NewServer makes the server of one instance; Close ends it.
func NewServer(p Plugin, log zerolog.Logger) *Server {
	ctx, cancel := context.WithCancel(log.WithContext(context.Background()))
	return &Server{p: p, log: log, ctx: ctx, cancel: cancel, peers: map[string]*peer{}}
}

// Describe implements the contract.
func (s *Server) Describe(context.Context, *v1.DescribeRequest) (*v1.DescribeResponse, error) {
	d, err := Describe(s.p)
	if err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	return d, nil
}

// Configure implements the contract: it decodes and checks, and opens nothing
// but the files it was passed.
func (s *Server) Configure(_ context.Context, req *v1.ConfigureRequest) (*v1.ConfigureResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stage != fresh {
		return nil, status.Error(codes.FailedPrecondition, "this process has been configured; start another one")
	}
	if len(req.GetConfigJson()) == 0 && len(req.GetConfigMsgpack()) > 0 {
		return nil, status.Error(codes.InvalidArgument, "config_json is missing: it always comes with config_msgpack")
	}
	config := s.p.newConfig()
	if config != nil {
		err := schema.Decode(req.GetConfigJson(), config)
		if v, ok := config.(Validator); ok && err == nil {
			err = v.Validate()
		}
		if err != nil {
			return &v1.ConfigureResponse{Diagnostics: schema.Diagnostics(err)}, nil
		}
	}
	in := &Instance{
		Name: req.GetInstance(), DataDir: req.GetDataDir(), Hostname: req.GetHostname(), Config: config,
		Log: s.log, SpoolDirs: req.GetSpoolDirs(), Metrics: &Metrics{}, Peers: map[string]stream.Caller{},
	}
	for _, g := range req.GetGrants() {
		p := newPeer(g)
		s.peers[g.GetRole()] = p
		in.Peers[g.GetRole()] = p
	}
	s.tokens = stream.NewTokens(req.GetDataTokens()...)
	if fd := req.GetDataSocketFd(); fd > 0 {
		lis, err := inherit(fd, "data socket")
		if err != nil {
			return nil, status.Error(codes.InvalidArgument, err.Error())
		}
		s.dataSock = lis
	}
	if s.p.Access != nil {
		host, err := s.accessHost(req, in)
		if err != nil {
			return &v1.ConfigureResponse{Diagnostics: schema.Diagnostics(err)}, nil
		}
		in.Access = host
	}
	s.in, s.stage = in, configured
	resp := &v1.ConfigureResponse{}
	if i, ok := config.(Interested); ok {
		resp.Filter = i.Interest()
	}
	return resp, nil
}

func newPeer(g *v1.Grant) *peer {
	p := &peer{grant: g}
	p.Redialer = stream.Redial(func(ctx context.Context) (*stream.Conn, error) {
		p.mu.Lock()
		g := p.grant
		p.mu.Unlock()
		return stream.DialPeer(ctx, g.GetAddress(), g.GetToken())
	})
	return p
}

// inherit makes a listener of a file that the core passed.
func inherit(fd int32, what string) (net.Listener, error) {
	f := os.NewFile(uintptr(fd), what)
	if f == nil {
		return nil, fmt.Errorf("%s: %d is no file descriptor", what, fd)
	}
	defer f.Close() // FileListener has its own copy
	lis, err := net.FileListener(f)
	if err != nil {
		return nil, fmt.Errorf("%s (file descriptor %d): %w", what, fd, err)
	}
	return lis, nil
}

func (s *Server) accessHost(req *v1.ConfigureRequest, in *Instance) (*access.Host, error) {
	h := &access.Host{Hostname: req.GetHostname(), InsecureAuth: req.GetInsecureAuth(), Log: s.log}
	if t := req.GetTls(); len(t.GetCertPem()) > 0 {
		cert, err := tls.X509KeyPair(t.GetCertPem(), t.GetKeyPem())
		if err != nil {
			return nil, schema.Errorf(schema.Path("tls"), "the certificate cannot be used: %v", err)
		}
		h.TLS = &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}
	}
	for _, l := range req.GetListeners() {
		if l.GetImplicitTls() && h.TLS == nil {
			return nil, schema.Errorf(schema.Path("tls"), "%s wants TLS from the first byte, but there is no certificate", l.GetAddress())
		}
		lis, err := inherit(l.GetFd(), l.GetAddress())
		if err != nil {
			return nil, err
		}
		h.Listeners = append(h.Listeners, access.Listener{Listener: lis, ImplicitTLS: l.GetImplicitTls()})
	}
	if p := s.peers["storage"]; p != nil {
		h.Storage, h.UploadDir = storage.NewClient(p.Redialer), p.grant.GetUploadDir()
	}
	if p := s.peers["auth"]; p != nil {
		h.Directory = directory.NewClient(p.Redialer)
	}
	return h, nil
}

// Ready implements the contract: the constructor runs here, because a process
// that must have its data alone may be configured before it gets it.
func (s *Server) Ready(context.Context, *v1.ReadyRequest) (*v1.ReadyResponse, error) {
	s.mu.Lock()
	if s.stage == ready {
		s.mu.Unlock()
		return &v1.ReadyResponse{}, nil
	}
	if s.stage != configured {
		s.mu.Unlock()
		return nil, status.Error(codes.FailedPrecondition, "Ready comes once, after Configure and before Drain")
	}
	s.stage = readying
	s.mu.Unlock()

	value, handler, err := s.construct()
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		s.stage = configured
		return nil, status.Error(codes.Unavailable, err.Error())
	}
	s.value, s.handler, s.stage = value, handler, ready
	if s.dataSock != nil && handler != nil {
		s.peerSrv = stream.NewPeerServer(s.ctx, s.tokens, s.p.maxConcurrent(), handler, s.p.Features...)
		s.work.Go(func() { s.serving("data socket", s.peerSrv.Serve(s.dataSock)) })
	}
	if a, ok := value.(access.Server); ok && s.p.Access != nil {
		s.work.Go(func() { s.serving("access", a.Serve(s.ctx)) })
	}
	return &v1.ReadyResponse{}, nil
}

// serving notes the end of something that should go on until Drain.
func (s *Server) serving(what string, err error) {
	if err == nil || s.ctx.Err() != nil {
		return
	}
	s.log.Error().Err(err).Msg(what + " stopped")
	s.mu.Lock()
	s.fault = fmt.Errorf("%s stopped: %w", what, err)
	s.mu.Unlock()
}

func (s *Server) construct() (value any, h stream.Handler, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("the plugin panicked while starting: %v", p)
		}
	}()
	switch {
	case s.p.Filter != nil:
		f, err := s.p.Filter(s.ctx, s.in)
		return f, filter.Handler(f), err
	case s.p.Storage != nil:
		st, err := s.p.Storage(s.ctx, s.in)
		return st, storage.Handler(st), err
	case s.p.Deliver != nil:
		d, err := s.p.Deliver(s.ctx, s.in)
		return d, deliver.Handler(d), err
	case s.p.Directory != nil:
		d, err := s.p.Directory(s.ctx, s.in)
		return d, directory.Handler(d), err
	case s.p.Access != nil:
		a, err := s.p.Access(s.ctx, s.in)
		return a, nil, err
	}
	return nil, nil, errors.New("the plugin has no constructor")
}

// Session implements the contract.
func (s *Server) Session(st grpc.BidiStreamingServer[v1.Frame, v1.Frame]) error {
	s.mu.Lock()
	h, now := s.handler, s.stage
	s.mu.Unlock()
	if now != ready {
		return status.Error(codes.FailedPrecondition, "Session comes after Ready and before Drain")
	}
	if h == nil {
		return status.Error(codes.Unimplemented, "an access plugin takes no calls")
	}
	ctx, cancel := context.WithCancel(s.ctx)
	defer cancel()
	defer context.AfterFunc(st.Context(), cancel)()
	return stream.Serve(ctx, st, s.p.maxConcurrent(), s.processors.watch(h))
}

// Drain implements the contract. Calls on Session go on being answered: the core
// sends no more and closes it; peers are told to go elsewhere.
func (s *Server) Drain(ctx context.Context, req *v1.DrainRequest) (*v1.DrainResponse, error) {
	if ms := req.GetDeadlineMs(); ms > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Duration(ms)*time.Millisecond)
		defer cancel()
	}
	s.mu.Lock()
	value, peers := s.value, s.peerSrv
	if s.stage < drained {
		s.stage = drained
	}
	s.mu.Unlock()
	if peers != nil {
		peers.Drain(ctx)
	}
	if d, ok := value.(Drainer); ok {
		if err := d.Drain(ctx); err != nil {
			return nil, status.Error(codes.DeadlineExceeded, err.Error())
		}
	}
	return &v1.DrainResponse{}, nil
}

// Health implements the contract.
func (s *Server) Health(context.Context, *v1.HealthRequest) (*v1.HealthResponse, error) {
	s.mu.Lock()
	err, value := s.fault, s.value
	s.mu.Unlock()
	if c, ok := value.(Checker); ok && err == nil {
		err = c.Health()
	}
	if err != nil {
		return &v1.HealthResponse{Detail: err.Error()}, nil
	}
	return &v1.HealthResponse{Ok: true}, nil
}

// Metrics implements the contract.
func (s *Server) Metrics(context.Context, *v1.MetricsRequest) (*v1.MetricsResponse, error) {
	s.mu.Lock()
	in := s.in
	s.mu.Unlock()
	if in == nil {
		return &v1.MetricsResponse{}, nil
	}
	return &v1.MetricsResponse{Metrics: in.Metrics.snapshot()}, nil
}

// Rebind implements the contract. A role that had no grant at Configure gets
// none: the constructor has decided without it.
func (s *Server) Rebind(_ context.Context, req *v1.RebindRequest) (*v1.RebindResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.tokens != nil {
		s.tokens.Add(req.GetDataTokens()...)
	}
	for _, g := range req.GetGrants() {
		p := s.peers[g.GetRole()]
		if p == nil {
			continue
		}
		p.mu.Lock()
		moved := p.grant.GetAddress() != g.GetAddress() || p.grant.GetToken() != g.GetToken()
		p.grant = g
		p.mu.Unlock()
		if moved {
			p.Renew()
		}
	}
	return &v1.RebindResponse{}, nil
}

// Close ends the instance: calls under way are cancelled, then what the
// constructor made is closed (io.Closer). Every caller waits until that is done.
func (s *Server) Close() error {
	s.closing.Do(func() { s.closeErr = s.close() })
	return s.closeErr
}

func (s *Server) close() error {
	s.mu.Lock()
	s.stage = closed
	value, peers, in := s.value, s.peerSrv, s.in
	s.mu.Unlock()
	s.cancel()
	if peers != nil {
		peers.Stop()
	} else if s.dataSock != nil {
		s.dataSock.Close()
	}
	if in != nil && in.Access != nil {
		for _, l := range in.Access.Listeners {
			l.Close()
		}
	}
	var err error
	if c, ok := value.(io.Closer); ok {
		err = c.Close()
	}
	for _, p := range s.peers {
		p.Close()
	}
	s.work.Wait()
	return err
}
