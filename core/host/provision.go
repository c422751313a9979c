package host

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"

	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// ConfigError is a configuration that a plugin refuses. Its diagnostics point
// at the attributes.
type ConfigError struct {
	Instance    string
	Diagnostics []*v1.Diagnostic
}

func (e *ConfigError) Error() string {
	var texts []string
	for _, d := range e.Diagnostics {
		texts = append(texts, d.GetSummary())
	}
	return e.Instance + ": " + strings.Join(texts, "; ")
}

// StartError is an instance that did not come up.
type StartError struct {
	Instance string
	Err      error
}

func (e *StartError) Error() string { return "plugin " + e.Instance + ": " + e.Err.Error() }
func (e *StartError) Unwrap() error { return e.Err }

// ConfigErrors finds all of them in an error of Provision.
func ConfigErrors(err error) []*ConfigError {
	if e, ok := err.(*ConfigError); ok {
		return []*ConfigError{e}
	}
	var found []*ConfigError
	switch e := err.(type) {
	case interface{ Unwrap() []error }:
		for _, one := range e.Unwrap() {
			found = append(found, ConfigErrors(one)...)
		}
	case interface{ Unwrap() error }:
		found = ConfigErrors(e.Unwrap())
	}
	return found
}

// startsAtOnce bounds how many processes are started at the same time.
const startsAtOnce = 4

// Change is a set of instances that is ready to take over. Either Commit or
// Abort must be called, and ends it.
type Change struct {
	h     *Host
	specs []Spec
	// next are the new generations, with a process each; by instance.
	next map[string]*generation
	// handles are all instances of the change, also those that stay as they are.
	handles map[string]*Instance
	fresh   []*Instance // made by this change
	bound   map[string]*listener
	tokens  map[tokenKey]string
	once    sync.Once
}

// Provision starts every instance whose Spec is new or changed, configures it
// and waits until it is ready; the others are left alone. Calls still go to the
// old ones. On an error everything that it started is stopped and nothing has
// changed; what plugins said of their configuration is in it as *ConfigError.
//
// An instance with Needs.exclusive gets its Ready only after Commit has stopped
// its predecessor.
func (h *Host) Provision(ctx context.Context, specs []Spec) (*Change, error) {
	return h.provision(ctx, specs, nil)
}

// provision with one set uses the running specs and replaces that instance,
// whether its Spec has changed or not.
func (h *Host) provision(ctx context.Context, specs []Spec, one *Spec) (*Change, error) {
	select {
	case h.changing <- struct{}{}:
	case <-ctx.Done():
		return nil, fmt.Errorf("another change of the plugins is under way: %w", ctx.Err())
	}
	h.mu.Lock()
	closed := h.closed
	restart := ""
	if one != nil {
		specs, restart = slices.Clone(h.specs), one.Instance
		for n := range specs {
			if specs[n].Instance == restart && one.Kind != v1.Kind_KIND_UNSPECIFIED {
				specs[n] = *one
			}
		}
	}
	h.mu.Unlock()
	c := &Change{
		h: h, specs: slices.Clone(specs), next: map[string]*generation{}, handles: map[string]*Instance{},
		bound: map[string]*listener{}, tokens: map[tokenKey]string{},
	}
	if closed {
		c.Abort()
		return nil, errClosed
	}
	err := check(c.specs)
	if err == nil {
		err = c.prepare(restart)
	}
	if err == nil {
		err = c.start(ctx)
	}
	if err != nil {
		c.Abort()
		return nil, err
	}
	return c, nil
}

// prepare makes what the new processes need: directories, sockets, tokens.
func (c *Change) prepare(restart string) error {
	callers := foreignCallers(c.specs)
	for n := range c.specs {
		s := &c.specs[n]
		s.callers = callers[s.Instance]
		print, err := fingerprint(s)
		if err != nil {
			return fmt.Errorf("%s: %w", s.Instance, err)
		}
		inst := c.h.Instance(s.Instance)
		if inst != nil && servesData(s.Kind) != (inst.place.data != nil) {
			return fmt.Errorf("%s changed from one kind to another; give it another name", s.Instance)
		}
		// A restart leaves all others alone, even if their file has changed.
		keep := s.Instance != restart
		if restart == "" {
			keep = inst != nil && inst.generation().fingerprint == print
		}
		if keep {
			c.handles[s.Instance] = inst
			continue
		}
		if s.DataDir != "" {
			if err := makeDurable(s.DataDir); err != nil {
				return fmt.Errorf("%s: data directory: %w", s.Instance, err)
			}
		}
		if err := own(s); err != nil {
			return fmt.Errorf("%s: its directories: %w", s.Instance, err)
		}
		if inst == nil {
			p, err := newPlace(c.h.opts.RunDir, s)
			if err != nil {
				return fmt.Errorf("%s: %w", s.Instance, err)
			}
			inst = newInstance(s.Instance, p, c.h.logger(s.Instance))
			c.fresh = append(c.fresh, inst)
		}
		c.handles[s.Instance] = inst
		g := newGeneration(c.h, inst, s)
		g.fingerprint = print
		for k, l := range s.Listeners {
			bound, err := c.listener(listenerKey(s.Instance, k, l.Address), l.Address)
			if err != nil {
				return fmt.Errorf("%s: %w", s.Instance, err)
			}
			g.listeners = append(g.listeners, bound)
			g.addresses = append(g.addresses, bound.addr)
		}
		c.next[s.Instance] = g
	}
	for _, g := range c.next {
		if err := c.h.admit(g.spec); err != nil {
			return fmt.Errorf("%s: %w", g.spec.Instance, err)
		}
	}
	c.introduce()
	return nil
}

// foreignCallers lists by server the users, other than the core's, who call its
// data socket.
func foreignCallers(specs []Spec) map[string][]int {
	callers := map[string][]int{}
	for n := range specs {
		if s := &specs[n]; foreign(s) {
			for _, g := range s.Grants {
				callers[g.Instance] = append(callers[g.Instance], s.Sandbox.UID)
			}
		}
	}
	for name, uids := range callers {
		slices.Sort(uids)
		callers[name] = slices.Compact(uids)
	}
	return callers
}

// listener returns the bound socket of a key: the one in use, or a new one.
func (c *Change) listener(key, address string) (*listener, error) {
	c.h.mu.Lock()
	l := c.h.listeners[key]
	c.h.mu.Unlock()
	if l != nil {
		return l, nil
	}
	l, err := bind(address)
	if err == nil {
		c.bound[key] = l
	}
	return l, err
}

// introduce makes a token for each pair of instances that did not have one.
func (c *Change) introduce() {
	c.h.mu.Lock()
	defer c.h.mu.Unlock()
	for n := range c.specs {
		for _, g := range c.specs[n].Grants {
			key := tokenKey{server: g.Instance, client: c.specs[n].Instance}
			if c.h.tokens[key] == "" {
				c.tokens[key] = rand.Text()
				c.h.tokens[key] = c.tokens[key]
			}
		}
	}
}

// tokenKey: client may call server. Tokens stay the same over restarts and
// reloads, so that nobody needs to be told of a new one but its server.
type tokenKey struct{ server, client string }

// start launches the new generations and makes them ready.
func (c *Change) start(ctx context.Context) error {
	if err := c.rebind(ctx); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	var mu sync.Mutex
	var errs []error
	// Who needs nobody comes first: an access plugin's Ready may wait for its
	// storage, which must not wait for a slot behind it.
	slots := make(chan struct{}, startsAtOnce)
	order := make([]*generation, 0, len(c.next))
	for _, g := range c.next {
		order = append(order, g)
	}
	slices.SortFunc(order, func(a, b *generation) int { return len(a.spec.Grants) - len(b.spec.Grants) })
	for _, g := range order {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			if err := c.startOne(ctx, g); err != nil {
				var config *ConfigError
				if !errors.As(err, &config) {
					err = &StartError{g.spec.Instance, err}
				}
				mu.Lock()
				errs = append(errs, err)
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

func (c *Change) startOne(ctx context.Context, g *generation) error {
	p, err := g.launch(ctx)
	if err != nil {
		return err
	}
	g.set(Starting, p, "")
	old := g.inst.generation()
	if p.describe.GetNeeds().GetExclusive() && old != nil && old != g {
		g.predecessor = old
		g.fallBackTo(old)
		return nil
	}
	return g.open(ctx, p)
}

// rebind tells servers that go on as they are of the new tokens. One that is
// just being restarted gets them with its configuration.
func (c *Change) rebind(ctx context.Context) error {
	servers := map[string]bool{}
	for key := range c.tokens {
		servers[key.server] = true
	}
	for name := range servers {
		inst := c.handles[name]
		if inst == nil || c.next[name] != nil {
			continue
		}
		ctx, cancel := context.WithTimeout(ctx, c.h.timing.start)
		p, err := inst.acquire(ctx)
		if err == nil {
			_, err = p.api.Rebind(ctx, &v1.RebindRequest{DataTokens: c.h.tokensOf(name)})
			select {
			case <-p.child.exited:
				err = nil
			default:
				if err != nil {
					err = fmt.Errorf("plugin %s: %w", name, p.failed("Rebind", err))
				}
			}
			p.release()
		} else if ctx.Err() == nil {
			err = nil // failed: its next start has them
		}
		cancel()
		if err != nil {
			return err
		}
	}
	return nil
}

func (i *Instance) generation() *generation {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.gen
}

// Instance returns the handle that will serve after Commit. Calls on one that
// is new wait until then.
func (c *Change) Instance(name string) *Instance { return c.handles[name] }

// Interest is what the filter will want after Commit.
func (c *Change) Interest(name string) *v1.FilterInterest {
	if g := c.next[name]; g != nil {
		g.inst.mu.Lock()
		defer g.inst.mu.Unlock()
		return g.interest
	}
	if i := c.handles[name]; i != nil {
		return i.Interest()
	}
	return nil
}

// Warnings are what the plugins that were started had to say of their
// configuration short of refusing it, by instance.
func (c *Change) Warnings() map[string][]*v1.Diagnostic {
	found := map[string][]*v1.Diagnostic{}
	for name, g := range c.next {
		if len(g.process.warnings) > 0 {
			found[name] = g.process.warnings
		}
	}
	return found
}

// Commit lets the calls go to the new processes. It returns at once; the old
// ones drain and stop in the background.
func (c *Change) Commit() {
	c.once.Do(func() {
		h := c.h
		var old []*generation
		h.mu.Lock()
		for name, inst := range h.instances {
			if c.handles[name] == nil {
				old = append(old, inst.remove())
				delete(h.instances, name)
				for key := range h.tokens {
					if key.client == name || key.server == name {
						delete(h.tokens, key)
					}
				}
			}
		}
		for name, g := range c.next {
			h.instances[name] = g.inst
			g.begun = true
			g.inst.update(func() {
				if g.predecessor != nil {
					g.predecessor = g.inst.gen // which may have given way meanwhile
				}
				if g.inst.gen != nil {
					old = append(old, g.inst.gen)
				}
				g.inst.gen = g
			})
			opened := g.predecessor == nil
			if opened {
				g.set(Ready, g.process, "")
			}
			p := g.process
			h.tasks.Go(func() { g.supervise(p, opened) })
		}
		h.specs = c.specs
		for key, l := range c.bound {
			h.listeners[key] = l
		}
		used := map[string]bool{}
		for n := range c.specs {
			for k, l := range c.specs[n].Listeners {
				used[listenerKey(c.specs[n].Instance, k, l.Address)] = true
			}
		}
		for key, l := range h.listeners {
			if !used[key] {
				// The old process still has its own duplicate, until it drains.
				l.close()
				delete(h.listeners, key)
			}
		}
		h.forget()
		h.mu.Unlock()
		h.tasks.Go(func() { h.retireAll(h.drains, old, false) })
		<-h.changing
	})
}

// Abort stops what Provision started; all is as before.
func (c *Change) Abort() {
	c.once.Do(func() {
		h := c.h
		var wg sync.WaitGroup
		for _, g := range c.next {
			wg.Go(func() {
				g.cancel()
				if p := g.process; p != nil {
					ctx, cancel := context.WithTimeout(context.Background(), h.timing.grace)
					defer cancel()
					p.quit(ctx)
					p.end()
				}
				g.release()
			})
		}
		wg.Wait()
		for _, i := range c.fresh {
			i.place.close()
			i.remove()
		}
		for _, l := range c.bound {
			l.close()
		}
		h.mu.Lock()
		for key := range c.tokens {
			delete(h.tokens, key)
		}
		h.forget()
		h.mu.Unlock()
		<-h.changing
	})
}

// retireAll retires those whose last sessions call others first, so that these can
// end in good order, and then those whom they call. One that is replaced is not
// kept back: its successor may wait for its data, and its clients find that one.
func (h *Host) retireAll(ctx context.Context, gens []*generation, closing bool) {
	for _, last := range []bool{false, true} {
		var wg sync.WaitGroup
		for _, g := range gens {
			if (len(g.spec.Grants) == 0 && g.inst.isRemoved()) == last {
				wg.Go(func() { g.retire(ctx, closing) })
			}
		}
		wg.Wait()
	}
	for _, g := range gens {
		if g.inst.isRemoved() {
			g.inst.place.close()
		}
	}
}

// configureRequest is what a process of the generation is told.
func (h *Host) configureRequest(g *generation) *v1.ConfigureRequest {
	s := g.spec
	req := &v1.ConfigureRequest{
		Instance: s.Instance, ConfigMsgpack: s.ConfigMsgpack, ConfigJson: s.ConfigJSON,
		DataDir: s.DataDir, Hostname: h.opts.Hostname,
		Tls: s.TLS, InsecureAuth: s.InsecureAuth, SpoolDirs: s.SpoolDirs,
	}
	// The first inherited file is descriptor 3 (os/exec.Cmd.ExtraFiles).
	fd := int32(3)
	for _, l := range s.Listeners {
		req.Listeners = append(req.Listeners, &v1.Listener{Fd: fd, Address: l.Address, ImplicitTls: l.ImplicitTLS})
		fd++
	}
	if g.inst.place.data != nil {
		req.DataSocketFd = fd
		req.DataTokens = h.tokensOf(s.Instance)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, grant := range s.Grants {
		to := place{dir: instanceDir(h.opts.RunDir, grant.Instance)}
		req.Grants = append(req.Grants, &v1.Grant{
			Role: grant.Role, Instance: grant.Instance, Address: to.dataSocket(),
			Token:     h.tokens[tokenKey{server: grant.Instance, client: s.Instance}],
			UploadDir: grant.UploadDir,
		})
	}
	return req
}

// tokensOf lists who may call on the data socket of an instance.
func (h *Host) tokensOf(server string) []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	var tokens []string
	for key, token := range h.tokens {
		if key.server == server {
			tokens = append(tokens, token)
		}
	}
	slices.Sort(tokens)
	return tokens
}

// fingerprint tells Specs apart, and an external plugin's file from the one
// that stood in its place before.
func fingerprint(s *Spec) ([32]byte, error) {
	type file struct {
		Path          string
		Size, ModTime int64
	}
	var program file
	if len(s.Command) > 0 {
		path, err := exec.LookPath(s.Command[0])
		if err != nil {
			return [32]byte{}, err
		}
		info, err := os.Stat(path)
		if err != nil {
			return [32]byte{}, err
		}
		program = file{path, info.Size(), info.ModTime().UnixNano()}
	}
	b, err := json.Marshal(struct {
		Spec    *Spec
		Program file
		Callers []int
	}{s, program, s.callers})
	if err != nil {
		return [32]byte{}, err
	}
	return sha256.Sum256(b), nil
}
