// Package pipeline is the running server: it builds the stages that a
// configuration names, connects them, and exchanges them on a reload. It decides
// nothing about a mail; the stages do.
package pipeline

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/rs/zerolog"

	"github.com/stagecoach-mta/stagecoach/core/config"
	"github.com/stagecoach-mta/stagecoach/core/dispatch"
	"github.com/stagecoach-mta/stagecoach/core/host"
	"github.com/stagecoach-mta/stagecoach/core/metrics"
	"github.com/stagecoach-mta/stagecoach/core/observe"
	"github.com/stagecoach-mta/stagecoach/core/queue"
	"github.com/stagecoach-mta/stagecoach/core/spool"
)

const (
	// drainTimeout is how long sessions may take to end their transaction.
	drainTimeout = 30 * time.Second
	// stopTimeout bounds the whole shutdown.
	stopTimeout = 60 * time.Second
)

// Options of a Pipeline.
type Options struct {
	// Executable serves the bundled plugins.
	Executable string
	Version    string
	Log        zerolog.Logger
}

// Pipeline is one running server.
type Pipeline struct {
	Options
	host       *host.Host
	spool      *spool.Dir
	queue      *queue.Engine
	dispatcher *dispatch.Dispatcher
	observers  *observe.Pump
	plan       atomic.Pointer[dispatch.Plan]
	sockets    sockets
	lock       *os.File
	dataDir    string
	running    sync.WaitGroup
	stop       context.CancelFunc
	failed     chan error
	meters     *metrics.Meters
	since      time.Time

	// mu is held by a reload from its beginning to its end.
	mu     sync.Mutex
	cfg    *config.Config
	fronts map[string]*front
	certs  map[string]*certificate
	page   *metricsPage
}

// Start brings everything up: when it returns, mail is taken.
func Start(ctx context.Context, cfg *config.Config, o Options) (*Pipeline, error) {
	p := &Pipeline{
		Options: o, failed: make(chan error, 1), fronts: map[string]*front{}, certs: map[string]*certificate{},
		meters: metrics.New(), since: time.Now(),
	}
	err := p.open(cfg)
	if err == nil {
		p.dispatcher = dispatch.New(dispatch.Options{
			Queue: p.meters.Queue(p.queue), Plan: p.plan.Load, Routed: p.meters.Routed(), Workers: cfg.Queue.Workers, Clock: time.Now, Log: p.Log,
		})
		err = p.apply(ctx, cfg)
	}
	if err != nil {
		p.abandon()
		return nil, err
	}
	run, cancel := context.WithCancel(context.Background())
	p.stop = cancel
	p.running.Go(func() {
		if err := p.dispatcher.Run(run); err != nil {
			p.fail(err)
		}
	})
	p.running.Go(func() {
		select {
		case err := <-p.queue.Failed():
			p.fail(err)
		case <-run.Done():
		}
	})
	return p, nil
}

// open makes the data directory ours and opens what lives in it.
func (p *Pipeline) open(cfg *config.Config) (err error) {
	if err := os.MkdirAll(cfg.DataDir, 0o700); err != nil {
		return fmt.Errorf("data directory: %w", err)
	}
	if p.lock, err = LockDir(cfg.DataDir); err != nil {
		return err
	}
	p.dataDir = cfg.DataDir
	if p.host, err = host.New(host.Options{
		RunDir: filepath.Join(cfg.DataDir, "run"), Executable: p.Executable,
		Hostname: cfg.Hostname, Log: p.Log, CoreVersion: p.Version,
	}); err != nil {
		return err
	}
	if p.queue, err = queue.Open(queue.Options{Dir: filepath.Join(cfg.DataDir, "queue"), FS: vfs.Default, Log: p.Log}); err != nil {
		return fmt.Errorf("open the queue: %w", err)
	}
	p.observers = observe.New(observe.Options{Feed: p.queue, Clock: time.Now, Log: p.Log})
	if p.spool, err = spool.OpenDir(vfs.Default, filepath.Join(cfg.DataDir, "spool")); err != nil {
		return fmt.Errorf("open the spool: %w", err)
	}
	return nil
}

// LockDir keeps a second server out of the same data directory, until it is closed.
func LockDir(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("the data directory %s is in use by another stagecoach: stop it, or choose another data_dir", dir)
	}
	return f, nil
}

// abandon undoes a start that failed.
func (p *Pipeline) abandon() {
	p.sockets.close(nil)
	ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
	defer cancel()
	for _, f := range p.fronts {
		for _, s := range f.servers {
			_ = s.server.Close()
		}
	}
	if p.host != nil {
		_ = p.host.Close(ctx)
	}
	if p.observers != nil {
		p.observers.Close()
	}
	if p.queue != nil {
		_ = p.queue.Close()
	}
	if p.lock != nil {
		p.lock.Close()
	}
}

func (p *Pipeline) fail(err error) {
	select {
	case p.failed <- err:
	default:
	}
}

// Failed tells that the pipeline must stop: a sync failed, nothing more may be
// promised (promise 2).
func (p *Pipeline) Failed() <-chan error { return p.failed }

// Queue for the operator's commands.
func (p *Pipeline) Queue() queue.Queue { return p.queue }

// Host for the operator's commands.
func (p *Pipeline) Host() *host.Host { return p.host }

// Config that holds now.
func (p *Pipeline) Config() *config.Config {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.cfg
}

// Addr is where a listen address really is.
func (p *Pipeline) Addr(l config.Listen) string { return p.sockets.addr(l) }

// Flush makes everything that waits due now.
func (p *Pipeline) Flush(ctx context.Context, f queue.Filter) (n int, err error) {
	p.dispatcher.Revive()
	var ids []string
	if err := p.queue.List(ctx, f, func(e *queue.Envelope) bool {
		ids = append(ids, e.ID)
		return true
	}); err != nil {
		return 0, err
	}
	for _, id := range ids {
		switch err := p.queue.Operate(ctx, id, queue.Operation{Kind: queue.Retry}); {
		case errors.Is(err, queue.ErrNotFound):
		case err != nil:
			return n, err
		default:
			n++
		}
	}
	return n, nil
}

var errDataDir = errors.New("data_dir can't change while the server runs: restart it")

// Reload exchanges the configuration: everything new is provisioned first. On an
// error the running one is as it was.
func (p *Pipeline) Reload(ctx context.Context, cfg *config.Config) error {
	p.mu.Lock()
	same := cfg.DataDir == p.cfg.DataDir
	p.mu.Unlock()
	if !same {
		return errDataDir
	}
	return p.apply(ctx, cfg)
}

// Stop ends everything: no new mail is taken, transactions under way may end,
// deliveries under way are given up (and stay in the queue), plugins drain.
func (p *Pipeline) Stop(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, stopTimeout)
	defer cancel()
	var wg sync.WaitGroup
	p.mu.Lock()
	for _, f := range p.fronts {
		for _, s := range f.servers {
			wg.Go(func() {
				dctx, cancel := context.WithTimeout(ctx, drainTimeout)
				defer cancel()
				if err := s.server.Shutdown(dctx); err != nil {
					p.Log.Warn().Err(err).Msg("sessions were cut off")
				}
			})
		}
	}
	if page := p.page; page != nil {
		wg.Go(func() { p.endMetrics(page) })
	}
	p.mu.Unlock()
	p.sockets.close(nil)
	wg.Wait()
	p.stop()
	p.running.Wait()
	for _, t := range p.plan.Load().Transports {
		_ = t.Close()
	}
	p.observers.Close()
	err := p.host.Close(ctx)
	if qerr := p.queue.Close(); err == nil {
		err = qerr
	}
	p.lock.Close()
	return err
}
