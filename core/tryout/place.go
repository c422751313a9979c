// Package tryout runs one plugin for its author: it finds the project, builds it,
// makes the rest of a server's configuration around its block, starts it on a real
// host, and asks it about a mail as the stages would. It is no server: nothing is
// queued, and what the plugin answers goes to who tries it out.
package tryout

import (
	"context"
	"crypto/elliptic"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/rs/zerolog"

	"github.com/stagecoach-mta/stagecoach/core/config"
	"github.com/stagecoach-mta/stagecoach/core/host"
	"github.com/stagecoach-mta/stagecoach/core/pipeline"
	"github.com/stagecoach-mta/stagecoach/core/spool"
	"github.com/stagecoach-mta/stagecoach/sdk/conform"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// Options of a Place.
type Options struct {
	// Executable serves the bundled plugins; empty: this program.
	Executable string
	Version    string
	// Log gets what plugins write, with the field "plugin".
	Log zerolog.Logger
	// Schemas describes bundled plugins; Bundled names them.
	Schemas func(context.Context, config.Plugin) (*v1.DescribeResponse, error)
	Bundled map[v1.Kind][]string
	// AddUser makes a people file, for access plugins.
	AddUser func(path, address, password string) error
	// Patient: nothing is late. For a plugin that a debugger has stopped.
	Patient bool
}

// Password of everybody in the server around an access plugin.
const Password = "sleepless"

// Place is where plugins are tried: a folder and a host, kept from one run of the
// plugin to the next.
type Place struct {
	opts   Options
	dir    string
	host   *host.Host
	spool  *spool.Dir
	people string
	// Built is the folder for built programs.
	Built string
}

// Open makes a place; Close it.
func Open(o Options) (*Place, error) {
	// Short: a socket's path has little room.
	dir, err := os.MkdirTemp("", "stagecoach-")
	if err != nil {
		return nil, err
	}
	p := &Place{opts: o, dir: dir, Built: filepath.Join(dir, "bin"), people: filepath.Join(dir, "people.hcl")}
	if err := p.open(); err != nil {
		_ = os.RemoveAll(dir)
		return nil, err
	}
	return p, nil
}

func (p *Place) open() (err error) {
	if err := os.Mkdir(p.Built, 0o700); err != nil {
		return err
	}
	if p.spool, err = spool.OpenDir(vfs.Default, p.spoolDir()); err != nil {
		return err
	}
	p.host, err = host.New(host.Options{
		RunDir: filepath.Join(p.dir, "run"), Executable: p.opts.Executable, Hostname: hostname,
		Log: p.opts.Log, CoreVersion: p.opts.Version, Patient: p.opts.Patient,
	})
	return err
}

func (p *Place) spoolDir() string { return filepath.Join(p.dir, "spool") }

// stopTimeout bounds the end of all plugins.
const stopTimeout = 15 * time.Second

// Close ends the plugins and removes the folder.
func (p *Place) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
	defer cancel()
	err := p.host.Close(ctx)
	return errors.Join(err, os.RemoveAll(p.dir))
}

// ConfigError is a configuration with mistakes.
type ConfigError struct{ Diagnostics config.Diagnostics }

func (e *ConfigError) Error() string { return e.Diagnostics.Error() }

// Running is a plugin that takes calls.
type Running struct {
	place    *Place
	Describe *v1.DescribeResponse
	// ConfigFile is the file that was read; "" for none.
	ConfigFile string
	Config     *config.Instance
	Instance   *host.Instance
	// Warnings are what the configuration and the plugin had to say.
	Warnings config.Diagnostics
	// Ready is how long it took from the order to start until it took calls.
	Ready time.Duration
}

// Start gives the plugin a process, or another one in place of the last. via, if
// there is one, makes the command line under a debugger of the program's own. Mistakes in the
// configuration are a *ConfigError.
func (p *Place) Start(ctx context.Context, prog *Project, configFile string, via func(command []string) []string) (*Running, error) {
	d, err := p.describe(ctx, prog)
	if err != nil {
		return nil, err
	}
	r := &Running{place: p, Describe: d, ConfigFile: configFile}
	if configFile == "" {
		r.ConfigFile = prog.ownConfig(d.GetName())
	}
	a := &around{d: d, command: prog.Command, people: p.people, file: r.ConfigFile}
	var src []byte
	if r.ConfigFile == "" {
		a.file = noFile
	} else if src, err = os.ReadFile(r.ConfigFile); err != nil {
		return nil, err
	}
	if err := a.read(src); err != nil {
		return nil, err
	}
	schemas := func(ctx context.Context, q config.Plugin) (*v1.DescribeResponse, error) {
		if q.Kind == d.GetKind() && q.Name == d.GetName() {
			return d, nil
		}
		return p.opts.Schemas(ctx, q)
	}
	bundled := p.opts.Bundled
	cfg, diags := a.load(ctx, p.dir, schemas, bundled)
	if diags.HasErrors() {
		return nil, &ConfigError{diags}
	}
	r.Warnings = diags
	if r.Config = cfg.Instance(a.reference()); r.Config == nil {
		return nil, fmt.Errorf("%s is not in the configuration", a.reference())
	}
	specs, err := p.specs(r.Config, via)
	if err != nil {
		return nil, err
	}
	begin := time.Now()
	if err := p.provision(ctx, r, specs); err != nil {
		return nil, p.refused(cfg, a, err)
	}
	r.Ready = time.Since(begin)
	return r, nil
}

// describe asks what the plugin is.
func (p *Place) describe(ctx context.Context, prog *Project) (*v1.DescribeResponse, error) {
	if prog.Bundled != "" {
		return p.opts.Schemas(ctx, config.Plugin{Name: prog.Bundled})
	}
	d, err := p.host.Describe(ctx, host.Spec{Command: prog.Command})
	if err != nil {
		return nil, errors.New(strings.TrimPrefix(err.Error(), "plugin : "))
	}
	return d, nil
}

// ownConfig is the configuration that lies in the project, as `plugin new` writes
// it.
func (p *Project) ownConfig(plugin string) string {
	if p.Dir == "" {
		return ""
	}
	for _, name := range []string{"conform.hcl", plugin + ".hcl"} {
		file := filepath.Join(p.Dir, name)
		if !isFile(file) {
			continue
		}
		if here, err := os.Getwd(); err == nil {
			if rel, err := filepath.Rel(here, file); err == nil && !strings.HasPrefix(rel, "..") {
				return rel
			}
		}
		return file
	}
	return ""
}

// provision starts what is new of the specs, and the first one in any case.
func (p *Place) provision(ctx context.Context, r *Running, specs []host.Spec) error {
	one := specs[0]
	again := p.host.Instance(one.Instance) != nil
	change, err := p.host.Provision(ctx, specs)
	if err != nil {
		return err
	}
	r.Instance = change.Instance(one.Instance)
	pid := r.Instance.Info().PID
	for ref, list := range change.Warnings() {
		for _, d := range list {
			r.Warnings = append(r.Warnings, config.Diagnostic{Severity: config.Warning, Text: ref + ": " + d.GetSummary(), Remedy: d.GetDetail()})
		}
	}
	change.Commit()
	// A script may have changed though its command line has not.
	if again && r.Instance.Info().PID == pid {
		return p.host.Reload(ctx, one)
	}
	return nil
}

// refused words what the host or the plugin says against a start.
func (p *Place) refused(cfg *config.Config, a *around, err error) error {
	var diags config.Diagnostics
	for _, e := range host.ConfigErrors(err) {
		for _, d := range e.Diagnostics {
			diags = append(diags, cfg.Locate(e.Instance, d)...)
		}
	}
	if len(diags) > 0 {
		return &ConfigError{a.placed(diags)}
	}
	var start *host.StartError
	if errors.As(err, &start) {
		return errors.New(start.Err.Error())
	}
	return err
}

// specs are the plugin's, first, and those of the instances that it uses.
func (p *Place) specs(in *config.Instance, via func([]string) []string) ([]host.Spec, error) {
	var specs []host.Spec
	seen := map[string]bool{}
	var add func(in *config.Instance) error
	add = func(in *config.Instance) error {
		if in == nil || seen[in.Ref] {
			return nil
		}
		seen[in.Ref] = true
		s, err := p.spec(in)
		if err != nil {
			return err
		}
		specs = append(specs, s)
		for _, other := range append(slices.Clone(in.Uses), in.Storage, in.Auth) {
			if err := add(other); err != nil {
				return err
			}
		}
		return nil
	}
	if err := add(in); err != nil {
		return nil, err
	}
	if via != nil && len(specs[0].Command) > 0 {
		specs[0].Command = via(specs[0].Command)
		specs[0].Sandbox = nil
	}
	return specs, nil
}

// spec is what the pipeline makes of an instance, with listeners of our own.
func (p *Place) spec(in *config.Instance) (host.Spec, error) {
	s := pipeline.Spec(in)
	s.SpoolDirs = []string{p.spoolDir()}
	for i := range s.Listeners {
		s.Listeners[i].Address = "127.0.0.1:0"
	}
	if in.Describe.GetNeeds().GetDataDir() {
		s.DataDir = p.dataDir(in.Ref)
	}
	upload := func(ref string) (string, error) {
		dir := p.Upload(ref)
		return dir, os.MkdirAll(dir, 0o700)
	}
	if in.Storage != nil {
		dir, err := upload(in.Storage.Ref)
		if err != nil {
			return s, err
		}
		s.Grants = append(s.Grants, host.GrantSpec{
			Role: "storage", Instance: in.Storage.Ref, UploadDir: dir,
			MessageDirs: append([]string{p.dataDir(in.Storage.Ref)}, in.Storage.MessagePaths()...),
		})
	}
	if in.Kind == v1.Kind_KIND_STORAGE {
		dir, err := upload(in.Ref)
		if err != nil {
			return s, err
		}
		s.SpoolDirs = append(s.SpoolDirs, dir)
	}
	if in.Auth != nil {
		s.Grants = append(s.Grants, host.GrantSpec{Role: "auth", Instance: in.Auth.Ref})
	}
	for _, use := range in.Uses {
		s.Grants = append(s.Grants, host.GrantSpec{Role: use.Ref, Instance: use.Ref})
	}
	if in.Kind == v1.Kind_KIND_DIRECTORY && strings.Contains(string(in.ConfigJSON), p.people) {
		if err := p.makePeople(); err != nil {
			return s, err
		}
	}
	var err error
	s.TLS, err = certificate(in.TLS)
	return s, err
}

// Upload is the folder from which a storage takes large messages.
func (p *Place) Upload(ref string) string { return filepath.Join(p.dir, "upload", ref) }

func (p *Place) dataDir(ref string) string { return filepath.Join(p.dir, "plugins", ref) }

// makePeople writes the people file of the server around an access plugin.
func (p *Place) makePeople() error {
	if isFile(p.people) {
		return nil
	}
	for _, address := range []string{"tom@hanks.example", "meg@ryan.example"} {
		if err := p.opts.AddUser(p.people, address, Password); err != nil {
			return err
		}
	}
	return nil
}

// certificate is an access block's, or one made up where the block says so.
func certificate(t *config.TLS) (*v1.TLS, error) {
	if t == nil {
		return nil, nil
	}
	if t.SelfSigned {
		_, cert, key, err := conform.Certificate(elliptic.P256())
		return &v1.TLS{CertPem: cert, KeyPem: key}, err
	}
	cert, err := os.ReadFile(t.Cert)
	if err != nil {
		return nil, err
	}
	key, err := os.ReadFile(t.Key)
	return &v1.TLS{CertPem: cert, KeyPem: key}, err
}
