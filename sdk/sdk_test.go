package sdk_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/go-plugin"
	"go.uber.org/goleak"
	"google.golang.org/grpc"

	"github.com/stagecoach-mta/stagecoach/sdk"
	"github.com/stagecoach-mta/stagecoach/sdk/access"
	"github.com/stagecoach-mta/stagecoach/sdk/deliver"
	"github.com/stagecoach-mta/stagecoach/sdk/directory"
	"github.com/stagecoach-mta/stagecoach/sdk/fail"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
	"github.com/stagecoach-mta/stagecoach/sdk/sdktest"
)

// The test binary is also the plugin that it starts as a process.
func TestMain(m *testing.M) {
	if os.Getenv("SDK_TEST_SERVE") != "" {
		sdk.Serve(subject)
		return
	}
	goleak.VerifyTestMain(m)
}

func TestFilterIsAsked(t *testing.T) {
	asked := sdktest.Filter(t, subject, `forbid = ["lottery"]`)
	r, err := asked(sdktest.Message(t, "Subject: You won the\n Lottery\nX-Other: 1\n\nhello\n"))
	if err != nil || r.GetVerdict().GetAction() != v1.Verdict_REJECT || r.GetVerdict().GetReply().GetCode() != 550 {
		t.Errorf("got %v, %v", r, err)
	}
	r, err = asked(sdktest.Message(t, "Subject: Dinner?\n\nhello\n"))
	if err != nil || r.GetVerdict().GetAction() != v1.Verdict_ACCEPT || !r.GetTags()["subject_ok"].GetFlag() {
		t.Errorf("got %v, %v", r, err)
	}
}

func TestComplaintNamesTheAttribute(t *testing.T) {
	got := sdktest.Diagnostics(t, subject, map[string]any{"forbid": []string{"a", "", ""}})
	want := []string{"forbid[1]: an empty word is in every subject", "forbid[2]: an empty word is in every subject"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
}

func TestMetricsAndOrderOfLife(t *testing.T) {
	in := sdktest.Start(t, subject, `forbid = ["x"]`)
	ctx := sdktest.Context(t)
	m, err := in.Client.Metrics(ctx, &v1.MetricsRequest{})
	if err != nil || len(m.GetMetrics()) != 1 || m.GetMetrics()[0].GetName() != "refused_total" {
		t.Errorf("metrics %v, %v", m, err)
	}
	if h, err := in.Client.Health(ctx, &v1.HealthRequest{}); err != nil || !h.GetOk() {
		t.Errorf("health %v, %v", h, err)
	}
	if _, err := in.Client.Configure(ctx, &v1.ConfigureRequest{}); err == nil {
		t.Error("a second Configure was taken")
	}
	if _, err := in.Caller.Call(ctx, &v1.Call{Request: &v1.Call_Deliver{Deliver: &v1.DeliverCall{}}}); !fail.Is(err, fail.Unsupported) {
		t.Errorf("call of another kind: %v", err)
	}
}

// people is a directory of one.
type people struct{ directory.Directory }

func (people) Resolve(_ context.Context, r *v1.ResolveRequest) (*v1.ResolveResponse, error) {
	if r.GetAddress() != "meg@ryan.example" {
		return nil, fail.New(fail.Unavailable, "cannot ask")
	}
	return &v1.ResolveResponse{Result: v1.ResolveResponse_MAILBOX, Account: r.GetAddress()}, nil
}

// greeter is an access plugin that resolves the line that a client sends.
type greeter struct {
	host *access.Host

	once sync.Once
}

func (g *greeter) Serve(ctx context.Context) error {
	for {
		c, err := g.host.Listeners[0].Accept()
		if err != nil {
			return nil
		}
		line, _ := bufio.NewReader(c).ReadString('\n')
		r, err := g.host.Directory.Resolve(ctx, &v1.ResolveRequest{Address: strings.TrimSpace(line)})
		fmt.Fprintf(c, "%s %v\n", r.GetAccount(), fail.KindOf(err))
		c.Close()
	}
}

func (g *greeter) Drain(context.Context) error {
	g.once.Do(func() { g.host.Listeners[0].Close() })
	return nil
}

func TestAccessReachesItsDirectoryDirectly(t *testing.T) {
	dir := sdktest.Start(t, sdk.Plugin{Name: "people", Directory: func(context.Context, *sdk.Instance) (directory.Directory, error) {
		return people{}, nil
	}}, nil)
	var addr string
	sdktest.Start(t, sdk.Plugin{Name: "greeter", Access: func(_ context.Context, in *sdk.Instance) (access.Server, error) {
		return &greeter{host: in.Access}, nil
	}}, nil, sdktest.Grant("auth", dir), sdktest.Listen(&addr))
	for ask, want := range map[string]string{"meg@ryan.example": "meg@ryan.example INTERNAL\n", "tom@hanks.example": " UNAVAILABLE\n"} {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintln(c, ask)
		got, err := io.ReadAll(c)
		c.Close()
		if err != nil || string(got) != want {
			t.Errorf("%s: %q, %v; want %q", ask, got, err, want)
		}
	}
}

type sink struct{ closed chan struct{} }

func (s sink) Deliver(_ context.Context, r *v1.DeliverCall) (*v1.DeliverReply, error) {
	return &v1.DeliverReply{Outcomes: []*v1.DeliverOutcome{{Reply: &v1.SMTPReply{Code: 250, Text: r.GetIdempotencyKey()}}}}, nil
}

func (s sink) Close() error { close(s.closed); return nil }

func TestDeliverAndClose(t *testing.T) {
	closed := make(chan struct{})
	t.Run("life", func(t *testing.T) {
		in := sdktest.Start(t, sdk.Plugin{Name: "sink", Deliver: func(context.Context, *sdk.Instance) (deliver.Deliverer, error) {
			return sink{closed}, nil
		}}, nil)
		r, err := deliver.NewClient(in.Caller).Deliver(sdktest.Context(t), &v1.DeliverCall{IdempotencyKey: "k"})
		if err != nil || r.GetOutcomes()[0].GetReply().GetText() != "k" {
			t.Errorf("got %v, %v", r, err)
		}
	})
	select {
	case <-closed:
	default:
		t.Error("the plugin was not closed")
	}
}

func TestDescribeRefusesWhatCannotWork(t *testing.T) {
	two := subject
	two.Deliver = func(context.Context, *sdk.Instance) (deliver.Deliverer, error) { return nil, nil }
	mute := subject
	mute.Interest = nil
	for what, p := range map[string]sdk.Plugin{"no kind": {Name: "x"}, "two kinds": two, "no interest": mute} {
		if _, err := sdk.Describe(p); err == nil {
			t.Errorf("%s: described", what)
		}
	}
}

// client is the contract for go-plugin's own client.
type client struct{ plugin.NetRPCUnsupportedPlugin }

func (client) GRPCServer(*plugin.GRPCBroker, *grpc.Server) error { return errors.New("not a server") }

func (client) GRPCClient(_ context.Context, _ *plugin.GRPCBroker, c *grpc.ClientConn) (any, error) {
	return v1.NewPluginClient(c), nil
}

// TestAsAProcess: a stock go-plugin host, with its AutoMTLS, can run a plugin.
func TestAsAProcess(t *testing.T) {
	var stderr lockedBuffer
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "SDK_TEST_SERVE=1")
	c := plugin.NewClient(&plugin.ClientConfig{
		HandshakeConfig: plugin.HandshakeConfig{
			ProtocolVersion: sdk.ProtocolVersion, MagicCookieKey: sdk.MagicCookieKey, MagicCookieValue: sdk.MagicCookieValue,
		},
		Plugins: plugin.PluginSet{"stagecoach": client{}}, Cmd: cmd, SkipHostEnv: true, AutoMTLS: true,
		AllowedProtocols: []plugin.Protocol{plugin.ProtocolGRPC}, Stderr: &stderr, Logger: hclog.New(&hclog.LoggerOptions{Level: hclog.Off}),
	})
	defer c.Kill()
	rpc, err := c.Client()
	if err != nil {
		t.Fatal(err)
	}
	raw, err := rpc.Dispense("stagecoach")
	if err != nil {
		t.Fatal(err)
	}
	d, err := raw.(v1.PluginClient).Describe(sdktest.Context(t), &v1.DescribeRequest{})
	if err != nil || d.GetName() != "subject" || d.GetKind() != v1.Kind_KIND_FILTER {
		t.Errorf("described as %v, %v", d, err)
	}
	// Ctrl-C is the core's; SIGTERM ends the plugin in order.
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if _, err := raw.(v1.PluginClient).Health(sdktest.Context(t), &v1.HealthRequest{}); err != nil {
		t.Errorf("after SIGINT: %v", err)
	}
	cmd.Process.Signal(syscall.SIGTERM)
	for deadline := time.Now().Add(10 * time.Second); !c.Exited(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("SIGTERM did not end it")
		}
	}
}

func TestByHandItSaysWhatItIs(t *testing.T) {
	cmd := exec.Command(os.Args[0])
	cmd.Env = []string{"SDK_TEST_SERVE=1"}
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 2 {
		t.Errorf("ended with %v, want status 2", err)
	}
	if !bytes.Contains(out, []byte(`filter "subject"`)) {
		t.Errorf("said %s", out)
	}
}

type lockedBuffer struct {
	mu sync.Mutex
	bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.Buffer.Write(p)
}
