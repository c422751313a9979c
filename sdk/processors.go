package sdk

import (
	"context"
	"os"
	"runtime"
	"sync"
	"syscall"
	"time"

	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
	"github.com/stagecoach-mta/stagecoach/sdk/stream"
)

// A filter's process works on one processor until that is not enough. Its calls are
// short and many, and Go wakes further threads for each as long as there are
// processors for them, which then find nothing to do: a fifth of what five filters
// cost (docs/decisions/0004-plugin-sessions.md).
const (
	// window is how long the process is watched before it gets more, busy after how
	// much of that on the one processor it has.
	window = 50 * time.Millisecond
	busy   = 0.7
	// wideWindow and quiet are the same for giving them up again, and calm how long it
	// must have been so.
	wideWindow = time.Second
	quiet      = 0.5
	calm       = 10 * time.Second
)

// processors follows how busy the process is, while calls come.
type processors struct {
	set  func(wide bool)
	used func() time.Duration // CPU of the process so far
	// after is time.AfterFunc.
	after func(time.Duration, func()) *time.Timer

	mu      sync.Mutex
	wide    bool
	calmFor time.Duration
	calls   bool // since it was looked at
	timer   *time.Timer
	at      time.Time
	before  time.Duration
}

// frugal is for a process that can do with one processor; nil where the operator has said how many,
// or there is one only.
func frugal() *processors {
	if os.Getenv("GOMAXPROCS") != "" || runtime.GOMAXPROCS(0) == 1 {
		return nil
	}
	return &processors{used: usedCPU, after: time.AfterFunc, set: func(wide bool) {
		if wide {
			runtime.SetDefaultGOMAXPROCS()
		} else {
			runtime.GOMAXPROCS(1)
		}
	}}
}

// watch is h, watched. The start is over, for which all processors were there.
func (p *processors) watch(h stream.Handler) stream.Handler {
	if p == nil {
		return h
	}
	p.set(false)
	return func(ctx context.Context, call *v1.Call, send func(*v1.Reply) error) (*v1.Reply, error) {
		p.called(time.Now())
		return h(ctx, call, send)
	}
}

// called notes that a call came.
func (p *processors) called(now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.calls = true
	if p.timer == nil {
		p.at, p.before = now, p.used()
		p.timer = p.after(window, p.tick)
	}
}

func (p *processors) tick() { p.look(time.Now()) }

// look decides at the end of a window, and begins another if there is a reason to.
func (p *processors) look(now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	used := p.used()
	p.step(now.Sub(p.at), used-p.before)
	p.at, p.before = now, used
	if !p.wide && !p.calls {
		p.timer = nil // the next call begins anew
		return
	}
	p.calls = false
	if p.wide {
		p.timer = p.after(wideWindow, p.tick)
	} else {
		p.timer = p.after(window, p.tick)
	}
}

// step takes how much CPU was used in how long.
func (p *processors) step(took, used time.Duration) {
	share := float64(used) / float64(max(took, 1))
	switch {
	case !p.wide && share >= busy:
		p.wide, p.calmFor = true, 0
		p.set(true)
	case !p.wide:
	case share >= quiet:
		p.calmFor = 0
	default:
		if p.calmFor += took; p.calmFor >= calm {
			p.wide = false
			p.set(false)
		}
	}
}

// usedCPU of this process, in user and system mode.
func usedCPU() time.Duration {
	var r syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &r) != nil {
		return 0 // it stays where it is
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}
