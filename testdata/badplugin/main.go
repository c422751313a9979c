// Command badplugin is a filter that does at the first mail what no plugin should,
// for the tests of who bears with it.
package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/rs/zerolog"
	"google.golang.org/grpc"

	"github.com/stagecoach-mta/stagecoach/sdk"
	"github.com/stagecoach-mta/stagecoach/sdk/bootstrap"
	"github.com/stagecoach-mta/stagecoach/sdk/filter"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

type config struct {
	Does string `hcl:"does" doc:"How to misbehave."`
}

// bad is the whole plugin.
type bad struct {
	*sdk.Server
	does string
	once sync.Once
}

func main() {
	if len(os.Args) == 2 {
		fmt.Fprintln(os.Stderr, "a child was told", reload(os.Args[1]))
		return
	}
	b := &bad{}
	b.Server = sdk.NewServer(sdk.Plugin{
		Name: "bad", Version: "1.0.0", Summary: "Misbehaves", Config: config{},
		Interest: &v1.FilterInterest{Events: []v1.FilterEvent{v1.FilterEvent_MESSAGE}},
		Filter: func(_ context.Context, in *sdk.Instance) (filter.Filter, error) {
			b.does = in.Config.(*config).Does
			return b, nil
		},
	}, zerolog.New(os.Stderr))
	lis, err := bootstrap.Listen()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	g := grpc.NewServer(lis.Options()...)
	v1.RegisterPluginServer(g, b)
	bootstrap.Register(g)
	fmt.Println(lis.Line(sdk.ProtocolVersion))
	_ = g.Serve(lis)
}

// Session answers with what is no answer if that is its way.
func (b *bad) Session(s grpc.BidiStreamingServer[v1.Frame, v1.Frame]) error {
	if b.does != "garbage" {
		return b.Server.Session(s)
	}
	for {
		f, err := s.Recv()
		if err != nil {
			return nil
		}
		if f.GetCall() == nil {
			continue
		}
		r := &v1.Reply{Response: &v1.Reply_Storage{Storage: &v1.StorageReply{}}}
		if err := s.Send(&v1.Frame{Id: f.GetId(), Body: &v1.Frame_Reply{Reply: r}}); err != nil {
			return err
		}
	}
}

// Filter accepts, and misbehaves from the first mail on.
func (b *bad) Filter(context.Context, *filter.Event) (*filter.Verdict, error) {
	b.once.Do(func() {
		switch b.does {
		case "flood":
			go flood()
		case "allocate":
			go allocate()
		case "fork":
			go fork(200)
		case "leave":
			fork(2)
			// Out of the group and with no parent left.
			_ = exec.Command("/bin/sh", "-c", "setsid sleep 3600 &").Run()
			os.Exit(7)
		case "trespass":
			trespass()
		}
	})
	return filter.Accept(), nil
}

// trespass asks the server for a reload: itself, by a child, and by one that is out
// of the group, has another environment and no parent left.
func trespass() {
	socket := filepath.Join(os.Getenv("PLUGIN_UNIX_SOCKET_DIR"), "../../admin.sock")
	fmt.Fprintln(os.Stderr, "it was told", reload(socket))
	self, err := os.Executable()
	if err == nil {
		child := exec.Command(self, socket)
		child.Stderr = os.Stderr
		err = child.Run()
	}
	if err == nil {
		orphan := exec.Command("/bin/sh", "-c", `setsid "$0" "$1" & exit`, self, socket)
		orphan.Env, orphan.Stderr = []string{}, os.Stderr
		err = orphan.Run()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "trespassing is not possible:", err)
	}
}

// reload is what the admin socket answers.
func reload(socket string) string {
	client := http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}}
	resp, err := client.Post("http://stagecoach/reload", "", nil)
	if err != nil {
		return err.Error()
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return err.Error()
	}
	return resp.Status + " " + string(text)
}

func flood() {
	lines := []byte(strings.Repeat("I have a lot to say\n", 5000))
	for {
		_, _ = syscall.Write(2, lines)
		time.Sleep(100 * time.Millisecond)
	}
}

var hoard [][]byte

func allocate() {
	for {
		b := make([]byte, 4<<20)
		for i := range b {
			b[i] = 1
		}
		hoard = append(hoard, b)
		time.Sleep(10 * time.Millisecond)
	}
}

func fork(n int) {
	for range n {
		c := exec.Command("/bin/sleep", "3600")
		if c.Start() == nil {
			go func() { _ = c.Wait() }()
		}
	}
}
