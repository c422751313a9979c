package config

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/function"

	"github.com/stagecoach-mta/stagecoach/sdk/expression"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// Plugin names a plugin whose schema is wanted: an external Binary, or (Binary
// nil) the bundled one of that kind and name.
type Plugin struct {
	Name   string
	Kind   v1.Kind
	Binary *Binary
}

// FS reads files; paths are the operating system's own.
type FS interface {
	ReadFile(path string) ([]byte, error)
	ReadDir(path string) ([]fs.DirEntry, error)
	Stat(path string) (fs.FileInfo, error)
}

// Options of Load.
type Options struct {
	// Schemas returns what a plugin says of itself: bundled plugins in this
	// process, external ones by starting them. Required when a file names one.
	Schemas func(ctx context.Context, p Plugin) (*v1.DescribeResponse, error)
	// Bundled names the bundled plugins of each kind, for "did you mean".
	Bundled map[v1.Kind][]string
	// DataDir and Hostname win over the files', where not empty.
	DataDir, Hostname string
	// FS and Getenv stand in for the operating system's in tests.
	FS     FS
	Getenv func(name string) (string, bool)
}

type osFS struct{}

func (osFS) ReadFile(path string) ([]byte, error)       { return os.ReadFile(path) }
func (osFS) ReadDir(path string) ([]fs.DirEntry, error) { return os.ReadDir(path) }
func (osFS) Stat(path string) (fs.FileInfo, error)      { return os.Stat(path) }

// loader is one Load under way.
type loader struct {
	complaints
	ctx     context.Context
	opts    Options
	cfg     *Config
	symbols map[string]*symbol // by reference: "filter.greylist.calm", "tls.default"
	order   []*symbol
	bodies  []*hclsyntax.Body
	// describes caches what plugins say, by kind and name; nil for those that failed.
	describes map[string]*v1.DescribeResponse
	functions map[string]function.Function
}

// Load reads files, and folders with all their .hcl files, as one
// configuration. With errors among the diagnostics the Config is what could be
// made of the files: to look at, never to run.
func Load(ctx context.Context, paths []string, opts Options) (*Config, Diagnostics) {
	if opts.FS == nil {
		opts.FS = osFS{}
	}
	if opts.Getenv == nil {
		opts.Getenv = os.LookupEnv
	}
	l := &loader{
		complaints: complaints{src: sources{}, stumbled: map[string]int{}},
		ctx:        ctx, opts: opts, cfg: &Config{},
		symbols:   map[string]*symbol{},
		describes: map[string]*v1.DescribeResponse{},
		functions: expression.Functions(),
	}
	l.functions["env"] = envFunc(opts.Getenv)
	l.cfg.sources = l.src
	l.read(paths)
	broken := l.list.HasErrors() || slices.ContainsFunc(l.bodies, isPeople)
	l.declare()
	l.decode()
	if !broken {
		// What a half-read file lacks is not missing.
		l.check()
	}
	return l.cfg, l.sorted()
}

// read parses all files.
func (l *loader) read(paths []string) {
	files := []string{}
	found := map[string]bool{} // in a folder, named by nobody
	for _, p := range paths {
		info, err := l.opts.FS.Stat(p)
		if err != nil {
			l.err(hcl.Range{}, fmt.Sprintf("Cannot read %s: %s", p, reason(err)), "Name a file or a folder of .hcl files with -c.")
			continue
		}
		if !info.IsDir() {
			files = append(files, p)
			continue
		}
		entries, err := l.opts.FS.ReadDir(p)
		if err != nil {
			l.err(hcl.Range{}, fmt.Sprintf("Cannot read %s: %s", p, reason(err)), asServer)
			continue
		}
		before := len(files)
		for _, e := range entries {
			if name := e.Name(); !e.IsDir() && strings.HasSuffix(name, ".hcl") && !strings.HasPrefix(name, ".") {
				files = append(files, filepath.Join(p, name))
				found[filepath.Join(p, name)] = true
			}
		}
		if len(files) == before {
			l.err(hcl.Range{}, fmt.Sprintf("The folder %s holds no .hcl file", p), "Name a file, or the folder in which the .hcl files lie; folders below it are not read.")
		}
	}
	slices.Sort(files)
	l.cfg.Files = slices.Compact(files)
	for _, name := range l.cfg.Files {
		src, err := l.opts.FS.ReadFile(name)
		if err != nil {
			l.err(hcl.Range{}, fmt.Sprintf("Cannot read %s: %s", name, reason(err)), asServer)
			l.half = true
			continue
		}
		l.src[name] = src
		if b := l.parse(name, src); b != nil {
			l.bodies = append(l.bodies, b)
		}
	}
	l.leaveOut(found)
}

// leaveOut takes files of a plugin's own out of what was found in folders: the
// people file may lie beside the configuration that names it.
func (l *loader) leaveOut(found map[string]bool) {
	owned := map[string]bool{}
	for _, body := range l.bodies {
		for _, b := range body.Blocks {
			if _, plugin := kinds[b.Type]; !plugin {
				continue
			}
			for _, a := range b.Body.Attributes {
				if v, diags := a.Expr.Value(nil); !diags.HasErrors() && v.Type() == cty.String && v.IsKnown() && !v.IsNull() {
					owned[l.path(v.AsString(), a.SrcRange)] = true
				}
			}
		}
	}
	mine := func(name string) bool {
		return found[name] && owned[l.path(filepath.Base(name), hcl.Range{Filename: name})]
	}
	l.bodies = slices.DeleteFunc(l.bodies, func(b *hclsyntax.Body) bool { return mine(b.SrcRange.Filename) })
	l.cfg.Files = slices.DeleteFunc(l.cfg.Files, mine)
}

// reason is err without the path that the text names anyway.
func reason(err error) string {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err.Error()
	}
	return err.Error()
}

// path makes a path of the configuration absolute: relative ones begin where
// the file lies that they stand in.
func (l *loader) path(p string, in hcl.Range) string {
	if p == "" || filepath.IsAbs(p) {
		return p
	}
	p = filepath.Join(filepath.Dir(in.Filename), p)
	if abs, err := filepath.Abs(p); err == nil {
		return abs
	}
	return p
}

// mustExist complains about a file that is not there.
func (l *loader) mustExist(p, what string, r hcl.Range) bool {
	info, err := l.opts.FS.Stat(p)
	switch {
	case err != nil:
		l.err(r, fmt.Sprintf("The %s %s cannot be read: %s", what, p, reason(err)), relativeRemedy)
	case info.IsDir():
		l.err(r, fmt.Sprintf("The %s %s is a folder", what, p), "Name the file.")
	default:
		return true
	}
	return false
}

const relativeRemedy = "A relative path begins in the folder of this configuration file."

// scope is where the expressions of one file are evaluated: functions and references.
func (l *loader) scope(filename string) *hcl.EvalContext {
	fns := make(map[string]function.Function, len(l.functions)+1)
	for name, f := range l.functions {
		fns[name] = f
	}
	fns["file"] = fileFunc(func(p string) ([]byte, error) {
		p = l.path(p, hcl.Range{Filename: filename})
		b, err := l.opts.FS.ReadFile(p)
		if err != nil {
			return nil, expression.Remedied{Text: fmt.Sprintf("%s cannot be read: %s", p, reason(err)), Remedy: relativeRemedy}
		}
		if !utf8.Valid(b) {
			return nil, expression.Remedied{Text: p + " is no text", Remedy: "It must be UTF-8; put other data where a plugin reads it itself."}
		}
		return b, nil
	})
	return &hcl.EvalContext{Functions: fns, Variables: l.references()}
}
