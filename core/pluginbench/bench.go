// Package pluginbench measures what calls of one plugin cost: time, CPU of both
// sides, memory; and beside it, in turns, a bare gRPC stream that does nothing, so
// that the figures of different machines, and of a busy one, can be compared. It
// says nothing about whether the answers are right: conformance does.
package pluginbench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/stagecoach-mta/stagecoach/core/tryout"
)

// Options of a run.
type Options struct {
	// Command starts the yardstick; the folder for its socket is added.
	Command []string
	Project *tryout.Project
	Config  string
	// At is how many calls run at the same time, Size the small message's octets,
	// Time how long each kind of call is measured.
	At   int
	Size int
	Time time.Duration
	// Begin tells what is measured next.
	Begin func(what string)
}

// Report is what was measured.
type Report struct {
	Kind    string `json:"kind"`
	Plugin  string `json:"plugin"`
	Version string `json:"version"`
	At      int    `json:"at"`
	// StartMS is from the order to start until calls are taken, the median of Starts.
	StartMS float64 `json:"start_ms"`
	Starts  int     `json:"starts"`
	// PSS of the plugin's process in octets, before the first call and after the
	// last; 0 if the system does not tell.
	PSSBefore int64 `json:"pss_before"`
	PSSAfter  int64 `json:"pss_after"`
	Rows      []Row `json:"rows"`
}

// Row is one kind of call, beside the yardstick.
type Row struct {
	Name   string  `json:"name"`
	Plugin Figures `json:"plugin"`
	// BareName says what the yardstick did.
	BareName string  `json:"bare_name"`
	Bare     Figures `json:"bare"`
	// TimeRatio and CPURatio are the plugin's by the yardstick's, per call; CPU of
	// both sides together. 0: nothing to compare.
	TimeRatio float64 `json:"time_ratio"`
	CPURatio  float64 `json:"cpu_ratio"`
}

// Figures of a series of calls.
type Figures struct {
	Calls     int     `json:"calls"`
	Errors    int     `json:"errors"`
	Error     string  `json:"error,omitempty"` // the first one
	PerSecond float64 `json:"per_second"`
	P50       float64 `json:"p50_us"`
	P99       float64 `json:"p99_us"`
	// TheirCPU and OurCPU per call, in µs: the other process's and this one's.
	TheirCPU float64 `json:"their_cpu_us"`
	OurCPU   float64 `json:"our_cpu_us"`
}

// starts are measured, the median counts.
const starts = 3

// slices of the time: plugin and yardstick take turns, so that the noise of the
// machine falls on both.
const turns = 6

// Run measures. An error is that of a plugin that does not run, or of the machine.
func Run(ctx context.Context, place *tryout.Place, o Options) (*Report, error) {
	var (
		r     *tryout.Running
		took  []time.Duration
		err   error
		begin = o.Begin
	)
	for range starts {
		begin("start to ready")
		if r, err = place.Start(ctx, o.Project, o.Config, nil); err != nil {
			return nil, err
		}
		took = append(took, r.Ready)
	}
	slices.Sort(took)
	d := r.Describe
	rep := &Report{
		Kind: strings.ToLower(strings.TrimPrefix(d.GetKind().String(), "KIND_")), Plugin: d.GetName(), Version: d.GetVersion(), At: o.At,
		StartMS: micros(took[len(took)/2]) / 1000, Starts: starts,
	}
	dir, err := os.MkdirTemp("", "yard")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	y, err := startYardstick(o.Command, dir)
	if err != nil {
		return nil, err
	}
	defer y.close()
	subjects, done, err := subjectsOf(ctx, place, r, y, o.Size)
	if err != nil {
		return nil, err
	}
	defer done()
	rep.PSSBefore = r.Instance.Info().PSS
	for _, s := range subjects {
		begin(s.name)
		row, err := s.measure(ctx, func() []int { return []int{r.Instance.Info().PID} }, []int{y.cmd.Process.Pid}, o)
		if err != nil {
			return nil, err
		}
		rep.Rows = append(rep.Rows, row)
	}
	rep.PSSAfter = r.Instance.Info().PSS
	return rep, nil
}

// subject is a kind of call: one makes a caller for one of those that call at the
// same time.
type subject struct {
	name, bareName string
	plugin, bare   func(ctx context.Context) (call func() error, err error)
	// most calls in a turn, for what leaves something behind; 0: any number.
	most int
}

// leaves bounds what a series may leave on the disk, in octets.
const leaves = 256 << 20

// measure runs the plugins, of which it is asked each turn what their processes are,
// in turns with the yardsticks.
func (s *subject) measure(ctx context.Context, plugins func() []int, yards []int, o Options) (Row, error) {
	row := Row{Name: s.name, BareName: s.bareName}
	var plugin, yard series
	slice := o.Time / turns
	for turn := range turns + 1 {
		// The first turn warms both up.
		a, b := &plugin, &yard
		if turn == 0 {
			a, b = &series{}, &series{}
		}
		if err := a.run(ctx, o.At, slice, s.most, plugins(), s.plugin); err != nil {
			return row, err
		}
		if a.err != nil && a.errors == len(a.times) {
			return row, fmt.Errorf("%s: no call was answered: %w", s.name, a.err)
		}
		if err := b.run(ctx, o.At, slice, 0, yards, s.bare); err != nil {
			return row, err
		}
		if b.err != nil {
			return row, fmt.Errorf("the yardstick: %w", b.err)
		}
	}
	row.Plugin, row.Bare = plugin.figures(), yard.figures()
	if row.Plugin.PerSecond > 0 && row.Bare.PerSecond > 0 {
		row.TimeRatio = row.Bare.PerSecond / row.Plugin.PerSecond
	}
	if cpu := row.Bare.TheirCPU + row.Bare.OurCPU; cpu > 0 {
		row.CPURatio = (row.Plugin.TheirCPU + row.Plugin.OurCPU) / cpu
	}
	return row, nil
}

// series is a number of calls.
type series struct {
	times       []time.Duration
	errors      int
	err         error
	wall        time.Duration
	their, ours time.Duration
}

// run calls for that long and, unless it is 0, most times, at callers at a time; each
// makes one call at least.
func (s *series) run(ctx context.Context, at int, long time.Duration, most int, pids []int, open func(context.Context) (func() error, error)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	calls := make([]func() error, at)
	for i := range calls {
		var err error
		if calls[i], err = open(ctx); err != nil {
			return err
		}
	}
	var (
		wg   sync.WaitGroup
		mu   sync.Mutex
		made atomic.Int64
	)
	their, ours, begin := cpuOf(pids), ownCPU(), time.Now()
	end := begin.Add(long)
	for _, call := range calls {
		wg.Go(func() {
			var times []time.Duration
			var first error
			failed := 0
			for last := time.Now(); len(times) == 0 || last.Before(end) && ctx.Err() == nil; {
				if n := made.Add(1); most > 0 && int(n) > most && len(times) > 0 {
					break
				}
				err := call()
				now := time.Now()
				times = append(times, now.Sub(last))
				last = now
				if err != nil {
					failed++
					if first == nil {
						first = err
					}
				}
			}
			mu.Lock()
			defer mu.Unlock()
			s.times = append(s.times, times...)
			s.errors += failed
			if s.err == nil {
				s.err = first
			}
		})
	}
	wg.Wait()
	s.wall += time.Since(begin)
	s.their += cpuOf(pids) - their
	s.ours += ownCPU() - ours
	return ctx.Err()
}

func (s *series) figures() Figures {
	n := len(s.times)
	if n == 0 {
		return Figures{}
	}
	slices.Sort(s.times)
	f := Figures{
		Calls: n, Errors: s.errors, PerSecond: float64(n) / s.wall.Seconds(),
		P50: micros(s.times[n/2]), P99: micros(s.times[n*99/100]),
		TheirCPU: micros(s.their) / float64(n), OurCPU: micros(s.ours) / float64(n),
	}
	if s.err != nil {
		f.Error = s.err.Error()
	}
	return f
}

func micros(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1000 }

// ownCPU is what this process has used.
func ownCPU() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// tick of /proc/PID/stat: USER_HZ is 100 on every Linux (proc_pid_stat(5)).
const tick = 10 * time.Millisecond

// cpuOf these processes together.
func cpuOf(pids []int) (all time.Duration) {
	for _, pid := range pids {
		all += cpuOfOne(pid)
	}
	return all
}

// cpuOfOne is what a process has used; 0 if it is gone.
func cpuOfOne(pid int) time.Duration {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0
	}
	// The name in brackets may hold anything.
	fields := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	if len(fields) < 13 {
		return 0
	}
	user, _ := strconv.Atoi(fields[11])
	system, _ := strconv.Atoi(fields[12])
	return time.Duration(user+system) * tick
}

var errNothing = errors.New("the filter names no event that could be measured")
