package pipeline

import (
	"context"
	"encoding/hex"
	"fmt"
	"os"
	"time"

	"github.com/rs/zerolog"

	"github.com/stagecoach-mta/stagecoach/core/config"
	"github.com/stagecoach-mta/stagecoach/core/deliver"
	"github.com/stagecoach-mta/stagecoach/core/directory"
	"github.com/stagecoach-mta/stagecoach/core/dispatch"
	"github.com/stagecoach-mta/stagecoach/core/dns"
	"github.com/stagecoach-mta/stagecoach/core/filter"
	"github.com/stagecoach-mta/stagecoach/core/host"
	"github.com/stagecoach-mta/stagecoach/core/receive"
	"github.com/stagecoach-mta/stagecoach/core/route"
	sdkdeliver "github.com/stagecoach-mta/stagecoach/sdk/deliver"
	sdkdirectory "github.com/stagecoach-mta/stagecoach/sdk/directory"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
	sdkstorage "github.com/stagecoach-mta/stagecoach/sdk/storage"
)

// apply provisions all that cfg names, then swaps, then lets the old end. An
// error before the swap leaves everything as it was.
func (p *Pipeline) apply(ctx context.Context, cfg *config.Config) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	certs, err := certificates(cfg)
	if err != nil {
		return err
	}
	var fresh []config.Listen
	undo := func() {
		keep := p.listening(p.cfg)
		p.sockets.close(keep)
	}
	for _, l := range listens(cfg) {
		isNew, err := p.sockets.bind(l)
		if err != nil {
			undo()
			return err
		}
		if isNew {
			fresh = append(fresh, l)
		}
	}
	specs, err := p.specs(cfg, certs)
	if err != nil {
		undo()
		return err
	}
	ways, err := wayOut(cfg, p.Log)
	if err != nil {
		undo()
		return err
	}
	change, err := p.host.Provision(ctx, specs)
	if err != nil {
		undo()
		return err
	}
	// From here on nothing fails but the duplicate of a bound socket.
	change.Commit()
	// Jobs under way keep the plan they began with; the connections of a next
	// hop that is no longer in it end by themselves when they are idle.
	p.plan.Store(p.newPlan(cfg, ways))
	p.observe(cfg)
	certs = p.adopt(certs)
	fronts := make(map[string]*front, len(cfg.Receives))
	var drain []*served
	names := p.names(cfg)
	for _, r := range cfg.Receives {
		f := &front{block: r, backend: p.backend(r.Ref)}
		if r.TLS != nil {
			f.tls = certs[r.TLS.Ref]
		}
		policy := p.policy(cfg, r)
		if r.ReverseDNS {
			policy.Names = names
		}
		f.backend.SetPolicy(policy)
		d, err := p.serve(f, p.fronts[r.Ref])
		if err != nil {
			return fmt.Errorf("%s: %w", r.Ref, err)
		}
		drain = append(drain, d...)
		fronts[r.Ref] = f
	}
	for ref, f := range p.fronts {
		if fronts[ref] == nil {
			drain = append(drain, f.servers...)
		}
	}
	p.serveMetrics(cfg)
	p.cfg, p.fronts, p.certs = cfg, fronts, certs
	p.sockets.close(p.listening(cfg))
	p.drainServers(drain)
	for _, l := range fresh {
		p.Log.Info().Str("address", p.sockets.addr(l)).Bool("implicit_tls", l.ImplicitTLS).Msg("listening")
	}
	return nil
}

// adopt keeps the identity of running certificates and gives them the new
// content.
func (p *Pipeline) adopt(certs map[string]*certificate) map[string]*certificate {
	for ref, c := range certs {
		if old := p.certs[ref]; old != nil {
			old.pair.Store(c.pair.Load())
			old.pem = c.pem
			certs[ref] = old
		}
	}
	return certs
}

func (p *Pipeline) listening(cfg *config.Config) map[string]bool {
	keep := map[string]bool{}
	if cfg != nil {
		for _, l := range listens(cfg) {
			keep[key(l)] = true
		}
	}
	return keep
}

// listens are the addresses that the core itself serves.
func listens(cfg *config.Config) []config.Listen {
	var out []config.Listen
	for _, r := range cfg.Receives {
		out = append(out, r.Listen...)
	}
	if m := cfg.Metrics.Listen; m != nil {
		out = append(out, *m)
	}
	return out
}

// backend of a receive block, kept over reloads: sessions hold on to it.
func (p *Pipeline) backend(ref string) *receive.Backend {
	if f := p.fronts[ref]; f != nil {
		return f.backend
	}
	return &receive.Backend{
		Spool: p.spool, Queue: p.meters.Queue(p.queue), AtOnce: p.dispatcher.AtOnce, Clock: time.Now, Feed: p.queue, Journal: p.queue,
	}
}

// specs is what the host is to run.
func (p *Pipeline) specs(cfg *config.Config, certs map[string]*certificate) ([]host.Spec, error) {
	var specs []host.Spec
	for _, in := range cfg.Instances {
		s, err := p.spec(cfg, in, certs)
		if err != nil {
			return nil, err
		}
		specs = append(specs, s)
	}
	return specs, nil
}

func (p *Pipeline) spec(cfg *config.Config, in *config.Instance, certs map[string]*certificate) (host.Spec, error) {
	s := Spec(in)
	s.SpoolDirs = p.spoolDirs()
	if in.Describe.GetNeeds().GetDataDir() {
		s.DataDir = p.instanceDir(in.Ref)
	}
	if in.Storage != nil {
		upload := uploadDir(cfg.DataDir, in.Storage.Ref)
		if err := os.MkdirAll(upload, 0o700); err != nil {
			return s, err
		}
		s.Grants = append(s.Grants, host.GrantSpec{
			Role: "storage", Instance: in.Storage.Ref, UploadDir: upload,
			MessageDirs: append([]string{p.instanceDir(in.Storage.Ref)}, in.Storage.MessagePaths()...),
		})
	}
	if in.Kind == v1.Kind_KIND_STORAGE {
		// The administrator's uploads come there too, without an access plugin.
		upload := uploadDir(cfg.DataDir, in.Ref)
		if err := os.MkdirAll(upload, 0o700); err != nil {
			return s, err
		}
		s.SpoolDirs = append(s.SpoolDirs, upload)
	}
	if in.Auth != nil {
		s.Grants = append(s.Grants, host.GrantSpec{Role: "auth", Instance: in.Auth.Ref})
	}
	for _, use := range in.Uses {
		s.Grants = append(s.Grants, host.GrantSpec{Role: use.Ref, Instance: use.Ref})
	}
	if in.TLS != nil {
		s.TLS = certs[in.TLS.Ref].pem
	}
	return s, nil
}

// Spec is the part of an instance's spec that the block alone says.
func Spec(in *config.Instance) host.Spec {
	s := host.Spec{
		Instance: in.Ref, Kind: in.Kind, Plugin: in.Plugin,
		ConfigMsgpack: in.ConfigMsgpack, ConfigJSON: in.ConfigJSON,
		InsecureAuth: in.InsecureAuth, MaxConcurrent: in.MaxConcurrent, Sandbox: Sandbox(in.Sandbox),
	}
	if b := in.Binary; b != nil {
		s.Command = append([]string{b.Path}, b.Args...)
		s.SHA256 = hex.EncodeToString(b.SHA256)
		for k, v := range b.Env {
			s.Env = append(s.Env, k+"="+v)
		}
	}
	for _, l := range in.Listen {
		s.Listeners = append(s.Listeners, host.ListenerSpec{Address: l.Address, ImplicitTLS: l.ImplicitTLS})
	}
	return s
}

func (p *Pipeline) directory(in *config.Instance) sdkdirectory.Directory {
	return directory.Remember(sdkdirectory.NewClient(p.host.Instance(in.Ref)))
}

func (p *Pipeline) set(ins []*config.Instance) *directory.Set {
	var named []directory.Named
	for _, in := range ins {
		named = append(named, directory.Named{Ref: in.Ref, Directory: p.directory(in)})
	}
	return directory.NewSet(named)
}

func (p *Pipeline) chain(ins []*config.Instance) filter.Chain {
	var c filter.Chain
	for _, in := range ins {
		c = append(c, p.member(in))
	}
	return c
}

func (p *Pipeline) policy(cfg *config.Config, r *config.Receive) *receive.Policy {
	pol := &receive.Policy{
		Ref: r.Ref, Hostname: r.Hostname, Filters: p.chain(r.Filters), Editing: p.editing(),
		Recipients: p.set(r.Recipients), SenderCheck: r.SenderCheck, RelayDomains: r.RelayDomains,
		RelayFrom: r.RelayFrom, AnyPriority: r.Priority == config.PriorityAll, MaxHops: r.MaxHops, Reports: &reports{cfg.Hostname}, Log: p.Log,
	}
	if r.Auth != nil {
		pol.Auth = p.directory(r.Auth)
	}
	return pol
}

// names looks clients' names up. A server without name servers takes mail all the
// same.
func (p *Pipeline) names(cfg *config.Config) receive.Names {
	r, err := resolver(cfg.DNS)
	if err != nil {
		p.Log.Warn().Err(err).Msg("the names of clients are not looked up")
		return nil
	}
	return r
}

// newPlan builds the delivery side of a generation.
func (p *Pipeline) newPlan(cfg *config.Config, ways map[string]*deliver.NextHop) *dispatch.Plan {
	plan := &dispatch.Plan{
		Routes: route.NewTable(cfg.Routes), Directories: p.set(cfg.ByKind(v1.Kind_KIND_DIRECTORY)),
		Transports: map[string]deliver.Transport{}, Storages: map[string]bool{}, RouteFilters: map[string]filter.Chain{},
		DeliverFilters: map[string]filter.Chain{}, Editing: p.editing(),
		Retry: cfg.Queue.Retry, Expire: cfg.Queue.Expire, DelayNotice: cfg.Queue.DelayNotice,
		PerDestination: cfg.Queue.PerDomain, Reports: &reports{cfg.Hostname},
	}
	plan.Revive = func() {
		for _, way := range ways {
			way.Revive()
		}
	}
	limit(plan, cfg)
	for _, r := range cfg.Routes {
		if len(r.Filters) > 0 {
			plan.RouteFilters[r.Name] = p.chain(r.Filters)
		}
	}
	for _, d := range cfg.Delivers {
		plan.Transports[d.Ref] = p.meters.Transport(d.Ref, p.transport(d, ways, plan.Directories))
		if d.Storage != nil {
			plan.Storages[d.Ref] = true
		}
		if len(d.Filters) > 0 {
			plan.DeliverFilters[d.Ref] = p.chain(d.Filters)
		}
	}
	return plan
}

func (p *Pipeline) transport(d *config.Deliver, ways map[string]*deliver.NextHop, dirs *directory.Set) deliver.Transport {
	switch {
	case d.Storage != nil:
		return &deliver.Storage{
			To: sdkstorage.NewClient(p.host.Instance(d.Storage.Ref)), Mailbox: d.Mailbox, DetailToFolder: d.DetailToFolder,
			Quota: func(ctx context.Context, address string) int64 {
				if r, err := dirs.Step(ctx, address); err == nil {
					return r.GetQuotaBytes()
				}
				return 0
			},
		}
	case d.Instance != nil:
		return &deliver.Plugin{To: sdkdeliver.NewClient(p.host.Instance(d.Instance.Ref)), Timeout: d.Timeout}
	}
	return ways[d.Ref]
}

// wayOut builds the next hops: what can fail of them fails before the swap.
func wayOut(cfg *config.Config, log zerolog.Logger) (map[string]*deliver.NextHop, error) {
	ways := map[string]*deliver.NextHop{}
	var shared dns.Resolver
	for _, d := range cfg.Delivers {
		if d.SMTP == nil {
			continue
		}
		var (
			r   dns.Resolver
			err error
		)
		switch {
		case d.SMTP.DNS != nil:
			r, err = resolver(*d.SMTP.DNS)
		case shared == nil:
			shared, err = resolver(cfg.DNS)
			r = shared
		default:
			r = shared
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", d.Ref, err)
		}
		if ways[d.Ref], err = nextHop(cfg, d, r, log); err != nil {
			return nil, err
		}
	}
	return ways, nil
}
