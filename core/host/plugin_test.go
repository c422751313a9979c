package host

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/go-plugin"
	"github.com/rs/zerolog"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/stagecoach-mta/stagecoach/sdk"
	"github.com/stagecoach-mta/stagecoach/sdk/fail"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
	"github.com/stagecoach-mta/stagecoach/sdk/stream"
)

// behave names the variable that makes this test binary a plugin; its value
// says which, in words separated by spaces.
const behave = "HOST_TEST_PLUGIN"

func TestMain(m *testing.M) {
	if len(os.Args) == 4 && os.Args[1] == "plugin" && os.Args[2] == "sandbox" {
		// What belongs to the first thread may be lost here as anywhere.
		runtime.LockOSThread()
		failed := make(chan error)
		go func() { failed <- EnterSandbox(os.Args[3:]) }()
		fmt.Fprintln(os.Stderr, <-failed)
		os.Exit(126)
	}
	if b := os.Getenv(behave); b != "" {
		runTestPlugin(strings.Fields(b))
		return
	}
	if dir := os.Getenv("HOST_TEST_HOST"); dir != "" {
		runMiniHost(dir)
		return
	}
	os.Exit(m.Run())
}

// testPlugin is a plugin of any kind that does what its words say.
type testPlugin struct {
	plugin.NetRPCUnsupportedPlugin
	v1.UnimplementedPluginServer
	words  map[string]string
	held   net.Listener // the lock of an exclusive one
	config *v1.ConfigureRequest

	mu       sync.Mutex
	tokens   map[string]bool
	closers  []func()
	sessions sync.WaitGroup
	drained  chan struct{}
}

func runTestPlugin(words []string) {
	p := &testPlugin{words: map[string]string{}, tokens: map[string]bool{}, drained: make(chan struct{})}
	for _, w := range words {
		name, value, _ := strings.Cut(w, "=")
		p.words[name] = value
	}
	if name, ok := p.words["sdk"]; ok {
		sdk.Serve(sdkPlugins()[name])
		return
	}
	if p.has("exit") {
		fmt.Fprintln(os.Stderr, "cannot go on")
		os.Exit(3)
	}
	if once := p.words["exit-after-first"]; once != "" {
		if os.Mkdir(once, 0o700) != nil {
			os.Exit(4)
		}
	}
	if p.has("garbage") {
		fmt.Println("hello, I am no plugin")
		time.Sleep(time.Hour)
	}
	if p.has("silent") {
		time.Sleep(time.Hour)
	}
	if p.has("fork") {
		// The grandchild inherits stdout and stderr and would hold them open.
		c := exec.Command("/bin/sleep", "3600")
		c.Stdout, c.Stderr = os.Stdout, os.Stderr
		c.Start()
	}
	if p.has("flood") {
		line := []byte(`{"@message":5,"@level":7,"n":1}` + "\n" + strings.Repeat("x", 100) + "\n")
		for range 20_000 {
			syscall.Write(2, line)
		}
		syscall.Write(2, []byte(strings.Repeat("y", 300_000)+"\n"))
	}
	plugin.Serve(&plugin.ServeConfig{
		HandshakeConfig: handshake,
		Plugins:         plugin.PluginSet{"test": p},
		GRPCServer:      plugin.DefaultGRPCServer,
		Logger:          hclog.New(&hclog.LoggerOptions{Level: hclog.Off, Output: io.Discard}),
	})
}

func (p *testPlugin) has(word string) bool { _, ok := p.words[word]; return ok }

func (p *testPlugin) GRPCServer(_ *plugin.GRPCBroker, s *grpc.Server) error {
	v1.RegisterPluginServer(s, p)
	return nil
}

func (p *testPlugin) GRPCClient(context.Context, *plugin.GRPCBroker, *grpc.ClientConn) (any, error) {
	return nil, errors.New("not a client")
}

func (p *testPlugin) Describe(context.Context, *v1.DescribeRequest) (*v1.DescribeResponse, error) {
	if path := p.words["count-describe"]; path != "" {
		f, _ := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
		f.WriteString("x")
		f.Close()
	}
	return &v1.DescribeResponse{
		Name: "test", Kind: p.kind(), Version: "1.2.3",
		Filter: &v1.FilterInterest{Events: []v1.FilterEvent{v1.FilterEvent_MESSAGE}},
		Needs:  &v1.Needs{Exclusive: p.has("exclusive")},
	}, nil
}

func (p *testPlugin) kind() v1.Kind {
	switch p.words["kind"] {
	case "storage":
		return v1.Kind_KIND_STORAGE
	case "access":
		return v1.Kind_KIND_ACCESS
	}
	return v1.Kind_KIND_FILTER
}

func (p *testPlugin) Configure(_ context.Context, req *v1.ConfigureRequest) (*v1.ConfigureResponse, error) {
	p.exitIfThere("exit-in-configure", 5)
	p.config = req
	p.addTokens(req.GetDataTokens())
	resp := &v1.ConfigureResponse{}
	if string(req.GetConfigJson()) == `{"delay":"wrong"}` {
		resp.Diagnostics = []*v1.Diagnostic{{
			Summary: "delay is no duration", Detail: `write "2m"`,
			Path: []*v1.PathStep{{Step: &v1.PathStep_Name{Name: "delay"}}},
		}}
	}
	if p.has("narrow") {
		resp.Filter = &v1.FilterInterest{Events: []v1.FilterEvent{v1.FilterEvent_RCPT}}
		resp.Diagnostics = []*v1.Diagnostic{{Severity: v1.Diagnostic_WARNING, Summary: "narrow"}}
	}
	return resp, nil
}

func (p *testPlugin) addTokens(tokens []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, t := range tokens {
		p.tokens[t] = true
	}
}

func (p *testPlugin) Ready(context.Context, *v1.ReadyRequest) (*v1.ReadyResponse, error) {
	p.exitIfThere("exit-in-ready", 6)
	if p.has("not-ready") {
		return nil, status.Error(codes.FailedPrecondition, "the database is locked")
	}
	if p.has("exclusive") {
		// An abstract socket: held by one process at a time, gone with it.
		var err error
		if p.held, err = net.Listen("unix", "@"+p.words["exclusive"]); err != nil {
			return nil, status.Error(codes.FailedPrecondition, "somebody else holds the data")
		}
	}
	if fd := p.config.GetDataSocketFd(); fd != 0 {
		l, err := net.FileListener(os.NewFile(uintptr(fd), "data"))
		if err != nil {
			return nil, err
		}
		s := grpc.NewServer()
		v1.RegisterPeerServer(s, &testPeer{p: p})
		go s.Serve(l)
		p.closers = append(p.closers, s.Stop)
	}
	for _, one := range p.config.GetListeners() {
		l, err := net.FileListener(os.NewFile(uintptr(one.GetFd()), "listener"))
		if err != nil {
			return nil, err
		}
		go p.serveClients(l)
		p.closers = append(p.closers, func() { l.Close() })
	}
	return &v1.ReadyResponse{}, nil
}

// serveClients answers each connection with the pid and then echoes lines; the
// line "ask" is answered with what the granted storage says.
func (p *testPlugin) serveClients(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		p.sessions.Go(func() {
			defer c.Close()
			fmt.Fprintf(c, "%d\n", os.Getpid())
			buf := make([]byte, 100)
			for {
				n, err := c.Read(buf)
				if err != nil {
					return
				}
				switch strings.TrimSpace(string(buf[:n])) {
				case "crash":
					os.Exit(9)
				case "ask":
					fmt.Fprintln(c, p.askStorage())
				case "pid":
					fmt.Fprintln(c, os.Getpid())
				}
			}
		})
	}
}

// askStorage calls the granted peer over its data socket, once.
func (p *testPlugin) askStorage() string {
	grant := p.config.GetGrants()[0]
	conn, err := grpc.NewClient("unix:"+grant.GetAddress(), grpc.WithTransportCredentials(localCredentials()))
	if err != nil {
		return err.Error()
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	s, err := v1.NewPeerClient(conn).Session(metadata.AppendToOutgoingContext(ctx, "stagecoach-token", grant.GetToken()))
	if err != nil {
		return err.Error()
	}
	c := stream.NewCaller(s, stream.OnClose(cancel))
	defer c.Close()
	reply, err := c.Call(ctx, callNamed("pid"))
	if err != nil {
		return err.Error()
	}
	return reply.GetFilter().GetNote()
}

// testPeer serves the data socket.
type testPeer struct {
	v1.UnimplementedPeerServer
	p *testPlugin
}

func (s *testPeer) Session(st grpc.BidiStreamingServer[v1.Frame, v1.Frame]) error {
	md, _ := metadata.FromIncomingContext(st.Context())
	s.p.mu.Lock()
	known := len(md.Get("stagecoach-token")) == 1 && s.p.tokens[md.Get("stagecoach-token")[0]]
	s.p.mu.Unlock()
	if !known {
		return status.Error(codes.Unauthenticated, "no such token")
	}
	return stream.Serve(st.Context(), st, 0, s.p.answer)
}

func (p *testPlugin) Drain(ctx context.Context, _ *v1.DrainRequest) (*v1.DrainResponse, error) {
	for _, c := range p.closers {
		c()
	}
	if p.has("drain-hangs") {
		<-ctx.Done()
	}
	done := make(chan struct{})
	go func() { p.sessions.Wait(); close(done) }()
	select {
	case <-done:
	case <-ctx.Done():
	}
	return &v1.DrainResponse{}, nil
}

func (p *testPlugin) Health(context.Context, *v1.HealthRequest) (*v1.HealthResponse, error) {
	return &v1.HealthResponse{Ok: !p.has("unwell"), Detail: "the disk is slow"}, nil
}

func (p *testPlugin) Metrics(context.Context, *v1.MetricsRequest) (*v1.MetricsResponse, error) {
	return &v1.MetricsResponse{Metrics: []*v1.Metric{{Name: "asked", Value: 7}}}, nil
}

func (p *testPlugin) Rebind(_ context.Context, req *v1.RebindRequest) (*v1.RebindResponse, error) {
	p.addTokens(req.GetDataTokens())
	return &v1.RebindResponse{}, nil
}

func (p *testPlugin) Session(s grpc.BidiStreamingServer[v1.Frame, v1.Frame]) error {
	if p.has("hostile") {
		return p.hostile(s)
	}
	return stream.Serve(s.Context(), s, 0, p.answer)
}

// answer does what the call's idempotency key says and answers with the pid.
func (p *testPlugin) answer(ctx context.Context, call *v1.Call, _ func(*v1.Reply) error) (*v1.Reply, error) {
	if reply := serveData(call); reply != nil {
		return reply, nil
	}
	what, value, _ := strings.Cut(call.GetFilter().GetIdempotencyKey(), "=")
	note := fmt.Sprint(os.Getpid())
	switch what {
	case "crash":
		os.Exit(7)
	case "panic":
		go func() { panic("oh no") }()
		<-ctx.Done()
	case "hang":
		<-ctx.Done()
		return nil, ctx.Err()
	case "sleep":
		d, _ := time.ParseDuration(value)
		select {
		case <-time.After(d):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	case "stop":
		syscall.Kill(os.Getpid(), syscall.SIGSTOP)
		<-ctx.Done() // the signal may need a moment: the answer must not be first
	case "refuse":
		return nil, fail.New(fail.Denied, "no")
	case "say":
		say(value)
	case "write":
		n, _ := strconv.Atoi(value)
		syscall.Write(2, []byte(strings.Repeat("y", n)+"\n"))
	case "env":
		note = strings.Join(os.Environ(), "\n")
	case "config":
		note = string(p.config.GetConfigJson())
	case "try":
		how, with, _ := strings.Cut(value, ":")
		if err := escape(how, with); err != nil {
			note = err.Error()
		} else {
			note = "done"
		}
	}
	return &v1.Reply{Response: &v1.Reply_Filter{Filter: &v1.FilterReply{Note: note}}}, nil
}

func callNamed(what string) *v1.Call {
	return &v1.Call{Request: &v1.Call_Filter{Filter: &v1.FilterCall{IdempotencyKey: what}}}
}

// runMiniHost is a core that runs one plugin until it is killed.
func runMiniHost(dir string) {
	h, err := New(Options{RunDir: dir, Log: zerolog.Nop()})
	if err == nil {
		spec := filterSpec("filter.test.a", "fork")
		if os.Getenv("HOST_TEST_SANDBOX") != "" {
			spec = boxed("filter.test.a", "", Sandbox{})
		}
		_, err = provision(h, spec)
	}
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println(h.Instance("filter.test.a").Info().PID)
	time.Sleep(time.Hour)
}
