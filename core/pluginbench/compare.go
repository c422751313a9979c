package pluginbench

import (
	"context"
	"os"
	"path/filepath"
	"strconv"

	"google.golang.org/grpc"

	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// Several is work for which some plugins are asked at the same time, as the
// filters of a mail are.
type Several struct {
	// Name and BareName are the row's.
	Name, BareName string
	// PIDs are the plugins' processes, at least one.
	PIDs []int
	// Work does it once; it is called by many at the same time.
	Work func(ctx context.Context) error
	// Echo is what each of as many yardsticks, processes of their own, gets and
	// answers for one Work.
	Echo *v1.Call
}

// Measure runs w in turns with its yardsticks. Of o it takes Command, At and Time.
func (w Several) Measure(ctx context.Context, o Options) (Row, error) {
	dir, err := os.MkdirTemp("", "yard")
	if err != nil {
		return Row{}, err
	}
	defer os.RemoveAll(dir)
	var yards []*yardstick
	var pids []int
	for i := range w.PIDs {
		own := filepath.Join(dir, strconv.Itoa(i))
		if err := os.Mkdir(own, 0o700); err != nil {
			return Row{}, err
		}
		y, err := startYardstick(o.Command, own)
		if err != nil {
			return Row{}, err
		}
		defer y.close()
		yards, pids = append(yards, y), append(pids, y.cmd.Process.Pid)
	}
	s := subject{
		name: w.Name, bareName: w.BareName,
		plugin: func(ctx context.Context) (func() error, error) {
			return func() error { return w.Work(ctx) }, nil
		},
		bare: func(ctx context.Context) (func() error, error) { return echoes(ctx, yards, w.Echo) },
	}
	return s.measure(ctx, func() []int { return w.PIDs }, pids, o)
}

// echoes asks all yardsticks at the same time, over a stream to each.
func echoes(ctx context.Context, yards []*yardstick, call *v1.Call) (func() error, error) {
	var streams []grpc.BidiStreamingClient[v1.Frame, v1.Frame]
	for _, y := range yards {
		s, err := v1.NewPeerClient(y.conn).Session(ctx)
		if err != nil {
			return nil, err
		}
		streams = append(streams, s)
	}
	return func() error {
		for _, s := range streams {
			if err := s.Send(&v1.Frame{Id: 1, Body: &v1.Frame_Call{Call: call}}); err != nil {
				return err
			}
		}
		for _, s := range streams {
			if _, err := s.Recv(); err != nil {
				return err
			}
		}
		return nil
	}, nil
}
