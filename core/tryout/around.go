package tryout

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/hashicorp/hcl/v2/hclwrite"
	"github.com/zclconf/go-cty/cty"

	"github.com/stagecoach-mta/stagecoach/core/config"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// The server that stands around the plugin: what its block does not say itself.
const (
	hostname  = "mx.ryan.example"
	aroundHCL = "around.hcl"
	// noFile stands in the errors where there is no file.
	noFile = "(no configuration file)"
)

// kindWord is a kind as HCL has it.
func kindWord(k v1.Kind) string { return strings.ToLower(strings.TrimPrefix(k.String(), "KIND_")) }

// around is one plugin's block and the rest of a server that can run it.
type around struct {
	d       *v1.DescribeResponse
	command []string // empty: bundled
	people  string   // the people file of the server around
	file    string   // the author's; noFile without one
	text    string
	// shift is how many lines were put in behind the line number after.
	shift, after int
	// body is the author's text, as far as it can be read.
	body *hclsyntax.Body
	name string // the block's second label
}

// reference of the block: "filter.subject.dev".
func (a *around) reference() string {
	return kindWord(a.d.GetKind()) + "." + a.d.GetName() + "." + a.name
}

// read takes the author's file: a block's inside, a block, or a whole
// configuration with such a block.
func (a *around) read(src []byte) error {
	a.text, a.name = string(src), "dev"
	f, diags := hclsyntax.ParseConfig(src, a.file, hcl.InitialPos)
	if body, ok := f.Body.(*hclsyntax.Body); ok {
		a.body = body
	}
	var others []string
	for _, b := range a.body.Blocks {
		if len(b.Labels) != 2 || v1.Kind_value["KIND_"+strings.ToUpper(b.Type)] == 0 {
			continue
		}
		if b.Type == kindWord(a.d.GetKind()) && b.Labels[0] == a.d.GetName() {
			a.name = b.Labels[1]
			a.replaceProgram()
			return nil
		}
		others = append(others, fmt.Sprintf("%s %q %q", b.Type, b.Labels[0], b.Labels[1]))
	}
	whole := a.has("plugin") || a.has("receive")
	if !diags.HasErrors() && (whole || len(others) > 0) {
		text := fmt.Sprintf("%s has no block %s %q \"…\" {}", a.file, kindWord(a.d.GetKind()), a.d.GetName())
		if len(others) > 0 {
			text += "; it has " + strings.Join(others, ", ")
		}
		return errors.New(text)
	}
	a.wrap()
	return nil
}

func (a *around) has(block string) bool {
	return slices.ContainsFunc(a.body.Blocks, func(b *hclsyntax.Block) bool { return b.Type == block })
}

// wrap puts the block around its inside. What every access block must have is
// added if it is not there.
func (a *around) wrap() {
	head := fmt.Sprintf("%s %q %q {\n", kindWord(a.d.GetKind()), a.d.GetName(), a.name)
	if a.d.GetKind() == v1.Kind_KIND_ACCESS {
		for _, at := range [][2]string{
			{"listen", `["127.0.0.1:0"]`}, {"storage", "storage.local.dev"}, {"auth", "directory.file.dev"}, {"insecure_auth", "true"},
		} {
			if a.body.Attributes[at[0]] == nil {
				head += at[0] + " = " + at[1] + "\n"
			}
		}
	}
	a.shift = strings.Count(head, "\n")
	a.text = head + a.text + "\n}\n"
}

// replaceProgram lets the file's plugin block name the program that is tried, and
// keeps the rest of it, its env and its sandbox.
func (a *around) replaceProgram() {
	for _, b := range a.body.Blocks {
		if b.Type != "plugin" || len(b.Labels) != 1 || b.Labels[0] != a.d.GetName() || len(a.command) == 0 {
			continue
		}
		text := []byte(a.text)
		put := func(r hcl.Range, with string) {
			old := text[r.Start.Byte:r.End.Byte]
			with += strings.Repeat("\n", bytes.Count(old, []byte("\n")))
			text = slices.Concat(text[:r.Start.Byte], []byte(with), text[r.End.Byte:])
		}
		// From the end to the beginning, so that places stay what they are.
		attrs := []*hclsyntax.Attribute{}
		for _, name := range []string{"path", "args", "sha256"} {
			if at := b.Body.Attributes[name]; at != nil {
				attrs = append(attrs, at)
			}
		}
		slices.SortFunc(attrs, func(x, y *hclsyntax.Attribute) int { return y.SrcRange.Start.Byte - x.SrcRange.Start.Byte })
		for _, at := range attrs {
			switch at.Name {
			case "path":
				put(at.Expr.Range(), literal(a.command[0]))
			case "args":
				put(at.Expr.Range(), list(a.command[1:]))
			default:
				put(at.SrcRange, "")
			}
		}
		if b.Body.Attributes["args"] == nil && len(a.command) > 1 {
			at := b.OpenBraceRange
			at.Start = at.End
			put(at, "\nargs = "+list(a.command[1:]))
			a.shift, a.after = 1, b.OpenBraceRange.End.Line
		}
		a.text = string(text)
	}
}

func literal(s string) string {
	return string(hclwrite.TokensForValue(cty.StringVal(s)).Bytes())
}

func list(words []string) string {
	var out []string
	for _, w := range words {
		out = append(out, literal(w))
	}
	return "[" + strings.Join(out, ", ") + "]"
}

// rest is the configuration around the author's.
func (a *around) rest() string {
	var b strings.Builder
	ref := a.reference()
	if len(a.command) > 0 && !a.has("plugin") {
		fmt.Fprintf(&b, "plugin %q {\n  path = %s\n  args = %s\n}\n", a.d.GetName(), literal(a.command[0]), list(a.command[1:]))
	}
	uses := a.text
	deliver := `discard = true`
	switch a.d.GetKind() {
	case v1.Kind_KIND_DELIVER:
		deliver = "deliver = " + ref
	case v1.Kind_KIND_STORAGE:
		fmt.Fprintf(&b, "deliver \"storage\" \"dev\" {\n  storage = %s\n}\n", ref)
		deliver = "deliver = deliver.storage.dev"
	}
	if !a.has("receive") {
		fmt.Fprintf(&b, "receive \"smtp\" \"dev\" {\n  listen = [\"127.0.0.1:0\"]\n")
		if a.d.GetKind() == v1.Kind_KIND_FILTER {
			fmt.Fprintf(&b, "  filters = [%s]\n", ref)
		}
		b.WriteString("}\n")
	}
	if !a.has("route") {
		fmt.Fprintf(&b, "route \"dev\" {\n  %s\n}\n", deliver)
	}
	// Whom the block refers to, and its file does not have.
	for _, name := range []string{"storage.local.", "directory.file."} {
		kind, plugin, _ := strings.Cut(strings.TrimSuffix(name, "."), ".")
		for _, label := range referred(uses, name) {
			if slices.ContainsFunc(a.body.Blocks, func(b *hclsyntax.Block) bool {
				return b.Type == kind && len(b.Labels) == 2 && b.Labels[1] == label
			}) {
				continue
			}
			inside := ""
			if kind == "directory" {
				inside = "path = " + literal(a.people)
			}
			fmt.Fprintf(&b, "%s %q %q {\n%s\n}\n", kind, plugin, label, inside)
		}
	}
	return b.String()
}

// referred lists the labels behind a prefix in a text: "mail" of storage.local.mail.
func referred(text, prefix string) []string {
	var out []string
	for rest := text; ; {
		_, after, found := strings.Cut(rest, prefix)
		if !found {
			slices.Sort(out)
			return slices.Compact(out)
		}
		rest = after
		label := after
		if end := strings.IndexFunc(after, func(r rune) bool {
			return r != '_' && r != '-' && (r < '0' || r > '9') && (r < 'A' || r > 'Z') && (r < 'a' || r > 'z')
		}); end >= 0 {
			label = after[:end]
		}
		if label != "" {
			out = append(out, label)
		}
	}
}

// load makes a configuration of it.
func (a *around) load(ctx context.Context, dataDir string, schemas func(context.Context, config.Plugin) (*v1.DescribeResponse, error), bundled map[v1.Kind][]string) (*config.Config, config.Diagnostics) {
	rest := filepath.Join(dataDir, aroundHCL)
	o := config.Options{
		Schemas: schemas, Bundled: bundled, DataDir: dataDir,
		FS: files{a.file: a.text, rest: a.rest()},
	}
	if a.body.Attributes["hostname"] == nil {
		o.Hostname = hostname
	}
	cfg, diags := config.Load(ctx, []string{a.file, rest}, o)
	return cfg, a.placed(diags)
}

// placed puts diagnostics back to the author's own lines, and leaves out what is
// said of the rest: of that only errors matter, for they would be ours.
func (a *around) placed(diags config.Diagnostics) config.Diagnostics {
	var out config.Diagnostics
	for _, d := range diags {
		own := d.Place != nil && d.Place.File == a.file
		if !own && d.Severity == config.Warning {
			continue
		}
		if own {
			at := *d.Place
			if at.Line > a.after {
				at.Line, at.EndLine = max(1, at.Line-a.shift), max(1, at.EndLine-a.shift)
			}
			if a.after == 0 && d.Place.Line <= a.shift { // the block's head, which is ours
				at.Column, at.EndColumn, d.Source = 1, 1, ""
			}
			d.Place = &at
			if a.file == noFile {
				d.Place, d.Source = nil, ""
				d.Remedy = strings.TrimSpace(d.Remedy + "\n  Write it into a file, and name that with --config.")
			}
		}
		out = append(out, d)
	}
	return out
}

// files lets texts stand in the place of files.
type files map[string]string

var _ config.FS = files(nil)

func (f files) ReadFile(path string) ([]byte, error) {
	if text, ok := f[path]; ok {
		return []byte(text), nil
	}
	return os.ReadFile(path)
}

func (f files) ReadDir(path string) ([]fs.DirEntry, error) { return os.ReadDir(path) }

func (f files) Stat(path string) (fs.FileInfo, error) {
	if _, ok := f[path]; ok {
		return regular{}, nil
	}
	return os.Stat(path)
}

// regular is a file that is a text here; the loader asks whether it is a folder.
type regular struct{ fs.FileInfo }

func (regular) IsDir() bool { return false }
