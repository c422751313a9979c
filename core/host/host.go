// Package host starts, supervises and replaces plugin processes, and gives the
// pipeline one stable handle per instance. It is not the pipeline: what a call
// means, and what becomes of a mail when a plugin fails, is decided elsewhere.
package host

import (
	"context"
	"errors"
	"fmt"
	"os"
	"regexp"
	"sort"
	"sync"
	"time"

	"github.com/rs/zerolog"

	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// Options of a Host.
type Options struct {
	// RunDir holds sockets, pid files and the cache of descriptions. It belongs
	// to one Host: what an earlier one left there is removed, and plugins that
	// it left running are killed.
	RunDir string
	// Executable serves the bundled plugins: Executable plugin serve NAME.
	Executable string
	// Hostname is told to the plugins.
	Hostname    string
	Log         zerolog.Logger
	CoreVersion string
	// Patient: no plugin is late or stuck, for a person steps through it.
	Patient bool
}

// Spec is what one instance runs with. A Spec that differs in anything from the
// running one is a changed instance: it gets a new process.
type Spec struct {
	// Instance is the block's address, unique: "filter.greylist.calm".
	Instance string
	Kind     v1.Kind
	// Plugin is the plugin's name.
	Plugin string
	// Command runs an external plugin; empty: bundled.
	Command []string
	// SHA256 of the file Command[0], in hex; empty: not checked.
	SHA256 string
	// Env is added to the minimal environment, as NAME=value.
	Env           []string
	ConfigMsgpack []byte
	ConfigJSON    []byte
	// DataDir is created if it is missing; empty: none.
	DataDir      string
	Grants       []GrantSpec
	Listeners    []ListenerSpec
	TLS          *v1.TLS
	InsecureAuth bool
	SpoolDirs    []string
	// CallTimeout bounds each Call; 0: 30 s where the context has no deadline.
	CallTimeout time.Duration
	// MaxConcurrent lowers the plugin's own max_concurrent; 0: as it says.
	MaxConcurrent int
	// StopTimeout is how long calls and sessions may take to end when the process is
	// replaced or stopped. 0: one that is replaced has a minute, and as much more as
	// the deadlines of its calls; one that others wait for, at the end of the host or
	// because its data must be handed over, has 10 s, and 3 s for clients' sessions.
	StopTimeout time.Duration
	// callers are the other users who call its data socket.
	callers []int
	// Sandbox that the process runs in; nil: none, only what hurts no program (no
	// core dumps, half of the machine's memory, first to go when memory is short).
	Sandbox *Sandbox
}

// GrantSpec lets the instance call another one over its data socket.
type GrantSpec struct {
	// Role the other one plays: "storage", "auth".
	Role string
	// Instance granted: a storage or a directory.
	Instance  string
	UploadDir string
	// MessageDirs hold the files that the other one's replies refer to.
	MessageDirs []string
}

// ListenerSpec is a TCP address that the host binds for an access plugin. The
// socket outlives crashes and reloads for as long as some Spec names it.
type ListenerSpec struct {
	Address     string
	ImplicitTLS bool
}

// timing holds every interval of the supervision; tests shorten some.
type timing struct {
	start, ready          time.Duration // until the handshake and Configure are done; until Ready returned
	health, healthTimeout time.Duration
	healthMisses          int
	backoff, backoffMax   time.Duration
	// A process that lived shorter than quick counts towards the breaker, one
	// that lived longer than settled starts the count anew.
	quick, settled time.Duration
	breaker        int
	failedRetry    time.Duration
	grace          time.Duration // from the order to end until SIGKILL
	// Defaults of Spec.StopTimeout: for one that is replaced, one that others wait
	// for, and the sessions of one when the host ends.
	drain, stop, leave time.Duration
	call               time.Duration // default of Spec.CallTimeout
	usage              time.Duration // between two looks at memory and processes
	stuck              time.Duration // without the end of a call, when some were given up
}

var defaultTiming = timing{
	start: 15 * time.Second, ready: 60 * time.Second,
	health: 5 * time.Second, healthTimeout: 2 * time.Second, healthMisses: 3,
	backoff: 20 * time.Millisecond, backoffMax: 30 * time.Second,
	quick: time.Second, settled: 10 * time.Second,
	breaker: 8, failedRetry: 30 * time.Second,
	grace: 5 * time.Second, drain: time.Minute, stop: 10 * time.Second, leave: 3 * time.Second, call: 30 * time.Second,
	usage: time.Second, stuck: 30 * time.Second,
}

// patientTiming lets a plugin stand still for as long as a debugger has stopped it.
func patientTiming() timing {
	const long = 24 * time.Hour
	t := defaultTiming
	t.start, t.ready, t.health, t.stuck = long, long, long, long
	// One that stands still does not end in good order.
	t.drain, t.stop, t.leave, t.grace = time.Second, time.Second, time.Second, time.Second
	return t
}

// Host runs the plugins of one core.
//
// Locks: changing is held from Provision to Commit or Abort, so that there is
// one change at a time. mu guards the maps and is held only for moments;
// Instance.mu may be taken under it, never the other way round.
type Host struct {
	opts     Options
	log      zerolog.Logger
	timing   timing
	lock     *os.File
	forker   *forker
	changing chan struct{}
	tasks    sync.WaitGroup
	census   census
	// ctx ends when Close has no more time: what still drains is killed.
	ctx    context.Context
	cancel context.CancelFunc
	// drains ends when Close has waited for as long as others may be waited for:
	// what was replaced before it need not be done by then.
	drains context.Context
	hurry  context.CancelFunc

	mu        sync.Mutex
	closed    bool
	instances map[string]*Instance
	specs     []Spec
	listeners map[string]*listener
	tokens    map[tokenKey]string
	described map[string]*v1.DescribeResponse
	// running are the processes of all plugins.
	running map[*process]bool
	// unenforced is what the log said of an instance's sandbox last.
	unenforced map[string]string
	rings      map[string]*logRing
	// noNamespaces: sandboxes do without, as where the kernel refuses them.
	noNamespaces bool
	sequence     int
	// pinChecked, if set, is called when a program's checksum was found right.
	pinChecked func(path string)
}

var errClosed = errors.New("the plugin host is closed")

// New prepares RunDir; it starts no plugin.
func New(opts Options) (*Host, error) {
	if opts.Executable == "" {
		self, err := os.Executable()
		if err != nil {
			return nil, err
		}
		opts.Executable = self
	}
	lock, err := claimRunDir(opts.RunDir, opts.Log)
	if err != nil {
		return nil, err
	}
	h := &Host{
		opts: opts, log: opts.Log, timing: defaultTiming, lock: lock, forker: newForker(),
		changing:  make(chan struct{}, 1),
		instances: map[string]*Instance{}, listeners: map[string]*listener{},
		tokens: map[tokenKey]string{}, described: map[string]*v1.DescribeResponse{},
		running: map[*process]bool{}, unenforced: map[string]string{}, rings: map[string]*logRing{},
	}
	if opts.Patient {
		h.timing = patientTiming()
	}
	h.ctx, h.cancel = context.WithCancel(context.Background())
	h.drains, h.hurry = context.WithCancel(h.ctx)
	return h, nil
}

// Instance returns the handle of an instance; nil if there is none of that
// name. It stays the same over restarts and reloads, until a reload leaves the
// instance out.
func (h *Host) Instance(name string) *Instance {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.instances[name]
}

// List tells the state of all instances, by name.
func (h *Host) List() []Info {
	h.mu.Lock()
	instances := make([]*Instance, 0, len(h.instances))
	for _, i := range h.instances {
		instances = append(instances, i)
	}
	h.mu.Unlock()
	infos := make([]Info, len(instances))
	for n, i := range instances {
		infos[n] = i.Info()
	}
	sort.Slice(infos, func(a, b int) bool { return infos[a].Instance < infos[b].Instance })
	return infos
}

// Restart replaces the process of an instance by a new one of the same Spec, as
// a reload does: no call is lost. It returns when the new one is ready.
func (h *Host) Restart(ctx context.Context, name string) error {
	return h.replace(ctx, Spec{Instance: name})
}

// Reload replaces the process of an instance by a new one of this Spec, even if
// nothing in it has changed, and leaves all others alone.
func (h *Host) Reload(ctx context.Context, spec Spec) error { return h.replace(ctx, spec) }

// replace gives an instance a new process; the Spec without a kind stands for
// the one that it has.
func (h *Host) replace(ctx context.Context, spec Spec) error {
	if h.Instance(spec.Instance) == nil {
		return unknownInstance(spec.Instance)
	}
	change, err := h.provision(ctx, nil, &spec)
	if err != nil {
		return err
	}
	change.Commit()
	i := h.Instance(spec.Instance)
	if i == nil {
		return unknownInstance(spec.Instance)
	}
	if err := i.waitReady(ctx); err != nil {
		return err
	}
	if g := i.generation(); g.stands != "" {
		return &StartError{spec.Instance, errors.New("it " + g.stands)}
	}
	return nil
}

// Close drains and stops all plugins. When ctx ends, what still runs is killed.
func (h *Host) Close(ctx context.Context) error {
	select {
	case h.changing <- struct{}{}:
		defer func() { <-h.changing }()
	case <-ctx.Done():
		return fmt.Errorf("a change of the plugins is still under way: %w", ctx.Err())
	}
	h.mu.Lock()
	if h.closed {
		h.mu.Unlock()
		return nil
	}
	h.closed = true
	defer h.cancel()
	defer context.AfterFunc(ctx, h.cancel)()
	var gens []*generation
	for _, i := range h.instances {
		gens = append(gens, i.remove())
	}
	h.instances = map[string]*Instance{}
	h.forget()
	h.mu.Unlock()

	defer time.AfterFunc(h.timing.stop, h.hurry).Stop()
	h.retireAll(h.ctx, gens, true)
	h.tasks.Wait()
	h.forker.stop()
	for _, l := range h.listeners {
		l.close()
	}
	return h.lock.Close()
}

// nextSequence numbers the processes of this host.
func (h *Host) nextSequence() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.sequence++
	return h.sequence
}

var instanceName = regexp.MustCompile(`^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*$`)

// check finds what is wrong with a set of specs before anything is started.
func check(specs []Spec) error {
	byName := map[string]*Spec{}
	for n := range specs {
		s := &specs[n]
		if !instanceName.MatchString(s.Instance) {
			return fmt.Errorf("instance name %q: use letters, digits, _ and - with dots between", s.Instance)
		}
		if byName[s.Instance] != nil {
			return fmt.Errorf("instance %s is there twice; give one another name", s.Instance)
		}
		byName[s.Instance] = s
	}
	bound := map[string]string{}
	for n := range specs {
		s := &specs[n]
		for _, g := range s.Grants {
			to := byName[g.Instance]
			if to == nil {
				return fmt.Errorf("%s refers to %s, which is not there", s.Instance, g.Instance)
			}
			if !servesData(to.Kind) {
				return fmt.Errorf("%s refers to %s, which is neither a storage nor a directory", s.Instance, g.Instance)
			}
		}
		for k, l := range s.Listeners {
			key := listenerKey(s.Instance, k, l.Address)
			if other := bound[key]; other != "" {
				return fmt.Errorf("%s and %s both listen on %s; give one another address", other, s.Instance, l.Address)
			}
			bound[key] = s.Instance
		}
	}
	return nil
}

// servesData tells which kinds other plugins may call directly.
func servesData(k v1.Kind) bool {
	return k == v1.Kind_KIND_STORAGE || k == v1.Kind_KIND_DIRECTORY
}
