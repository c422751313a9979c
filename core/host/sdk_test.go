package host

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stagecoach-mta/stagecoach/sdk"
	"github.com/stagecoach-mta/stagecoach/sdk/access"
	"github.com/stagecoach-mta/stagecoach/sdk/directory"
	"github.com/stagecoach-mta/stagecoach/sdk/filter"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// sdkPlugins are plugins as an author writes them.
func sdkPlugins() map[string]sdk.Plugin {
	return map[string]sdk.Plugin{
		"filter": {
			Name: "accepting", Interest: &v1.FilterInterest{Events: []v1.FilterEvent{v1.FilterEvent_MESSAGE}},
			Filter: func(_ context.Context, in *sdk.Instance) (filter.Filter, error) {
				in.Log.Warn().Int("n", 3).Msg("made by " + in.Hostname)
				fmt.Fprintln(os.Stderr, "a plain line, after go-plugin took stderr")
				in.Metrics.Counter("made", "instances made").Add(1)
				return accepting{}, nil
			},
		},
		"directory": {
			Name: "pids",
			Directory: func(context.Context, *sdk.Instance) (directory.Directory, error) {
				return pids{}, nil
			},
		},
		"access": {
			Name: "asking",
			Access: func(_ context.Context, in *sdk.Instance) (access.Server, error) {
				return &asking{host: in.Access}, nil
			},
		},
	}
}

type accepting struct{}

func (accepting) Filter(context.Context, *filter.Event) (*filter.Verdict, error) {
	return &filter.Verdict{}, nil
}

// pids is a directory for which every user stands for its process.
type pids struct{}

func (pids) Resolve(context.Context, *v1.ResolveRequest) (*v1.ResolveResponse, error) {
	return &v1.ResolveResponse{Result: v1.ResolveResponse_MAILBOX, Account: fmt.Sprint(os.Getpid())}, nil
}

func (pids) Authenticate(context.Context, *v1.AuthenticateRequest) (*v1.AuthenticateResponse, error) {
	return &v1.AuthenticateResponse{}, nil
}

func (pids) Credentials(context.Context, *v1.CredentialsRequest) (*v1.CredentialsResponse, error) {
	return &v1.CredentialsResponse{}, nil
}

func (pids) Domains(context.Context, *v1.DomainsRequest) (*v1.DomainsResponse, error) {
	return &v1.DomainsResponse{Domains: []string{"ryan.example"}}, nil
}

// asking answers each line of a client with what the directory says.
type asking struct {
	host     *access.Host
	sessions sync.WaitGroup
}

func (a *asking) Serve(ctx context.Context) error {
	for {
		c, err := a.host.Listeners[0].Accept()
		if err != nil {
			return nil
		}
		a.sessions.Go(func() {
			defer c.Close()
			lines := bufio.NewScanner(c)
			for lines.Scan() {
				one, cancel := context.WithTimeout(ctx, patience)
				resp, err := a.host.Directory.Resolve(one, &v1.ResolveRequest{Address: lines.Text()})
				cancel()
				fmt.Fprintln(c, resp.GetAccount(), err)
			}
		})
	}
}

func (a *asking) Drain(ctx context.Context) error {
	a.host.Listeners[0].Close()
	done := make(chan struct{})
	go func() { a.sessions.Wait(); close(done) }()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func sdkSpec(instance string, kind v1.Kind, behaviour, name string) Spec {
	s := filterSpec(instance, "sdk="+behaviour)
	s.Kind, s.Plugin = kind, name
	return s
}

func TestFilterMadeWithTheSDK(t *testing.T) {
	h, log := testHost(t)
	if _, err := provision(h, sdkSpec("filter.accepting.a", v1.Kind_KIND_FILTER, "filter", "accepting")); err != nil {
		t.Fatal(err)
	}
	i := h.Instance("filter.accepting.a")
	mustAsk(t, i, "any")
	for _, want := range []string{
		`{"level":"warn","plugin":"filter.accepting.a","n":3,"message":"made by mx.ryan.example"}`,
		`"plugin":"filter.accepting.a","message":"a plain line, after go-plugin took stderr"`,
	} {
		eventually(t, "the log has "+want, func() bool { return strings.Contains(log.String(), want) })
	}
	m, err := i.Metrics(t.Context())
	if err != nil || len(m) != 1 || m[0].GetName() != "made" || m[0].GetValue() != 1 {
		t.Errorf("metrics %v, %v", m, err)
	}
}

// One session of an access plugin goes on while its directory crashes and while
// it is replaced: the client sees a pause.
func TestAccessKeepsItsSessionWhileTheDirectoryRestarts(t *testing.T) {
	h, _ := testHost(t)
	h.timing.backoff = 400 * time.Millisecond // a gap to come in
	dir := sdkSpec("directory.pids.d", v1.Kind_KIND_DIRECTORY, "directory", "pids")
	acc := sdkSpec("access.asking.a", v1.Kind_KIND_ACCESS, "access", "asking")
	acc.Grants = []GrantSpec{{Role: "auth", Instance: "directory.pids.d"}}
	acc.Listeners = []ListenerSpec{{Address: "127.0.0.1:0"}}
	if _, err := provision(h, dir, acc); err != nil {
		t.Fatal(err)
	}
	d := h.Instance("directory.pids.d")
	c, err := net.Dial("tcp", h.Instance("access.asking.a").Info().Listeners[0])
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(patience))
	r := bufio.NewReader(c)
	answer := func() string {
		fmt.Fprintln(c, "meg@ryan.example")
		line, err := r.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(line)
	}
	serving := func() string { return fmt.Sprint(d.Info().PID, " <nil>") }
	if got := answer(); got != serving() {
		t.Fatalf("%q, want %q", got, serving())
	}
	first := d.Info().PID
	process, err := os.FindProcess(first)
	if err != nil {
		t.Fatal(err)
	}
	process.Kill()
	eventually(t, "the crash is seen", func() bool { return d.Info().State == Restarting })
	// The new process may answer over its data socket before the host has noted
	// that it is ready.
	got := answer()
	eventually(t, "the host knows who answered", func() bool { return got == serving() })
	if d.Info().PID == first {
		t.Errorf("after the crash the first process answered: %q", got)
	}
	if err := h.Restart(t.Context(), "directory.pids.d"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the new directory is asked", func() bool { return answer() == serving() })
	c.Close()
}
