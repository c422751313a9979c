package imaptest_test

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/rs/zerolog"
	"go.uber.org/goleak"

	"github.com/stagecoach-mta/stagecoach/plugins/imap"
	"github.com/stagecoach-mta/stagecoach/plugins/imap/imaptest"
	"github.com/stagecoach-mta/stagecoach/plugins/local"
	"github.com/stagecoach-mta/stagecoach/sdk/access"
	"github.com/stagecoach-mta/stagecoach/sdk/fail"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// people is a directory in which everybody's password is "sleepless".
type people struct{}

func (people) Authenticate(_ context.Context, r *v1.AuthenticateRequest) (*v1.AuthenticateResponse, error) {
	if r.GetPassword() != "sleepless" {
		return nil, fail.New(fail.Denied, "wrong")
	}
	return &v1.AuthenticateResponse{Account: r.GetUsername()}, nil
}
func (people) Resolve(context.Context, *v1.ResolveRequest) (*v1.ResolveResponse, error) {
	return &v1.ResolveResponse{}, nil
}
func (people) Credentials(context.Context, *v1.CredentialsRequest) (*v1.CredentialsResponse, error) {
	return nil, fail.New(fail.Unsupported, "none")
}
func (people) Domains(context.Context, *v1.DomainsRequest) (*v1.DomainsResponse, error) {
	return &v1.DomainsResponse{}, nil
}

// start serves an empty store until the test's end; or the server is the one of
// IMAPTEST_SERVER, "HOST:PORT USER PASSWORD", where all mailboxes whose names begin
// with "imaptest" are lost.
func start(t *testing.T) imaptest.Target {
	t.Helper()
	if server := os.Getenv("IMAPTEST_SERVER"); server != "" {
		f := strings.Fields(server)
		if len(f) != 3 {
			t.Fatalf("IMAPTEST_SERVER is %q and not HOST:PORT USER PASSWORD", server)
		}
		return imaptest.Target{Address: f[0], User: f[1], Password: f[2]}
	}
	store, err := local.New(local.Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server, err := imap.New(imap.DefaultConfig(), access.Host{
		Hostname: "mx.ryan.example", Listeners: []access.Listener{{Listener: l}}, InsecureAuth: true,
		Storage: store, Directory: people{}, UploadDir: t.TempDir(), Log: zerolog.New(zerolog.NewTestWriter(t)).Level(zerolog.WarnLevel),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- server.Serve(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-served; err != nil {
			t.Error(err)
		}
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	return imaptest.Target{Address: l.Addr().String(), User: "meg@ryan.example", Password: "sleepless"}
}

// TestScripts runs the suite's scripts in the folder imaptest of SUITES, or without
// it our own in testdata. A script is left out only if the server does not announce
// what it needs, and that is said.
func TestScripts(t *testing.T) {
	folder := "testdata"
	if suites := os.Getenv("SUITES"); suites != "" {
		folder = filepath.Join(suites, "imaptest")
	}
	files, err := os.ReadDir(folder)
	if err != nil {
		t.Fatal(err)
	}
	target := start(t)
	announced, err := target.Capabilities()
	if err != nil {
		t.Fatal(err)
	}
	played, left := 0, []string{}
	for _, f := range files {
		name := f.Name()
		if f.IsDir() || strings.Contains(name, ".") || name == "LICENSE" {
			continue
		}
		script, err := imaptest.Load(filepath.Join(folder, name))
		if err != nil {
			t.Error(err)
			continue
		}
		if i := slices.IndexFunc(script.Capabilities, func(c string) bool { return !slices.Contains(announced, c) }); i >= 0 {
			left = append(left, name+" ("+script.Capabilities[i]+")")
			continue
		}
		played++
		t.Run(name, func(t *testing.T) {
			if err := target.Run(script); err != nil {
				t.Error(err)
			}
		})
	}
	t.Logf("%d scripts of %s played; not announced: %s", played, folder, strings.Join(left, ", "))
	if played == 0 {
		t.Errorf("%s has no scripts for this server", folder)
	}
}
