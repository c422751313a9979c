// Package scaffold writes the project of a new plugin: a program that builds,
// passes conformance and does something small for its kind, with a test, a README
// and the configuration that names it. The projects are the files under templates;
// nothing here knows what is in them. It starts no program.
package scaffold

import (
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

//go:embed templates
var templates embed.FS

// Kinds are the kinds of plugins, in the order in which they are listed.
var Kinds = []string{"filter", "storage", "access", "deliver", "directory"}

// Options say what to write.
type Options struct {
	Kind, Name, Lang string
	// Dir is the project's folder; empty: one named like the plugin.
	Dir string
	// Module path of a Go project; empty: one below ryan.example.
	Module string
	// SDK is a checkout of Stagecoach that a Go project builds from; empty: Version
	// as it was published. Other languages' SDKs are copied out of this program.
	SDK     string
	Version string
	// Taken are names that the plugin may not have: the bundled ones.
	Taken []string
}

// Project is what was written.
type Project struct {
	Dir   string
	Files []string
	// Program is what the configuration names, below Dir.
	Program string
	// Commands that come next, to be given in Dir.
	Commands []string
	// Config is the text of the file that names the plugin, ConfigFile its name.
	Config, ConfigFile string
	// Note says where the SDK comes from.
	Note string
}

// language writes what is not a template, and knows the words for a project.
type language struct {
	program func(o *Options) string
	// sdk adds the files by which the project finds the SDK.
	sdk     func(o *Options, w *writer) (note string, err error)
	develop string
	// build (nil: nothing) and test are commands; test may be several.
	build, test func(o *Options) []string
}

var languages = map[string]*language{"go": &golang, "python": &pythonic, "node": &nodejs}

// Languages that can be written, by name.
func Languages() []string {
	var out []string
	for name := range languages {
		out = append(out, name)
	}
	slices.Sort(out)
	return out
}

// Others tells what languages but Go write, a line for each.
func Others() string {
	var out strings.Builder
	for _, lang := range Languages() {
		if lang != "go" {
			fmt.Fprintf(&out, "  %-10s %s\n", lang, strings.Join(Kinds, ", "))
		}
	}
	return out.String()
}

// identifier is a name as HCL and every file system take it.
// At most 63 octets are checked apart: as {0,62} it takes 60 kB of each process.
var identifier = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_-]*$`)

// New writes a project. It refuses a folder that has anything in it.
func New(o Options) (*Project, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	lang := languages[o.Lang]
	dir, err := filepath.Abs(o.Dir)
	if err != nil {
		return nil, err
	}
	o.Dir = dir
	w := &writer{dir: dir}
	if err := w.begin(); err != nil {
		return nil, err
	}
	p := &Project{Dir: dir, Program: lang.program(&o), ConfigFile: o.Name + ".hcl"}
	if lang.build != nil {
		p.Commands = lang.build(&o)
	}
	p.Commands = append(p.Commands, lang.test(&o)...)
	conform := "stagecoach plugin conform ./" + p.Program
	for _, f := range []struct{ flag, file string }{{"--config", "conform.hcl"}, {"--facts", "facts.hcl"}} {
		if _, err := fs.Stat(templates, path.Join("templates", o.Lang, o.Kind, f.file+".tmpl")); err == nil {
			conform += " " + f.flag + " " + f.file
		}
	}
	p.Commands = append(p.Commands, conform)
	words := strings.NewReplacer(
		"@DEVELOP@", develop(lang.develop, p.Commands),
		"@NAME@", o.Name, "@MODULE@", o.Module, "@DIR@", dir, "@PATH@", filepath.Join(dir, p.Program), "@HERE@", "./"+p.Program,
	)
	for _, folder := range []string{"all", o.Kind} {
		if err := w.render(path.Join("templates", o.Lang, folder), words); err != nil {
			return nil, err
		}
	}
	if p.Note, err = lang.sdk(&o, w); err != nil {
		return nil, err
	}
	b, err := os.ReadFile(filepath.Join(dir, p.ConfigFile))
	if err != nil {
		return nil, err
	}
	p.Config, p.Files = string(b), w.files
	slices.Sort(p.Files)
	return p, nil
}

// develop is the README's last section.
func develop(words string, commands []string) string {
	return "## Development\n```\n" + strings.Join(commands, "\n") + "\n```\n" + words
}

func (o *Options) check() error {
	if !slices.Contains(Kinds, o.Kind) {
		return fmt.Errorf("there is no kind of plugin %q: name one of %s", o.Kind, strings.Join(Kinds, ", "))
	}
	if !identifier.MatchString(o.Name) || len(o.Name) > 63 {
		return fmt.Errorf("%q is no name for a plugin: a letter, then at most 62 letters, digits, _ and -", o.Name)
	}
	if slices.Contains(o.Taken, o.Name) {
		return fmt.Errorf("a bundled plugin is named %q: take another name", o.Name)
	}
	if languages[o.Lang] == nil {
		return fmt.Errorf("there is no language %q here: name one of %s", o.Lang, strings.Join(Languages(), ", "))
	}
	if o.Lang != "go" && o.Module != "" {
		return errors.New("only Go has modules: leave --module out")
	}
	if o.Lang != "go" && o.SDK != "" {
		return fmt.Errorf("a project in %s gets a copy of the SDK from this program: leave --sdk out", o.Lang)
	}
	if o.Module == "" {
		o.Module = "ryan.example/" + o.Name
	}
	if !module.MatchString(o.Module) {
		return fmt.Errorf("%q is no module path: write one as example.com/%s", o.Module, o.Name)
	}
	if o.Dir == "" {
		o.Dir = o.Name
	}
	if o.SDK != "" {
		return o.checkout()
	}
	return nil
}

// modulePath is Stagecoach's own.
const modulePath = "github.com/stagecoach-mta/stagecoach"

// checkout makes SDK absolute, if there is a Stagecoach.
func (o *Options) checkout() error {
	abs, err := filepath.Abs(o.SDK)
	if err != nil {
		return err
	}
	if !IsCheckout(abs) {
		return fmt.Errorf("%s is no checkout of Stagecoach: its go.mod would say `module %s`", o.SDK, modulePath)
	}
	o.SDK = abs
	return nil
}

// IsCheckout tells whether dir has Stagecoach's source.
func IsCheckout(dir string) bool {
	b, err := os.ReadFile(filepath.Join(dir, "go.mod"))
	if err != nil {
		return false
	}
	first, _, _ := strings.Cut(string(b), "\n")
	return strings.TrimSpace(first) == "module "+modulePath
}

// writer makes the files of a project.
type writer struct {
	dir   string
	files []string
}

func (w *writer) begin() error {
	switch in, err := os.ReadDir(w.dir); {
	case err == nil && len(in) > 0:
		return fmt.Errorf("the folder %s has something in it: name another one with --dir", w.dir)
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return err
	}
	return os.MkdirAll(w.dir, 0o755)
}

func (w *writer) write(name, text string, mode fs.FileMode) error {
	w.files = append(w.files, name)
	return os.WriteFile(filepath.Join(w.dir, name), []byte(text), mode)
}

// render writes the templates of a folder: NAME.tmpl becomes NAME.
func (w *writer) render(folder string, words *strings.Replacer) error {
	in, err := templates.ReadDir(folder)
	if err != nil {
		return err
	}
	for _, e := range in {
		b, err := templates.ReadFile(path.Join(folder, e.Name()))
		if err != nil {
			return err
		}
		text := string(b)
		// Two rounds: the words may have words in them.
		text = words.Replace(words.Replace(text))
		mode := fs.FileMode(0o644)
		if strings.HasPrefix(text, "#!") {
			mode = 0o755
		}
		if err := w.write(w.name(e.Name(), words), text, mode); err != nil {
			return err
		}
	}
	return nil
}

// name of a template's file; some cannot be embedded, or differ by plugin.
func (w *writer) name(template string, words *strings.Replacer) string {
	switch name := strings.TrimSuffix(template, ".tmpl"); name {
	case "gitignore", "npmrc":
		return "." + name
	case "config.hcl":
		return words.Replace("@NAME@.hcl")
	default:
		return words.Replace(name)
	}
}
