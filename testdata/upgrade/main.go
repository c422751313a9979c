// Command upgrade is two plugins, for the tests that exchange a program while it
// runs: a filter that marks mail with the build that saw it, and the embedded
// storage. The first argument says which.
package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"github.com/stagecoach-mta/stagecoach/plugins/local"
	"github.com/stagecoach-mta/stagecoach/sdk"
	"github.com/stagecoach-mta/stagecoach/sdk/filter"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// build is what a test puts another one of the same length in the place of.
const build = "build-0001"

// takes is how long a mail is looked at. One from slow@ is until the file "release"
// is in the filter's data directory, and one from deaf@ is so even when nobody waits
// for it any more.
const takes = 10 * time.Millisecond

func main() {
	marks := sdk.Plugin{
		Name: "marks", Version: build, Summary: "Marks mail with the build that saw it",
		Interest: &v1.FilterInterest{Events: []v1.FilterEvent{v1.FilterEvent_MESSAGE}, Effect: v1.FilterInterest_EDIT},
		Needs:    &v1.Needs{DataDir: true},
		Filter: func(_ context.Context, in *sdk.Instance) (filter.Filter, error) {
			return &marker{in: in}, nil
		},
	}
	store := local.Plugin()
	store.Name, store.Version = "kept", build
	switch strings.Join(os.Args[1:], " ") {
	case "storage":
		sdk.Serve(store)
	case "":
		sdk.Serve(marks)
	default:
		fmt.Fprintln(os.Stderr, "usage: upgrade [storage]")
		os.Exit(2)
	}
}

type marker struct {
	in *sdk.Instance
	// now are the mails that it looks at, most how many those were at once.
	now, most atomic.Int64
}

func (m *marker) Filter(ctx context.Context, ev *filter.Event) (*filter.Verdict, error) {
	now := m.now.Add(1)
	defer m.now.Add(-1)
	for most := m.most.Load(); now > most && !m.most.CompareAndSwap(most, now); {
		most = m.most.Load()
	}
	deaf := strings.HasPrefix(ev.Envelope.GetSender(), "deaf@")
	slow := deaf || strings.HasPrefix(ev.Envelope.GetSender(), "slow@")
	if slow {
		m.in.Log.Info().Msg("a slow mail is here")
	}
	if deaf {
		ctx = context.WithoutCancel(ctx)
	}
	for {
		select {
		case <-time.After(takes):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		if _, err := os.Stat(filepath.Join(m.in.DataDir, "release")); !slow || err == nil {
			return filter.Accept().AddHeader("X-Build", build).AddHeader("X-At-Once", fmt.Sprint(m.most.Load())), nil
		}
	}
}
