// Package sdktest runs a plugin inside its own unit test: over a real socket,
// through Describe, Configure, Ready, Session and Drain as the core does it, but
// without a process. It does not test what a process adds (handshake, crash,
// sandbox).
package sdktest

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"github.com/zclconf/go-cty/cty"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/stagecoach-mta/stagecoach/sdk"
	"github.com/stagecoach-mta/stagecoach/sdk/conform/block"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
	"github.com/stagecoach-mta/stagecoach/sdk/schema"
	"github.com/stagecoach-mta/stagecoach/sdk/stream"
)

// token opens the data socket of every instance under test.
const token = "sdktest"

// Instance is a plugin under test.
type Instance struct {
	// Client makes the control calls.
	Client v1.PluginClient
	// Description is what Describe answered.
	Description *v1.DescribeResponse
	// Interest of a filter: Describe's, or Configure's in place of it.
	Interest *v1.FilterInterest
	// Caller makes calls, as the core does: storage.NewClient(in.Caller) and so
	// on. nil for an access plugin.
	Caller *stream.Conn
	// DataSocket is where peers reach a storage or a directory.
	DataSocket string
	// DataDir of the instance, if Needs asked for one.
	DataDir string
	t       testing.TB
	log     journal
}

// Option changes what Configure tells the plugin.
type Option func(t testing.TB, req *v1.ConfigureRequest)

// With changes the request itself.
func With(f func(req *v1.ConfigureRequest)) Option {
	return func(_ testing.TB, req *v1.ConfigureRequest) { f(req) }
}

// Grant lets the plugin call another one under test: role "storage" or "auth".
func Grant(role string, to *Instance) Option {
	return func(t testing.TB, req *v1.ConfigureRequest) {
		req.Grants = append(req.Grants, &v1.Grant{
			Role: role, Instance: role + ".test", Address: to.DataSocket, Token: token, UploadDir: t.TempDir(),
		})
	}
}

// Listen gives an access plugin a bound listener on a free loopback port and
// puts its address into addr.
func Listen(addr *string) Option {
	return func(t testing.TB, req *v1.ConfigureRequest) {
		lis, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer lis.Close()
		*addr = lis.Addr().String()
		req.Listeners = append(req.Listeners, &v1.Listener{Fd: fdOf(t, lis.(*net.TCPListener)), Address: *addr})
	}
}

// fdOf copies a listener's file; the plugin closes the copy.
func fdOf(t testing.TB, l interface{ File() (*os.File, error) }) int32 {
	f, err := l.File()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	fd, err := unix.Dup(int(f.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	return int32(fd)
}

// Start runs p with a configuration (nil, HCL text, or map[string]any) and stops
// it when the test ends. A configuration that the plugin refuses fails the test.
func Start(t testing.TB, p sdk.Plugin, config any, opts ...Option) *Instance {
	t.Helper()
	in, diags := start(t, p, config, opts...)
	for _, d := range diags {
		t.Errorf("%s: %s %s", steps(d.GetPath()), d.GetSummary(), d.GetDetail())
	}
	if len(diags) > 0 {
		t.FailNow()
	}
	return in
}

// Diagnostics tells what p has to say against a configuration: "path: summary"
// for each complaint.
func Diagnostics(t testing.TB, p sdk.Plugin, config any, opts ...Option) []string {
	t.Helper()
	_, diags := start(t, p, config, opts...)
	var out []string
	for _, d := range diags {
		out = append(out, (&schema.Error{Path: d.GetPath(), Summary: d.GetSummary()}).Error())
	}
	return out
}

func steps(path []*v1.PathStep) string { return (&schema.Error{Path: path}).Error() }

func start(t testing.TB, p sdk.Plugin, config any, opts ...Option) (*Instance, []*v1.Diagnostic) {
	t.Helper()
	// A socket's path has at most 107 octets; t.TempDir may be longer.
	dir, err := os.MkdirTemp("", "sdktest")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	in := &Instance{t: t, DataSocket: filepath.Join(dir, "data.sock")}
	ctx := Context(t)

	in.serve(p, filepath.Join(dir, "plugin.sock"))
	if in.Description, err = in.Client.Describe(ctx, &v1.DescribeRequest{}); err != nil {
		t.Fatal(err)
	}
	req := &v1.ConfigureRequest{Instance: "test." + p.Name + ".test", Hostname: "mx.ryan.example", InsecureAuth: true}
	if err := configure(req, in.Description.GetSchema(), config); err != nil {
		t.Fatal(err)
	}
	if p.Needs.GetDataDir() {
		in.DataDir = t.TempDir()
		req.DataDir = in.DataDir
	}
	if p.Storage != nil || p.Directory != nil {
		lis, err := net.Listen("unix", in.DataSocket)
		if err != nil {
			t.Fatal(err)
		}
		lis.(*net.UnixListener).SetUnlinkOnClose(false)
		req.DataSocketFd, req.DataTokens = fdOf(t, lis.(*net.UnixListener)), []string{token}
		lis.Close()
	}
	for _, o := range opts {
		o(t, req)
	}
	resp, err := in.Client.Configure(ctx, req)
	if err != nil {
		t.Fatal(err)
	}
	if len(resp.GetDiagnostics()) > 0 {
		return in, resp.GetDiagnostics()
	}
	if in.Interest = resp.GetFilter(); in.Interest == nil {
		in.Interest = in.Description.GetFilter()
	}
	if _, err := in.Client.Ready(ctx, &v1.ReadyRequest{}); err != nil {
		t.Fatal(err)
	}
	if p.Access == nil {
		in.open()
	}
	return in, nil
}

// serve starts the plugin on a socket and connects to it.
func (in *Instance) serve(p sdk.Plugin, path string) {
	t := in.t
	lis, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	life, end := context.WithCancel(context.Background())
	served := make(chan error, 1)
	log := zerolog.New(zerolog.MultiLevelWriter(zerolog.NewTestWriter(t), &in.log))
	go func() { served <- sdk.ServeInstance(life, lis, sdk.NewServer(p, log)) }()
	cc, err := grpc.NewClient("unix:"+path, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(stream.MaxMessage)))
	if err != nil {
		t.Fatal(err)
	}
	in.Client = v1.NewPluginClient(cc)
	t.Cleanup(func() {
		if _, err := in.Client.Drain(context.Background(), &v1.DrainRequest{DeadlineMs: 10_000}); err != nil {
			t.Errorf("drain: %v", err)
		}
		if in.Caller != nil {
			in.Caller.Close()
		}
		cc.Close()
		end()
		if err := <-served; err != nil {
			t.Errorf("close: %v", err)
		}
	})
}

func (in *Instance) open() {
	ctx, cancel := context.WithCancel(context.Background())
	s, err := in.Client.Session(ctx)
	if err != nil {
		in.t.Fatal(err)
	}
	in.Caller = stream.NewCaller(s, stream.Credits(int(in.Description.GetMaxConcurrent())), stream.OnClose(cancel))
}

// Context ends after a minute, or with the test.
func Context(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// configure makes Configure's forms of a configuration, defaults filled in.
func configure(req *v1.ConfigureRequest, s *v1.Schema, config any) error {
	var v cty.Value
	var err error
	if text, ok := config.(string); ok {
		v, err = block.Decode(s, "test.hcl", text)
	} else {
		v, err = block.FromGo(s, config)
	}
	if err != nil {
		return err
	}
	req.ConfigJson, req.ConfigMsgpack, err = block.Wire(s, v)
	return err
}
