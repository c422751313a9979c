package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"

	"github.com/stagecoach-mta/stagecoach/core/command"
	"github.com/stagecoach-mta/stagecoach/plugins"
)

// snippet is a fenced block of a Markdown page.
type snippet struct {
	page, language, text string
	line                 int
}

var fenced = regexp.MustCompile("(?ms)^```([a-z]+)\n(.*?)^```$")

// snippets of all pages.
func snippets(t *testing.T) []snippet {
	t.Helper()
	var out []snippet
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (strings.HasPrefix(d.Name(), ".") && path != "." || d.Name() == "testdata" || d.Name() == "node_modules"):
			return filepath.SkipDir
		case filepath.Ext(path) != ".md":
			return nil
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for _, m := range fenced.FindAllSubmatchIndex(b, -1) {
			out = append(out, snippet{
				page: filepath.ToSlash(path), language: string(b[m[2]:m[3]]), text: string(b[m[4]:m[5]]),
				line: strings.Count(string(b[:m[0]]), "\n") + 1,
			})
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestSnippets: every piece of configuration in the documentation is valid. What
// a piece leaves out is added; what it says is left as it is. A whole one boots.
func TestSnippets(t *testing.T) {
	built := &programs{t: t, dir: t.TempDir(), paths: map[string]string{}}
	n := 0
	for _, s := range snippets(t) {
		if s.language != "hcl" {
			continue
		}
		n++
		t.Run(fmt.Sprintf("%s:%d", s.page, s.line), func(t *testing.T) { s.check(t, built) })
	}
	if n < 15 {
		t.Errorf("only %d pieces of configuration found", n)
	}
}

func (s *snippet) check(t *testing.T, built *programs) {
	f, diags := hclsyntax.ParseConfig([]byte(s.text), s.page, hcl.InitialPos)
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	body := f.Body.(*hclsyntax.Body)
	dir, err := os.MkdirTemp("", "sc")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	if people(body) {
		path := filepath.Join(dir, "people.hcl")
		if err := os.WriteFile(path, []byte(s.text), 0o600); err != nil {
			t.Fatal(err)
		}
		if code, _, errs := run(t, "user", "list", "-f", path); code != command.ExitOK {
			t.Errorf("exit %d\n%s", code, errs)
		}
		return
	}
	file := filepath.Join(dir, "snippet.hcl")
	whole := complete(body, s.text)
	for _, name := range external(s.page, body) {
		program, err := built.program(name)
		if errors.Is(err, errOtherLanguage) {
			return // it needs more than Go: `make interop` runs it
		}
		if err != nil {
			t.Fatal(err)
		}
		block := fmt.Sprintf("plugin %q {\n  path = %q\n}\n", name, program)
		shown := regexp.MustCompile(`plugin "` + name + `" \{[^}]*\}\n`)
		if !shown.MatchString(whole) {
			whole += block
		}
		whole = shown.ReplaceAllLiteralString(whole, block)
	}
	if err := os.WriteFile(file, []byte(whole), 0o600); err != nil {
		t.Fatal(err)
	}
	path, dir := onLoopback(t, file)
	if body.Attributes["hostname"] != nil {
		boot(t, path, dir)
		return
	}
	if code, _, errs := run(t, "validate", "-c", path); code != command.ExitOK {
		t.Errorf("exit %d\n%s\n%s", code, errs, whole)
	}
}

// external are the plugins of a piece that are not in the binary, or take the place
// of one that is.
func external(page string, body *hclsyntax.Body) []string {
	known := []string{"smtp", "lmtp", "storage"}
	for _, p := range plugins.Bundled() {
		own := slices.ContainsFunc(body.Blocks, func(b *hclsyntax.Block) bool { return b.Type == "plugin" && b.Labels[0] == p.Name })
		if !own && page != "examples/"+p.Name+"/README.md" {
			known = append(known, p.Name)
		}
	}
	var out []string
	for _, b := range body.Blocks {
		if b.Type == "plugin" || len(b.Labels) == 2 && b.Type != "receive" {
			if name := b.Labels[0]; !slices.Contains(known, name) && !slices.Contains(out, name) {
				out = append(out, name)
			}
		}
	}
	return out
}

// people tells a people file from a configuration.
func people(b *hclsyntax.Body) bool {
	for _, block := range b.Blocks {
		if !slices.Contains([]string{"domain", "user", "alias"}, block.Type) {
			return false
		}
	}
	return len(b.Attributes) == 0 && len(b.Blocks) > 0
}

// stubs are the blocks that pieces refer to without showing them.
var stubs = map[string]string{
	"directory": "directory %q %q {\n  path = \"people.hcl\"\n}\n",
	"storage":   "storage %q %q {}\n", "filter": "filter %q %q {}\n", "deliver": "deliver %q %q {}\n",
}

// complete adds what a piece of configuration needs to be a whole one.
func complete(body *hclsyntax.Body, text string) string {
	have, kinds := map[string]bool{}, map[string]bool{}
	for _, b := range body.Blocks {
		have[strings.Join(append([]string{b.Type}, b.Labels...), ".")] = true
		kinds[b.Type] = true
	}
	add := func(ref, block string) {
		if !have[ref] {
			have[ref] = true
			text += block
		}
	}
	if body.Attributes["hostname"] == nil {
		text = "hostname = \"mx.ryan.example\"\ndata_dir = \"/var/lib/stagecoach\"\n\n" + text
	}
	if !kinds["receive"] {
		add("receive.smtp.rest", "receive \"smtp\" \"rest\" {\n  listen = [\":2599\"]\n}\n")
	}
	if !kinds["tls"] {
		add("tls.default", "tls \"default\" {\n  self_signed = true\n}\n")
	}
	if !kinds["route"] {
		add("route.rest", "route \"rest\" {\n  deliver = deliver.smtp.rest\n}\ndeliver \"smtp\" \"rest\" {}\n")
	}
	_ = hclsyntax.VisitAll(body, func(n hclsyntax.Node) hcl.Diagnostics {
		x, ok := n.(*hclsyntax.ScopeTraversalExpr)
		if !ok || len(x.Traversal) != 3 || stubs[x.Traversal.RootName()] == "" {
			return nil
		}
		steps := []string{x.Traversal.RootName()}
		for _, step := range x.Traversal[1:] {
			if a, ok := step.(hcl.TraverseAttr); ok {
				steps = append(steps, a.Name)
			}
		}
		if len(steps) == 3 {
			add(strings.Join(steps, "."), fmt.Sprintf(stubs[steps[0]], steps[1], steps[2]))
		}
		return nil
	})
	return text
}

// programs are the plugins that the documentation shows, built from it.
type programs struct {
	t     *testing.T
	dir   string
	paths map[string]string
}

var errOtherLanguage = errors.New("not a Go program")

func (p *programs) program(name string) (string, error) {
	if path := p.paths[name]; path != "" {
		return path, nil
	}
	source := "./examples/" + name
	if _, err := os.Stat(filepath.Join(source, "main.go")); err != nil {
		if _, err := os.Stat(source); err == nil {
			return "", errOtherLanguage
		}
		if source, err = p.shown(name); err != nil {
			return "", err
		}
	}
	path := filepath.Join(p.dir, name)
	if out, err := exec.Command("go", "build", "-o", path, source).CombinedOutput(); err != nil {
		return "", fmt.Errorf("build %s: %w\n%s", source, err, out)
	}
	p.paths[name] = path
	return path, nil
}

// shown is a Go program on one of the pages that is the plugin of that name.
func (p *programs) shown(name string) (string, error) {
	for _, s := range snippets(p.t) {
		if s.language == "go" && strings.HasPrefix(s.text, "package main\n") && strings.Contains(s.text, fmt.Sprintf("Name: %q", name)) {
			path := filepath.Join(p.dir, name+".go")
			return path, os.WriteFile(path, []byte(s.text), 0o600)
		}
	}
	return "", fmt.Errorf("the plugin %q is neither a program on a page nor in examples/%s", name, name)
}
