package program

import (
	"context"
	"crypto/elliptic"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/stagecoach-mta/stagecoach/sdk"
	"github.com/stagecoach-mta/stagecoach/sdk/conform"
	"github.com/stagecoach-mta/stagecoach/sdk/fail"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
	"github.com/stagecoach-mta/stagecoach/sdk/schema"
	"github.com/stagecoach-mta/stagecoach/sdk/stream"
)

// The variables that make this test's binary a plugin: its kind, what is broken
// about it, and a directory of the test's.
const (
	kindEnv   = "CONFORM_TEST_KIND"
	brokenEnv = "CONFORM_TEST_BROKEN"
	dirEnv    = "CONFORM_TEST_DIR"
)

// TestMain lets the test binary be the plugin that the suite looks at.
func TestMain(m *testing.M) {
	if kind := os.Getenv(kindEnv); kind != "" {
		serve(kind, os.Getenv(brokenEnv))
	}
	os.Exit(m.Run())
}

// settings of the plugin under test.
type settings struct {
	Limit int           `hcl:"limit" doc:"A number that is not negative."`
	Every time.Duration `hcl:"every,optional" semantic:"duration" doc:"A time."`
	Slow  bool          `hcl:"slow,optional" doc:"Answer no call before it is given up."`
}

func (c *settings) Validate() error {
	if c.Limit < 0 {
		return schema.Errorf(schema.Path("limit"), "write a number that is not negative")
	}
	return nil
}

// serve is a plugin's main as somebody without the SDK's Serve writes it, so that
// each of its steps can be broken. Every mode is one string; modes_test.go says
// which checks it must fail.
func serve(kind, broken string) {
	if os.Getenv(sdk.MagicCookieKey) != sdk.MagicCookieValue {
		if broken == "silent and content by hand" {
			os.Exit(0)
		}
		fmt.Fprintln(os.Stderr, "this is a plugin of a test")
		os.Exit(2)
	}
	switch broken {
	case "ends before its handshake":
		fmt.Fprintln(os.Stderr, "no such library")
		os.Exit(1)
	case "prints before its handshake":
		fmt.Println("Hello, I am a plugin")
	case "makes a file when it starts":
		must(os.WriteFile(filepath.Join(os.TempDir(), "cache"), nil, 0o600))
	}
	dir := os.Getenv("PLUGIN_UNIX_SOCKET_DIR")
	if broken == "puts its socket elsewhere" {
		dir = os.Getenv(dirEnv)
	}
	socket := filepath.Join(dir, fmt.Sprintf("%d.sock", os.Getpid()))
	lis, err := net.Listen("unix", socket)
	must(err)
	cert, _, _, err := conform.Certificate(elliptic.P256())
	must(err)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(os.Getenv("PLUGIN_CLIENT_CERT")))
	conf := &tls.Config{Certificates: []tls.Certificate{cert}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: roots, MinVersion: tls.VersionTLS12}
	if broken == "lets everybody in" {
		conf.ClientAuth = tls.RequestClientCert
	}
	b := &plugin{broken: broken, cut: make(chan struct{})}
	b.inner = sdk.NewServer(b.kind(kind), zerolog.New(os.Stderr))
	g := grpc.NewServer(grpc.Creds(credentials.NewTLS(conf)), grpc.MaxRecvMsgSize(stream.MaxMessage), grpc.MaxSendMsgSize(stream.MaxMessage))
	v1.RegisterPluginServer(g, b)
	if broken != "has no health service" {
		h := health.NewServer()
		h.SetServingStatus("plugin", healthpb.HealthCheckResponse_SERVING)
		healthpb.RegisterHealthServer(g, h)
	}
	g.RegisterService(&grpc.ServiceDesc{
		ServiceName: "plugin.GRPCController", HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{{MethodName: "Shutdown", Handler: b.shutdown}},
	}, b)
	go b.untilTerm()
	if broken != "outlives its parent" {
		go b.untilOrphan(os.Getppid())
	}
	version, certificate := "1", "|"+base64.RawStdEncoding.EncodeToString(cert.Certificate[0])
	switch broken {
	case "speaks another version":
		version = "2"
	case "shows no certificate":
		certificate = ""
	}
	line := fmt.Sprintf("1|%s|unix|%s|grpc%s\n", version, socket, certificate)
	if broken != "does not flush its handshake" {
		fmt.Print(line)
	}
	must(g.Serve(lis))
	select {} // Shutdown exits
}

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// plugin serves the contract as the SDK does, but for what is broken.
type plugin struct {
	v1.UnimplementedPluginServer
	inner  *sdk.Server
	broken string
	calls  counter
	cut    chan struct{}
	once   sync.Once
	held   [][]byte
	files  []*os.File
}

type counter struct {
	sync.Mutex
	n int
}

func (c *counter) next() int {
	c.Lock()
	defer c.Unlock()
	c.n++
	return c.n
}

func (b *plugin) shutdown(any, context.Context, func(any) error, grpc.UnaryServerInterceptor) (any, error) {
	switch b.broken {
	case "does not hear Shutdown":
	case "ends with status 1":
		os.Exit(1)
	default:
		go func() {
			_ = b.inner.Close()
			os.Exit(0)
		}()
	}
	return &emptypb.Empty{}, nil
}

func (b *plugin) untilTerm() {
	term := make(chan os.Signal, 1)
	signal.Notify(term, syscall.SIGTERM)
	for range term {
		if b.broken != "does not hear SIGTERM" {
			_ = b.inner.Close()
			os.Exit(0)
		}
	}
}

func (b *plugin) untilOrphan(parent int) {
	for range time.Tick(50 * time.Millisecond) {
		if os.Getppid() != parent {
			os.Exit(3)
		}
	}
}

// Describe implements the contract, or does not.
func (b *plugin) Describe(ctx context.Context, req *v1.DescribeRequest) (*v1.DescribeResponse, error) {
	d, err := b.inner.Describe(ctx, req)
	must(err)
	attrs := d.GetSchema().GetBlock().GetAttributes()
	switch b.broken {
	case "has no summary":
		d.Summary = ""
	case "is of no kind":
		d.Kind = v1.Kind_KIND_UNSPECIFIED
	case "changes its version":
		d.Version = fmt.Sprintf("1.0.%d", time.Now().UnixNano())
	case "makes a file when described":
		must(os.WriteFile(filepath.Join(os.TempDir(), "described"), nil, 0o600))
	case "has types of its own":
		attrs[0].Type = []byte(`"text"`)
	case "has semantics of its own":
		attrs[1].Semantic = "minutes"
	case "has the same attribute twice":
		attrs[1].Name = attrs[0].GetName()
	case "gives a required attribute a default":
		attrs[0].DefaultJson = []byte("5")
	case "asks for names in capitals":
		d.Filter.HeaderNames = []string{"Subject"}
	case "edits as a judge":
		d.Filter.Effect = v1.FilterInterest_JUDGE
	}
	return d, nil
}

// Configure implements the contract, or does not.
func (b *plugin) Configure(ctx context.Context, req *v1.ConfigureRequest) (*v1.ConfigureResponse, error) {
	if b.broken == "refuses every configuration" {
		return &v1.ConfigureResponse{Diagnostics: []*v1.Diagnostic{{Summary: "not today", Path: schema.Path("limit")}}}, nil
	}
	if b.broken == "opens to a stranger's token" {
		req.DataTokens = append(req.DataTokens, "wrong")
	}
	resp, err := b.inner.Configure(ctx, req)
	second := status.Code(err) == codes.FailedPrecondition
	switch {
	case b.broken == "ends at a second Configure" && second:
		os.Exit(1)
	case b.broken == "complains without a path" && len(resp.GetDiagnostics()) > 0:
		resp.Diagnostics[0].Path = nil
	case b.broken == "complains about another attribute" && len(resp.GetDiagnostics()) > 0:
		resp.Diagnostics[0].Path = schema.Path("every")
	case b.broken == "complains by an error" && len(resp.GetDiagnostics()) > 0:
		return nil, status.Error(codes.InvalidArgument, "wrong")
	case b.broken == "takes what is wrong" && err == nil:
		resp.Diagnostics = nil
	}
	return resp, err
}

// Ready implements the contract, or does not.
func (b *plugin) Ready(ctx context.Context, req *v1.ReadyRequest) (*v1.ReadyResponse, error) {
	switch b.broken {
	case "is never ready":
		return nil, status.Error(codes.Unavailable, "the cache is cold")
	case "prints when it is ready":
		fmt.Println("ready to serve")
	}
	return b.inner.Ready(ctx, req)
}

// Health implements the contract, or does not.
func (b *plugin) Health(ctx context.Context, req *v1.HealthRequest) (*v1.HealthResponse, error) {
	if b.broken == "is not well" {
		return &v1.HealthResponse{Detail: "the disk is full"}, nil
	}
	return b.inner.Health(ctx, req)
}

// Metrics implements the contract, or does not.
func (b *plugin) Metrics(ctx context.Context, req *v1.MetricsRequest) (*v1.MetricsResponse, error) {
	if b.broken == "counts backwards" {
		return &v1.MetricsResponse{Metrics: []*v1.Metric{{Name: "calls_total", Counter: true, Value: -1}}}, nil
	}
	return b.inner.Metrics(ctx, req)
}

// Rebind implements the contract, or does not.
func (b *plugin) Rebind(ctx context.Context, req *v1.RebindRequest) (*v1.RebindResponse, error) {
	if b.broken == "forgets new tokens" {
		return &v1.RebindResponse{}, nil
	}
	return b.inner.Rebind(ctx, req)
}

// Drain implements the contract, or does not.
func (b *plugin) Drain(ctx context.Context, req *v1.DrainRequest) (*v1.DrainResponse, error) {
	switch b.broken {
	case "cuts calls when it drains":
		b.once.Do(func() { close(b.cut) })
	case "drains for ever":
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return b.inner.Drain(ctx, req)
}

// Session implements the contract, or does not.
func (b *plugin) Session(st grpc.BidiStreamingServer[v1.Frame, v1.Frame]) error {
	done := make(chan error, 1)
	go func() { done <- b.inner.Session(&tampered{st, b.broken}) }()
	select {
	case err := <-done:
		return err
	case <-b.cut:
		return status.Error(codes.Unavailable, "drained")
	}
}

// tampered is a session whose frames are changed on their way.
type tampered struct {
	grpc.BidiStreamingServer[v1.Frame, v1.Frame]
	broken string
}

// Recv is what the plugin gets to see.
func (s *tampered) Recv() (*v1.Frame, error) {
	for {
		f, err := s.BidiStreamingServer.Recv()
		switch {
		case err != nil:
		case s.broken == "is deaf to deadlines" && f.GetCall() != nil:
			f.GetCall().DeadlineMs = 0
		case s.broken == "is deaf to cancels" && f.GetCancel() != nil:
			continue
		}
		return f, err
	}
}

// Send is what the caller gets to see.
func (s *tampered) Send(f *v1.Frame) error {
	r := f.GetReply()
	if r == nil {
		return s.BidiStreamingServer.Send(f)
	}
	switch {
	case s.broken == "answers with nothing":
		r.Response = nil
	case s.broken == "answers twice":
		if err := s.BidiStreamingServer.Send(f); err != nil {
			return err
		}
	case s.broken == "answers whatever it is asked" && r.GetProblem().GetKind() == fail.Unsupported:
		r.Problem, r.Response = nil, &v1.Reply_Filter{Filter: &v1.FilterReply{}}
	}
	return s.BidiStreamingServer.Send(f)
}

// RecvMsg is Recv, to which the SDK prefers it.
func (s *tampered) RecvMsg(m any) error {
	f, err := s.Recv()
	if err != nil {
		return err
	}
	b, err := proto.Marshal(f)
	if err != nil {
		return err
	}
	return proto.Unmarshal(b, m.(proto.Message))
}

// SendMsg is Send, to which the SDK prefers it.
func (s *tampered) SendMsg(m any) error {
	b, err := proto.Marshal(m.(proto.Message))
	if err != nil {
		return err
	}
	f := &v1.Frame{}
	if err := proto.Unmarshal(b, f); err != nil {
		return err
	}
	return s.Send(f)
}

// call is what is broken about calls of every kind.
func (b *plugin) call(ctx context.Context, conf *settings) error {
	n := b.calls.next()
	switch b.broken {
	case "keeps memory":
		b.calls.Lock()
		b.held = append(b.held, []byte(strings.Repeat("x", 32<<10)))
		b.calls.Unlock()
	case "keeps files open":
		if f, err := os.Open(os.DevNull); err == nil {
			b.calls.Lock()
			b.files = append(b.files, f)
			b.calls.Unlock()
		}
	case "keeps threads":
		if n%50 == 0 {
			go func() {
				runtime.LockOSThread()
				select {}
			}()
		}
	case "cuts calls when it drains":
		select { // so that there are some to cut
		case <-time.After(time.Duration(n%4) * 100 * time.Millisecond):
		case <-ctx.Done():
		}
	case "serves one at a time":
		if !b.calls.TryLock() {
			return fail.New(fail.Unavailable, "busy")
		}
		defer b.calls.Unlock()
		time.Sleep(time.Millisecond)
	}
	if conf.Slow {
		<-ctx.Done()
		return ctx.Err()
	}
	return nil
}

// opens leaves something behind that stops the next start, if that is broken.
func (b *plugin) opens(dataDir string) error {
	if b.broken != "leaves a lock behind" {
		return nil
	}
	f, err := os.OpenFile(filepath.Join(dataDir, "lock"), os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("somebody else has it: %w", err)
	}
	return f.Close()
}
