// Command badplugin is a filter that does at the first mail what no plugin should,
// for the tests of who bears with it.
package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
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
		}
	})
	return filter.Accept(), nil
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
