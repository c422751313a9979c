package host

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"github.com/stagecoach-mta/stagecoach/sdk/fail"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
	"github.com/stagecoach-mta/stagecoach/sdk/stream"
)

// State of an instance.
type State string

// The states. Calls wait in Starting and Restarting, and fail at once in Failed
// (it crashed again and again; the next attempt comes by itself) and Removed.
const (
	Starting   State = "starting"
	Ready      State = "ready"
	Restarting State = "restarting"
	Failed     State = "failed"
	Draining   State = "draining"
	Removed    State = "removed"
)

// Info is what an operator wants to know of an instance.
type Info struct {
	Instance string  `json:"instance"`
	Kind     v1.Kind `json:"kind"`
	Plugin   string  `json:"plugin"`
	Version  string  `json:"version"`
	State    State   `json:"state"`
	// Since is when the state began.
	Since time.Time `json:"since"`
	PID   int       `json:"pid"`
	// Restarts after a crash, a hang or a broken session.
	Restarts int `json:"restarts"`
	// Calls that ended, and how many of them failed with a Problem that is the
	// plugin's fault (INTERNAL, UNAVAILABLE, DEADLINE).
	Calls    uint64        `json:"calls"`
	Errors   uint64        `json:"errors"`
	InFlight int           `json:"in_flight"`
	P50      time.Duration `json:"p50_ns"`
	P99      time.Duration `json:"p99_ns"`
	// RSS in octets; what processes share counts for each. PSS is its share of
	// that; 0 if the system does not tell.
	RSS int64 `json:"rss"`
	PSS int64 `json:"pss"`
	// Processes that run: itself and those that it has started.
	Processes int `json:"processes"`
	// DroppedLines, with their octets, were left out of its log because they came
	// too fast; octets also of lines that were cut.
	DroppedLines  uint64 `json:"dropped_lines"`
	DroppedOctets uint64 `json:"dropped_octets"`
	// LastError is why the last process ended, or did not start; LastFault how the
	// last call failed that failed by the plugin's fault without ending it.
	LastError string `json:"last_error,omitempty"`
	LastFault string `json:"last_fault,omitempty"`
	// Health is what the plugin itself complains of.
	Health string `json:"health,omitempty"`
	// Troubles are what the host has seen of it that is not as it should be, the
	// worst first, for as long as that is news.
	Troubles []Trouble `json:"troubles,omitempty"`
	// Sandboxed: the process runs in a sandbox. Unenforced are the limits of it
	// that this system cannot enforce, with the reason.
	Sandboxed  bool     `json:"sandboxed"`
	Unenforced []string `json:"unenforced,omitempty"`
	// Listeners are the addresses as bound.
	Listeners  []string `json:"listeners,omitempty"`
	DataSocket string   `json:"data_socket,omitempty"`
}

// Instance is the handle to one instance. It survives restarts and reloads.
type Instance struct {
	name     string
	place    *place
	stats    stats
	faults   faults
	troubles *troubles

	mu       sync.Mutex
	gen      *generation
	restarts int
	removed  bool
	// changed is closed, and made anew, when anything here changes.
	changed chan struct{}
}

var _ stream.Caller = (*Instance)(nil)

func newInstance(name string, p *place, log zerolog.Logger) *Instance {
	t := newTroubles()
	return &Instance{name: name, place: p, faults: faults{log: log, troubles: t}, troubles: t, changed: make(chan struct{})}
}

// update changes what mu guards and wakes who waits for it.
func (i *Instance) update(f func()) {
	i.mu.Lock()
	defer i.mu.Unlock()
	f()
	close(i.changed)
	i.changed = make(chan struct{})
}

// Name of the instance: "filter.greylist.calm".
func (i *Instance) Name() string { return i.name }

// Call implements stream.Caller. A call that meets a restart waits for the new
// process until ctx or the instance's call timeout ends. One that was already sent
// when the process ended is asked again if that does no harm (repeats), and fails
// as UNAVAILABLE otherwise: its caller knows whether it may be repeated.
func (i *Instance) Call(ctx context.Context, call *v1.Call) (*v1.Reply, error) {
	ctx, cancel := i.bound(ctx)
	defer cancel()
	var reply *v1.Reply
	err := i.on(ctx, repeats(call), func(c stream.Caller) (err error) {
		if reply, err = c.Call(ctx, call); err == nil {
			err = fitting(call, reply)
		}
		return err
	})
	return reply, err
}

// Stream implements stream.Caller, as Call, but without the call timeout: a
// Watch has no end.
func (i *Instance) Stream(ctx context.Context, call *v1.Call, each func(*v1.Reply) error) error {
	return i.on(ctx, 0, func(c stream.Caller) error {
		return c.Stream(ctx, call, func(reply *v1.Reply) error {
			if reply.GetResponse() != nil {
				if err := fitting(call, reply); err != nil {
					return err
				}
			}
			return each(reply)
		})
	})
}

// bound gives a call its deadline.
func (i *Instance) bound(ctx context.Context) (context.Context, context.CancelFunc) {
	i.mu.Lock()
	timeout := defaultTiming.call
	if i.gen != nil && i.gen.spec.CallTimeout > 0 {
		timeout = i.gen.spec.CallTimeout
	} else if _, ok := ctx.Deadline(); ok {
		timeout = 0
	}
	i.mu.Unlock()
	if timeout == 0 {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, timeout)
}

// repeats is how often a call may be sent again when the process ended over it. Not
// for ever, for it may be the call that ends it; and no filter's, whose block says what
// becomes of its mail (on_failure), nor a delivery's, which may have happened.
func repeats(call *v1.Call) int {
	if stream.Repeatable(call) {
		return 2
	}
	return 0
}

// on runs one call on the process that serves now or next.
func (i *Instance) on(ctx context.Context, repeats int, f func(stream.Caller) error) error {
	began := time.Now()
	var err error
	for ended := true; ended && repeats >= 0; repeats-- {
		ended, err = i.once(ctx, f)
	}
	i.stats.record(time.Since(began), err)
	return err
}

// once runs a call and tells whether the process ended over it.
func (i *Instance) once(ctx context.Context, f func(stream.Caller) error) (ended bool, err error) {
	p, err := i.acquire(ctx)
	if err != nil {
		return false, err
	}
	defer p.release()
	p.expect(ctx)
	if p.caller == nil {
		return false, fail.New(fail.Unsupported, "%s is an access plugin: it takes no calls", i.name)
	}
	err = f(p.caller)
	if err == nil {
		p.served.Store(true)
		return false, nil
	}
	i.faults.note(err)
	select {
	case <-p.sessionDone():
		return fail.Is(err, fail.Unavailable) && ctx.Err() == nil, err
	default:
		return false, err
	}
}

// acquire waits for a process that takes calls and counts one in.
func (i *Instance) acquire(ctx context.Context) (*process, error) {
	for {
		i.mu.Lock()
		g, changed := i.gen, i.changed
		if i.removed {
			i.mu.Unlock()
			return nil, fail.New(fail.Unavailable, "%s is no longer configured", i.name)
		}
		var p *process
		last := ""
		if g != nil {
			last = g.lastError
			switch g.state {
			case Ready:
				p = g.process
			case Failed:
				i.mu.Unlock()
				return nil, fail.New(fail.Unavailable, "plugin %s failed: %s", i.name, last)
			}
		}
		i.mu.Unlock()
		if p != nil && p.acquire() {
			return p, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			kind := fail.Unavailable
			if errors.Is(ctx.Err(), context.Canceled) {
				kind = fail.Cancelled
			}
			text := fmt.Sprintf("plugin %s was not ready in time", i.name)
			if last != "" {
				text += " (" + last + ")"
			}
			return nil, fail.Wrap(kind, ctx.Err(), text)
		}
	}
}

// waitReady returns when the instance takes calls.
func (i *Instance) waitReady(ctx context.Context) error {
	p, err := i.acquire(ctx)
	if err == nil {
		p.release()
	}
	return err
}

// Interest of a filter, as Configure or Describe said; nil for other kinds.
func (i *Instance) Interest() *v1.FilterInterest {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.gen == nil {
		return nil
	}
	return i.gen.interest
}

// Description is what the running process said of itself.
func (i *Instance) Description() *v1.DescribeResponse {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.gen == nil {
		return nil
	}
	return i.gen.describe
}

// Metrics asks the plugin for its counters and gauges.
func (i *Instance) Metrics(ctx context.Context) ([]*v1.Metric, error) {
	p, err := i.acquire(ctx)
	if err != nil {
		return nil, err
	}
	defer p.release()
	resp, err := p.api.Metrics(ctx, &v1.MetricsRequest{})
	if err != nil {
		return nil, p.failed("Metrics", err)
	}
	return resp.GetMetrics(), nil
}

// Info tells how the instance is.
func (i *Instance) Info() Info {
	i.mu.Lock()
	info := Info{Instance: i.name, State: Starting, Restarts: i.restarts}
	var p *process
	if g := i.gen; g != nil {
		info.Kind, info.Plugin, info.Version = g.spec.Kind, g.spec.Plugin, g.describe.GetVersion()
		info.State, info.Since, info.LastError, info.Health = g.state, g.since, g.lastError, g.health
		info.Listeners = g.addresses
		info.Sandboxed = g.spec.Sandbox != nil
		p = g.process
	}
	if i.removed {
		info.State = Removed
	}
	if i.place.data != nil {
		info.DataSocket = i.place.dataSocket()
	}
	i.mu.Unlock()
	if p != nil {
		info.PID, _ = strconv.Atoi(p.child.ID())
		info.RSS, info.PSS = residentSize(info.PID), proportionalSize(info.PID)
		info.InFlight = p.inFlight()
		info.Unenforced = p.child.unenforced()
		info.Processes = usageOf(info.PID, p.census.take(time.Second)).processes
	}
	i.stats.fill(&info)
	i.troubles.fill(&info)
	if p != nil {
		info.standing(standstill(info.PID))
	}
	info.LastFault = i.faults.lastOne()
	return info
}

// standing names a process that is held up before the first health check has
// noticed.
func (info *Info) standing(how string) {
	noticed := len(info.Troubles) > 0 && info.Troubles[0].Kind == Unresponsive && info.Troubles[0].Count == 0
	if how == "" || noticed {
		return
	}
	info.Troubles = append([]Trouble{{Kind: Unresponsive, Last: time.Now(), Text: "answers nothing" + how}}, info.Troubles...)
}

// remove ends the handle's life: calls fail from now on.
func (i *Instance) remove() (old *generation) {
	i.update(func() {
		old = i.gen
		i.removed = true
	})
	return old
}

func (i *Instance) isRemoved() bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.removed
}
